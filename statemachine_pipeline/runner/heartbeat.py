"""Says that a worker lives, from its own thread and connection, never from the event loop.

One blocking hook must not make a live worker look dead. The reverse holds too: a beat that updates
no row, or none for most of the dead limit, means that others may have taken over, and the worker
stops at once.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from statemachine_pipeline.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from statemachine_pipeline.database.workers import Pulse

FENCE_SHARE = 0.8
"""Share of the dead limit without a beat after which a worker no longer trusts its claims."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """When a worker counts as dead.

    Attributes:
        beat: Time between two beats.
        dead_after: Silence after which others take its claims; at least four beats.
        grace: Time past its deadline after which a claim is taken from a live worker.
    """

    beat: timedelta = timedelta(seconds=10)
    dead_after: timedelta = timedelta(seconds=60)
    grace: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        if self.beat <= timedelta(0) or self.dead_after < 4 * self.beat:
            raise ValueError(
                f"dead_after must be at least four beats, got {self.dead_after} and {self.beat}"
            )


class Heartbeat:
    """Beats for one worker until stopped.

    Args:
        pulse: What it beats with.
        worker: Who lives.
        interval: Time between beats.
        dead_after: Silence after which others take over.
        on_fenced: Called once, from the thread, when the worker must stop writing.
    """

    def __init__(
        self,
        pulse: Pulse,
        worker: int,
        *,
        interval: timedelta,
        dead_after: timedelta,
        on_fenced: Callable[[], None],
    ) -> None:
        self._pulse, self._worker, self._on_fenced = pulse, worker, on_fenced
        self._interval = interval.total_seconds()
        self._limit = dead_after.total_seconds() * FENCE_SHARE
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{worker}", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more; blocks until the thread has ended."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.monotonic()
        try:
            while not self._stop.wait(self._interval):
                alive = self._beat()
                # After SIGSTOP the clock has gone on while the thread has not.
                if alive is False or time.monotonic() - last > self._limit:
                    self._on_fenced()
                    return
                if alive:
                    last = time.monotonic()
        finally:
            self._pulse.close()

    def _beat(self) -> bool | None:
        try:
            return self._pulse.beat(self._worker)
        except DatabaseUnavailable:
            return None
