"""The providers of one schema: breakers that the fleet shares, and budgets it leases from."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.statements import budgets, providers
from statemachine_pipeline.database.statements.rows import leading

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.providers import Provider

BreakerState = Literal["closed", "open", "half_open"]
CHANGES_SHOWN = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Numbers of requests and of tokens; None where there is none."""

    requests: float | None = None
    tokens: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How one provider stands, as a worker has to know it.

    Attributes:
        state: Of its breaker.
        reason: Why it is not closed.
        opens_in: Time until one request may try it again; below zero once that has come.
        is_due: Nobody tries it, and somebody may.
        probe_worker: Who tries it.
        limits: What it lets the fleet ask for, the lower of settings and headers.
        ahead: How long those that were let through already use all of it.
        is_used_up: That is longer than a hook may be held.
    """

    provider: str
    state: BreakerState
    reason: str | None
    opens_in: timedelta
    is_due: bool
    probe_worker: int | None
    limits: Amounts
    ahead: timedelta
    is_used_up: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What was learned since a budget was last asked.

    Attributes:
        back: Put back where it is above zero, charged where it is below.
        told: The provider's own limits.
        left: What it says is left of them.
        blocked: It wants to be left alone for so long.
    """

    back: Amounts = Amounts(requests=0.0, tokens=0.0)
    told: Amounts = Amounts()
    left: Amounts = Amounts()
    blocked: timedelta | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """When one request may be made.

    Attributes:
        is_taken: Whether it was charged; else it would have to wait too long.
        wait: Until all of it is there.
        ahead: Until what others took before is there.
    """

    is_taken: bool
    wait: timedelta
    ahead: timedelta


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What a worker got of a budget.

    Attributes:
        turns: One for each request it asked for, in their order.
        more: Taken besides, for requests to come.
        limits: As of ``View``.
    """

    turns: tuple[Turn, ...]
    more: Amounts
    limits: Amounts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChange:
    """A breaker took another state.

    Attributes:
        reason: Why it is not closed.
        worker: The one that changed it.
    """

    state: BreakerState
    reason: str | None
    worker: int
    at: datetime


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much of a limit there is to use.

    Attributes:
        limit: Most in ``per_seconds``: the lower of the setting and what the provider says.
        level: What may be asked for at once; below zero when it was promised already.
    """

    limit: float
    level: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProviderStanding:
    """How one provider stands, as people want to know it.

    Attributes:
        state: Of its breaker: ``closed`` asks, ``open`` does not, ``half_open`` tries one request.
        reason: Why it is not closed.
        since: Since when it has not been.
        until: When one request tries it, or could have.
        probe_worker: The worker that tries it.
        requests: Its budget of requests; None without a limit.
        tokens: Its budget of tokens; None without a limit.
        per_seconds: The time that the limits are for.
        ahead_seconds: How long those that were let through already use all of it.
        blocked_until: It asked to be left alone until then.
        changes: Newest first, at most 10.
    """

    provider: str
    state: BreakerState
    reason: str | None
    since: datetime | None
    until: datetime | None
    probe_worker: int | None
    requests: Share | None
    tokens: Share | None
    per_seconds: float
    ahead_seconds: float
    blocked_until: datetime | None
    changes: tuple[BreakerChange, ...]


