"""What goes wrong between a pipeline and its database, one at a time, through a real proxy."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import warnings
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from fix_pipelines import (
    BRIEFLY,
    HashEmbedder,
    Hooks,
    Told,
    completed,
    path_of,
    pipeline_with,
    plain,
    running,
    until,
    until_blocked,
    write,
)
from fix_postgres import connect
from loguru import logger
from sqlalchemy import exc
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from statemachine_pipeline import Done, Pipeline, PipelineError
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.database.timeouts import BoundedEngine, Timeouts, connecting
from statemachine_pipeline.database.workers import Workers
from statemachine_pipeline.errors import (
    DatabaseUnavailable,
    DefinitionError,
    NotHeard,
    PoolerInTheWay,
    SchemaMissing,
)
from statemachine_pipeline.liveness import Liveness
from statemachine_pipeline.observability import instruments
from statemachine_pipeline.observability.metrics import Metrics
from statemachine_pipeline.runner import chores, drive
from statemachine_pipeline.runner.heartbeat import Heartbeat
from statemachine_pipeline.runner.vitals import Vitals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fix_logs import Log
    from fix_proxy import Proxy
    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline import Claim

Psql = psycopg.Connection[psycopg.rows.TupleRow]

QUICK = Timeouts(
    connect=timedelta(seconds=2),
    statement=timedelta(seconds=1),
    lock=timedelta(seconds=0.5),
)


@contextlib.asynccontextmanager
async def through(proxy: Proxy, hooks: Hooks | None = None, **own: Any) -> AsyncIterator[Pipeline]:
    """Return a pipeline whose every connection goes through the proxy."""
    timeouts = own.pop("timeouts", Timeouts())
    made = create_async_engine(**connecting(proxy.url, timeouts))
    try:
        yield Pipeline(made, hooks=vars(hooks or Hooks()) | own, timeouts=timeouts)
    finally:
        await made.dispose()


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect here what was dropped with connections that died: psycopg warns of each."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the library logs, sentence by sentence."""
    logger.enable("statemachine_pipeline")
    lines: list[str] = []
    number = logger.add(
        lambda message: lines.append(message.record["message"]), level="INFO", diagnose=False
    )
    yield lines
    logger.remove(number)
    logger.disable("statemachine_pipeline")


WAY = [
    *("submit", "queue_parse", "finish_parse", "accept_parse", "store_chunks"),
    *("queue_embedding", "start_embedding", "store_embeddings", "finalize"),
]
"""What a document's history holds when it completed at the first try of everything."""


async def _until_said(said: list[str], words: str) -> None:
    async with asyncio.timeout(BRIEFLY.total_seconds()):
        while not any(words in line for line in said):  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.02)


# A commit with unknown outcome.


async def test_a_settle_whose_answer_is_lost_is_known_by_its_fence(
    proxy: Proxy, psql: Psql
) -> None:
    """A commit with unknown outcome is settled by re-reading the fence."""
    async with through(proxy) as pipeline:
        sent = await pipeline.submit(b"one\n\ntwo", source_uri="mem:a")
        proxy.cut_after("INSERT INTO smp.transition", times=2)
        proxy.cut_after("^COMMIT", times=3)
        assert await completed(pipeline, sent.document_id) == ["complete"]
        refused = pipeline.metrics.snapshot()
    assert proxy.cuts == 5
    assert not any(refused[one] for one in refused if "stale_writes" in one), "each was written"
    assert path_of(psql, sent.document_id) == WAY
    assert psql.execute("SELECT count(*) FROM chunk").fetchone() == (2,)


async def test_a_settle_that_never_arrived_is_written_once(proxy: Proxy, psql: Psql) -> None:
    """The same seen from here, and nothing was written: it is tried again."""
    async with through(proxy) as pipeline:
        sent = await pipeline.submit(b"one\n\ntwo", source_uri="mem:a")
        proxy.cut_before("INSERT INTO smp.transition", times=2)
        proxy.cut_before("^COMMIT", times=2)
        assert await completed(pipeline, sent.document_id) == ["complete"]
    assert proxy.cuts == 4
    assert path_of(psql, sent.document_id) == WAY


