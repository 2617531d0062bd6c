"""One runner's way to the providers of its stages: the one place where they are asked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from statemachine_pipeline.failures import classify
from statemachine_pipeline.hooks import RateLimited, Signal
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.providers import under_way
from statemachine_pipeline.resilience.breakers import FleetBreaker, ProviderClosed, heard_of
from statemachine_pipeline.resilience.budgets import SHORTEST, LeasedBudget
from statemachine_pipeline.resilience.counting import Counting
from statemachine_pipeline.symptoms import leaves, symptoms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from statemachine_pipeline.database.providers import Providers, View
    from statemachine_pipeline.failures import FailureRule
    from statemachine_pipeline.observability.metrics import Metrics
    from statemachine_pipeline.providers import Provider
    from statemachine_pipeline.resilience.budgets import Charge


def _never() -> bool:
    return False


class Access:
    """One runner's way to one provider.

    Args:
        provider: Which one.
        store: What the fleet knows of it.
        worker: Who asks.
        metrics: Where it is counted how it is asked.

    Attributes:
        provider: Which one.
        breaker: This runner's side of its breaker.
        budget: This runner's part of its budget.
    """

    def __init__(self, provider: Provider, store: Providers, worker: int, metrics: Metrics) -> None:
        self.provider, self._counting = provider, Counting(provider.name, metrics)
        self.breaker = FleetBreaker(provider, store, worker, self._counting)
        self.budget = LeasedBudget(provider, store)

    @contextlib.asynccontextmanager
    async def request(
        self,
        *,
        tokens: int = 0,
        is_late: Callable[[], bool] = _never,
        rules: Sequence[FailureRule] = (),
    ) -> AsyncIterator[_Request]:
        """Wait until the provider may be asked, then run the block as one request to it.

        What the block raises tells the breaker how the provider does, and a 429 blocks the budget.
        Everything passes through, but for a failure while the provider was known to be down.

        Args:
            tokens: How many it will count, as far as is known before; 0 takes about as many as
                those before it.
            is_late: Tells whether a stop was the deadline's: a request that it stops has failed,
                and one that still waited for its turn is given back.
            rules: What the stage says of its exceptions.

        Raises:
            ProviderClosed: The provider is down; give the attempt back.
            RateLimited: Its budget is used up for longer than may be waited.
            StageFault: The request is larger than the whole budget.
            DatabaseUnavailable: The budget could not be asked.
        """
        charge, is_probe = await self._admitted(tokens, is_late)
        request, began = _Request(), time.monotonic()
        try:
            with under_way(request):
                yield request
        except BaseException as error:
            self._settle(request, charge, _asked_wait(error, rules))
            ending, why = heard_of(error, rules, is_late=is_late())
            cost = {"requests": request.count, "tokens": request.tokens or 0}
            self._counting.raised(began, error, ending, **cost)
            if await self.breaker.hear(ending, why, is_probe=is_probe):
                raise self.breaker.refusal() from error
            raise
        if request.is_dropped:
            self.budget.refund(charge)
            if is_probe:
                await self.breaker.give_probe_back()
            return
        self._settle(request, charge, None)
        used = tokens if request.tokens is None else request.tokens
        self._counting.succeeded(began, requests=request.count, tokens=used)
        await self.breaker.hear("succeeded", "", is_probe=is_probe)

    async def _admitted(self, tokens: int, is_late: Callable[[], bool]) -> tuple[Charge, bool]:
        """Wait until a request may be made; tell too whether it tries the provider again."""
        try:
            is_probe = self.breaker.admit()
        except ProviderClosed:
            self._counting.refused()
            raise
        began = time.monotonic()
        try:
            charge = await self.budget.take(tokens)
        except BaseException as error:
            if is_probe:
                await self.breaker.give_probe_back()
            if isinstance(error, asyncio.CancelledError) and is_late():
                raise RateLimited(SHORTEST) from None
            raise
        self._counting.waited(began)
        if not is_probe and not self.breaker.is_closed:  # it opened while this one waited
            self.budget.refund(charge)
            self._counting.refused()
            raise self.breaker.refusal()
        return charge, is_probe

    def most_tokens(self, within: timedelta) -> int | None:
        """Return how many tokens a request may have, so that it waits for its own no longer."""
        return self.budget.most_tokens(within)

    def refusal(self) -> ProviderClosed | None:
        """Return what a request is told while the provider is known to be down, else None."""
        return None if self.breaker.is_closed else self.breaker.refusal()

    def _settle(self, request: _Request, charge: Charge, blocked: timedelta | None) -> None:
        self.budget.settle(
            charge,
            requests=request.count,
            tokens=request.tokens,
            headers=request.headers,
            blocked=blocked,
        )

    def follow(self, view: View, version: int) -> None:
        """Take over what the fleet knows; ``version`` is the breaker's before it was asked."""
        self.breaker.follow(view, version)
        self.budget.follow(view)

    async def close(self) -> None:
        """Tell the fleet what it does not know yet, and give back what was not used."""
        await self.breaker.write()
        await self.breaker.give_probe_back()
        await self.budget.close()


