"""What a runner does again and again beside its documents, and how that ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.runner.outages import backoff_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

CHORE_SECONDS = 1.0
"""How long a chore may go on after the end; cut off, its statement would cost a connection."""

LEAVE_SECONDS = 5.0
"""How long the end waits for a database that may be gone."""

AGREE_SECONDS = 6.0
"""One more than psycopg gives a server to hear that a statement is cancelled."""


async def every(
    seconds: float, chore: Callable[[], Awaitable[object]], ended: asyncio.Event
) -> None:
    """Do a chore again and again, until the end; what it raises does not end it."""
    failures = 0
    while not ended.is_set():
        try:
            await chore()
            failures = 0
        except DatabaseUnavailable:
            failures += 1
        except Exception as error:  # noqa: BLE001 - a worker that no longer rescues helps nobody
            told = "a chore of the runner failed; it is tried again"
            note(log_events.CHORE_FAILED, told, error=error)
        with contextlib.suppress(TimeoutError):
            jitter = 0.5 + random.random()  # noqa: S311
            wait = backoff_seconds(seconds, failures) if failures else seconds * jitter
            await asyncio.wait_for(ended.wait(), wait)


async def end(tasks: Sequence[asyncio.Task[Any]], patience: float = 0.0) -> None:
    """Stop tasks; those that end by themselves within ``patience`` seconds are not cut off."""
    if patience and tasks:
        await asyncio.wait(tasks, timeout=patience)
    # psycopg takes the first cancellation for a wish to cancel its statement, and waits for the
    # server to agree; a dead one does not. The second one ends that.
    for _ in range(2):
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=AGREE_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


async def attempt(last: Callable[[], Coroutine[Any, Any, object]], trouble: str) -> None:
    """Do something last, with a database that may be gone; log what came in its way."""
    task = asyncio.create_task(last())
    await end([task], patience=LEAVE_SECONDS)
    if task.cancelled():
        note(log_events.LEAVING_FAILED, "{}: no answer within {:g} s", trouble, LEAVE_SECONDS)
    elif (error := task.exception()) is not None:
        note(log_events.LEAVING_FAILED, "{}: {}", trouble, error)


def say_why(task: asyncio.Task[None]) -> None:
    """Log what ended a runner in the background; leaving its context raises it too."""
    if not task.cancelled() and (error := task.exception()) is not None:
        note(log_events.RUNNER_FAILED, "the runner in the background ended", error=error)


async def first_done(*waits: Coroutine[Any, Any, object], seconds: float) -> None:
    """Return when one of these has ended, or the time is over; the others are stopped."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)


async def all_ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Return when none of the tasks runs any more, whatever they raised."""
    if tasks:
        await asyncio.wait(tasks)


async def in_thread(function: Callable[[], None]) -> None:
    """Call what blocks in a thread; it is called even if whoever waits for it is cancelled."""
    await asyncio.shield(asyncio.create_task(asyncio.to_thread(function)))