async def test_vectors_whose_commit_was_not_answered_are_not_paid_for_again(
    proxy: Proxy, psql: Psql
) -> None:
    """Finished embedding batches commit earlier, once each."""
    hooks = Hooks()

    class Cutting(HashEmbedder):
        async def embed(self, texts: Any) -> list[list[float]]:
            if not self.texts:
                proxy.cut_after("^COMMIT")
            return await super().embed(texts)

    hooks.store_embeddings = Cutting()
    async with through(proxy, hooks) as pipeline:
        sent = await pipeline.submit(b"one\n\ntwo\n\nthree", source_uri="mem:a")
        assert await completed(pipeline, sent.document_id) == ["complete"]
    assert proxy.cuts == 1
    assert sorted(hooks.store_embeddings.texts) == ["one", "three", "two"]
    assert path_of(psql, sent.document_id) == WAY


async def test_submit_and_apply_may_be_repeated_when_their_answer_was_lost(
    proxy: Proxy, psql: Psql
) -> None:
    """An accepted document is never lost, and nothing is doubled."""
    async with through(proxy) as pipeline:
        proxy.cut_after("^COMMIT")
        with pytest.raises(DatabaseUnavailable):
            await pipeline.submit(b"one", source_uri="mem:a")
        again = await pipeline.submit(b"one", source_uri="mem:a")
        assert again.outcome == "unchanged"
        await pipeline.apply("cancel", again.document_id, reason="test")
        proxy.cut_after("^COMMIT")
        with pytest.raises(DatabaseUnavailable):
            await pipeline.apply("requeue", again.document_id, reason="test")
        assert not (await pipeline.apply("requeue", again.document_id, reason="test")).moved
    assert path_of(psql, again.document_id) == ["submit", "cancel", "requeue"]


# Connections that are dead and do not say so.


async def test_nobody_waits_for_ever_on_a_dead_connection(proxy: Proxy) -> None:
    """What runs out of time raises, and its connection does not go back to the pool."""
    async with through(proxy, timeouts=QUICK) as pipeline:
        await pipeline.counts()
        proxy.freeze()
        async with asyncio.timeout(BRIEFLY.total_seconds()):
            with pytest.raises(DatabaseUnavailable):
                await pipeline.counts()
        opened = proxy.opened
        assert dict(await pipeline.counts()) == {}
        assert proxy.opened == opened + 1


async def test_a_connection_that_is_never_made_is_given_up(proxy: Proxy) -> None:
    """A server behind a dead address takes connections and says nothing."""
    proxy.freeze(new=True)
    async with through(proxy, timeouts=QUICK) as pipeline:
        async with asyncio.timeout(BRIEFLY.total_seconds()):
            with pytest.raises(DatabaseUnavailable):
                await pipeline.counts()


async def test_a_worker_whose_connections_all_died_goes_on_with_new_ones(
    proxy: Proxy, psql: Psql, engine: AsyncEngine
) -> None:
    """Documents in hand are finished, at the first attempt."""
    hooks = Hooks()
    hooks.accept_parse.block()
    async with through(proxy, hooks, timeouts=QUICK) as pipeline:
        sent = await pipeline.submit(b"one\n\ntwo", source_uri="mem:a")
        async with running(pipeline):
            await hooks.accept_parse.begun()
            proxy.freeze()
            hooks.accept_parse.go_on()
            await until(psql, "SELECT state = 'complete' FROM document")
    assert path_of(psql, sent.document_id) == WAY


async def test_a_hanging_beat_is_broken_off_and_the_worker_lives(proxy: Proxy, psql: Psql) -> None:
    """A dead connection is not a dead worker; that it did not answer is counted."""
    metrics = Metrics()
    made = create_async_engine(proxy.url)
    workers = Workers(made, tables("smp"))
    worker, fenced = await workers.register(), threading.Event()
    heart = Heartbeat(
        workers.pulse(),
        worker,
        # As long as a beat may take: less, and a busy machine would break off every one.
        interval=timedelta(seconds=0.5),
        dead_after=timedelta(hours=1),
        on_fenced=fenced.set,
        vitals=Vitals(metrics),
    )
    heart.start()
    newest = "SELECT max(beat_at) FROM worker"
    first = psql.execute(newest).fetchone()[0]
    await until(psql, "SELECT max(beat_at) > %s FROM worker", first)
    proxy.freeze()
    frozen = psql.execute("SELECT clock_timestamp()").fetchone()[0]
    await until(psql, "SELECT max(beat_at) > %s FROM worker", frozen)
    await asyncio.to_thread(heart.stop)
    assert not fenced.is_set()
    assert metrics.value(instruments.DATABASE_ERRORS)
    await made.dispose()