class FreeAccess:
    """The way of stages that ask nobody."""

    @contextlib.asynccontextmanager
    async def request(
        self,
        *,
        tokens: int = 0,
        is_late: Callable[[], bool] = _never,
        rules: Sequence[FailureRule] = (),
    ) -> AsyncIterator[_Request]:
        """Run the block at once."""
        request = _Request()
        with under_way(request):
            yield request

    def most_tokens(self, within: timedelta) -> None:
        """Nobody bounds a request."""

    def refusal(self) -> None:
        """Nobody is known to be down."""


class Accesses:
    """One runner's ways to all providers of its stages.

    Args:
        store: What the fleet knows of them.
        worker: Who asks.
        providers: Those of its stages.
        metrics: Where it is counted how they are asked.

    Attributes:
        due: Those whose breaker lets one request through, if nobody makes it yet.
    """

    def __init__(
        self, store: Providers, worker: int, providers: Iterable[Provider], metrics: Metrics
    ) -> None:
        self._store = store
        self._by_name = {p.name: Access(p, store, worker, metrics) for p in providers}
        self._free = FreeAccess()
        self._is_known = False
        self._down: frozenset[str] = frozenset()
        self.due: tuple[Access, ...] = ()

    def of(self, provider: Provider | None) -> Access | FreeAccess:
        """Return the way to a provider, the same for all stages that name it."""
        return self._free if provider is None else self._by_name[provider.name]

    async def _make_known(self) -> None:
        for access in self._by_name.values():
            await self._store.know(access.provider)
        self._is_known = True

    async def look(self) -> frozenset[str]:
        """Learn how the providers stand; return the names of those that are not to be asked now.

        The first look makes them known to the fleet, with this program's numbers.
        """
        if not self._by_name:
            return frozenset()
        if not self._is_known:
            await self._make_known()
        for access in self._by_name.values():
            await access.breaker.write()
        versions = {name: access.breaker.version for name, access in self._by_name.items()}
        views = await self._store.look(versions)
        for view in views:
            self._by_name[view.provider].follow(view, versions[view.provider])
        self.due = tuple(self._by_name[view.provider] for view in views if view.is_due)
        self._tell(views)
        return frozenset(v.provider for v in views if v.state != "closed" or v.is_used_up)

    def _tell(self, views: Sequence[View]) -> None:
        """Log each provider that goes down or comes back, once."""
        down = {view.provider: view.reason for view in views if view.state != "closed"}
        for name in sorted(down.keys() - self._down):
            told = "provider {!r} is not asked for now: {}"
            note(log_events.PROVIDER_DOWN, told, name, down[name], provider=name)
        for name in sorted(self._down - down.keys()):
            note(log_events.PROVIDER_BACK, "provider {!r} is asked again", name, provider=name)
        self._down = frozenset(down)

    async def close(self) -> None:
        """Tell the fleet what it does not know yet, and give back what was not used."""
        for access in self._by_name.values():
            await access.close()


def _asked_wait(error: BaseException, rules: Sequence[FailureRule]) -> timedelta | None:
    """Return how long the provider wants to be left alone, if that is what an error says."""
    return max((wait for one in leaves(error) if (wait := _wait(one, rules))), default=None)


def _wait(error: BaseException, rules: Sequence[FailureRule]) -> timedelta | None:
    if isinstance(error, Signal):
        return error.after if isinstance(error, RateLimited) else None
    verdict = classify(symptoms(error, datetime.now(UTC)), rules)
    return verdict.wait if verdict.kind == "rate_limited" else None


class _Request:
    """What the answers to one request said; hooks in threads tell it from there."""

    def __init__(self) -> None:
        self.answers = 0
        self.tokens: int | None = None
        self.headers: Mapping[str, str] = {}
        self.is_dropped = False

    @property
    def count(self) -> int:
        """How many requests it was; one that was not answered is one."""
        return max(self.answers, 1)

    def drop(self) -> None:
        """Say that nobody is asked after all: it counts as no request, and says nothing."""
        self.is_dropped = True

    def report(self, *, tokens: int | None, headers: Mapping[str, str]) -> None:
        """Add what one answer said."""
        self.answers += 1
        if tokens is not None:
            self.tokens = (self.tokens or 0) + tokens
        if headers:
            self.headers = headers
