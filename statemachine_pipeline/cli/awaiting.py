"""Waits at a worker's start for a database that does not answer yet.

After a reboot it may be the later of the two. A worker that ended would be started again and again,
until whatever starts it gives up, or does so minutes apart. A server that refuses role, password or
database is not waited for: who starts the worker again reads them anew.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.database.cures import is_refusal
from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.observability import instruments, log_events
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.runner.chores import first_done
from statemachine_pipeline.runner.outages import backoff_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from statemachine_pipeline.observability.metrics import Metrics

AGAIN_SECONDS: Final = 2.0
"""First pause between two tries; each one after it is longer."""


class Awaiting:
    """Tries until the database answers, or until told to stop.

    Logs what it is told when that is another than the last time.

    Args:
        metrics: Where it is counted how often it did not answer.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics, self._stopped = metrics, asyncio.Event()

    def stop(self) -> None:
        """Wait no more."""
        self._stopped.set()

    async def answered(self, ask: Callable[[], Awaitable[None]]) -> bool:
        """Return True once ``ask`` got an answer, False when told to stop before.

        Raises:
            PipelineError: The answer was a refusal; a ``DatabaseUnavailable`` one of who asks.
        """
        began, failures, said = time.monotonic(), 0, ""
        while not self._stopped.is_set():
            try:
                await ask()
            except DatabaseUnavailable as error:
                if is_refusal(error):
                    raise
                failures += 1
                self._metrics.add(instruments.DATABASE_ERRORS)
                if str(error) != said:
                    said = str(error)
                    note(log_events.DATABASE_LOST, "{}; the worker waits for it", said)
            else:
                if failures:
                    lasted = time.monotonic() - began
                    note(log_events.DATABASE_BACK, "the database answers, after {:.1f} s", lasted)
                return True
            wait = backoff_seconds(AGAIN_SECONDS, failures)
            await first_done(self._stopped.wait(), seconds=wait)
        return False