async def test_a_beat_whose_connection_has_died_takes_another_one_at_once(proxy: Proxy) -> None:
    """A server that was started anew meanwhile is well: nothing is to be told of."""
    made = create_async_engine(proxy.url)
    workers = Workers(made, tables("smp"))
    worker, pulse = await workers.register(), workers.pulse()
    assert await asyncio.to_thread(pulse.beat, worker, 0, None)
    proxy.cut()
    assert await asyncio.to_thread(pulse.beat, worker, 0, None)
    pulse.close()
    await made.dispose()


async def test_a_worker_is_fenced_in_time_though_its_beat_hangs(proxy: Proxy, log: Log) -> None:
    """'None for most of the dead limit means that others may have taken over', and it says so."""
    made = create_async_engine(proxy.url)
    workers = Workers(made, tables("smp"), Timeouts(connect=timedelta(minutes=5)))
    worker, fenced = await workers.register(), threading.Event()
    heart = Heartbeat(
        workers.pulse(),
        worker,
        interval=timedelta(seconds=0.2),
        dead_after=timedelta(seconds=1),
        on_fenced=fenced.set,
        vitals=Vitals(Metrics()),
    )
    # The new connection hangs too, for longer than the dead limit.
    proxy.freeze(new=True)
    heart.start()
    assert await asyncio.to_thread(fenced.wait, BRIEFLY.total_seconds())
    assert heart._beats.is_alive(), "the beat did not hang, so this shows nothing"
    (line,) = log.of("worker.fenced")
    assert "s the database heard nothing of it" in line["body"]
    proxy.cut()
    await asyncio.to_thread(heart.stop)
    await made.dispose()


async def test_a_listener_on_a_dead_connection_finds_out(proxy: Proxy) -> None:
    """A listener is as silent as one for whom there is nothing."""
    made = create_async_engine(proxy.url)
    workers = Workers(made, tables("smp"), QUICK)
    await workers.register()
    heard = workers.listen(probe_after=0.1)
    assert [await anext(heard), await anext(heard)] == [False, True]
    proxy.freeze()
    await made.dispose()  # so that what is sent is sent on a connection that works
    async with asyncio.timeout(BRIEFLY.total_seconds()):
        with pytest.raises(NotHeard):
            await anext(heard)
    await made.dispose()


# Waiting.


async def test_a_transaction_brings_its_timeouts_and_leaves_none_behind(
    engine: AsyncEngine,
) -> None:
    """Set locally: a pooler hands the same session to somebody else afterwards."""
    pipeline = Pipeline(engine, hooks=vars(Hooks()), timeouts=QUICK)
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

    async def settings(connection: AsyncConnection) -> list[str]:
        return [str((await connection.execute(sa.text(f"SHOW {n}"))).scalar()) for n in names]

    async with pipeline.engine.begin() as connection:
        assert await settings(connection) == ["1s", "500ms", "1s"]
        level = await connection.execute(sa.text("SHOW transaction_isolation"))
        assert level.scalar() == "read committed"
    async with engine.connect() as connection:
        assert await settings(connection) == ["0", "0", "0"]


