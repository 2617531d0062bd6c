"""What stages share when they ask the same service: its name, and what it can bear. Pure.

Stages that name one provider share its breaker and its budget, in every worker of the fleet.
"""

from __future__ import annotations

import contextlib
import dataclasses
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When a provider counts as down.

    Failures are what may pass by itself: ``Retry``, timeouts, lost connections, statuses 5xx. A
    request that was refused, limited or stopped neither counts nor breaks the row.

    Attributes:
        failures: Failed requests in a row, of one worker, that open the breaker for the fleet.
        open_for: How long nobody asks; then one request of one worker tries.
    """

    failures: int = 5
    open_for: timedelta = timedelta(seconds=60)

    def __post_init__(self) -> None:
        if self.failures < 1 or self.open_for <= timedelta(0):
            raise ValueError(f"failures and open_for must be above zero, got {self}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a provider lets the whole fleet ask for.

    Where the provider's headers tell lower limits, those count; they are taken to be for ``per``.
    Programs with different numbers for one provider all go by those of the newest start.

    Attributes:
        requests: Most requests in ``per``; None bounds them not, until an answer's headers do.
        tokens: Most tokens in ``per``; None bounds them not, until an answer's headers do.
        per: The time that the two are for.
        hold: Longest wait within an attempt behind what others took; a longer one gives the
            attempt back. The time in which a large request's own share flows in comes on top.
    """

    requests: int | None = None
    tokens: int | None = None
    per: timedelta = timedelta(minutes=1)
    hold: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        given = [number for number in (self.requests, self.tokens) if number is not None]
        if any(number < 1 for number in given) or self.per <= timedelta(0):
            raise ValueError(f"requests, tokens and per must be above zero, got {self}")
        if self.hold < timedelta(0):
            raise ValueError(f"hold must not be below zero, got {self.hold}")


@dataclasses.dataclass(frozen=True, slots=True)
class Provider:
    """A service that hooks ask.

    Attributes:
        name: The same in every worker; stages with the same name share what follows.
        budget: What it lets the fleet ask for.
        breaker: When it counts as down.
    """

    name: str
    _: dataclasses.KW_ONLY
    budget: Budget = Budget()
    breaker: Breaker = Breaker()


class Request(Protocol):
    """One request under way, which hears what its answer said."""

    def report(self, *, tokens: int | None, headers: Mapping[str, str]) -> None:
        """Correct the budget by what the provider counted."""


_current: ContextVar[Request | None] = ContextVar("request", default=None)


@contextlib.contextmanager
def under_way(request: Request) -> Iterator[None]:
    """Let ``report`` within the block reach ``request``."""
    before = _current.set(request)
    try:
        yield
    finally:
        _current.reset(before)


def report(*, tokens: int | None = None, headers: Mapping[str, str] | None = None) -> None:
    """Tell the budget of a stage's provider what an answer said, once for each answer.

    For hooks that ask a service, on the event loop or in a thread. Without a provider, outside of
    hooks, and in child processes (``run="process"``), which reach no database, nothing happens.

    Args:
        tokens: How many the provider counted, from its ``usage``.
        headers: Of the answer; ``x-ratelimit-*`` are read.
    """
    request = _current.get()
    if request is not None:
        request.report(tokens=tokens, headers=headers or {})
