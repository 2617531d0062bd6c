"""What fails: documents for good, and stages for any document."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from statemachine_pipeline.database.letters import DeadLetters
from statemachine_pipeline.database.pauses import Pauses
from statemachine_pipeline.database.statements import inspection
from statemachine_pipeline.letters import Matching
from statemachine_pipeline.obstacles import TIME
from statemachine_pipeline.oversight.checks.verdicts import Verdict, named, ok, warn

if TYPE_CHECKING:
    from statemachine_pipeline.oversight.checks.verdicts import Subject

LATELY = timedelta(hours=1)


async def dead_letters(subject: Subject) -> Verdict:
    """Whether documents failed for good within the last hour.

    Warns when some did: of which stage, with which code, how many.
    """
    (server,) = await subject.inspection.rows(inspection.server)
    letters = DeadLetters(subject.engine, subject.t, subject.stages)
    groups = await letters.groups(Matching(since=server.now - LATELY))
    if not groups:
        return ok("no document failed for good within the last hour")
    kinds = named([f"{one.count:,} at {one.stage} ({one.code})" for one in groups])
    return warn(
        f"documents failed for good within the last hour: {kinds}",
        "statemachine-pipeline dead-letters --group --since 1h; then mend the cause and requeue",
    )


async def crashes(subject: Subject) -> Verdict:
    """Whether a process died, or hung past its deadline, with a document in hand.

    Warns of the documents that are tried again, and of those that failed for good after that within
    the last hour: at which stage, how many, and one of them.
    """
    (server,) = await subject.inspection.rows(inspection.server)
    tried = await subject.inspection.rows(inspection.crashing)
    given_up = await subject.inspection.rows(inspection.crashed, since=server.now - LATELY)
    said = [
        f"{row.count:,} in {row.state!r} to be tried again, as {row.example}" for row in tried
    ] + [
        f"{row.count:,} given up at {row.stage} ({row.code}), as {row.example}" for row in given_up
    ]
    if said:
        return warn(
            f"documents whose process or worker died or hung: {named(said)}",
            "statemachine-pipeline show ID tells of each crash; SmpDocumentCrashes has a runbook",
        )
    return ok("no process died with a document in hand")


async def fault_pauses(subject: Subject) -> Verdict:
    """Whether stages are paused because they could not work for any document.

    Warns of each: until when, and why. What people paused is only counted.
    """
    pauses = await Pauses(subject.engine, subject.t, subject.stages).current()
    faults = [f"{one.place} until {one.until:{TIME}}: {one.reason}" for one in pauses if one.fault]
    if faults:
        return warn(
            f"paused by fault: {'; '.join(faults)}",
            "mend the key, the address or the settings it names, then statemachine-pipeline resume "
            "--stage TRIGGER",
        )
    return ok(f"no stage is at fault; people paused {len(pauses)}")
