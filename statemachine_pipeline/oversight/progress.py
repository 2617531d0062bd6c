"""Whether work that is due is being done. Pure.

A worker that was deployed and never ran breaks nothing that could be asked: every part answers. So
health asks for what is due, who serves it, and when anything last moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from statemachine_pipeline.counting import counted
from statemachine_pipeline.oversight.status import Component

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import timedelta

    from statemachine_pipeline.database.backlog import Backlog, Member, Queue
    from statemachine_pipeline.oversight.status import Status

NAME: Final = "progress"
UNSERVED_SECONDS: Final = 60.0
"""How long work may be due before it is missed that nobody serves it: programs submit before their
first worker runs, and a fleet that is restarted is away for some seconds."""
_DUE: Final = ("document is due", "documents are due")
_LIVE: Final = ("worker lives", "workers live")
_UNSERVED: Final = "start a worker, or see why those that run do not serve it"
_STILL: Final = (
    "see the log of the workers, and `statemachine-pipeline doctor`; restart those that hang"
)
_SLOW: Final = "start more workers, or give the stage more `concurrency`"


def judged(found: Backlog, standstill: timedelta, triggers: Collection[str] | None) -> Component:
    """Judge whether documents move.

    Failed where documents are due for a minute at a stage that no live worker serves; or are due
    for longer than ``standstill`` while nobody brought any document on for as long and no attempt
    runs within its deadline. Degraded where nobody serves documents yet that are due for less than
    a minute; or where others move, and these are due for longer than ``standstill``.

    Args:
        found: What waits and who serves it.
        standstill: How long nothing may move.
        triggers: Only look at these stages; None for all.
    """
    asked = None if triggers is None else frozenset(triggers)
    queues = [one for one in found.queues if asked is None or not asked.isdisjoint(one.stages)]
    due = sorted((one for one in queues if one.due), key=lambda one: -one.due_seconds)
    unserved = [one for one in due if not _serving(found.members, [one])]
    if unserved and unserved[0].due_seconds > UNSERVED_SECONDS:
        return _missed("failed", unserved[0])
    served = [one for one in due if one not in unserved]
    late = [one for one in served if one.due_seconds > standstill.total_seconds()]
    if late:
        idle = min(member.idle_seconds for member in _serving(found.members, late))
        if idle > standstill.total_seconds() and not any(queue.running for queue in queues):
            says = f"{_told(late[0])}, and no worker brought any document on for {_minutes(idle)}"
            return Component(NAME, "failed", says, _STILL)
    if unserved:
        return _missed("degraded", unserved[0])
    if late:
        return Component(NAME, "degraded", f"{_told(late[0])}, while other documents move", _SLOW)
    waits = counted(sum(one.due for one in due), *_DUE) if due else "nothing is due"
    return Component(NAME, "ok", f"{waits}; {counted(len(found.members), *_LIVE)}")


def _missed(status: Status, queue: Queue) -> Component:
    return Component(NAME, status, f"{_told(queue)}, and no live worker serves it", _UNSERVED)


def _serving(members: Iterable[Member], queues: Iterable[Queue]) -> list[Member]:
    stages = {stage for queue in queues for stage in queue.stages}
    return [member for member in members if not stages.isdisjoint(member.serves)]


def _told(queue: Queue) -> str:
    since = _minutes(queue.due_seconds)
    return f"{counted(queue.due, *_DUE)} at {queue.place}, the first for {since}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"  # noqa: PLR2004
