"""One runner's part of a provider's budget, leased from the database in blocks.

Whoever waits here is served in order, many with one statement; while there is plenty, a lease
brings along about as much as was just used, so that the row is written rarely. What is left over
goes back soon: used late it would come on top of what the provider's own bucket has.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.database.providers import Amounts, Correction
from statemachine_pipeline.database.statements.levels import BURST
from statemachine_pipeline.hooks import RateLimited, StageFault
from statemachine_pipeline.resilience.headers import amounts_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from statemachine_pipeline.database.providers import Lease, Providers, View
    from statemachine_pipeline.providers import Provider

BLOCK_SHARE: Final = 0.02
"""Of ``per``: how long a block may lie here unused, and the share of a limit it may be."""
SOONEST_SECONDS: Final = 0.05
SHORTEST: Final = timedelta(seconds=1)
_USUAL_WEIGHT: Final = 0.2


@dataclasses.dataclass(slots=True)
class Charge:
    """What one request was let through with.

    Attributes:
        tokens: Charged for it.
        is_counted: Whether the budget knows of it; without limits nothing is counted.
        is_first: Others wait for it, to learn how many tokens a request takes.
    """

    tokens: float
    is_counted: bool
    is_first: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class _Waiter:
    tokens: float
    turn: asyncio.Future[None]
    is_gone: bool = False
    is_charged: bool = False


class LeasedBudget:
    """One runner's part of one provider's budget.

    Args:
        provider: Whose.
        store: Where the fleet shares it.
    """

    def __init__(self, provider: Provider, store: Providers) -> None:
        self._provider, self._store = provider, store
        budget = provider.budget
        self._limits = Amounts(requests=budget.requests, tokens=budget.tokens)
        self._block_seconds = max(budget.per.total_seconds() * BLOCK_SHARE, SOONEST_SECONDS)
        self._waiting: deque[_Waiter] = deque()
        self._asking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stock_requests = self._stock_tokens = 0.0
        self._used_requests = self._used_tokens = 0.0
        self._leased_at = 0.0
        self._correction = Correction()
        self._told = Amounts()
        self._busy_until = 0.0
        self._usual = 0.0
        self._first: asyncio.Future[None] | None = None

    @property
    def _is_counted(self) -> bool:
        known = self._limits.requests is not None or self._limits.tokens is not None
        return known or time.monotonic() < self._busy_until

    def most_tokens(self, within: timedelta) -> int | None:
        """Return the most tokens of a request that is to wait for its own no longer."""
        limit = self._limits.tokens
        if limit is None:
            return None
        # Of a full budget as much stays unused.
        return max(1, int(limit * min(BURST, within / self._provider.budget.per)))

    async def take(self, tokens: int) -> Charge:
        """Wait until a request may be made.

        Args:
            tokens: How many it will count; 0 takes about as many as those before it, and the first
                goes alone.

        Raises:
            RateLimited: What others took lasts longer than ``Budget.hold``.
            StageFault: It is larger than the whole budget.
            DatabaseUnavailable: The budget could not be asked.
        """
        if tokens or self._limits.tokens is None:
            return await self._take(tokens)
        if self._first is not None:
            await asyncio.shield(self._first)
            return await self._take(tokens)
        self._first = first = asyncio.get_running_loop().create_future()
        try:
            charge = await self._take(tokens)
        except BaseException:
            self._first = None
            first.set_result(None)
            raise
        charge.is_first = True
        return charge

    async def _take(self, tokens: int) -> Charge:
        wanted = self._wanted(tokens)
        if not self._is_counted:
            return Charge(wanted, is_counted=False)
        self._used_requests += 1
        self._used_tokens += wanted
        if self._asking is None and self._has_stock(wanted):
            self._stock_requests -= 1
            self._stock_tokens -= wanted
            return Charge(wanted, is_counted=True)
        waiter = _Waiter(wanted, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._ask()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            waiter.is_gone = True
            if waiter.is_charged:
                self._put_back(1.0, wanted)
            raise
        return Charge(wanted, is_counted=True)

    def _has_stock(self, tokens: float) -> bool:
        if time.monotonic() < self._busy_until:
            return False
        requests_left = self._limits.requests is None or self._stock_requests >= 1
        return requests_left and (self._limits.tokens is None or self._stock_tokens >= tokens)

    def _wanted(self, tokens: int) -> float:
        limit = self._limits.tokens
        if limit is not None and tokens > limit:
            raise StageFault(
                f"a request of {tokens:,} tokens can never be made: provider "
                f"{self._provider.name!r} allows {limit:,.0f} in {self._provider.budget.per}; "
                "put less into one request"
            )
        if tokens:
            return float(tokens)
        return self._usual if limit is None else min(self._usual, limit)

    def refund(self, charge: Charge) -> None:
        """Put back what a request was charged that was not made."""
        self._let_others_go(charge)
        if charge.is_counted:
            self._put_back(1.0, charge.tokens)

    def _let_others_go(self, charge: Charge) -> None:
        if charge.is_first and self._first is not None:
            self._first.set_result(None)

    def settle(
        self,
        charge: Charge,
        *,
        requests: int,
        tokens: int | None,
        headers: Mapping[str, str],
        blocked: timedelta | None,
    ) -> None:
        """Correct the budget by what a request turned out to be.

        Args:
            charge: What it was let through with.
            requests: How many it was.
            tokens: What the provider counted; None when it did not say.
            headers: Of its answer.
            blocked: The provider wants to be left alone for so long.
        """
        if tokens is not None:
            known = self._usual or tokens
            self._usual = known + _USUAL_WEIGHT * (tokens - known)
        self._let_others_go(charge)
        if charge.is_counted:
            used = charge.tokens if tokens is None else tokens
            self._put_back(1.0 - requests, charge.tokens - used)
        self._learn(headers)
        if blocked is not None:
            self._correct(Correction(blocked=blocked))
            self._busy_until = max(self._busy_until, time.monotonic() + blocked.total_seconds())
            self._ask()

    def _learn(self, headers: Mapping[str, str]) -> None:
        told, left = amounts_in(headers, "limit"), amounts_in(headers, "remaining")
        if told not in {Amounts(), self._told}:
            self._told = told
            self._soon()
        # Told each time: another worker may have heard something else meanwhile.
        self._correct(Correction(told=told, left=left))

    def _correct(self, correction: Correction) -> None:
        self._correction = _both(self._correction, correction)

    def _put_back(self, requests: float, tokens: float) -> None:
        if not requests and not tokens:
            return
        self._correct(Correction(back=Amounts(requests=requests, tokens=tokens)))
        self._soon()

    def _soon(self) -> None:
        """Tell the fleet within the time a block may lie here, should no request come before."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._block_seconds, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._asking is None:
            self._ask()
        else:
            self._soon()

    def _ask(self) -> None:
        if self._asking is None:
            self._asking = asyncio.create_task(self._lease())

    async def _lease(self) -> None:
        try:
            while True:
                await self._lease_once()
                if not self._waiting:
                    return
        finally:
            self._asking = None

    async def _lease_once(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = [waiter for waiter in self._waiting if not waiter.is_gone]
        self._waiting.clear()
        more, sent = self._block(), self._taken_correction()
        try:
            lease = await self._store.lease(
                self._provider.name,
                [waiter.tokens for waiter in batch],
                more=more if batch else Amounts(),
                correction=sent,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits is told
            self._correction = _both(sent, self._correction)
            self._soon()
            for waiter in batch:
                _tell(waiter, error)
            return
        self._got(batch, lease)

    def _block(self) -> Amounts:
        """Return what was used since the last lease, if that was lately; at most a block."""
        now = time.monotonic()
        lately = now - self._leased_at <= self._block_seconds
        used = Amounts(requests=self._used_requests, tokens=self._used_tokens)
        self._leased_at, self._used_requests, self._used_tokens = now, 0.0, 0.0
        return _bounded(used, self._limits) if lately else Amounts()

    def _taken_correction(self) -> Correction:
        """Return what the fleet has to know, the unused block included, and forget it here."""
        stock = Amounts(requests=self._stock_requests, tokens=self._stock_tokens)
        found = _both(self._correction, Correction(back=stock))
        self._correction = Correction()
        self._stock_requests = self._stock_tokens = 0.0
        return found

    def _got(self, batch: list[_Waiter], lease: Lease) -> None:
        loop = asyncio.get_running_loop()
        self._limits = lease.limits
        self._stock_requests = lease.more.requests or 0.0
        self._stock_tokens = lease.more.tokens or 0.0
        if self._stock_requests or self._stock_tokens:
            self._soon()
        for waiter, turn in zip(batch, lease.turns, strict=True):
            waiter.is_charged = turn.is_taken
            if not turn.is_taken:
                _tell(waiter, RateLimited(max(turn.ahead, SHORTEST)))
            elif waiter.is_gone:
                self._put_back(1.0, waiter.tokens)
            else:
                loop.call_later(turn.wait.total_seconds(), _tell, waiter)

    def follow(self, view: View) -> None:
        """Take over what the fleet knows."""
        self._limits = view.limits
        self._busy_until = time.monotonic() + view.ahead.total_seconds()

    async def close(self) -> None:
        """Give back what was not used."""
        if self._asking is not None:
            await self._asking
        if self._correction != Correction() or self._stock_requests or self._stock_tokens:
            await self._lease_once()
        if self._timer is not None:
            self._timer.cancel()


def _tell(waiter: _Waiter, error: Exception | None = None) -> None:
    if waiter.turn.done():
        return
    if error is None:
        waiter.turn.set_result(None)
    else:
        waiter.turn.set_exception(error)


def _both(first: Correction, then: Correction) -> Correction:
    """Return what two corrections come to; where they cannot be added, the later one counts."""

    def later(one: Amounts, other: Amounts) -> Amounts:
        return other if other != Amounts() else one

    blocks = [b for b in (first.blocked, then.blocked) if b is not None]
    return Correction(
        back=Amounts(
            requests=(first.back.requests or 0.0) + (then.back.requests or 0.0),
            tokens=(first.back.tokens or 0.0) + (then.back.tokens or 0.0),
        ),
        told=later(first.told, then.told),
        left=later(first.left, then.left),
        blocked=max(blocks, default=None),
    )


def _bounded(used: Amounts, limits: Amounts) -> Amounts:
    def block(amount: float | None, limit: float | None) -> float:
        return 0.0 if limit is None else min(amount or 0.0, limit * BLOCK_SHARE)

    return Amounts(
        requests=block(used.requests, limits.requests), tokens=block(used.tokens, limits.tokens)
    )
