"""What one document, its workers and the rest of the world may be like at one moment: plain values.

Fences are numbers that are never drawn twice, so all that matters of a worker's is whether the row
still carries it. Nothing here knows how one moment follows another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from statemachine_pipeline.records import Lane

Doing = Literal["idle", "working", "unsure", "lost", "late"]
"""What a worker is at: nothing; an attempt; a settle whose answer was lost; a claim that it got by
such a settle without knowing; or nothing, while a settle of its own is still under way twice."""
Visit = Literal["open", "earned", "left"]
"""What became of the stay at a stage for which a claim was made: it goes on; somebody earned the
stage; the document went on otherwise."""


class Row(NamedTuple):
    """A document with its row of work.

    Attributes:
        state: Where it stands.
        lane: Who may take it; None when it rests.
        attempt: Attempts counted at this stage, as ``work`` has it.
        crashes: Crashes counted at this stage.
        is_restarted: It is in its second life or a later one.
        earned: Stages with a product of these bytes, the latest last, each with the number of the
            facts its guards saw.
        tried: Attempts at this stage that came to an end that counts.
        lost: Those of them that ended as a crash.
        passed: States this life has come through; empty unless properties of users are checked.
    """

    state: str
    lane: Lane | None
    attempt: int = 0
    crashes: int = 0
    is_restarted: bool = False
    earned: tuple[tuple[str, int], ...] = ()
    tried: int = 0
    lost: int = 0
    passed: frozenset[str] = frozenset()


class Worker(NamedTuple):
    """One worker as far as it concerns the document.

    Attributes:
        doing: What it is at.
        is_current: The row carries the fence of its claim.
        state: Where the document stood when it was claimed.
        attempt: The attempt that was claimed.
        crashes: The crashes before it.
        visit: What became meanwhile of what it is at.
    """

    doing: Doing = "idle"
    is_current: bool = False
    state: str = ""
    attempt: int = 0
    crashes: int = 0
    visit: Visit = "open"


class Budget(NamedTuple):
    """What may still go wrong, and what people may still do.

    Attributes:
        crashes: Workers that die, stall past the deadline, leave, or lose an answer.
        duplicates: Settles that arrive twice, and documents submitted again.
        restarts: Times that somebody begins another life with the same bytes.
        waits: Times that a hook has to wait, or that a runner has no slot.
    """

    crashes: int
    duplicates: int
    restarts: int = 1
    waits: int = 1


class Situation(NamedTuple):
    """Everything at one moment."""

    row: Row
    budget: Budget
    workers: tuple[Worker, ...]


IDLE, LATE = Worker(), Worker("late")


def canonical(situation: Situation) -> Situation:
    """Return the same situation whichever worker is in whose place."""
    workers = situation.workers
    ordered = tuple(sorted(workers))
    return situation if ordered == workers else situation._replace(workers=ordered)


def replaced(workers: Iterable[Worker], number: int, one: Worker) -> tuple[Worker, ...]:
    """Return the workers with another one in place of ``number``."""
    return tuple(one if n == number else worker for n, worker in enumerate(workers))
