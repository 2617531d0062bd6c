"""Workers share what a provider lets them ask for, through one row of the database."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from budget import ENOUGH, measure
from fix_limited_server import LimitedServer
from fix_pipelines import BRIEFLY, hand, leap, pipeline_with, running, until, write

from statemachine_pipeline import (
    Budget,
    Done,
    Lifecycle,
    Pipeline,
    Provider,
    RateLimited,
    Stage,
    StageFault,
    State,
    report,
)
from statemachine_pipeline.adapters.openai import OpenAIEmbedder
from statemachine_pipeline.database.providers import Amounts, Correction, Providers
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.observability.metrics import Metrics
from statemachine_pipeline.resilience import access as accesses
from statemachine_pipeline.resilience.access import Access

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

YEAR = timedelta(days=365)
"""A ``per`` in which nothing flows in while a test runs."""
SPACIOUS = Budget(requests=1_000, tokens=10_000, per=YEAR, hold=2 * YEAR)


MADE: list[Access] = []
"""Workers of the test that runs."""


class Fleet:
    """Workers that share a budget, and what is left of it."""

    def __init__(
        self, engine: AsyncEngine, psql: psycopg.Connection[Any], budget: Budget = SPACIOUS
    ) -> None:
        self.provider = Provider("somebody", budget=budget)
        self.store, self._psql = Providers(engine, tables("smp")), psql
        self._engine = engine

    async def worker(self) -> Access:
        """Return a worker that has looked once, as each does at its start."""
        await self.store.know(self.provider)
        number = (await hand(pipeline_with(self._engine))).worker
        access = Access(self.provider, self.store, number, Metrics())
        MADE.append(access)
        await self.look(access)
        return access

    async def look(self, access: Access) -> None:
        """Let a worker learn how the provider stands."""
        (view,) = await self.store.look(["somebody"])
        access.follow(view, access.breaker.version)

    async def lease(self, *tokens: float, **more: Any) -> list[tuple[bool, float]]:
        """Take requests; return for each whether it was, and the share of ``per`` it waits."""
        lease = await self.store.lease("somebody", tokens, **more)
        return [
            (turn.is_taken, round(turn.wait / self.provider.budget.per, 3)) for turn in lease.turns
        ]

    def levels(self) -> tuple[int, int]:
        """Return what is left, of requests and of tokens."""
        row = self._psql.execute("SELECT requests_level, tokens_level FROM budget").fetchone()
        return round(row[0]), round(row[1])  # type: ignore[index]


@pytest.fixture(autouse=True)
async def ended(engine: AsyncEngine) -> AsyncIterator[None]:
    """End what workers do by themselves, as the end of a runner does."""
    yield
    for access in MADE:
        await access.close()
    MADE.clear()


@pytest.fixture
async def fleet(engine: AsyncEngine, psql: psycopg.Connection[Any]) -> Fleet:
    """A fleet with a budget of 1,000 requests and 10,000 tokens a year."""
    made = Fleet(engine, psql)
    await made.store.know(made.provider)
    return made


async def ask(access: Access, tokens: int = 0, *, used: int | None = None, **headers: str) -> None:
    """Make one request whose answer says so much."""
    async with access.request(tokens=tokens):
        if used is not None or headers:
            named = {f"x-ratelimit-{name.replace('_', '-')}": n for name, n in headers.items()}
            report(tokens=used, headers=named)


# One statement.


async def test_a_budget_is_full_at_first_and_promises_what_flows_in(fleet: Fleet) -> None:
    """90 % may be used at once, so that jitter causes no 429; later requests wait their turn."""
    assert await fleet.lease(5_000, 4_000) == [(True, 0.0), (True, 0.0)]
    assert await fleet.lease(1_000, 2_000) == [(True, 0.1), (True, 0.3)]
    assert fleet.levels() == (896, -3_000)


async def test_requests_count_as_well_as_tokens(fleet: Fleet) -> None:
    """Whichever is scarcer decides."""
    assert await fleet.lease(*[1] * 901) == [(True, 0.0)] * 900 + [(True, 0.001)]


async def test_a_large_request_is_not_overtaken_for_ever(fleet: Fleet) -> None:
    """Levels below zero make the fleet's order that of asking: the small ones behind it wait."""
    assert await fleet.lease(*[100] * 90) == [(True, 0.0)] * 90
    waits = [
        (await fleet.lease(100))[0][1],
        (await fleet.lease(9_000))[0][1],
        (await fleet.lease(100))[0][1],
    ]

    assert waits == [0.01, 0.91, 0.92]


