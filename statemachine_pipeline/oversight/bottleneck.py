"""Which stage is the slowest, and what limits it: one sentence, made of numbers. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from statemachine_pipeline.counting import counted
from statemachine_pipeline.obstacles import TIME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from statemachine_pipeline.database.load import StageLoad

Limit = Literal[
    "idle", "time", "paused", "unserved", "provider", "budget", "alone", "slots", "hook", "nothing"
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """The slowest stage.

    Attributes:
        stage: The trigger that it earns; None when nothing is to be done.
        limit: What limits it, for programs: nothing is to be done (``idle``) or not yet
            (``time``); it is ``paused``; no live worker takes it (``unserved``); its ``provider``
            is not asked; the ``budget`` is used up; each worker is ``alone`` with a document that
            took one down; all ``slots`` are busy; its ``hook`` is what takes time; or ``nothing``,
            and workers will take what is ready.
        sentence: The same for people.
    """

    stage: str | None
    limit: Limit
    sentence: str


def bottleneck(loads: Sequence[StageLoad]) -> Bottleneck:
    """Name the stage whose oldest document has been ready for longest, and what limits it.

    Where nothing is ready it is the stage with most attempts under way.
    """
    waiting = [one for one in loads if one.ready]
    if waiting:
        slowest = max(waiting, key=lambda one: one.ready_seconds or 0.0)
        limit, why = _limit(slowest)
        return _said(slowest, limit, f"{_ready(slowest)}: {why}")
    busy = max(loads, key=lambda one: one.claimed, default=None)
    if busy is not None and busy.claimed:
        return _said(busy, "hook", f"nothing waits; {_under_way(busy)}")
    deferred = max(loads, key=lambda one: one.deferred, default=None)
    if deferred is not None and deferred.deferred:
        limit, why = next(_blocked(deferred), ("time", "nothing is due"))
        wait = counted(deferred.deferred, "waits for its time", "wait for their time")
        return _said(deferred, limit, f"{why}; {wait}")
    return Bottleneck(stage=None, limit="idle", sentence="idle: no document waits for a worker")


def _said(load: StageLoad, limit: Limit, why: str) -> Bottleneck:
    return Bottleneck(stage=load.stage, limit=limit, sentence=f"{load.stage}: {why}")


def _ready(load: StageLoad) -> str:
    are_ready = counted(load.ready, "is ready", "are ready")
    return f"{are_ready}, the oldest for {load.ready_seconds or 0.0:,.1f} s"


def _limit(load: StageLoad) -> tuple[Limit, str]:
    for blocked in _blocked(load):
        return blocked
    if load.workers == load.alone:
        return "alone", f"{_alone(load)}; {_under_way(load)}"
    if load.slots is not None and load.claimed >= load.slots:
        all_slots = "its slot is" if load.slots == 1 else f"all {load.slots:,} slots are"
        return "slots", f"{all_slots} busy; {_under_way(load)}"
    if load.claimed:
        return "hook", _under_way(load)
    return "nothing", "nothing stands in their way, and a worker takes them next"


def _blocked(load: StageLoad) -> Iterator[tuple[Limit, str]]:
    """Yield what keeps everything from being taken, the first of which has to end first."""
    for pause in load.pauses:
        end = "somebody resumes it" if pause.until is None else f"{pause.until:{TIME}}"
        yield "paused", f"paused by {pause.by} until {end}: {pause.reason}"
    if not load.workers:
        yield "unserved", "no live worker takes it"
    for sentence in load.closed:
        yield "provider", sentence
    for sentence in load.used_up:
        yield "budget", sentence


def _under_way(load: StageLoad) -> str:
    attempts = counted(load.claimed, "attempt is", "attempts are")
    took = "" if load.run_seconds is None else f", and one takes {load.run_seconds:,.2f} s"
    return "; ".join((f"{attempts} under way{took}", *_beside(load)))


def _beside(load: StageLoad) -> Iterator[str]:
    """Yield why slots may be free all the same."""
    if load.suspects:
        ready = counted(load.suspects, "that is ready", "that are ready")
        yield (
            f"{ready} took a worker down before, and workers take nothing new until one of them "
            "has nothing else in hand"
        )
    if 0 < load.alone < load.workers:
        yield _alone(load)


def _alone(load: StageLoad) -> str:
    """Say how many workers take one document only, so that slots are free and nothing is taken."""
    are, take = ("is", "takes") if load.alone == 1 else ("are each", "take")
    return (
        f"{load.alone:,} of {counted(load.workers, 'worker')} {are} alone with a document that "
        f"took a worker down before, and {take} nothing else until that ends"
    )
