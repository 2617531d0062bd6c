"""Counts how one provider is asked."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.hooks import Wait
from statemachine_pipeline.observability import instruments
from statemachine_pipeline.symptoms import leaves

if TYPE_CHECKING:
    from statemachine_pipeline.observability.metrics import Metrics
    from statemachine_pipeline.resilience.breakers import Ending, State

OUTCOMES: Final = ("succeeded", "failed", "rate_limited", "refused", "unknown")
STATES: Final = ("closed", "open", "half_open")
_BY_ENDING: Final[dict[Ending, str]] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "answered": "rate_limited",
    "unknown": "unknown",
}


class Counting:
    """Counts requests to one provider.

    Args:
        provider: Its name.
        metrics: Where they are counted.
    """

    def __init__(self, provider: str, metrics: Metrics) -> None:
        self._provider, self._metrics = provider, metrics

    def stands(self, state: State) -> None:
        """Count where its breaker is taken to be."""
        for one in STATES:
            is_it = float(one == state)
            self._metrics.set(instruments.BREAKER, is_it, provider=self._provider, state=one)

    def refused(self) -> None:
        """Count a request that was not sent, since the provider is down."""
        self._add("refused", 1)

    def waited(self, began: float) -> None:
        """Count how long a request waited for its budget."""
        seconds = time.monotonic() - began
        self._metrics.observe(instruments.BUDGET_SECONDS, seconds, provider=self._provider)

    def succeeded(self, began: float, *, requests: int, tokens: int) -> None:
        """Count what was answered, and what it cost."""
        self._add("succeeded", requests)
        self._took(began)
        self._metrics.add(instruments.TOKENS, tokens, provider=self._provider)

    def raised(
        self, began: float, error: BaseException, ending: Ending, *, requests: int, tokens: int
    ) -> None:
        """Count what came to nothing; a stop of the worker says nothing, and is not counted."""
        if isinstance(error, asyncio.CancelledError) and ending != "failed":
            return
        # The answer that a document has to wait is one, as any other.
        waits = ending == "answered" and all(isinstance(one, Wait) for one in leaves(error))
        self._add("succeeded" if waits else _BY_ENDING[ending], requests)
        self._took(began)
        self._metrics.add(instruments.TOKENS, tokens, provider=self._provider)

    def _add(self, outcome: str, count: int) -> None:
        labels = {"provider": self._provider, "outcome": outcome}
        self._metrics.add(instruments.REQUESTS, count, **labels)

    def _took(self, began: float) -> None:
        seconds = time.monotonic() - began
        self._metrics.observe(instruments.REQUEST_SECONDS, seconds, provider=self._provider)
