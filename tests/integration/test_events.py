"""The feed of events misses nothing, whatever commits late, and tells each document in order."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import BRIEFLY, completed, pipeline_with
from fix_postgres import connect

from statemachine_pipeline.errors import HistoryAhead

if TYPE_CHECKING:
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline import Pipeline
    from statemachine_pipeline.events import Event

    Psql = psycopg.Connection[Any]


async def told(pipeline: Pipeline, after: str | None = None, *, count: int = 0) -> list[Event]:
    """Return everything after a cursor, in pages of two, once it is at least ``count``.

    Whoever writes anywhere on the server holds back what is newer, autovacuum too. What was told
    once is told again.
    """
    found: list[Event] = []
    async with asyncio.timeout(BRIEFLY.total_seconds()):
        while True:
            while page := await pipeline.operations.events(after=after, limit=2):
                found += page
                after = page[-1].cursor
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)


def documents(events: list[Event]) -> list[UUID]:
    """Return whose events they are."""
    return [event.transition.document_id for event in events]


async def test_a_whole_life_is_told_in_order(engine: AsyncEngine) -> None:
    """Every transition, in its order, with names in the past tense; each cursor goes on behind."""
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(b"text")
    await completed(pipeline)
    await pipeline.apply("delete", sent.document_id, reason="test")
    history = await pipeline.history(sent.document_id)
    events = await told(pipeline, count=len(history))
    assert [event.transition for event in events] == history
    names = [event.name for event in events]
    assert (names[0], names[-2:]) == (
        "DocumentSubmitted",
        ["DocumentCompleted", "DocumentDeleted"],
    )
    for number, event in enumerate(events):
        assert await told(pipeline, event.cursor) == events[number + 1 :]


async def _submitted(pipeline: Pipeline, connection: AsyncConnection, text: bytes) -> UUID:
    return (await pipeline.submit(text, session=connection)).document_id


async def test_what_commits_late_is_not_missed(engine: AsyncEngine) -> None:
    """The trap of serial ids and times: the earlier row commits after the later one was read."""
    pipeline = pipeline_with(engine)
    async with engine.connect() as slow, engine.connect() as fast:
        first = await _submitted(pipeline, slow, b"first")
        second = await _submitted(pipeline, fast, b"second")
        await fast.commit()
        before = await told(pipeline)
        await slow.commit()
    assert documents(before) == []
    after = before[-1].cursor if before else None
    assert documents(await told(pipeline, after, count=2)) == [first, second]


async def test_a_transaction_that_runs_long_holds_back_only_what_is_newer(
    engine: AsyncEngine, psql: Psql, database_url: str
) -> None:
    """An event is told once no transaction that began to write before it still runs."""
    pipeline = pipeline_with(engine)
    old = (await pipeline.submit(b"old")).document_id
    with connect(database_url) as other, other.transaction():
        other.execute("CREATE TABLE public.elsewhere ()")
        new = (await pipeline.submit(b"new")).document_id
        assert documents(await told(pipeline, count=1)) == [old]
    assert documents(await told(pipeline, count=2)) == [old, new]


async def test_a_transaction_that_only_reads_holds_nothing_back(
    engine: AsyncEngine, database_url: str
) -> None:
    """Reports and dumps may run for hours."""
    pipeline = pipeline_with(engine)
    with connect(database_url) as other:
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM smp.document")
        new = (await pipeline.submit(b"new")).document_id
        assert documents(await told(pipeline, count=1)) == [new]


async def test_what_was_rolled_back_is_never_told(engine: AsyncEngine) -> None:
    """Nor does it leave a hole in which the reader waits."""
    pipeline = pipeline_with(engine)
    async with engine.connect() as connection:
        await _submitted(pipeline, connection, b"gone")
        await connection.rollback()
    kept = (await pipeline.submit(b"kept")).document_id
    assert documents(await told(pipeline, count=1)) == [kept]


async def test_from_now_on_tells_what_runs_and_what_comes(engine: AsyncEngine) -> None:
    """``now``: of transactions that run already everything, of those before nothing."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"before")
    await told(pipeline, count=1)  # else one that runs now may have begun before it
    async with engine.connect() as running:
        runs = await _submitted(pipeline, running, b"runs")
        cursor = await pipeline.operations.now()
        comes = (await pipeline.submit(b"comes")).document_id
        await running.commit()
    assert documents(await told(pipeline, cursor, count=2)) == [runs, comes]


