"""What a runner does again and again beside its documents, and how that ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

from loguru import logger

from statemachine_pipeline.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

CHORE_SECONDS = 1.0
"""How long a chore may go on after the end; cut off, its statement would cost a connection."""


async def every(
    seconds: float, chore: Callable[[], Awaitable[object]], ended: asyncio.Event
) -> None:
    """Do a chore again and again, until the end; what it raises does not end it."""
    while not ended.is_set():
        try:
            await chore()
        except DatabaseUnavailable:
            pass
        except Exception as error:  # noqa: BLE001 - a worker that no longer rescues helps nobody
            logger.opt(exception=error).error("a chore of the runner failed; it is tried again")
        with contextlib.suppress(TimeoutError):
            jitter = 0.5 + random.random()  # noqa: S311
            await asyncio.wait_for(ended.wait(), seconds * jitter)


async def end(tasks: Sequence[asyncio.Task[Any]], patience: float = 0.0) -> None:
    """Stop tasks; those that end by themselves within ``patience`` seconds are not cut off."""
    if patience:
        await asyncio.wait(tasks, timeout=patience)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def say_why(task: asyncio.Task[None]) -> None:
    """Log what ended a runner in the background; leaving its context raises it too."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.opt(exception=error).error("the runner in the background ended")


async def all_ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Return when all of them have ended, however they did."""
    if tasks:
        await asyncio.wait(tasks)
