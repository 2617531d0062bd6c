"""Whether work that is due is being done. Pure.

A worker that was deployed and never ran breaks nothing that could be asked: every part answers. So
health asks for what is due, who serves it, and when anything last moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from statemachine_pipeline.oversight.status import Component

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import timedelta

    from statemachine_pipeline.database.backlog import Backlog, Member, Queue

NAME: Final = "progress"
_UNSERVED: Final = "start a worker, or see why those that run do not serve it"
_STILL: Final = (
    "see the log of the workers, and `statemachine-pipeline doctor`; restart those that hang"
)
_SLOW: Final = "start more workers, or give the stage more `concurrency`"


def judged(found: Backlog, standstill: timedelta, triggers: Collection[str] | None) -> Component:
    """Judge whether documents move.

    Failed where documents are due at a stage that no live worker serves; or are due for longer than
    ``standstill`` while nobody brought any document on for as long and no attempt runs within its
    deadline. Degraded where others move, and these are due for as long.

    Args:
        found: What waits and who serves it.
        standstill: How long nothing may move.
        triggers: Only look at these stages; None for all.
    """
    asked = None if triggers is None else frozenset(triggers)
    queues = [one for one in found.queues if asked is None or not asked.isdisjoint(one.stages)]
    due = [one for one in queues if one.due]
    for queue in due:
        if not _serving(found.members, [queue]):
            says = f"{_told(queue)}, and no live worker serves it"
            return Component(NAME, "failed", says, _UNSERVED)
    late = [one for one in due if one.due_seconds > standstill.total_seconds()]
    if not late:
        waits = _due(sum(one.due for one in due)) if due else "nothing is due"
        return Component(NAME, "ok", f"{waits}; {_living(len(found.members))}")
    longest = max(late, key=lambda one: one.due_seconds)
    serving = _serving(found.members, late)
    idle = min(member.idle_seconds for member in serving)
    running = sum(queue.running for queue in queues)
    if idle > standstill.total_seconds() and not running:
        says = f"{_told(longest)}, and no worker brought any document on for {_minutes(idle)}"
        return Component(NAME, "failed", says, _STILL)
    return Component(NAME, "degraded", f"{_told(longest)}, while other documents move", _SLOW)


def _serving(members: Iterable[Member], queues: Iterable[Queue]) -> list[Member]:
    stages = {stage for queue in queues for stage in queue.stages}
    return [member for member in members if not stages.isdisjoint(member.serves)]


def _told(queue: Queue) -> str:
    since = _minutes(queue.due_seconds)
    return f"{_due(queue.due)} at {queue.place}, the first for {since}"


def _due(count: int) -> str:
    return "1 document is due" if count == 1 else f"{count:,} documents are due"


def _living(count: int) -> str:
    return "1 worker lives" if count == 1 else f"{count:,} workers live"


def _minutes(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"  # noqa: PLR2004
