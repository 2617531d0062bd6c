"""What a runner does while its database does not answer: tries more seldom, and says so once."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from statemachine_pipeline.observability import instruments, log_events
from statemachine_pipeline.observability.noting import note

if TYPE_CHECKING:
    from statemachine_pipeline.errors import DatabaseUnavailable
    from statemachine_pipeline.observability.metrics import Metrics

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

    Args:
        metrics: Where it is counted how often it did not.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._since: float | None = None
        self.failures = 0

    def goes_on(self, error: DatabaseUnavailable) -> None:
        """Note that it did not answer."""
        self.failures += 1
        self._metrics.add(instruments.DATABASE_ERRORS)
        if self._since is None:
            self._since = time.monotonic()
            told = "{}; the runner keeps trying and takes nothing new meanwhile"
            note(log_events.DATABASE_LOST, told, error)

    def ended(self) -> None:
        """Note that it answered."""
        if self._since is not None:
            lasted = time.monotonic() - self._since
            note(log_events.DATABASE_BACK, "the database answers again, after {:.1f} s", lasted)
            self._since, self.failures = None, 0
