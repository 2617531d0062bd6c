"""Backoff as arithmetic: a policy, an attempt and a random draw in, a delay out."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import timedelta

import backoff


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How often a stage tries, and how long it waits in between.

    The delay after failed attempt ``n`` is drawn evenly between zero and ``base * 2**(n - 1)``,
    at most ``cap``.

    Attributes:
        attempts: Tries at one stage before the document is parked; at least 1.
        crashes: Crashes at one stage before the document is parked; at least 1.
        base: Longest delay after the first failure.
        cap: Longest delay ever.

    Source:
        "Full jitter" in M. Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog, 2015.

    >>> plain = Policy()
    >>> [plain.delay(attempt=n, draw=1.0).total_seconds() for n in (1, 2, 9)]
    [2.0, 4.0, 300.0]
    """

    attempts: int = 5
    crashes: int = 3
    base: timedelta = timedelta(seconds=2)
    cap: timedelta = timedelta(seconds=300)

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.crashes < 1:
            raise ValueError(
                f"attempts and crashes must be at least 1, got {self.attempts} and {self.crashes}"
            )
        if not timedelta(0) <= self.base <= self.cap:
            raise ValueError(f"base must lie between 0 and cap, got {self.base} and {self.cap}")

    def delay(self, *, attempt: int, draw: float) -> timedelta:
        """Return the wait after failed ``attempt`` (the first is 1) for a draw in [0, 1]."""
        ceilings = backoff.expo(
            factor=self.base.total_seconds(), max_value=self.cap.total_seconds()
        )
        next(ceilings)  # the generator is primed by its first step
        ceiling = next(itertools.islice(ceilings, attempt - 1, None))
        return timedelta(seconds=draw * ceiling)