async def test_an_attempt_waits_for_a_lock_without_keeping_a_connection(
    database_url: str, psql: Psql
) -> None:
    """Nothing of it is spent, and the only connection serves the others meanwhile."""
    hooks = Hooks()
    hooks.queue_parse.block()
    narrow = create_async_engine(database_url, pool_size=1, max_overflow=0)
    pipeline = Pipeline(narrow, hooks=vars(hooks), timeouts=Timeouts(lock=timedelta(seconds=0.5)))
    locked = (await pipeline.submit(b"one", source_uri="mem:a")).document_id
    async with running(pipeline):
        await hooks.queue_parse.begun()
        with connect(database_url) as other, other.transaction():
            other.execute("SELECT FROM smp.document WHERE id = %s FOR UPDATE", [locked])
            hooks.queue_parse.go_on()
            await until_blocked(psql)
            free = (await pipeline.submit(b"two", source_uri="mem:b")).document_id
            await until(psql, "SELECT state = 'complete' FROM document WHERE id = %s", free)
        await until(psql, "SELECT state = 'complete' FROM document WHERE id = %s", locked)
    assert path_of(psql, locked) == WAY
    assert len(hooks.queue_parse.claims) == 2
    await narrow.dispose()


async def _until_tried(tries: list[float], count: int) -> None:
    async with asyncio.timeout(BRIEFLY.total_seconds()):
        while len(tries) < count:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.02)


async def test_a_statement_timeout_too_low_to_claim_is_said_and_not_run_hot(
    database_url: str, psql: Psql, said: list[str]
) -> None:
    """The role's own timeout counts for a statement that is no transaction of several."""
    low = create_async_engine(database_url, poolclass=sa.NullPool)  # whose settings are the newest
    name = make_url(database_url).database
    tries: list[float] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "SKIP LOCKED" in statement and "picked AS" in statement:
            tries.append(time.monotonic())

    pipeline = pipeline_with(low)
    sent = await pipeline.submit(b"one", source_uri="mem:a")
    async with running(pipeline):
        await until(psql, "SELECT state = 'complete' FROM document")
        # Not before, when a busy machine may need more for what nobody holds up.
        psql.execute(f'ALTER DATABASE "{name}" SET statement_timeout = 40')
        sa.event.listen(low.sync_engine, "before_cursor_execute", note)
        # An idle worker asks every two seconds; at the second time its connection is a newer one.
        await _until_tried(tries, 2)
        with connect(database_url) as other, other.transaction():
            await write(other, "LOCK TABLE smp.work IN ACCESS EXCLUSIVE MODE")
            before = len(tries)
            await _until_tried(tries, before + 1)
            await asyncio.sleep(1.5)
            assert len(tries) - before < 8
            await _until_said(said, "statement timeout")
            psql.execute(f'ALTER DATABASE "{name}" RESET statement_timeout')
        await until(psql, "SELECT count(*) = 1 FROM worker")
    assert any("statement timeout" in line and "of the role" in line for line in said)
    assert path_of(psql, sent.document_id) == WAY
    await low.dispose()


class Raising:
    """A product that makes PostgreSQL raise an error of its choice, a few times."""

    def __init__(self, sql: str, times: int) -> None:
        self.sql, self.left = sql, times

    async def write(self, connection: AsyncConnection, _: Claim) -> None:
        if self.left:
            self.left -= 1
            await connection.execute(sa.text(self.sql))


AILS = ("25006", "25P03", "40001", "53100", "53200", "53300", "57P01", "57P03", "58030")


async def test_what_ails_the_database_is_not_charged_to_a_document(
    engine: AsyncEngine, psql: Psql
) -> None:
    """'No document is charged': tried again until it works, at the first attempt."""
    product = Raising("", 0)
    pipeline = pipeline_with(engine, finalize=_hook_for(product))
    async with running(pipeline):
        for code in AILS:
            product.sql = f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$"
            product.left = 1
            sent = (await pipeline.submit(code.encode(), source_uri=f"mem:{code}")).document_id
            await until(psql, "SELECT state = 'complete' FROM document WHERE id = %s", sent)
            assert product.left == 0, code
            assert path_of(psql, sent) == WAY, code


def _hook_for(product: object) -> Told:
    async def hook(_: Claim) -> Done:
        return Done(product)

    return Told(hook)


async def test_a_product_that_is_too_slow_to_write_fails_and_does_not_go_on_for_ever(
    engine: AsyncEngine, psql: Psql
) -> None:
    """'Only a product that cannot be written within ``statement`` counts as a failed one'."""
    slow = Raising("SELECT pg_sleep(30)", 100)
    hooks = vars(Hooks()) | {"finalize": plain(_hook_for(slow), attempts=1)}
    pipeline = Pipeline(engine, hooks=hooks, timeouts=QUICK)
    sent = await pipeline.submit(b"one", source_uri="mem:a")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    assert psql.execute("SELECT attempts FROM dead_letter").fetchone() == (1,)
    assert slow.left == 99


