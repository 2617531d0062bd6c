"""A provider that is down is asked by nobody, and tried by one request of the whole fleet."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pybreaker
import pytest
from fix_pipelines import (
    BRIEFLY,
    HashEmbedder,
    Hooks,
    hand,
    leap,
    pipeline_with,
    running,
    until,
    write,
)
from loguru import logger
from typer.testing import CliRunner

from statemachine_pipeline import (
    Breaker,
    Done,
    Lifecycle,
    Pipeline,
    PipelineError,
    Provider,
    RateLimited,
    Reject,
    Retry,
    Stage,
    StageFault,
    State,
    Wait,
)
from statemachine_pipeline.cli import app
from statemachine_pipeline.database.providers import Providers
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.failures import FailureRule
from statemachine_pipeline.observability import instruments
from statemachine_pipeline.observability.metrics import Metrics
from statemachine_pipeline.resilience.access import Access, Accesses
from statemachine_pipeline.resilience.breakers import ProviderClosed
from statemachine_pipeline.runner.children import ChildCrashed, ChildTimedOut, HookRaised
from statemachine_pipeline.symptoms import symptoms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONG = timedelta(hours=1)
TWICE = Provider("somebody", breaker=Breaker(failures=2, open_for=LONG))
WAITING = [("uploaded", "queue_parse")]
"""Where documents wait for the provider."""
DOWN = Retry("somebody failed")
DUE = "UPDATE asks.breaker SET until = now() - interval '1 second'"
"""Lets a request try the provider that was down."""


class Asking(Lifecycle):
    """One step, for which somebody is asked."""

    begun = State(initial=True)
    asked = State(final=True)
    ask = begun.to(asked)


MADE: list[Access] = []
"""Workers of the test that runs."""


class Fleet:
    """Workers of one provider that make requests when a test says so."""

    def __init__(self, engine: AsyncEngine, provider: Provider) -> None:
        self.store = Providers(engine, tables("smp"))
        self.provider, self._engine = provider, engine

    async def worker(self) -> Access:
        """Register one."""
        await self.store.know(self.provider)
        number = (await hand(pipeline_with(self._engine))).worker
        MADE.append(Access(self.provider, self.store, number, Metrics()))
        return MADE[-1]

    async def look(self, access: Access) -> Any:
        """Let a worker learn how the provider stands, as it does each second."""
        version = access.breaker.version
        (view,) = await self.store.look([self.provider.name])
        access.follow(view, version)
        return view


@pytest.fixture(autouse=True)
async def ended(engine: AsyncEngine) -> AsyncIterator[None]:
    """End what workers do by themselves, as the end of a runner does."""
    yield
    for access in MADE:
        await access.close()
    MADE.clear()


@pytest.fixture
def library_log() -> Iterator[list[str]]:
    """What the library logs, sentence by sentence."""
    logger.enable("statemachine_pipeline")
    lines: list[str] = []
    number = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    yield lines
    logger.remove(number)
    logger.disable("statemachine_pipeline")


@pytest.fixture
async def fleet(engine: AsyncEngine) -> Fleet:
    """A fleet whose provider counts as down after two failures."""
    return Fleet(engine, TWICE)


async def ends(access: Access, error: BaseException | None = None) -> None:
    """Make one request that ends so."""
    async with access.request():
        if error is not None:
            raise error


async def fails(access: Access, error: BaseException = DOWN, times: int = 1) -> None:
    """Make requests that raise; what they raise comes through as it is."""
    for _ in range(times):
        with pytest.raises(type(error)) as raised:
            await ends(access, error)
        assert raised.value is error


async def opened(fleet: Fleet) -> Access:
    """Return a worker that has just found its provider to be down."""
    access = await fleet.worker()
    await fails(access, times=2)
    return access


async def probing(fleet: Fleet, access: Access, psql: psycopg.Connection[Any]) -> bool:
    """Let a worker take the probe, once a document waits and the time has come."""
    psql.execute("UPDATE breaker SET until = now() - interval '1 second'")
    return await access.breaker.take_probe(WAITING, LONG, suspect=False)


def state(psql: psycopg.Connection[Any]) -> str:
    """Return what the fleet sees."""
    return str(psql.execute("SELECT state FROM breaker").fetchone()[0])  # type: ignore[index]


@pytest.fixture
async def waiting_document(engine: AsyncEngine) -> None:
    """A document waits for the provider."""
    await pipeline_with(engine).submit(b"one")


# The traps of pybreaker under asyncio.


async def test_a_request_that_fails_after_an_await_is_counted(
    fleet: Fleet, psql: psycopg.Connection[Any]
) -> None:
    """Trap: a coroutine that was merely returned looks like a success to pybreaker."""
    access = await fleet.worker()

    async def request() -> None:
        async with access.request():
            await asyncio.sleep(0)
            raise DOWN

    for _ in range(2):
        with pytest.raises(Retry):
            await request()

    assert state(psql) == "open"


def test_nothing_calls_what_needs_tornado() -> None:
    """Trap: ``call_async`` is for tornado, and a NameError without it."""
    from statemachine_pipeline.resilience import breakers

    assert "call_async" not in Path(breakers.__file__).read_text()


async def test_no_lock_is_held_while_a_provider_is_asked(fleet: Fleet) -> None:
    """Trap: ``call`` holds a lock, so that a second request would wait for the first."""
    access = await fleet.worker()
    both = asyncio.Barrier(2)

    async def request() -> None:
        async with access.request():
            await both.wait()

    await asyncio.wait_for(asyncio.gather(request(), request()), BRIEFLY.total_seconds())


async def test_a_stop_is_no_failure(fleet: Fleet, psql: psycopg.Connection[Any]) -> None:
    """Trap: pybreaker counts CancelledError, so that a shutdown would open the breaker."""
    access = await fleet.worker()

    for _ in range(3):
        with pytest.raises(asyncio.CancelledError):
            await ends(access, asyncio.CancelledError())

    assert state(psql) == "closed"


async def test_the_failure_that_opens_it_comes_through_as_it_is(fleet: Fleet) -> None:
    """Trap: pybreaker raises an error of its own over the one that says when to come back."""
    access = await fleet.worker()
    last = Retry("failed", after=timedelta(seconds=7))
    await fails(access)

    await fails(access, last)

    with pytest.raises(ProviderClosed):
        await ends(access)


@pytest.mark.usefixtures("waiting_document")
async def test_one_request_of_the_fleet_tries_a_provider_that_was_down(
    fleet: Fleet, psql: psycopg.Connection[Any]
) -> None:
    """Trap: pybreaker lets every caller through when it is half-open."""
    first, second = await opened(fleet), await fleet.worker()
    await fleet.look(second)

    assert await probing(fleet, first, psql)
    assert not await second.breaker.take_probe(WAITING, LONG, suspect=False)
    async with first.request():
        for access in (first, second):
            with pytest.raises(ProviderClosed):
                await ends(access)

    assert state(psql) == "closed"
    await ends(first)


async def test_failures_have_to_come_in_a_row(fleet: Fleet, psql: psycopg.Connection[Any]) -> None:
    """Trap, kept and documented: pybreaker counts consecutive failures only."""
    access = await fleet.worker()

    for _ in range(3):
        await fails(access)
        await ends(access)

    assert state(psql) == "closed"


async def test_every_worker_sees_a_breaker_that_one_opened(
    fleet: Fleet, psql: psycopg.Connection[Any]
) -> None:
    """Trap: pybreaker keeps its state in one process; a listener brings ours to the database."""
    second = await fleet.worker()
    await opened(fleet)

    view = await fleet.look(second)

    assert (view.state, view.reason) == (
        "open",
        "2 requests in a row failed, the last: somebody failed",
    )
    with pytest.raises(
        ProviderClosed, match="'somebody' is not asked for now: 2 requests in a row"
    ):
        await ends(second)
    psql.execute(
        "UPDATE breaker SET state = 'closed', reason = NULL, opened_at = NULL, until = NULL"
    )
    await fleet.look(second)
    await ends(second)


# What counts.


@pytest.mark.parametrize(
    "error",
    [
        RateLimited(timedelta(milliseconds=1)),
        Reject("no text"),
        StageFault("wrong key"),
        Wait(timedelta(seconds=1)),
        ValueError("a defect of the hook"),
        DatabaseUnavailable("reading", "gone"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_says_nothing_of_the_provider_neither_counts_nor_breaks_the_row(
    fleet: Fleet, psql: psycopg.Connection[Any], error: Exception
) -> None:
    """One bad document must not open the breaker of all others; nor may it hide failures."""
    access = await fleet.worker()

    await fails(access, error, times=3)
    assert state(psql) == "closed"
    await fails(access)
    await fails(access, error)
    await fails(access)

    assert state(psql) == "open"


class Answer:
    """As HTTP clients keep it in their errors."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


