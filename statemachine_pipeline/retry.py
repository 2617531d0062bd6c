"""Backoff as arithmetic: a schedule, an attempt and a random draw in, a delay out.

The delay becomes ``run_at`` of the document's work, so that it outlasts the process that drew it.
"""

from __future__ import annotations

import dataclasses
import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import backoff

if TYPE_CHECKING:
    from collections.abc import Generator

Jitter = Literal["full", "equal", "none"]
"""``full`` draws between zero and the whole delay, ``equal`` between half of it and the whole."""

_LARGEST_FACTOR = 100.0


def _check(base: timedelta, cap: timedelta, jitter: str) -> None:
    if not timedelta(0) <= base <= cap:
        raise ValueError(f"base must lie between 0 and cap, got {base} and {cap}")
    if jitter not in get_args(Jitter):
        raise ValueError(f"jitter must be one of {', '.join(get_args(Jitter))}, got {jitter!r}")


def _ratio(cap: timedelta, base: timedelta) -> float:
    return cap / base if base else 1.0


def _longest(steps: Generator[float, None, None], attempt: int) -> float:
    next(steps)  # the generators of backoff are primed by their first step
    return next(itertools.islice(steps, attempt - 1, None))


def _drawn(longest: timedelta, jitter: Jitter, draw: float) -> timedelta:
    if jitter == "none":
        return longest
    return longest * (draw if jitter == "full" else (1 + draw) / 2)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exponential:
    """Each delay is a multiple of the one before.

    Attributes:
        base: Longest delay after the first failure.
        factor: How many times longer each next one is; 1 to 100.
        cap: Longest delay ever.
        jitter: Where between zero and the longest a delay is drawn.

    Source:
        M. Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog, 2015.

    >>> [Exponential().delay(attempt=n, draw=1.0).total_seconds() for n in (1, 2, 9)]
    [2.0, 4.0, 300.0]
    """

    base: timedelta = timedelta(seconds=2)
    factor: float = 2.0
    cap: timedelta = timedelta(seconds=300)
    jitter: Jitter = "full"

    def __post_init__(self) -> None:
        _check(self.base, self.cap, self.jitter)
        if not 1 <= self.factor <= _LARGEST_FACTOR:
            raise ValueError(
                f"factor must lie between 1 and {_LARGEST_FACTOR:g}, got {self.factor}"
            )

    def delay(self, *, attempt: int, draw: float) -> timedelta:
        """Return the wait after failed ``attempt`` (the first is 1) for a draw in [0, 1]."""
        # As a multiple of the base, which may be zero: then the powers would never reach the cap.
        most = _ratio(self.cap, self.base)
        steps = backoff.expo(base=self.factor, max_value=most)
        return _drawn(_longest(steps, attempt) * self.base, self.jitter, draw)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fibonacci:
    """Each delay is as long as the two before together, which grows slower than doubling.

    Attributes:
        base: Longest delay after the first and after the second failure.
        cap: Longest delay ever.
        jitter: Where between zero and the longest a delay is drawn.

    >>> [Fibonacci().delay(attempt=n, draw=1.0).total_seconds() for n in (1, 2, 3, 4, 5)]
    [2.0, 2.0, 4.0, 6.0, 10.0]
    """

    base: timedelta = timedelta(seconds=2)
    cap: timedelta = timedelta(seconds=300)
    jitter: Jitter = "full"

    def __post_init__(self) -> None:
        _check(self.base, self.cap, self.jitter)

    def delay(self, *, attempt: int, draw: float) -> timedelta:
        """Return the wait after failed ``attempt`` (the first is 1) for a draw in [0, 1]."""
        most = _ratio(self.cap, self.base)
        # It is typed for whole numbers, and only compares.
        steps = backoff.fibo(max_value=most)  # type: ignore[arg-type]
        return _drawn(_longest(steps, attempt) * self.base, self.jitter, draw)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """Every delay is as long.

    Attributes:
        base: Longest delay after any failure.
        jitter: Where between zero and the longest a delay is drawn.

    >>> [Constant(jitter="none").delay(attempt=n, draw=0.5).total_seconds() for n in (1, 9)]
    [2.0, 2.0]
    """

    base: timedelta = timedelta(seconds=2)
    jitter: Jitter = "full"

    def __post_init__(self) -> None:
        _check(self.base, self.base, self.jitter)

    def delay(self, *, attempt: int, draw: float) -> timedelta:
        """Return the wait after failed ``attempt`` (the first is 1) for a draw in [0, 1]."""
        steps = backoff.constant(interval=1)
        return _drawn(_longest(steps, attempt) * self.base, self.jitter, draw)


Backoff: TypeAlias = Exponential | Fibonacci | Constant
"""How the waits between the attempts of a stage grow."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How often a stage tries, and how long it waits in between.

    Attributes:
        attempts: Tries at one stage before the document is parked; at least 1.
        crashes: Crashes at one stage before the document is parked; at least 1.
        backoff: How the waits grow.
    """

    attempts: int = 5
    crashes: int = 3
    backoff: Backoff = Exponential()

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.crashes < 1:
            raise ValueError(
                f"attempts and crashes must be at least 1, got {self.attempts} and {self.crashes}"
            )
        if not isinstance(self.backoff, Backoff):
            known = ", ".join(one.__name__ for one in get_args(Backoff))
            raise ValueError(f"backoff must be one of {known}, got {self.backoff!r}")  # noqa: TRY004

    def delay(self, *, attempt: int, draw: float) -> timedelta:
        """Return the wait after failed ``attempt`` (the first is 1) for a draw in [0, 1]."""
        return self.backoff.delay(attempt=attempt, draw=draw)