async def test_a_pool_of_one_is_enough_for_a_worker(database_url: str, psql: Psql) -> None:
    """Nothing that holds a connection asks for a second one."""
    narrow = create_async_engine(database_url, pool_size=1, max_overflow=0)
    pipeline = pipeline_with(narrow)
    texts = [f"text {n}\n\nof {n}".encode() for n in range(5)] + [b"text 1\n\nof 1"]
    sent = [(await pipeline.submit(t, source_uri=f"mem:{n}")) for n, t in enumerate(texts)]
    ends = await completed(pipeline, *(one.document_id for one in sent))
    assert sorted(ends) == ["complete"] * 5 + ["duplicate"]
    assert psql.execute("SELECT count(*) FROM transition WHERE trigger = 'retry'").fetchone() == (
        0,
    )
    await narrow.dispose()


class Refusing(AsyncAdaptedQueuePool):
    """A pool that counts how often nothing was left in it."""

    count = 0

    def _do_get(self) -> Any:
        try:
            return super()._do_get()
        except exc.TimeoutError:
            Refusing.count += 1
            raise


async def test_an_application_that_keeps_the_whole_pool_is_waited_for(
    database_url: str, psql: Psql
) -> None:
    """An exhausted pool is a database that does not answer: no attempt is spent."""
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
    narrow = create_async_engine(database_url, poolclass=Refusing, **options)
    hooks = Hooks()
    hooks.finish_parse.block()
    pipeline = pipeline_with(narrow, hooks)
    sent = await pipeline.submit(b"one", source_uri="mem:a")
    async with running(pipeline):
        await hooks.finish_parse.begun()
        async with AsyncSession(narrow) as session:
            while not session.in_transaction():
                with contextlib.suppress(exc.TimeoutError):  # the worker has it, for a moment
                    await session.execute(sa.text("SELECT 1"))
            hooks.finish_parse.go_on()
            with pytest.raises(DatabaseUnavailable, match="QueuePool limit"):
                await pipeline.counts()
            # The worker's, not only that of the test.
            refused = Refusing.count
            async with asyncio.timeout(BRIEFLY.total_seconds()):
                while Refusing.count < refused + 3:  # noqa: ASYNC110 - a pool has no event
                    await asyncio.sleep(0.02)
        await until(psql, "SELECT state = 'complete' FROM document")
    assert path_of(psql, sent.document_id) == WAY
    await narrow.dispose()


# A database that is away.


async def test_a_worker_tries_seldom_while_its_database_is_away_and_says_so_once(
    proxy: Proxy, psql: Psql, said: list[str]
) -> None:
    """A sick database is not hammered; what waits is done once it answers."""
    async with through(proxy) as pipeline:
        sent = await pipeline.submit(b"one", source_uri="mem:a")
        async with running(pipeline):
            await until(psql, "SELECT state = 'complete' FROM document")
            proxy.refuse()
            await _until_said(said, "keeps trying")
            before = proxy.refused
            await asyncio.sleep(2)
            tried = proxy.refused - before
            async with asyncio.timeout(BRIEFLY.total_seconds()):
                while not proxy.refused:  # noqa: ASYNC110 - a proxy has no event
                    await asyncio.sleep(0.02)
            proxy.refuse(refuses=False)
            await pipeline.apply("reprocess", sent.document_id, reason="again")
            await until(psql, "SELECT state = 'complete' AND life = 2 FROM document")
            await until(psql, "SELECT count(*) = 1 FROM worker")
            await _until_said(said, "answers again")
    assert tried <= 30
    assert len([line for line in said if "keeps trying" in line]) == 1
    assert len([line for line in said if "answers again" in line]) == 1


