"""What a runner does while its database does not answer: tries more seldom, and says so once."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Literal

from statemachine_pipeline.observability import instruments, log_events
from statemachine_pipeline.observability.noting import note

if TYPE_CHECKING:
    from statemachine_pipeline.errors import DatabaseUnavailable
    from statemachine_pipeline.observability.metrics import Metrics

Asker = Literal["claim", "beat", "write"]
"""Who asks it something: whoever looks for work, says that the worker lives, or has an outcome."""

LONGEST_SECONDS = 5.0
_DOUBLINGS = 10


def backoff_seconds(first: float, failures: int) -> float:
    """Return how many seconds to wait after so many failures in a row: longer each time.

    With jitter, or a fleet would come back in step.
    """
    longest: float = min(first * 2.0 ** min(failures, _DOUBLINGS), max(first, LONGEST_SECONDS))
    return longest * (0.5 + random.random() / 2)  # noqa: S311


class Outage:
    """Whether the database answers, as far as one runner knows; logs each change once.

    Whoever notices first tells. It is over once each has been answered whom the database did not
    answer: a beat, on a connection of its own, may get through where no claim does.

    Args:
        metrics: Where it is counted how often it did not.

    Attributes:
        since: When it was first noticed, by ``time.monotonic``; None while the database answers.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._turn = threading.Lock()  # of the event loop and the heartbeat's thread
        self._failures: dict[Asker, int] = {}
        self.since: float | None = None

    def goes_on(self, asker: Asker, error: DatabaseUnavailable) -> None:
        """Note that it did not answer."""
        self._metrics.add(instruments.DATABASE_ERRORS)
        with self._turn:
            is_known = bool(self._failures)
            self._failures[asker] = self.failures(asker) + 1
            if not is_known:
                self.since = time.monotonic()
        if not is_known:
            note(log_events.DATABASE_LOST, "{}; the runner keeps trying", error)

    def ended(self, *askers: Asker) -> None:
        """Note that it answered these."""
        with self._turn:
            for asker in askers:
                self._failures.pop(asker, None)
            if self.since is None or self._failures:
                return
            lasted, self.since = time.monotonic() - self.since, None
        note(log_events.DATABASE_BACK, "the database answers again, after {:.1f} s", lasted)

    def failures(self, asker: Asker) -> int:
        """Return how often in a row it did not answer."""
        return self._failures.get(asker, 0)