class StatusError(Exception):
    def __init__(self, status: int) -> None:
        self.response = Answer(status)
        super().__init__(status)


COUNTED: list[tuple[Exception, str]] = [
    (TimeoutError(), "open"),
    (ConnectionResetError(), "open"),
    (StatusError(503), "open"),
    (StatusError(408), "open"),
    (StatusError(400), "closed"),
    (StatusError(429), "closed"),
    (pybreaker.CircuitBreakerError(), "open"),
    (ExceptionGroup("both", [ValueError(), ConnectionResetError()]), "open"),
    (ExceptionGroup("both", [ValueError(), Reject("no")]), "closed"),
    (psycopg.errors.UniqueViolation(), "closed"),
    (MemoryError(), "closed"),
    (HookRaised(symptoms(StatusError(503), NOW), "", ""), "open"),
    (HookRaised(symptoms(ConnectionResetError(), NOW), "", ""), "open"),
    (HookRaised(symptoms(ValueError(), NOW), "", ""), "closed"),
    (ChildTimedOut(1.0), "open"),
    (ChildCrashed("died"), "closed"),
]


async def test_timeouts_connections_and_server_errors_count(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """Failures are what may pass by itself, whichever library tells it."""
    for number, (error, expected) in enumerate(COUNTED):
        provider = Provider(f"somebody {number}", breaker=TWICE.breaker)
        access = await Fleet(engine, provider).worker()

        await fails(access, error, times=2)

        query = "SELECT state FROM breaker WHERE provider = %s"
        found = psql.execute(query, [provider.name]).fetchone()
        assert (error, found) == (error, (expected,))


class Busy(Exception):
    """A client's own error."""


@pytest.mark.parametrize(
    ("kind", "expected", "is_blocked"),
    [
        ("transient", "open", False),
        ("permanent", "closed", False),
        ("rate_limited", "closed", True),
    ],
)
async def test_the_rules_of_a_stage_hold_for_its_provider_too(
    engine: AsyncEngine, psql: psycopg.Connection[Any], kind: Any, expected: str, is_blocked: bool
) -> None:
    """What they call this document's is no failure of the provider; what asks to wait blocks it."""
    asked = asyncio.Event()

    async def busy(_: object) -> Done:
        asked.set()
        raise Busy

    provider = Provider("somebody", breaker=Breaker(failures=1, open_for=LONG))
    rule = FailureRule(Busy, kind, wait=None if kind == "permanent" else LONG)
    stage = Stage(busy, provider=provider, failures=[rule], attempts=3)
    pipeline = Pipeline(engine, lifecycle=Asking, hooks={"ask": stage}, schema="asks")
    await pipeline.migrate()
    await pipeline.submit(b"one")
    async with running(pipeline):
        await asyncio.wait_for(asked.wait(), BRIEFLY.total_seconds())
        await until(psql, "SELECT count(*) = 0 FROM asks.work WHERE lane IN ('ready', 'claimed')")
    row = psql.execute(
        "SELECT state, coalesce(blocked_until > now(), false) FROM asks.breaker JOIN asks.budget"
        " USING (provider)"
    ).fetchone()
    assert row == (expected, is_blocked)


async def test_a_request_that_its_deadline_stops_has_failed(
    fleet: Fleet, psql: psycopg.Connection[Any]
) -> None:
    """A provider that hangs is down too, though all a hook sees is a CancelledError."""
    access = await fleet.worker()

    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01) as limit, access.request(is_late=limit.expired):
                await asyncio.Event().wait()

    assert state(psql) == "open"