async def test_what_would_wait_longer_than_hold_is_not_taken(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """The row is as before; ``hold`` counts what others took, so that size alone starves nobody."""
    fleet = Fleet(engine, psql, Budget(tokens=10_000, per=YEAR, hold=YEAR / 10))
    await fleet.store.know(fleet.provider)
    await fleet.lease(9_000)

    assert await fleet.lease(8_000, 100) == [(True, 0.8), (False, 0.81)]
    before = psql.execute("SELECT tokens_level FROM budget").fetchone()
    assert (await fleet.lease(100))[0][0] is False
    assert psql.execute("SELECT tokens_level FROM budget").fetchone() == pytest.approx(before)


async def test_what_is_given_back_never_fills_more_than_there_may_be(fleet: Fleet) -> None:
    """Unused tokens are added back; a debt is charged."""
    await fleet.lease(1_000)
    back = Correction(back=Amounts(requests=0.0, tokens=400.0))
    await fleet.lease(correction=back)
    assert fleet.levels() == (899, 8_400)
    await fleet.lease(correction=Correction(back=Amounts(requests=0.0, tokens=-500.0)))
    assert fleet.levels() == (899, 7_900)
    await fleet.lease(correction=Correction(back=Amounts(requests=500.0, tokens=99_999.0)))
    assert fleet.levels() == (900, 9_000)


async def test_a_block_is_taken_only_of_what_is_there(fleet: Fleet) -> None:
    """While it is scarce nobody takes more than is needed."""
    more = Amounts(requests=10.0, tokens=2_000.0)
    lease = await fleet.store.lease("somebody", [8_000.0], more=more)
    assert lease.more == Amounts(requests=10.0, tokens=pytest.approx(1_000.0, abs=1))
    lease = await fleet.store.lease("somebody", [100.0], more=more)
    assert lease.more.tokens == 0.0


async def test_lower_limits_that_the_provider_tells_are_adopted(fleet: Fleet) -> None:
    """The lower of setting and header counts; a header that rises again is followed."""
    lease = await fleet.store.lease(
        "somebody", [], correction=Correction(told=Amounts(requests=5_000.0, tokens=1_000.0))
    )
    assert lease.limits == Amounts(requests=1_000.0, tokens=1_000.0)
    assert fleet.levels() == (900, 900)
    told = Correction(told=Amounts(tokens=4_000.0))
    lease = await fleet.store.lease("somebody", [], correction=told)
    assert lease.limits == Amounts(requests=1_000.0, tokens=4_000.0)


async def test_what_the_provider_tells_last_counts_whichever_worker_heard_it(fleet: Fleet) -> None:
    """One that heard the same before says it again, since others heard something else meanwhile."""
    first, second = await fleet.worker(), await fleet.worker()
    for access, limit in ((first, "4000"), (second, "1000"), (first, "4000")):
        await ask(access, 1, limit_tokens=limit)
        await access.budget.close()
    (view,) = await fleet.store.look(["somebody"])
    assert view.limits.tokens == 4_000


async def test_a_limit_without_end_is_none(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """It would be infinite, and every wait no number."""
    fleet = Fleet(engine, psql, Budget(per=YEAR))
    access = await fleet.worker()
    await ask(access, 1, limit_tokens="9" * 400)
    await access.close()
    (view,) = await fleet.store.look(["somebody"])
    assert view.limits == Amounts()
    assert access.budget._correction == Correction()  # nothing that the database refuses is left


async def test_a_remainder_below_ours_says_that_somebody_else_uses_the_key(fleet: Fleet) -> None:
    """It lowers the level, and never raises it."""
    await fleet.lease(correction=Correction(left=Amounts(requests=10.0, tokens=300.0)))
    assert fleet.levels() == (10, 300)
    await fleet.lease(correction=Correction(left=Amounts(requests=800.0, tokens=8_000.0)))
    assert fleet.levels() == (10, 300)


async def test_a_429_blocks_the_provider_for_the_fleet(
    fleet: Fleet, psql: psycopg.Connection[Any]
) -> None:
    """Nobody asks until then, and afterwards they come at the rate, not all at once."""
    await fleet.lease(correction=Correction(blocked=YEAR / 2))

    assert await fleet.lease(1_000, 1_000) == [(True, 0.6), (True, 0.7)]
    (view,) = await fleet.store.look(["somebody"])
    assert (round(view.ahead / YEAR, 3), view.is_used_up) == (0.7, False)
    psql.execute("UPDATE budget SET hold_seconds = 1")
    (view,) = await fleet.store.look(["somebody"])
    assert view.is_used_up


async def test_the_numbers_of_the_newest_start_count(
    fleet: Fleet, psql: psycopg.Connection[Any]
) -> None:
    """All workers go by one row, so that a change needs no stop of the whole fleet."""
    budget = Budget(requests=None, tokens=500, per=timedelta(hours=1), hold=timedelta(seconds=1))
    await fleet.store.know(Provider("somebody", budget=budget))

    row = psql.execute(
        "SELECT requests_limit, tokens_limit, per_seconds, hold_seconds FROM budget"
    ).fetchone()
    assert row == (None, 500, 3_600, 1)


@pytest.mark.parametrize(
    "change", ["tokens_limit = 0", "requests_told = -1", "per_seconds = 0", "hold_seconds = -1"]
)
async def test_the_database_refuses_a_budget_that_makes_no_sense(
    fleet: Fleet, psql: psycopg.Connection[Any], change: str
) -> None:
    """Other programs may write to the table too."""
    with pytest.raises(psycopg.errors.CheckViolation):
        psql.execute(f"UPDATE budget SET {change}")  # type: ignore[arg-type]


async def test_leases_at_the_same_moment_are_all_counted(fleet: Fleet) -> None:
    """Each sees what the one before it left, however many wait for the row."""
    turns = await asyncio.gather(*(fleet.lease(10) for _ in range(200)))

    assert turns == [[(True, 0.0)]] * 200
    assert fleet.levels() == (700, 7_000)


# One worker.


async def test_what_was_not_used_is_given_back_and_more_is_charged(fleet: Fleet) -> None:
    """An estimate goes ahead; ``usage`` corrects it."""
    access = await fleet.worker()

    await ask(access, 1_000, used=300)
    await ask(access, 100, used=250)
    await access.close()

    assert fleet.levels() == (898, 8_450)


async def test_requests_without_an_estimate_take_as_many_as_those_before(fleet: Fleet) -> None:
    """Else a stage that does not know would ask for all at once, and be refused."""
    access = await fleet.worker()
    await ask(access, used=700)

    async with access.request():
        await access.budget.close()
        assert fleet.levels() == (898, 7_600)


async def test_the_first_request_without_an_estimate_goes_alone(fleet: Fleet) -> None:
    """The others wait to learn from it; one that ends without a word is not waited for again."""
    access, order = await fleet.worker(), []

    async def one(name: str, used: int | None) -> None:
        async with access.request():
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            report(tokens=used)
            order.append(f"{name} ends")

    await asyncio.gather(one("first", 2_000), one("second", 2_000), one("third", 2_000))
    await access.close()

    assert order[:2] == ["first begins", "first ends"]
    assert order[2:4] == ["second begins", "third begins"]
    assert fleet.levels() == (897, 3_000)


async def test_several_answers_within_one_attempt_are_several_requests(fleet: Fleet) -> None:
    """A hook may ask more than once."""
    access = await fleet.worker()

    async with access.request():
        for _ in range(3):
            report(tokens=100)
    await access.close()

    assert fleet.levels() == (897, 8_700)


async def test_a_request_larger_than_the_whole_budget_is_refused(fleet: Fleet) -> None:
    """It could never be made: the error names both numbers."""
    access = await fleet.worker()

    with pytest.raises(
        StageFault, match=r"of 10,001 tokens .* 'somebody' allows 10,000 in 365 days"
    ):
        await ask(access, 10_001)


async def test_waiters_of_one_worker_are_served_in_order(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """A large one in the middle too, with a minute of a tenth of a second."""
    fleet = Fleet(engine, psql, Budget(tokens=1_000, per=timedelta(seconds=0.1)))
    access, served = await fleet.worker(), []

    async def one(number: int, tokens: int) -> None:
        async with access.request(tokens=tokens):
            served.append(number)

    sizes = [900, 10, 10, 1_000, 10, 10, 1_000, 10]
    tasks = [asyncio.create_task(one(n, tokens)) for n, tokens in enumerate(sizes)]
    await asyncio.wait_for(asyncio.gather(*tasks), BRIEFLY.total_seconds())

    assert served == list(range(len(sizes)))


async def test_many_waiters_are_one_lease_and_the_block_serves_the_next(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the row is not hot."""
    access, leases = await fleet.worker(), []
    lease = fleet.store.lease

    async def counted(*given: Any, **more: Any) -> Any:
        leases.append(given)
        return await lease(*given, **more)

    monkeypatch.setattr(fleet.store, "lease", counted)
    await asyncio.gather(*(ask(access, 10) for _ in range(8)))
    first = len(leases)
    for _ in range(4):
        await asyncio.gather(*(ask(access, 10) for _ in range(8)))

    assert first == 1
    assert len(leases) <= first + 3
    await access.close()
    assert fleet.levels() == (860, 8_600)


async def test_one_that_is_stopped_while_it_waits_gives_its_turn_back(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """Those behind it come earlier."""
    fleet = Fleet(engine, psql, Budget(tokens=10_000, per=YEAR, hold=YEAR))
    access = await fleet.worker()
    await ask(access, 9_000)
    waiting = asyncio.create_task(ask(access, 5_000))
    await until(psql, "SELECT tokens_level < -4000 FROM budget")
    if access.budget._asking is not None:  # the answer has to be here too
        await access.budget._asking

    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await access.close()

    (level,) = psql.execute("SELECT round(tokens_level) FROM budget").fetchone()  # type: ignore[misc]
    assert level == 0


async def test_a_wait_that_is_too_long_gives_the_attempt_back(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """With the time at which its turn may come."""
    fleet = Fleet(engine, psql, Budget(tokens=10_000, per=YEAR, hold=timedelta(0)))
    access = await fleet.worker()
    await ask(access, 9_000)
    stuck = asyncio.create_task(ask(access, 1_000))
    await until(psql, "SELECT tokens_level < -900 FROM budget")

    with pytest.raises(RateLimited) as refused:
        await ask(access, 10)

    assert refused.value.after == pytest.approx(YEAR / 10, rel=0.01)
    stuck.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stuck


async def test_a_deadline_that_passes_before_its_turn_charges_nobody(
    engine: AsyncEngine, psql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for what others took is no failed attempt, and the turn is given back."""
    monkeypatch.setattr(accesses, "SHORTEST", YEAR)  # so that it is still deferred when we look
    asked = []

    async def hook(claim: Any) -> Done:
        asked.append(claim.document.id)
        return Done()

    budget = Budget(requests=1, per=YEAR, hold=2 * YEAR)
    stage = Stage(hook, provider=Provider("somebody", budget=budget), deadline=timedelta(minutes=1))
    pipeline = Pipeline(engine, lifecycle=Asking, hooks={"ask": stage}, schema="asks")
    await pipeline.migrate()
    await pipeline.submit(b"one")
    async with running(pipeline):
        await until(psql, "SELECT requests_level < -0.09 FROM asks.budget")
        leap(61)
        await until(psql, "SELECT lane = 'deferred' AND attempt = 0 FROM asks.work")
    assert asked == []
    assert psql.execute(
        "SELECT count(*) FROM asks.transition WHERE trigger = 'retry'"
    ).fetchone() == (0,)
    assert psql.execute("SELECT requests_level > 0.89 FROM asks.budget").fetchone() == (True,)


async def test_hooks_in_threads_report_too(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """A thread has no context of its own."""

    def ask_somebody(_: object) -> Done:
        report(tokens=120)
        return Done()

    pipeline = asking(engine, ask_somebody, Provider("somebody", budget=SPACIOUS))
    await pipeline.migrate()
    await pipeline.submit(b"one")

    await asyncio.wait_for(pipeline.runner().run_until_idle(), BRIEFLY.total_seconds())

    (standing,) = await pipeline.operations.breakers()
    assert standing.tokens is not None
    assert standing.tokens.level == pytest.approx(8_880, abs=1)
    assert standing.requests is not None
    assert standing.requests.level == pytest.approx(899, abs=0.1)


class Asking(Lifecycle):
    """One step, for which somebody is asked."""

    begun = State(initial=True)
    asked = State(final=True)
    ask = begun.to(asked)


def asking(engine: AsyncEngine, hook: Any, provider: Provider) -> Pipeline:
    """Return a pipeline of one stage, which asks somebody."""
    stage = Stage(hook, provider=provider)
    return Pipeline(engine, lifecycle=Asking, hooks={"ask": stage}, schema="asks")


async def test_nothing_is_claimed_while_the_provider_is_blocked(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """A 429 with a long Retry-After: given back once, claimed by nobody until then."""
    asked = []

    async def limited(claim: Any) -> Done:
        asked.append(claim.document.id)
        if len(asked) == 1:
            raise RateLimited(timedelta(hours=1))
        return Done()

    pipeline = asking(engine, limited, Provider("somebody"))
    await pipeline.migrate()
    await pipeline.submit(b"one")
    async with running(pipeline):
        await until(psql, "SELECT blocked_until > now() FROM asks.budget")
        later = (await pipeline.submit(b"two")).document_id
        with pytest.raises(TimeoutError):
            await pipeline.wait(later, timeout=timedelta(seconds=1.5))
        assert len(asked) == 1
        assert psql.execute("SELECT bool_and(attempt = 0) FROM asks.work").fetchone() == (True,)
        await write(psql, "UPDATE asks.budget SET blocked_until = NULL, taken_until = NULL")
        (rested,) = await pipeline.wait(later, timeout=BRIEFLY)
    assert rested.state == "asked"


async def test_the_embedder_tells_what_its_answers_said(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """``usage`` and headers, of refusals too: a provider without settings learns its limits."""
    with LimitedServer(requests=100, tokens=50) as server:
        embedder = OpenAIEmbedder("any", dimensions=2, base_url=f"{server.address}/v1")
        fleet = Fleet(engine, psql, Budget(per=timedelta(seconds=server.minute)))
        access = await fleet.worker()

        async with access.request():
            await embedder.embed(["one two three"])
        await access.close()
        limits = "SELECT requests_told, tokens_told FROM budget"
        assert psql.execute(limits).fetchone() == (100, 50)
        server.use(tokens=500)  # more than flows in before the next request, however slow we are
        with pytest.raises(RateLimited):
            async with access.request():
                await embedder.embed(["four five six"])
        await access.close()
        assert fleet.levels()[1] < 5


# A fleet of processes.


def test_four_workers_use_what_a_provider_allows_and_are_never_refused(empty_url: str) -> None:
    """At least 97 % of the tokens that flow in, and no 429 once warm; its minute has six seconds.

    ``tests/benchmarks/budget.py`` does the same with a real minute.
    """
    found = measure(empty_url, minute=6.0, minutes=1.5)

    assert found.share >= ENOUGH, found
    assert found.refused == 0, found
