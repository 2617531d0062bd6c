"""Says that a worker lives, from its own thread and connection, never from the event loop.

One blocking hook must not make a live worker look dead. The reverse holds too: a beat that updates
no row, or none for most of the dead limit, means that others may have taken over, and the worker
stops at once. A second thread sees to that, since a beat on a dead connection may hang.
"""

from __future__ import annotations

import contextvars
import threading
import time
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.noting import note

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from statemachine_pipeline.database.workers import Pulse
    from statemachine_pipeline.runner.vitals import Vitals

FENCE_SHARE = 0.8
"""Share of the dead limit without a beat after which a worker no longer trusts its claims."""

_FENCED: Final = "worker {} counts as dead: {}; it writes nothing more, and takes another number"
LOOKS_PER_BEAT = 5
END_SECONDS = 2.0
"""How long the end waits for a beat that was broken off; its thread is a daemon."""


class Heartbeat:
    """Beats for one worker until stopped.

    Args:
        pulse: What it beats with.
        worker: Who lives.
        interval: Time between beats, and the longest that one may take.
        dead_after: Silence after which others take over.
        on_fenced: Called once, from a thread, when the worker must stop writing.
        vitals: What it has done, which each beat tells.
    """

    def __init__(
        self,
        pulse: Pulse,
        worker: int,
        *,
        interval: timedelta,
        dead_after: timedelta,
        on_fenced: Callable[[], None],
        vitals: Vitals,
    ) -> None:
        self._pulse, self._worker, self._on_fenced = pulse, worker, on_fenced
        self._vitals = vitals
        self._interval = interval.total_seconds()
        self._limit = dead_after.total_seconds() * FENCE_SHARE
        self._stop, self._fence = threading.Event(), threading.Lock()
        self._last = time.monotonic()
        self._begun: float | None = None
        self._beats = _thread(self._beat, f"heartbeat-{worker}")
        self._looks = _thread(self._look, f"fence-{worker}")

    def start(self) -> None:
        """Begin to beat."""
        self._last = time.monotonic()
        self._beats.start()
        self._looks.start()

    def stop(self) -> None:
        """Beat no more; blocks until the threads have ended, but not for one that hangs."""
        self._stop.set()
        self._looks.join()
        self._beats.join(END_SECONDS / 2)
        if self._beats.is_alive():
            self._pulse.break_off()
            self._beats.join(END_SECONDS / 2)

    def _beat(self) -> None:
        try:
            while not self._stop.wait(self._interval):
                self._begun = time.monotonic()
                alive = self._answer()
                self._begun = None
                # After SIGSTOP the clock has gone on while the thread has not.
                if alive is False or self._is_late():
                    self._end()
                elif alive:
                    self._last = time.monotonic()
        finally:
            self._pulse.close()

    def _look(self) -> None:
        """Watch the clock while a beat may hang."""
        while not self._stop.wait(self._interval / LOOKS_PER_BEAT):
            begun = self._begun
            if self._is_late():
                self._end()
            elif begun is not None and time.monotonic() - begun > self._interval:
                self._pulse.break_off()

    def _is_late(self) -> bool:
        return time.monotonic() - self._last > self._limit

    def _end(self) -> None:
        """Fence the worker, unless it was told to end or is fenced."""
        with self._fence:
            if not self._stop.is_set():
                self._vitals.turn("fenced")
                note(log_events.WORKER_FENCED, _FENCED, self._worker, self._why())
                self._on_fenced()
            self._stop.set()

    def _why(self) -> str:
        if not self._is_late():
            return "others have taken over what it held"
        return f"for {time.monotonic() - self._last:.0f} s the database heard nothing of it"

    def _answer(self) -> bool | None:
        done = self._vitals.settled, self._vitals.idle_seconds
        try:
            alive = self._pulse.beat(self._worker, *done)
        except DatabaseUnavailable as error:
            self._vitals.outage.goes_on("beat", error)
            return None
        self._vitals.outage.ended("beat")
        if alive:
            self._vitals.beat()
        return alive


def _thread(target: Callable[[], None], name: str) -> threading.Thread:
    """Return a thread whose lines of the log say whose they are, as those of its maker do."""
    run = contextvars.copy_context().run
    return threading.Thread(target=run, args=(target,), name=name, daemon=True)