# Opening and trying again.


async def test_what_was_under_way_when_it_opened_is_not_charged(
    fleet: Fleet, psql: psycopg.Connection[Any]
) -> None:
    """A failure while the breaker is open burns no attempt, nor does it keep it open longer."""
    access, go_on = await fleet.worker(), asyncio.Event()

    async def slow(error: Exception | None) -> None:
        async with access.request():
            await go_on.wait()
            if error is not None:
                raise error

    late = [asyncio.create_task(slow(DOWN)), asyncio.create_task(slow(None))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await fails(access, times=2)
    (before,) = psql.execute("SELECT until FROM breaker").fetchone()  # type: ignore[misc]
    go_on.set()
    failed, succeeded = await asyncio.gather(*late, return_exceptions=True)

    assert isinstance(failed, ProviderClosed)
    assert succeeded is None
    assert psql.execute("SELECT until FROM breaker").fetchone() == (before,)
    assert state(psql) == "open"


async def test_a_worker_that_opens_what_is_open_already_is_not_charged(fleet: Fleet) -> None:
    """Its own count was full a moment after another worker's."""
    second = await fleet.worker()
    await fails(second)
    await opened(fleet)

    with pytest.raises(ProviderClosed):
        await ends(second, DOWN)


@pytest.mark.usefixtures("waiting_document")
async def test_nobody_tries_before_the_databases_clock_says_so(
    fleet: Fleet, psql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers' clocks may be wrong by minutes; pybreaker would go by them."""
    access = await opened(fleet)

    class Later(pybreaker.datetime):  # type: ignore[name-defined,misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return super().now(tz) + timedelta(days=1)

    monkeypatch.setattr(pybreaker, "datetime", Later)

    assert not await access.breaker.take_probe(WAITING, LONG, suspect=False)
    with pytest.raises(ProviderClosed):
        await ends(access)
    assert await probing(fleet, access, psql)
    assert state(psql) == "half_open"


@pytest.mark.usefixtures("waiting_document")
async def test_a_probe_that_fails_opens_it_again_and_charges_nobody(
    fleet: Fleet, psql: psycopg.Connection[Any]
) -> None:
    """For ``open_for``; since when it is open stays as it was."""
    access = await opened(fleet)
    (since,) = psql.execute("SELECT opened_at FROM breaker").fetchone()  # type: ignore[misc]
    await probing(fleet, access, psql)

    with pytest.raises(ProviderClosed, match="the request that tried it failed") as refused:
        await ends(access, DOWN)

    assert refused.value.after > timedelta(minutes=59)
    row = psql.execute(
        "SELECT state, opened_at, until > now() + interval '59 minutes' FROM breaker"
    ).fetchone()
    assert row == ("open", since, True)


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), Reject("no")], ids=["stop", "one bad document"]
)
@pytest.mark.usefixtures("waiting_document")
async def test_a_probe_that_says_nothing_is_given_back(
    fleet: Fleet, psql: psycopg.Connection[Any], error: BaseException
) -> None:
    """Pybreaker would close: what it excludes counts as a success there."""
    first, second = await opened(fleet), await fleet.worker()
    await probing(fleet, first, psql)

    await fails(first, error)

    assert state(psql) == "open"
    assert await second.breaker.take_probe(WAITING, LONG, suspect=False)


