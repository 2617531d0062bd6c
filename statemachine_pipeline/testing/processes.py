"""One process after another in one event loop: each lives until it ends, or is killed at a step.

Killed means that none of its later steps is taken: each of them raises. An event loop of its own
tells a process's tasks from those of the test, and its clock is fast: what a runner waits for after
a lost answer passes in a twentieth of the time.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import selectors
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from statemachine_pipeline import failpoints
from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.runner.chores import end
from statemachine_pipeline.runner.perform import CALLING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from statemachine_pipeline.failpoints import Moment

SPEED = 20
"""How much faster the clock goes; deadlines of stages pass as much earlier."""
LEFT_SECONDS = 1.0
"""How long tasks that a process left behind may go on, by the fast clock."""

Harm: TypeAlias = Literal["killed before", "killed after", "answer lost after"]
HARMS: Mapping[Moment, tuple[Harm, ...]] = {
    "before": ("killed before",),
    "after": ("killed after", "answer lost after"),
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

    def is_at(self, doing: str, moment: Moment, occurrence: int) -> bool:
        """Tell whether this is where it happens."""
        here = (self.doing, self.occurrence) == (doing, occurrence)
        return here and self.harm in HARMS[moment]

    def __str__(self) -> str:
        return f"{self.harm} {self.doing!r}, occurrence {self.occurrence}"


class Killed(BaseException):
    """Raised in a process that is dead, at every step; no ``except Exception`` goes on after it."""


class Process:
    """The steps of one process, and what happens to it.

    Args:
        point: Where it is harmed; None lets it live.

    Attributes:
        steps: How often each step was reached, by name and moment.
        was_harmed: Its point was reached.
        is_dead: It was killed there.
    """

    def __init__(self, point: Point | None = None) -> None:
        self._point = point
        self._loop = asyncio.get_running_loop()
        self._died = asyncio.Event()
        self.is_dead = False
        self.steps: Counter[tuple[str, Moment]] = Counter()
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
        try:
            await asyncio.wait(
                {task, died}, timeout=seconds * SPEED, return_when=asyncio.FIRST_COMPLETED
            )
            ended = task.done()
        finally:
            await end([task, died])
            await end(list(asyncio.all_tasks() - others), patience=LEFT_SECONDS)
        if self.is_dead:
            return False
        if not ended:
            raise TimeoutError(f"it did not come to rest within {seconds:g} s")
        try:
            task.result()
        except DatabaseUnavailable:
            return False
        return True

    @property
    def calls(self) -> int:
        """How often hooks were called."""
        return sum(
            count
            for (doing, moment), count in self.steps.items()
            if moment == "before" and doing.startswith(CALLING)
        )

    def _step(self, doing: str, moment: Moment) -> None:
        if self.is_dead:
            raise Killed
        self.steps[doing, moment] += 1
        if self._point is None or not self._point.is_at(doing, moment, self.steps[doing, moment]):
            return
        self.was_harmed = True
        if self._point.harm == "answer lost after":
            raise DatabaseUnavailable(doing, "it was done, and the answer was lost on the way")
        self.is_dead = True
        self._loop.call_soon_threadsafe(self._died.set)
        raise Killed


class _Hurried(selectors.DefaultSelector):
    """Waits as long as the fast clock says."""

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout / SPEED if timeout else timeout)


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is fast; it waits for sockets as any other does."""

    def __init__(self) -> None:
        super().__init__(_Hurried())
        self.set_exception_handler(_say_nothing_of_the_dead)

    def time(self) -> float:
        """Return the seconds of its clock."""
        return super().time() * SPEED


def _say_nothing_of_the_dead(
    loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]
) -> None:
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(dict(context))
