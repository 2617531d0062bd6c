"""Crashes everywhere: a scenario is run again for each step of it, and dies there.

On a real database and with the pipeline's own hooks. What counts is what is left once another
process has gone on an hour later: the same as where nothing happened.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from typing import TYPE_CHECKING

from statemachine_pipeline.testing.crashing.processes import FastLoop
from statemachine_pipeline.testing.crashing.trials import Given, trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from statemachine_pipeline.pipeline import Pipeline
    from statemachine_pipeline.testing.crashing.processes import Point
    from statemachine_pipeline.testing.crashing.trials import Does

MOST_STORIES = 3
"""Points that fail, before the others are left out: one defect breaks many."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Crashes:
    """What became of crashes everywhere.

    Attributes:
        points: Where it was to happen.
        untried: How many other points there are: beyond ``most``, and after the third failure.
        unreached: Where it did not happen: the process ended before it came there again.
        repeats: Runs in which a hook was called more often than where nothing happened. Documents
            are processed at least once; what a hook does outside the database has to bear that.
        failures: A story for each run that broke a promise, at most three.
        seconds: How long it took.
    """

    points: tuple[Point, ...]
    untried: int
    unreached: tuple[Point, ...]
    repeats: int
    failures: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        lines = [
            f"{len(self.points)} points in {self.seconds:.1f} s, {self.untried} others not tried",
            f"in {self.repeats} runs a hook was called again",
            *(f"not reached: {point}" for point in self.unreached),
        ]
        return "\n".join([*lines, *self.failures])


async def crash_everywhere(
    pipeline: Pipeline | Callable[[], Pipeline],
    scenario: Does,
    *,
    check: Does | None = None,
    reset: Does | None = None,
    documents: int = 1,
    most: int | None = None,
) -> Crashes:
    """Kill a process at each of its steps, and prove that another one makes it good.

    A process runs the scenario and then a runner until everything rests. Before and after each
    step it asks the database, it is killed, and another one goes on after an hour; the scenario
    begins anew if it was not over. And after each step its answer is lost, though it was done. In
    the end no document may be lost, everything rests, histories are legal, at most one attempt a
    document in hand is charged, and texts, passages and vectors are those of a clean run. Steps
    between which nothing is stored and no hook begins or ends are one point to be killed at.

    Hooks have to make the same of the same input. The schema is emptied before each run, so it has
    to be of this test alone; its tables are created. All runs on an event loop of its own whose
    clock is up to twenty times faster, deadlines of stages included.

    Args:
        pipeline: Of the database it names; or a function that makes one, which is called for each
            process: what hooks remember dies with it then, as in a real crash.
        scenario: Hands documents over, and moves them. It may come again, like any caller who did
            not hear an answer.
        check: Raises if something else is not as it should be once everything rests.
        reset: Called before each run, to empty what hooks write elsewhere.
        documents: Most documents that a runner has in hand. With one, all steps come in the same
            order again; with more some points are not reached.
        most: Most points, spread evenly over harms and steps; None tries every one.

    Returns:
        What was tried, if no promise was broken.

    Raises:
        AssertionError: A promise was broken; the message tells where and how.
        PipelineError: There are documents in the schema.
    """
    __tracebackhide__ = True
    make = pipeline if callable(pipeline) else lambda: pipeline
    given = Given(make=make, scenario=scenario, check=check, reset=reset, documents=documents)
    stopped = threading.Event()
    try:
        crashes = await asyncio.to_thread(_in_a_thread, given, most, stopped)
    finally:
        stopped.set()  # the thread goes on if this was cancelled
    if crashes.failures:
        raise AssertionError(str(crashes))
    return crashes


def _in_a_thread(given: Given, most: int | None, stopped: threading.Event) -> Crashes:
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return runner.run(_everywhere(given, most, stopped))


async def _everywhere(given: Given, most: int | None, stopped: threading.Event) -> Crashes:
    begun = time.monotonic()
    points: list[Point] = []
    unreached: list[Point] = []
    failures: list[str] = []
    repeats = 0
    async with trial(given) as tried:
        clean, found = await tried.clean()
        for point in _spread(found, most):
            if stopped.is_set() or len(failures) == MOST_STORIES:
                break
            points.append(point)
            run = await tried.run(point)
            if not run.first.was_harmed:
                unreached.append(point)
            repeats += run.calls > clean.calls
            if problems := tried.problems(run, clean):
                failures.append("\n".join([f"{point}:", *problems]))
    return Crashes(
        points=tuple(points),
        untried=len(found) - len(points),
        unreached=tuple(unreached),
        repeats=repeats,
        failures=tuple(failures),
        seconds=time.monotonic() - begun,
    )


def _spread(points: Sequence[Point], most: int | None) -> Sequence[Point]:
    if most is None or len(points) <= most:
        return points
    # One harm after the other, so that each gets its share whatever order the steps fell in.
    grouped = sorted(points, key=lambda point: point.harm)
    return [grouped[number * len(points) // most] for number in range(most)]