@pytest.mark.usefixtures("waiting_document")
async def test_a_request_that_nobody_wants_any_more_says_nothing(
    fleet: Fleet, psql: psycopg.Connection[Any]
) -> None:
    """All its documents failed while it waited: it neither breaks the row nor closes anything."""
    access = await fleet.worker()
    await fails(access)
    async with access.request() as request:
        request.drop()
    await fails(access)
    assert state(psql) == "open"
    await probing(fleet, access, psql)
    async with access.request() as request:
        request.drop()
    assert state(psql) == "open"


@pytest.mark.usefixtures("waiting_document")
async def test_a_429_to_the_probe_says_that_the_provider_is_there(
    fleet: Fleet, psql: psycopg.Connection[Any]
) -> None:
    """Its budget waits then, and its breaker closes."""
    access = await opened(fleet)
    await probing(fleet, access, psql)

    await fails(access, RateLimited(timedelta(seconds=1)))

    assert state(psql) == "closed"


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE worker SET dead_at = now()",
        "DELETE FROM worker",
        "UPDATE breaker SET probe_until = now() - interval '1 second'",
    ],
    ids=["declared dead", "gone", "too long"],
)
@pytest.mark.usefixtures("waiting_document")
async def test_the_probe_of_a_worker_that_died_is_taken_over(
    fleet: Fleet, psql: psycopg.Connection[Any], end: str
) -> None:
    """Its lease ends with it; what it hears afterwards changes nothing."""
    first = await opened(fleet)
    await probing(fleet, first, psql)

    async with first.request():
        psql.execute(end)
        second = await fleet.worker()
        assert (await fleet.look(second)).is_due
        assert await second.breaker.take_probe(WAITING, LONG, suspect=False)

    assert state(psql) == "half_open"
    await ends(second)
    assert state(psql) == "closed"


