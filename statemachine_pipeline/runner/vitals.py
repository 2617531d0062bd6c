"""How one runner does, as its own process sees it. Never looks at the database.

Written by the event loop and the heartbeat's thread, read by probes from threads of their own: each
attribute is replaced as a whole, so that nobody needs a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, Literal

from statemachine_pipeline.observability import instruments
from statemachine_pipeline.runner.outages import Outage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from statemachine_pipeline.observability.metrics import Metrics

Phase = Literal["starting", "working", "draining", "fenced", "registering", "ended", "failed"]
"""What a runner is about: before its first id, at work under one, told to stop, counted as dead,
asking for another id, over, or over because of an error."""

TICK_SECONDS: Final = 0.25
"""How often the event loop has to come round; what it is late is counted."""


class Vitals:
    """What one runner is about, and when it last did what.

    Times are those of ``time.monotonic``.

    Args:
        metrics: Where lag and beats are counted.
        serves: The stages of the runner, by their triggers.

    Attributes:
        phase: What it is about.
        since: When that began.
        has_worked: Whether it ever had an id.
        ticked_at: When the event loop last came round; None while it does not run.
        looked_at: When it last began to look for work.
        settled: How many outcomes it has written under its present id that brought a document on.
        settled_at: When it wrote the last of them, if any.
        metrics: What is counted.
        serves: The stages of the runner, by their triggers.
        outage: Whether the database answers it.
    """

    def __init__(self, metrics: Metrics, serves: Collection[str] = ()) -> None:
        self.metrics, self.serves = metrics, frozenset(serves)
        self.outage = Outage(metrics)
        self.phase: Phase = "starting"
        self.since = self.looked_at = time.monotonic()
        self.has_worked = False
        self.ticked_at: float | None = None
        self.settled = 0
        self.settled_at: float | None = None

    def turn(self, phase: Phase) -> None:
        """Begin to be about something else."""
        # In this order: who reads the phase first never sees a new one with an old time.
        self.since = time.monotonic()
        self.phase = phase

    def begin(self) -> None:
        """Work under a new id, under which nothing is done yet."""
        self.settled, self.settled_at, self.has_worked = 0, None, True
        self.look()
        self.beat()
        self.turn("working")

    def look(self) -> None:
        """Note that it looks for work."""
        self.looked_at = time.monotonic()

    def settle(self) -> None:
        """Note an outcome that brought a document on."""
        self.settled += 1
        self.settled_at = time.monotonic()

    def beat(self) -> None:
        """Note that the database was told that it lives."""
        self.metrics.set(instruments.HEARTBEAT, time.time())

    @property
    def idle_seconds(self) -> float | None:
        """How long ago it brought a document on; None while it has not."""
        return None if self.settled_at is None else time.monotonic() - self.settled_at

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watch the event loop for as long as a runner runs, and note how that ends."""
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        except Exception:
            self.turn("failed")
            raise
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking
            self.ticked_at = None
            if self.phase != "failed":
                self.turn("ended")

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.ticked_at = time.monotonic()
            due = loop.time() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.metrics.observe(instruments.LOOP_LAG, max(loop.time() - due, 0.0))
