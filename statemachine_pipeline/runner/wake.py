"""Hears of new work through LISTEN. A hint: without it the runner polls, and loses nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

    from statemachine_pipeline.database.workers import Workers

RECONNECT_SECONDS = 5.0


async def listen(workers: Workers, on_work: Callable[[], None]) -> None:
    """Call ``on_work`` at each notification, until cancelled; reconnect for ever."""
    while True:
        try:
            connection = await workers.listen()
        except (psycopg.Error, OSError):
            await asyncio.sleep(RECONNECT_SECONDS)
            continue
        try:
            on_work()  # something may have come while nobody listened
            async for _ in connection.notifies():
                on_work()
        except psycopg.Error:
            await asyncio.sleep(RECONNECT_SECONDS)
        finally:
            await connection.close()