async def test_nobody_takes_a_probe_while_no_document_waits(
    fleet: Fleet, psql: psycopg.Connection[Any]
) -> None:
    """Or it would be taken and given back each second."""
    access = await opened(fleet)

    assert not await probing(fleet, access, psql)
    assert state(psql) == "open"


@pytest.mark.parametrize(
    "obstacle",
    [
        "INSERT INTO pause (stage, reason, by) VALUES ('queue_parse', 'late', 'ann')",
        "INSERT INTO pause (tenant, reason, by) VALUES ('default', 'late', 'ann')",
        "UPDATE budget SET taken_until = now() + interval '1 hour'",
    ],
    ids=["stage", "tenant", "budget"],
)
@pytest.mark.usefixtures("waiting_document")
async def test_nobody_takes_a_probe_for_documents_that_may_not_be_claimed(
    fleet: Fleet, psql: psycopg.Connection[Any], obstacle: str
) -> None:
    """Paused, or asked to wait: else it would be taken and given back each second."""
    access = await opened(fleet)
    psql.execute(obstacle.encode())

    assert not await probing(fleet, access, psql)
    assert (await fleet.look(access)).is_due == ("budget" not in obstacle)


@pytest.mark.parametrize("failures", [1, 3])
async def test_failures_and_open_for_have_their_effect(
    engine: AsyncEngine, psql: psycopg.Connection[Any], failures: int
) -> None:
    """Both numbers of ``Breaker`` count."""
    own = Provider("own", breaker=Breaker(failures=failures, open_for=timedelta(minutes=10)))
    access = await Fleet(engine, own).worker()

    await fails(access, times=failures - 1)
    assert state(psql) == "closed"
    await fails(access)

    row = psql.execute("SELECT round(extract(epoch FROM until - opened_at)) FROM breaker")
    assert row.fetchone() == (600,)