async def test_a_busy_worker_says_at_its_first_beat_that_the_database_is_gone(
    proxy: Proxy, log: Log
) -> None:
    """'Whoever notices first tells': the only slot is taken, so nobody looks for work."""
    hooks = Hooks()
    hooks.accept_parse.block()
    often = Liveness(beat=timedelta(seconds=0.2), dead_after=timedelta(hours=1))
    async with through(proxy, hooks) as pipeline:
        sent = await pipeline.submit(b"one", source_uri="mem:a")
        runner = pipeline.runner(documents=1, liveness=often)
        async with runner:
            await hooks.accept_parse.begun()
            proxy.refuse()
            await _until_said(log.texts, "database.lost")
            proxy.refuse(refuses=False)
            await _until_said(log.texts, "database.back")
            hooks.accept_parse.go_on()
            await pipeline.wait(sent.document_id, timeout=BRIEFLY)
    lost, back = log.of("database.lost")[0], log.of("database.back")[0]
    assert lost["body"].startswith("the database did not answer while saying that a worker lives")
    whose = {"pipeline": "smp", "worker_id": runner.worker}
    assert whose.items() <= lost.items()
    assert whose.items() <= back.items()


async def test_who_has_an_outcome_to_write_says_that_the_database_is_gone(
    proxy: Proxy, log: Log
) -> None:
    """'When its first beat or write is not answered': the beat is an hour away."""
    hooks = Hooks()
    hooks.accept_parse.block()
    seldom = Liveness(beat=timedelta(hours=1), dead_after=timedelta(hours=4))
    async with through(proxy, hooks) as pipeline:
        sent = await pipeline.submit(b"one", source_uri="mem:a")
        async with pipeline.runner(documents=1, liveness=seldom):
            await hooks.accept_parse.begun()
            proxy.refuse()
            hooks.accept_parse.go_on()
            await _until_said(log.texts, "database.lost")
            proxy.refuse(refuses=False)
            await pipeline.wait(sent.document_id, timeout=BRIEFLY)
            await _until_said(log.texts, "database.back")
    lost, *_ = log.of("database.lost")
    assert lost["document_id"] == str(sent.document_id)


async def test_a_run_until_idle_outlives_its_database_being_away(proxy: Proxy, psql: Psql) -> None:
    """It ends when everything is done, not when it cannot ask."""
    hooks = Hooks()
    hooks.finish_parse.block()
    async with through(proxy, hooks) as pipeline:
        sent = await pipeline.submit(b"one", source_uri="mem:a")
        ends = asyncio.create_task(completed(pipeline, sent.document_id))
        await hooks.finish_parse.begun()
        proxy.refuse()
        hooks.finish_parse.go_on()
        await asyncio.sleep(0.5)
        assert not ends.done()
        proxy.refuse(refuses=False)
        assert await ends == ["complete"]
    assert path_of(psql, sent.document_id) == WAY


async def test_a_database_that_is_not_there_is_told_at_once(database_url: str) -> None:
    """A clear error at the start, and no endless try."""
    url = make_url(database_url).set(database="nowhere").render_as_string(hide_password=False)
    async with Pipeline(url) as pipeline:
        with pytest.raises(DatabaseUnavailable, match='database "nowhere" does not exist'):
            await asyncio.wait_for(pipeline.runner().run(), BRIEFLY.total_seconds())


async def test_hooks_whose_reads_fail_give_their_attempt_back(proxy: Proxy, psql: Psql) -> None:
    """``claim.text()`` on a connection that breaks is not the hook's failure."""
    hooks = Hooks()
    hooks.accept_parse.block()
    async with through(proxy, hooks) as pipeline:
        sent = await pipeline.submit(b"one", source_uri="mem:a")
        async with running(pipeline):
            await hooks.accept_parse.begun()
            proxy.cut_before("FROM smp.parsed_document")
            hooks.accept_parse.go_on()
            await until(psql, "SELECT state = 'complete' FROM document")
    assert proxy.cuts == 1
    assert path_of(psql, sent.document_id) == WAY


# Ends.


