"""Hears of new work through LISTEN. A hint: without it the runner polls, and loses nothing."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from statemachine_pipeline.errors import DatabaseUnavailable, NotHeard
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.noting import note

if TYPE_CHECKING:
    from collections.abc import Callable

    from statemachine_pipeline.database.workers import Workers

RECONNECT_SECONDS = 5.0
PROBE_SECONDS = 60.0
"""Silence after which it is tried whether anything would be heard."""
DEAF_SECONDS = 300.0
"""Pause after a connection on which nothing was ever heard: the next one is hardly better."""


async def listen(workers: Workers, on_work: Callable[[], None]) -> None:
    """Call ``on_work`` at each notification, until cancelled; reconnect for ever."""
    was_told = False
    while True:
        hears = False
        pause = RECONNECT_SECONDS
        try:
            # The first one says that it listens now: something may have come while nobody did.
            async for hears in workers.listen(probe_after=PROBE_SECONDS):  # noqa: B007
                on_work()
        except NotHeard as error:
            if not hears:
                pause = DEAF_SECONDS
            if not hears and not was_told:
                was_told = True
                told = "{}; new work is found by polling, every two seconds or so"
                note(log_events.LISTENER_DEAF, told, error)
        except DatabaseUnavailable:
            pass
        await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311