async def test_what_cannot_be_told_is_told_later(
    fleet: Fleet, psql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that is away hides no breaker for good, and closes none."""
    access = await fleet.worker()

    async def away(*_: object, **__: object) -> bool:
        raise DatabaseUnavailable("opening", "gone")

    with monkeypatch.context() as patch:
        patch.setattr(fleet.store, "open", away)
        await fails(access, times=2)
    await fleet.look(access)
    with pytest.raises(ProviderClosed):
        await ends(access)
    assert state(psql) == "closed"

    await access.breaker.write()

    assert state(psql) == "open"


@pytest.mark.usefixtures("waiting_document")
async def test_changes_are_kept_and_bounded(fleet: Fleet, psql: psycopg.Connection[Any]) -> None:
    """Newest first, at most 100 of a provider."""
    access = await opened(fleet)
    await probing(fleet, access, psql)
    await ends(access)

    (standing,) = await fleet.store.standings()

    assert [change.state for change in standing.changes] == ["closed", "half_open", "open"]
    assert {change.worker for change in standing.changes} == {access.breaker._worker}
    psql.execute(
        "INSERT INTO breaker_change (provider, state, worker)"
        " SELECT 'somebody', 'open', 1 FROM generate_series(1, 300)"
    )
    await fails(access, times=2)
    assert psql.execute("SELECT count(*) FROM breaker_change").fetchone() == (100,)
    newest = "SELECT reason IS NOT NULL FROM breaker_change ORDER BY id DESC LIMIT 1"
    assert psql.execute(newest).fetchone() == (True,)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'ajar'",
        "state = 'open'",
        "reason = 'none'",
        "state = 'half_open', reason = 'r', opened_at = now(), until = now()",
        "probe_worker = 1",
    ],
)
async def test_the_database_refuses_a_breaker_that_makes_no_sense(
    fleet: Fleet, psql: psycopg.Connection[Any], change: str
) -> None:
    """Other programs may write to the table too."""
    await fleet.worker()

    with pytest.raises(psycopg.errors.CheckViolation):
        psql.execute(f"UPDATE breaker SET {change}")  # type: ignore[arg-type]


# With whole pipelines.


def asking(engine: AsyncEngine, hook: Callable[[Any], Any], provider: Provider) -> Pipeline:
    """Return a pipeline of one stage, which asks somebody."""
    stage = Stage(hook, provider=provider, attempts=3, concurrency=1)
    return Pipeline(engine, lifecycle=Asking, hooks={"ask": stage}, schema="asks")


class Somebody:
    """A service that is down until told otherwise."""

    def __init__(self) -> None:
        self.is_down, self.asked = True, 0

    async def __call__(self, _: object) -> Done:
        self.asked += 1
        if self.is_down:
            raise DOWN
        return Done()


async def attempts(psql: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Return attempts and codes that were charged."""
    return psql.execute(
        "SELECT trigger, error FROM asks.transition WHERE trigger = 'retry'"
    ).fetchall()


async def test_documents_wait_without_a_charge_and_complete_once_it_is_back(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """An open breaker stops claiming, burns no attempt, and lets one document try."""
    service = Somebody()
    pipeline = asking(
        engine, service, Provider("somebody", breaker=Breaker(failures=2, open_for=LONG))
    )
    await pipeline.migrate()
    documents = [(await pipeline.submit(str(n).encode())).document_id for n in range(6)]

    async with running(pipeline):
        await until(psql, "SELECT state = 'open' FROM asks.breaker")
        assert service.asked == 2
        # Two attempts of the first failures; nobody is charged for the probes that fail.
        for probes in (1, 2):
            await write(psql, DUE)
            await until(psql, "SELECT until > now() FROM asks.breaker")
            await until(psql, "SELECT bool_and(lane <> 'claimed') FROM asks.work")
            assert service.asked == 2 + probes
        assert len(await attempts(psql)) == 2
        service.is_down = False
        await write(psql, DUE)
        await write(psql, "UPDATE asks.work SET run_at = now() WHERE lane = 'deferred'")
        rested = await pipeline.wait(*documents, timeout=BRIEFLY)

    assert {document.state for document in rested} == {"asked"}
    assert len(await attempts(psql)) == 2
    assert service.asked == 2 + 2 + 6
    (standing,) = await pipeline.operations.breakers()
    assert (standing.state, standing.reason) == ("closed", None)


async def test_what_is_claimed_to_try_a_provider_counts_as_claimed(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """``smp_documents_claimed_total``: 'documents that were claimed', for whatever reason."""
    service, breaker = Somebody(), Breaker(failures=1, open_for=LONG)
    pipeline = asking(engine, service, Provider("somebody", breaker=breaker))
    await pipeline.migrate()
    document = (await pipeline.submit(b"one")).document_id
    async with running(pipeline):
        await until(psql, "SELECT state = 'open' FROM asks.breaker")
        await until(psql, "SELECT lane <> 'claimed' FROM asks.work")
        service.is_down = False
        await write(psql, DUE)
        await write(psql, "UPDATE asks.work SET run_at = now() WHERE lane = 'deferred'")
        await pipeline.wait(document, timeout=BRIEFLY)
    assert pipeline.metrics.value(instruments.CLAIMED, stage="ask") == service.asked == 2


async def test_running_until_idle_waits_for_a_provider_that_is_down(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """Neither does it end early, nor claim in vain."""
    service = Somebody()
    provider = Provider("somebody", breaker=Breaker(failures=1, open_for=LONG))
    pipeline = asking(engine, service, provider)
    await pipeline.migrate()
    await pipeline.submit(b"one")
    await pipeline.submit(b"two")
    loading = asyncio.create_task(pipeline.runner().run_until_idle())
    await until(psql, "SELECT state = 'open' FROM asks.breaker")
    (claims,) = psql.execute("SELECT last_value FROM asks.claim_seq").fetchone()  # type: ignore[misc]

    done, _ = await asyncio.wait({loading}, timeout=1.5)

    assert not done
    assert psql.execute("SELECT last_value FROM asks.claim_seq").fetchone()[0] <= claims + 2  # type: ignore[index]
    service.is_down = False
    await write(psql, DUE)
    await write(psql, "UPDATE asks.work SET run_at = now() WHERE lane = 'deferred'")
    assert await asyncio.wait_for(loading, BRIEFLY.total_seconds()) == {"asked": 2}


async def test_the_breaker_of_an_embedder_stops_no_parsing(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """One bad provider blocks what asks it, and nothing else."""
    embedder = HashEmbedder()
    down = Provider("embeddings", breaker=Breaker(failures=1, open_for=LONG))
    stage = Stage(embedder, provider=down)
    pipeline = pipeline_with(engine, Hooks(), store_embeddings=stage)
    embedder.faults.append(DOWN)
    await pipeline.submit(b"one")
    async with running(pipeline):
        await until(psql, "SELECT state = 'open' FROM breaker")
        later = (await pipeline.submit(b"two")).document_id
        waits = "SELECT lane <> 'claimed' AND attempt = 0 AND state LIKE 'embedding%%'"
        await until(psql, f"{waits} FROM work WHERE document_id = %s", later)
    assert embedder.texts == []


class Hanging(HashEmbedder):
    """An embedder whose service never answers.

    Attributes:
        begun: It was asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.texts += texts
        self.begun.set()
        await asyncio.Event().wait()
        raise AssertionError


async def test_an_embedder_that_hangs_is_down_too_and_its_probe_is_not_charged(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """The request of many documents is one failure; what tries it later costs nobody an attempt."""
    embedder = Hanging()
    down = Provider("embeddings", breaker=Breaker(failures=1, open_for=LONG))
    stage = Stage(embedder, provider=down, deadline=timedelta(minutes=1))
    pipeline = pipeline_with(engine, Hooks(), store_embeddings=stage)
    await pipeline.submit(b"one")
    async with running(pipeline):
        await asyncio.wait_for(embedder.begun.wait(), BRIEFLY.total_seconds())
        leap(61)
        await until(psql, "SELECT state = 'open' FROM breaker")
        charged = "SELECT count(*) FROM transition WHERE trigger = 'retry'"
        await until(psql, f"SELECT ({charged}) = 1")
        embedder.begun.clear()
        await write(psql, "UPDATE work SET run_at = now()")
        await write(psql, "UPDATE breaker SET until = now() - interval '1 second'")
        await asyncio.wait_for(embedder.begun.wait(), BRIEFLY.total_seconds())
        leap(61)
        await until(psql, "SELECT reason LIKE '%%tried it%%' AND until > now() FROM breaker")
        await until(psql, "SELECT bool_and(lane = 'deferred' AND attempt = 1) FROM work")
    assert embedder.texts == ["one", "one"]
    assert psql.execute(charged).fetchone() == (1,)


async def test_a_probe_is_one_of_the_documents_that_a_worker_may_have_in_hand(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """And goes first: else work at other stages could keep a provider down for ever."""
    hooks, embedder = Hooks(), Hanging()
    stage = Stage(embedder, provider=Provider("embeddings"))
    pipeline = pipeline_with(engine, hooks, store_embeddings=stage)
    await pipeline.submit(b"one")
    before = [t for t in pipeline.stages.earned if t not in {"store_embeddings", "finalize"}]
    async with running(pipeline, triggers=before):
        await until(psql, "SELECT state LIKE 'embedding%%' AND lane = 'ready' FROM work")
    psql.execute(
        "INSERT INTO breaker (provider, state, reason, opened_at, until)"
        " VALUES ('embeddings', 'open', 'it failed', now(), now())"
    )
    await pipeline.submit(b"two")
    hooks.queue_parse.block()
    async with running(pipeline, documents=1, drain=timedelta(0)):
        await until(psql, "SELECT count(*) > 0 FROM work WHERE lane = 'claimed'")
        await until(psql, "SELECT state = 'half_open' FROM breaker")
        await asyncio.sleep(0.5)
        found = psql.execute("SELECT state FROM work WHERE lane = 'claimed'").fetchall()
        assert found == [("embedding_in_progress",)]


async def test_only_a_document_that_took_a_worker_down_can_try_too(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """Else nothing would ever close the breaker when such documents alone are left."""
    service = Somebody()
    provider = Provider("somebody", breaker=Breaker(failures=1, open_for=LONG))
    pipeline = asking(engine, service, provider)
    await pipeline.migrate()
    document = (await pipeline.submit(b"one")).document_id
    async with running(pipeline):
        await until(psql, "SELECT state = 'open' FROM asks.breaker")
        await until(psql, "SELECT lane <> 'claimed' FROM asks.work")  # or the failure is to come
        service.is_down = False
        await write(psql, "UPDATE asks.work SET crashes = 1, alone = true, run_at = now()")
        await write(psql, DUE)
        (rested,) = await pipeline.wait(document, timeout=BRIEFLY)

    assert rested.state == "asked"


def test_a_stage_wants_a_provider_and_no_name() -> None:
    """A name alone would silently have numbers of its own."""
    with pytest.raises(
        PipelineError, match="'somebody' is no Provider; say Provider\\('somebody'\\)"
    ):
        Stage(Somebody(), provider="somebody")  # type: ignore[arg-type]


async def test_each_worker_logs_once_that_a_provider_is_down_and_is_back(
    fleet: Fleet, psql: psycopg.Connection[Any], library_log: list[str]
) -> None:
    """Whoever reads the log of any worker knows it, not only that of the one that was refused."""
    other = Accesses(fleet.store, (await fleet.worker()).breaker._worker, [TWICE], Metrics())
    await opened(fleet)

    for _ in range(2):
        await other.look()
    why = "2 requests in a row failed, the last: somebody failed"
    assert library_log == [f"provider 'somebody' is not asked for now: {why}"]
    psql.execute(
        "UPDATE breaker SET state = 'closed', reason = NULL, opened_at = NULL, until = NULL"
    )
    for _ in range(2):
        await other.look()
    assert library_log[1:] == ["provider 'somebody' is asked again"]


async def test_a_reason_is_stored_without_secrets_and_whatever_it_holds(fleet: Fleet) -> None:
    """Programs fill reasons too; one that PostgreSQL cannot hold would never reach the fleet."""
    access = await fleet.worker()
    await fails(access, Retry("a hole \x00, api_key=swordfish"), times=2)

    assert (await fleet.look(access)).reason.endswith("a hole \ufffd, api_key=***")


def test_the_command_line_shows_breakers_and_budgets(
    database_url: str, psql: psycopg.Connection[Any]
) -> None:
    """State, since and until when, why, and what is left; ``--json`` has the changes too."""
    psql.execute(
        "INSERT INTO breaker (provider, state, reason, opened_at, until) VALUES"
        " ('down', 'open', 'it failed', now(), now() + interval '1 minute');"
        "INSERT INTO breaker (provider) VALUES ('fine');"
        "INSERT INTO breaker_change (provider, state, reason, worker)"
        " VALUES ('down', 'open', 'it failed', 7);"
        "INSERT INTO budget (provider, tokens_limit, per_seconds, hold_seconds)"
        " VALUES ('down', 2000, 60, 10), ('fine', NULL, 60, 10)"
    )
    command = ["--database", database_url, "providers"]
    shown = CliRunner().invoke(app, command).stdout.splitlines()
    listed = CliRunner().invoke(app, [*command, "--json"]).stdout.splitlines()

    assert [line.split()[:2] for line in shown] == [
        ["PROVIDER", "BREAKER"],
        ["down", "open"],
        ["fine", "closed"],
    ]
    assert "1,800 of 2,000  it failed" in shown[1]
    down = json.loads(listed[0])
    assert down["tokens"] == {"limit": 2000.0, "level": 1800.0}
    assert [(c["state"], c["worker"]) for c in down["changes"]] == [("open", 7)]