class Providers:
    """The providers of one schema.

    Every answer is by the database's clock; no worker's clock decides anything.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
    """

    def __init__(self, engine: AsyncEngine, t: Tables) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._t = t
        self._made: dict[Any, Any] = {}

    async def know(self, provider: Provider) -> None:
        """Make a provider known with its numbers; the newest start wins."""
        budget = provider.budget
        given = {
            "provider": provider.name,
            "requests_limit": budget.requests,
            "tokens_limit": budget.tokens,
            "per_seconds": budget.per.total_seconds(),
            "hold_seconds": budget.hold.total_seconds(),
        }
        with answering("making a provider known"):
            async with self._engine.connect() as connection:
                for statement in providers.know(self._t):
                    await connection.execute(statement, given)

    async def look(self, names: Collection[str]) -> list[View]:
        """Return how providers stand; one that is not known is left out."""
        return [_view(row) for row in await self._all(providers.look, names=list(names))]

    async def open(self, provider: str, worker: int, reason: str, open_for: timedelta) -> bool:
        """Open a breaker for all; False when it was open already."""
        given = {"why": reason, "open_seconds": open_for.total_seconds()}
        return await self._change(providers.open_breaker, provider, worker, **given)

    async def close(self, provider: str, worker: int) -> bool:
        """Close a breaker for all, after this worker's probe; False when it is no longer its."""
        return await self._change(providers.close_breaker, provider, worker)

    async def take_probe(
        self,
        provider: str,
        worker: int,
        served: Sequence[tuple[str, str]],
        lease: timedelta,
        *,
        suspect: bool = False,
    ) -> bool:
        """Take the one probe of a provider that was down, if it is due and a document waits for it.

        Args:
            provider: Its name.
            worker: Who takes it; when it dies, another one can.
            served: States where documents wait for the provider, and the stage each leads to.
            lease: How long it is this worker's.
            suspect: Look at documents that took a worker down, instead of the others.
        """
        given = {"lease": lease.total_seconds(), "suspect": suspect, **leading(served)}
        return await self._change(providers.take_probe, provider, worker, **given)

    async def give_probe_back(self, provider: str, worker: int) -> bool:
        """Let another document or worker try."""
        return await self._change(providers.give_probe_back, provider, worker)

    async def lease(
        self,
        provider: str,
        tokens: Sequence[float],
        *,
        more: Amounts = Amounts(),
        correction: Correction = Correction(),
    ) -> Lease:
        """Take requests of so many tokens each out of a budget, in this order; correct it first.

        Args:
            provider: Its name; one that is not known has no limits.
            tokens: One number for each request.
            more: What to take besides, as far as it is there now.
            correction: What was learned since.
        """
        blocked = correction.blocked
        given = {
            "name": provider,
            "asks": [float(number) for number in tokens],
            "blocked": None if blocked is None else blocked.total_seconds(),
            **_named("more", more, 0.0),
            **_named("back", correction.back, 0.0),
            **_named("told", correction.told),
            **_named("left", correction.left),
        }
        rows = await self._all(budgets.take, **given)
        if not rows:
            free = Turn(is_taken=True, wait=timedelta(0), ahead=timedelta(0))
            return Lease(turns=(free,) * len(tokens), more=Amounts(), limits=Amounts())
        return Lease(
            turns=tuple(_turn(row) for row in rows if row.place is not None),
            more=Amounts(requests=rows[0].more_requests, tokens=rows[0].more_tokens),
            limits=Amounts(requests=rows[0].requests, tokens=rows[0].tokens),
        )

    async def standings(self) -> list[ProviderStanding]:
        """Return every provider that a worker ever named, in order of their names."""
        rows = await self._all(providers.standings)
        found = await self._all(providers.changes, limit=CHANGES_SHOWN)
        changes = {
            name: tuple(
                BreakerChange(state=c.state, reason=c.reason, worker=c.worker, at=c.at)
                for c in group
            )
            for name, group in groupby(found, lambda row: row.provider)
        }
        return [_standing(row, changes.get(row.provider, ())) for row in rows]

    async def _change(self, statement: Any, provider: str, worker: int, **given: Any) -> bool:
        return bool(await self._all(statement, name=provider, me=worker, **given))

    async def _all(self, make: Any, **given: Any) -> Sequence[Any]:
        statement = self._made.get(make)
        if statement is None:
            # Made once: putting the longest together takes longer than running it.
            statement = self._made[make] = make(self._t)
        with answering("looking after providers"):
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, given)).all()


def _named(what: str, amounts: Amounts, default: float | None = None) -> Mapping[str, Any]:
    values = {"requests": amounts.requests, "tokens": amounts.tokens}
    return {f"{what}_{kind}": default if n is None else n for kind, n in values.items()}


def _view(row: Any) -> View:
    return View(
        provider=row.provider,
        state=row.state,
        reason=row.reason,
        opens_in=timedelta(seconds=row.opens_in),
        is_due=row.is_due,
        probe_worker=row.probe_worker,
        limits=Amounts(requests=row.requests, tokens=row.tokens),
        ahead=timedelta(seconds=row.ahead),
        is_used_up=row.is_used_up,
    )


def _turn(row: Any) -> Turn:
    return Turn(
        is_taken=row.is_taken,
        wait=timedelta(seconds=row.wait),
        ahead=timedelta(seconds=row.ahead),
    )


def _standing(row: Any, changes: tuple[BreakerChange, ...]) -> ProviderStanding:
    return ProviderStanding(
        provider=row.provider,
        state=row.state,
        reason=row.reason,
        since=row.opened_at,
        until=row.until,
        probe_worker=row.probe_worker,
        requests=_share(row.requests_limit, row.requests_level),
        tokens=_share(row.tokens_limit, row.tokens_level),
        per_seconds=row.per_seconds,
        ahead_seconds=row.ahead,
        blocked_until=row.blocked_until,
        changes=changes,
    )


def _share(limit: float | None, level: float | None) -> Share | None:
    return None if limit is None or level is None else Share(limit=limit, level=level)
