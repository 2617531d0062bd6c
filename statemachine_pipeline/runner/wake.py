"""Hears of new work through LISTEN. A hint: without it the runner polls, and loses nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from statemachine_pipeline.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from statemachine_pipeline.database.workers import Workers

RECONNECT_SECONDS = 5.0


async def listen(workers: Workers, on_work: Callable[[], None]) -> None:
    """Call ``on_work`` at each notification, until cancelled; reconnect for ever."""
    while True:
        try:
            # The first one says that it listens now: something may have come while nobody did.
            async for _ in workers.listen():
                on_work()
        except DatabaseUnavailable:
            await asyncio.sleep(RECONNECT_SECONDS)
