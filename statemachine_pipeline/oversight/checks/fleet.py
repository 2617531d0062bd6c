"""Workers: who lives, who is silent, and whether somebody does what is due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.counting import counted
from statemachine_pipeline.database import backlog
from statemachine_pipeline.obstacles import TIME
from statemachine_pipeline.oversight.checks.verdicts import Verdict, fail, named, ok, warn
from statemachine_pipeline.oversight.workers import standings

if TYPE_CHECKING:
    from statemachine_pipeline.oversight.checks.verdicts import Subject
    from statemachine_pipeline.oversight.workers import WorkerStanding

_LIVE = ("worker lives", "workers live")
START = "statemachine-pipeline worker"


async def _workers(subject: Subject) -> list[WorkerStanding]:
    return await standings(subject.engine, subject.t, subject.stages)


async def workers(subject: Subject) -> Verdict:
    """Whether every worker gives signs of life.

    Warns of those that missed two beats, and of those that were declared dead within the last hour.
    A process that was only out of reach goes on under another number, which is told and no warning.
    """
    known = await _workers(subject)
    silent = [one for one in known if one.condition == "silent"]
    gone = [one for one in reversed(known) if one.condition == "dead"]
    dead = [one for one in gone if one.goes_on_as is None]
    lives = len(known) - len(silent) - len(gone)
    said = []
    if silent:
        each = [f"{one.name} for {one.silent_seconds:,.0f} s" for one in silent]
        said.append(f"silent: {named(each)}")
    if dead:
        each = [f"{one.name} at {one.dead_at:{TIME}}" for one in dead]
        said.append(f"declared dead within the last hour: {named(each)}")
    if said:
        return warn(
            f"{'; '.join(said)}; {counted(lives, *_LIVE)}",
            "look for the process and its log; what it held is taken over by any other "
            f"`{START}`, once it counts as dead",
        )
    draining = sum(1 for one in known if one.condition == "draining")
    well = f"{counted(lives, *_LIVE)}, {draining:,} draining"
    if gone:
        each = [f"worker {one.id} as {one.goes_on_as}" for one in gone]
        well += f"; were out of reach, and go on under another number: {named(each)}"
    return ok(well)


async def worker_versions(subject: Subject) -> Verdict:
    """Whether all live workers run one version of the library, and a lifecycle that is known.

    Warns when they do not, as while new code is being rolled out.
    """
    alive = [one for one in await _workers(subject) if one.condition in {"alive", "draining"}]
    versions = sorted({one.version for one in alive})
    strangers = [one.name for one in alive if one.is_lifecycle_known is False]
    if strangers:
        return warn(
            f"workers run a lifecycle that the database does not know: {named(strangers)}",
            "stop them, or run `statemachine-pipeline migrate` with their code",
        )
    if len(versions) > 1:
        return warn(
            f"live workers run {len(versions)} versions: {named(versions)}",
            "end the roll-out: stop the older ones by SIGTERM, and start the newer",
        )
    return ok(f"live workers run version {versions[0]}" if versions else "no worker lives")


async def work(subject: Subject) -> Verdict:
    """Whether somebody does what is due.

    Fails when documents are due at a stage that no live worker serves: how many, where, and for how
    long. What is paused, or needs a provider that is not asked, is not due.
    """
    seen = await backlog.look(subject.engine, subject.t, subject.stages)
    served = {stage for member in seen.members for stage in member.serves}
    left = [one for one in seen.queues if one.due and served.isdisjoint(one.stages)]
    if left:
        places = [f"{one.due:,} at {one.place} for {one.due_seconds:,.0f} s" for one in left]
        return fail(
            f"no live worker serves what is due: {named(places)}",
            f"{START}, or look why those that should run do not",
        )
    due = sum(one.due for one in seen.queues)
    due_now = counted(due, "document is due", "documents are due")
    return ok(f"{due_now}, and no stage is without a worker" if due else "nothing is due")