@pytest.mark.parametrize("seed", range(5))
async def test_no_order_of_commits_hides_an_event(engine: AsyncEngine, seed: int) -> None:
    """Transactions that begin, write, end and are read in any order: each event is told once."""
    chance = random.Random(seed)
    pipeline = pipeline_with(engine)
    open_ones: list[AsyncConnection] = []
    written: dict[int, list[UUID]] = {}
    committed: set[UUID] = set()
    seen: list[Event] = []
    for number in range(60):
        step = chance.random()
        if step < 0.25 and len(open_ones) < 5:
            open_ones.append(await engine.connect())
        elif step < 0.55 and open_ones:
            one = chance.choice(open_ones)
            document = await _submitted(pipeline, one, b"%d" % number)
            written.setdefault(id(one), []).append(document)
        elif step < 0.8 and open_ones:
            one = open_ones.pop(chance.randrange(len(open_ones)))
            documents_of_it = written.pop(id(one), [])
            if chance.random() < 0.8:
                await one.commit()
                committed |= set(documents_of_it)
            await one.close()
        else:
            seen += await told(pipeline, seen[-1].cursor if seen else None)
    for one in open_ones:
        await one.close()
    rest = len(committed) - len(seen)
    seen += await told(pipeline, seen[-1].cursor if seen else None, count=rest)
    assert sorted(documents(seen)) == sorted(committed)
    assert len(committed) > 3
    assert seen == await told(pipeline)


async def test_a_follower_is_told_while_workers_work(engine: AsyncEngine) -> None:
    """``follow`` yields without an end; each document's versions come without a gap."""
    pipeline = pipeline_with(engine)
    versions: dict[UUID, list[int]] = {}

    async def follow() -> None:
        ended = 0
        async for event in pipeline.operations.follow(poll=timedelta(seconds=0.01)):
            versions.setdefault(event.transition.document_id, []).append(event.transition.version)
            ended += event.name == "DocumentCompleted"
            if ended == 20:
                return

    following = asyncio.create_task(follow())
    await pipeline.operations.submit_many(b"text %d" % n for n in range(20))
    await completed(pipeline)
    await asyncio.wait_for(following, BRIEFLY.total_seconds())
    assert len(versions) == 20
    assert all(seen == list(range(1, len(seen) + 1)) for seen in versions.values())


async def test_history_from_another_server_is_told_before_what_comes(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A restored dump carries that server's numbers: refused by name until ``migrate`` ran."""
    pipeline = pipeline_with(engine)
    old = (await pipeline.submit(b"old")).document_id
    (event,) = await told(pipeline, count=1)
    psql.execute(
        "SET session_replication_role = replica; UPDATE transition SET xact = xact + 1000000; "
        "RESET session_replication_role"
    )
    with pytest.raises(HistoryAhead, match="run `statemachine-pipeline migrate`"):
        await told(pipeline)
    with pytest.raises(HistoryAhead):
        await pipeline.operations.now()
    await pipeline.migrate()
    await pipeline.migrate()
    assert psql.execute("SELECT count(*) FROM restore").fetchone() == (1,)
    new = (await pipeline.submit(b"new")).document_id
    events = await told(pipeline, count=2)
    assert documents(events) == [old, new]
    assert events[0].transition == event.transition
    assert documents(await told(pipeline, events[0].cursor)) == [new]


async def test_a_page_is_read_by_its_index(psql: Psql) -> None:
    """A follower near the end reads what is new, not all of history."""
    psql.execute(
        "SET session_replication_role = replica; INSERT INTO transition (document_id, version, "
        "life, generation, trigger, to_state, correlation_id, xact) SELECT md5(n::text)::uuid, 1, "
        "1, 1, 'submit', 'uploaded', 'c', n / 100 FROM generate_series(1, 50000) AS n; "
        "RESET session_replication_role; ANALYZE transition"
    )
    from sqlalchemy.dialects.postgresql.psycopg import dialect

    from statemachine_pipeline.database.statements import feed
    from statemachine_pipeline.database.tables import tables

    compiled = feed.events(tables("smp")).compile(dialect=dialect())
    for mode in ("custom", "generic"):
        psql.execute(f"SET plan_cache_mode = force_{mode}_plan")
        given = {"xact": 450, "document": "0" * 32, "version": 0, "limit": 100}
        plan = psql.execute(
            f"EXPLAIN (ANALYZE, FORMAT TEXT) {compiled}", compiled.params | given
        ).fetchall()
        text = "\n".join(row[0] for row in plan)
        assert "transition_xact_idx" in text
        assert "Seq Scan on transition" not in text
