"""One process after another in one event loop: each lives until it ends, or is killed at a step.

Killed means that none of its later steps is taken: each of them raises. An event loop of its own
tells a process's tasks from those of the test. Its clock is fast above all while no socket is
waited for: pauses pass in a twentieth of their time, and answers have a quarter of theirs.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import selectors
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from statemachine_pipeline import failpoints
from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.runner.chores import end
from statemachine_pipeline.runner.perform import CALLING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping

    from statemachine_pipeline.failpoints import Moment

SPEED, BUSY_SPEED = 20, 4
"""How much faster the clock goes while nobody waits for a socket, and while somebody does."""
QUIET = 2
"""Files that are always waited for: the loop's own, and the notifications of new work."""
UNWIND_SECONDS = 0.1
"""How long the task that was killed has before the others are ended, by the fast clock."""
LEFT_SECONDS = 5.0
"""How long a process that was killed, or tasks that one left behind, may take to end."""

Harm: TypeAlias = Literal["killed before", "killed after", "answer lost after"]
LOST: Harm = "answer lost after"
HARMS: Mapping[Moment, tuple[Harm, ...]] = {
    "before": ("killed before",),
    "after": ("killed after", LOST),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a process is harmed.

    Attributes:
        harm: What happens; an answer is lost once the step is committed, and nobody dies of it.
        doing: The step, as ``DatabaseUnavailable`` names it.
        occurrence: Of the steps of that name in the process, the how many-th; 1-based.
    """

    harm: Harm
    doing: str
    occurrence: int

    def is_at(self, step: Reached) -> bool:
        """Tell whether this is where it happens."""
        here = (self.doing, self.occurrence) == (step.doing, step.occurrence)
        return here and self.harm in HARMS[step.moment]

    def __str__(self) -> str:
        return f"{self.harm} {self.doing!r}, occurrence {self.occurrence}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """One step as a process came by.

    Attributes:
        doing: The step.
        moment: Before or after it.
        occurrence: The how many-th of its name and moment; 1-based.
        stored: Equal as long as nothing was stored and no hook began or ended.
    """

    doing: str
    moment: Moment
    occurrence: int
    stored: object


class Killed(BaseException):
    """Raised in a process that is dead, at every step; no ``except Exception`` goes on after it."""


class Process:
    """The steps of one process, and what happens to it.

    Args:
        point: Where it is harmed; None lets it live.
        stored: Asked at each step of a process that lives, for a value that changes with whatever
            is stored.

    Attributes:
        steps: What it came by, in order.
        calls: How often hooks were called.
        was_harmed: Its point was reached.
        is_dead: It was killed there.
    """

    def __init__(
        self, point: Point | None = None, *, stored: Callable[[], object] = lambda: None
    ) -> None:
        self._point, self._stored = point, stored
        self._loop = asyncio.get_running_loop()
        self._died = asyncio.Event()
        self.is_dead = False
        self._counts: Counter[tuple[str, Moment]] = Counter()
        self._turns = 0
        self.steps: list[Reached] = []
        self.calls = 0
        self.was_harmed = False

    async def run(self, program: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> bool:
        """Run a program to its end; False when it was killed or broke off for the database.

        What it leaves behind is ended in any case.

        Raises:
            TimeoutError: It did not end within so many seconds of real time.
            Exception: The program raised it.
        """
        others = asyncio.all_tasks()
        context = contextvars.copy_context()
        context.run(failpoints.active.set, self._step)
        task = self._loop.create_task(program(), context=context)
        died = self._loop.create_task(self._died.wait())
        # Of real time, which the loop does not know.
        timer = threading.Timer(seconds, self._loop.call_soon_threadsafe, [self._died.set])
        timer.start()
        try:
            await asyncio.wait({task, died}, return_when=asyncio.FIRST_COMPLETED)
            ended = task.done()
        finally:
            timer.cancel()
            if self.is_dead:
                # A task that dies closes its own connection, unless it is cancelled meanwhile.
                await asyncio.wait({task}, timeout=UNWIND_SECONDS)
            died.cancel()
            task.cancel()
            # Connections that are being closed are not broken off, which would leave them open.
            await asyncio.wait({task, died}, timeout=LEFT_SECONDS * SPEED)
            await end(list(asyncio.all_tasks() - others), patience=LEFT_SECONDS * SPEED)
        if self.is_dead:
            return False
        if not ended:
            raise TimeoutError(f"it did not come to rest within {seconds:g} s")
        try:
            task.result()
        except DatabaseUnavailable:
            return False
        return True

    def _step(self, doing: str, moment: Moment) -> None:
        if self.is_dead:
            raise Killed
        if doing.startswith(CALLING):
            self._turns += 1
            self.calls += moment == "before"
        self._counts[doing, moment] += 1
        step = Reached(
            doing=doing,
            moment=moment,
            occurrence=self._counts[doing, moment],
            stored=(self._stored() if self._point is None else None, self._turns),
        )
        self.steps.append(step)
        if self._point is not None and self._point.is_at(step):
            self._harm(self._point)

    def _harm(self, point: Point) -> None:
        self.was_harmed = True
        if point.harm == LOST:
            raise DatabaseUnavailable(point.doing, "it was done, and the answer was lost")
        self.is_dead = True
        self._loop.call_soon_threadsafe(self._died.set)
        raise Killed


class _Hurried(selectors.DefaultSelector):
    """Lets time pass faster, above all while no socket is waited for.

    Attributes:
        ahead: By how many seconds the clock is ahead.
    """

    ahead = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            return super().select()
        speed = SPEED if len(self.get_map()) <= QUIET else BUSY_SPEED
        begun = time.monotonic()
        events = super().select(timeout / speed)
        self.ahead += (time.monotonic() - begun) * (speed - 1)
        return events


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is fast, above all while no socket is waited for."""

    def __init__(self) -> None:
        self._hurried = _Hurried()
        super().__init__(self._hurried)
        self.set_exception_handler(_say_nothing_of_the_dead)

    def time(self) -> float:
        """Return the seconds of its clock."""
        return super().time() + self._hurried.ahead


def _say_nothing_of_the_dead(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(dict(context))


def points(steps: Iterable[Reached], again: Iterable[Reached]) -> Iterator[Point]:
    """Return where a process with these steps can be harmed; ``again`` are another's like it.

    Steps between which nothing was stored and no hook began or ended are one point: whoever goes on
    finds the same.
    """
    common = {(step.doing, step.moment, step.occurrence) for step in again}
    seen = set()
    for step in steps:
        if (step.doing, step.moment, step.occurrence) not in common:
            continue
        for harm in HARMS[step.moment]:
            # One that lives knows which answer it lost.
            found = (harm, step.doing, step.stored) if harm == LOST else step.stored
            if found not in seen and not (harm == LOST and step.doing.startswith(CALLING)):
                seen.add(found)
                yield Point(harm=harm, doing=step.doing, occurrence=step.occurrence)