async def test_a_hook_whose_database_never_answers_is_seen_and_does_not_run_hot(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be slow for one document only, or be a database of the hook's own."""
    assert timedelta(seconds=1) < drive.AGAIN
    monkeypatch.setattr(drive, "AGAIN", timedelta(hours=1))  # or it might be tried before we look
    hooks = Hooks()
    hooks.queue_parse.raises(*(DatabaseUnavailable("asking ours", "gone") for _ in range(100)))
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"text")
    waits = """SELECT lane = 'deferred' AND attempt = 0 AND run_at > now() + interval '1 minute'
        FROM work"""
    async with running(pipeline):
        await until(psql, waits)
        error = (await pipeline.get(sent.document_id)).last_error
        assert error == "the database did not answer while asking ours: gone"
        await write(psql, "UPDATE work SET run_at = now()")
        await until(psql, waits)
    assert len(hooks.queue_parse.claims) == 2
    assert path_of(psql, sent.document_id) == ["submit"]


async def test_a_second_stop_lets_what_is_being_written_be_written(
    engine: AsyncEngine, psql: Psql, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'The second call gives everything back at once', but a finished stage is not thrown away."""
    monkeypatch.setattr(drive, "WRITE_SECONDS", BRIEFLY.total_seconds())
    slow = Raising("SELECT pg_advisory_xact_lock(7)", 1)
    pipeline = pipeline_with(engine, finalize=_hook_for(slow))
    sent = await pipeline.submit(b"one", source_uri="mem:a")
    runner = pipeline.runner()
    run = asyncio.create_task(runner.run())
    with connect(database_url) as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(7)")
        await until_blocked(psql)
        runner.stop()
        runner.stop()
        await until(psql, "SELECT draining FROM worker")
    await asyncio.wait_for(run, BRIEFLY.total_seconds())
    assert path_of(psql, sent.document_id) == WAY
    assert engine.pool.checkedout() == 0


async def test_a_worker_that_cannot_leave_stops_beating_all_the_same(
    engine: AsyncEngine, psql: Psql, said: list[str]
) -> None:
    """Whatever ends badly, the heartbeat ends."""
    pipeline = pipeline_with(engine)
    runner = pipeline.runner()
    run = asyncio.create_task(runner.run())
    async with asyncio.timeout(BRIEFLY.total_seconds()):
        while runner.worker is None:  # noqa: ASYNC110 - before, it has nothing to leave
            await asyncio.sleep(0.01)
    await write(psql, "ALTER TABLE worker RENAME TO gone")
    runner.stop()
    with pytest.raises(SchemaMissing):
        await asyncio.wait_for(run, BRIEFLY.total_seconds())
    assert not [t for t in threading.enumerate() if t.name.endswith(f"-{runner.worker}")]
    assert any("could not leave" in line for line in said)


async def test_a_worker_that_gets_no_answer_when_it_leaves_says_so(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen server refuses nothing; what the worker held is as much others' to rescue."""
    monkeypatch.setattr(chores, "LEAVE_SECONDS", 0.01)
    await chores.attempt(asyncio.Event().wait, "worker 1 could not leave, and will be rescued")
    (line,) = log.of("worker.leaving_failed")
    assert line["body"].endswith("and will be rescued: no answer within 0.01 s")


# Poolers, clocks and sessions.


async def test_a_lost_prepared_statement_names_the_cure(database_url: str) -> None:
    """A pooler in transaction mode gives each transaction another connection."""
    made = create_async_engine(database_url, pool_size=1, max_overflow=0)
    workers = Workers(made, tables("smp"))
    for _ in range(10):
        await workers.register()
    async with made.begin() as connection:
        await connection.execute(sa.text("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"))
    with pytest.raises(PoolerInTheWay, match="prepare_threshold=none"):
        await workers.register()
    await made.dispose()


async def test_a_url_can_turn_prepared_statements_off(database_url: str) -> None:
    """The command line has nothing but a URL."""
    url = make_url(database_url).update_query_dict({"prepare_threshold": "none"})
    async with Pipeline(url.render_as_string(hide_password=False)) as pipeline:
        for _ in range(10):
            await pipeline.counts()
        async with pipeline.engine.connect() as connection:
            found = await connection.execute(sa.text("SELECT count(*) FROM pg_prepared_statements"))
            assert found.scalar() == 0
    with pytest.raises(DefinitionError, match="prepare_threshold='off' in the database URL must"):
        connecting("postgresql://db/x?prepare_threshold=off", Timeouts())


@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_a_connection_in_autocommit_is_refused(engine: AsyncEngine, kind: str) -> None:
    """A document is written by several statements, all or none."""
    pipeline = pipeline_with(engine)
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection, AsyncSession(autocommit) as session:
        given = connection if kind == "connection" else session
        with pytest.raises(PipelineError, match="commits every statement by itself"):
            await pipeline.submit(b"one", source_uri="mem:a", session=given)
    assert dict(await pipeline.counts()) == {}


async def test_a_connection_of_the_pipelines_own_engine_is_none_of_those(
    engine: AsyncEngine,
) -> None:
    """It is in a transaction, however that was begun."""
    pipeline = pipeline_with(engine)
    async with pipeline.engine.begin() as connection:
        await pipeline.submit(b"one", source_uri="mem:a", session=connection)
        await connection.rollback()
    async with pipeline.engine.connect() as connection:
        await pipeline.submit(b"two", source_uri="mem:b", session=connection)
        await connection.commit()
    assert dict(await pipeline.counts()) == {"uploaded": 1}


def test_timeouts_that_cannot_work_are_refused() -> None:
    """Bad input gets an error that names what was found."""
    with pytest.raises(ValueError, match="at least two seconds"):
        Timeouts(connect=timedelta(seconds=1))
    with pytest.raises(ValueError, match="less than statement"):
        Timeouts(lock=timedelta(minutes=3))


async def test_a_whole_pipeline_runs_through_pgbouncer_in_transaction_mode(
    pooled_url: str, psql: Psql, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """'Everything but LISTEN works through PgBouncer in transaction mode'."""
    timeouts = Timeouts(connect=timedelta(seconds=2))
    made = create_async_engine(**connecting(pooled_url + "&prepare_threshold=none", timeouts))
    hooks = Hooks()
    hooks.finish_parse.block()
    async with Pipeline(made, hooks=vars(hooks), timeouts=timeouts) as pipeline:
        texts = [f"one {n}\n\ntwo {n}".encode() for n in range(30)] + [b"one 1\n\ntwo 1"]
        async with running(pipeline):
            sent = [await pipeline.submit(t, source_uri=f"mem:{n}") for n, t in enumerate(texts)]
            # PgBouncer takes LISTEN and delivers nothing; that is found out, and said.
            await _until_said(said, "do not arrive")
            hooks.finish_parse.go_on()
            rests = "SELECT count(*) = 31 FROM document WHERE state IN ('complete', 'duplicate')"
            await until(psql, rests)
        await pipeline.apply("reprocess", sent[0].document_id, reason="test")
        assert (await completed(pipeline, sent[0].document_id)) == ["complete"]
        assert [hit.text for hit in await pipeline.search("two 7", limit=1)] == ["two 7"]
        await pipeline.apply("delete", sent[0].document_id, reason="test")
    assert psql.execute("SELECT count(*) FROM transition WHERE trigger = 'retry'").fetchone() == (
        0,
    )
    left = (
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' "
        "AND datname = current_database()"
    )
    assert psql.execute(left).fetchone() == (0,)
    await made.dispose()


async def test_without_that_setting_pgbouncer_gets_a_clear_error(pooled_url: str) -> None:
    """Poolers before 1.21, Debian's among them, lose prepared statements."""
    made = create_async_engine(pooled_url)
    workers = Workers(made, tables("smp"))

    async def often() -> None:
        for _ in range(20):
            await workers.register()

    ends = await asyncio.gather(*(often() for _ in range(8)), return_exceptions=True)
    told = [end for end in ends if isinstance(end, Exception)]
    assert told
    for error in told:
        assert isinstance(error, PoolerInTheWay), error
        assert "prepare_threshold=none" in str(error)
    await made.dispose()


async def test_a_pool_is_closed_after_what_cancelled_tasks_still_close(database_url: str) -> None:
    """A connection that comes back too late would stay open until it is collected."""
    made = BoundedEngine(create_async_engine(**connecting(database_url, Timeouts())), Timeouts())
    leaving, opened = asyncio.Event(), []

    async def work() -> None:
        async with made.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))
            opened.append((await connection.get_raw_connection()).driver_connection)
            leaving.set()

    task = asyncio.create_task(work())
    await leaving.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    await made.dispose()
    assert [one.closed for one in opened] == [True]
