"""What is said at ``submit`` holds to the end; what is waited for or listed is there."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import BRIEFLY, Hooks, completed, pipeline_with, plain, running, until
from fix_postgres import connect
from sqlalchemy.dialects.postgresql.psycopg import dialect

from statemachine_pipeline.database.statements import documents as statements
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.errors import DocumentNotFound
from statemachine_pipeline.runner import loop

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.testing import Databases

    Psql = psycopg.Connection[Any]

ROWS = 100_000


async def test_metadata_is_with_the_document_wherever_it_shows(engine: AsyncEngine) -> None:
    """On the document, in a hook's claim and in a hit; nobody changes it on the way."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    metadata = {"customer": "alder", "pages": [1, 2], "draft": None}
    sent = await pipeline.submit(b"text", metadata=metadata)
    await completed(pipeline)
    assert (await pipeline.get(sent.document_id)).metadata == metadata
    assert [claim.document.metadata for claim in hooks.store_chunks.claims] == [metadata]
    (hit,) = await pipeline.search("text")
    assert hit.document.metadata == metadata
    with pytest.raises(TypeError):
        hit.document.metadata["customer"] = "birch"  # type: ignore[index]


async def test_priority_holds_at_every_stage(engine: AsyncEngine) -> None:
    """Smaller is taken first, by whole runners too and not only at the first claim."""
    hooks = Hooks()
    triggers = ("queue_parse", "finish_parse")
    one_by_one = {trigger: plain(getattr(hooks, trigger), concurrency=1) for trigger in triggers}
    pipeline = pipeline_with(engine, hooks, **one_by_one)
    for number in range(6):
        await pipeline.submit(b"%d" % number, name=str(number), priority=-number)
    for trigger in triggers:
        # A runner of one stage that holds one document: what it takes next is the claim's choice.
        await pipeline.runner(triggers=[trigger], documents=1).run_until_idle()
        taken = [claim.document.name for claim in getattr(hooks, trigger).claims]
        assert taken == ["5", "4", "3", "2", "1", "0"]


async def test_no_runner_begins_before_the_time(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``not_before``: the first transition of a worker comes after it, and it does come."""
    monkeypatch.setattr(loop, "PROMOTE_SECONDS", 0.02)
    pipeline = pipeline_with(engine)
    due = datetime.now(UTC) + timedelta(seconds=0.4)
    sent = await pipeline.submit(b"later", not_before=due)
    soon = await pipeline.submit(b"now")
    assert await completed(pipeline, sent.document_id, soon.document_id) == ["complete"] * 2
    first = "SELECT min(at) FROM transition WHERE trigger <> 'submit' AND document_id = %s"
    ((began,),) = psql.execute(first, [sent.document_id]).fetchall()
    assert due <= began


async def test_waiting_for_nothing_and_for_the_same_twice(engine: AsyncEngine) -> None:
    """As many documents come back as were named."""
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(b"text")
    await completed(pipeline)
    assert await pipeline.wait(timeout=BRIEFLY) == []
    twice = await pipeline.wait(sent.document_id, sent.document_id, timeout=timedelta(0))
    assert [one.state for one in twice] == ["complete"] * 2


async def test_a_timeout_says_where_the_others_stand(engine: AsyncEngine, psql: Psql) -> None:
    """And is kept, although a look takes time."""
    hooks = Hooks()
    hooks.finish_parse.block()
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"text")
    rests = await pipeline.submit(b"other")
    await pipeline.apply("cancel", rests.document_id, reason="test")
    async with running(pipeline, drain=timedelta(0)):
        await until(psql, "SELECT bool_or(state = 'parse_queued') FROM document")
        async with asyncio.timeout(BRIEFLY.total_seconds()):
            with pytest.raises(
                TimeoutError, match=r"1 of 2 documents does not rest after 0.1 s: 1 parse_queued"
            ):
                await pipeline.wait(
                    sent.document_id, rests.document_id, timeout=timedelta(seconds=0.1)
                )
        hooks.finish_parse.go_on()


async def test_a_document_that_is_not_there_is_not_waited_for(engine: AsyncEngine) -> None:
    """Named at once, beside any number of others."""
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(b"text")
    unknown = uuid.uuid4()
    with pytest.raises(DocumentNotFound, match=str(unknown)):
        await pipeline.wait(sent.document_id, unknown, timeout=BRIEFLY)
    with pytest.raises(DocumentNotFound, match=str(unknown)):
        await pipeline.documents(after=unknown)


async def test_pages_hold_each_document_once_while_others_come(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Documents of one instant are told apart by id; what comes meanwhile stands at the end."""
    pipeline = pipeline_with(engine)
    await pipeline.operations.submit_many(b"%d" % n for n in range(20))
    psql.execute("UPDATE document SET created_at = date_trunc('day', now())")
    seen: list[uuid.UUID] = []
    late = []
    while page := await pipeline.documents(after=seen[-1] if seen else None, limit=3):
        seen += [one.id for one in page]
        if len(late) < 5:
            late.append((await pipeline.submit(b"late %d" % len(late))).document_id)
    first = psql.execute("SELECT id FROM document ORDER BY created_at, id LIMIT 20").fetchall()
    assert seen == [row[0] for row in first] + late


@pytest.fixture(scope="module")
def large(smp_databases: Databases) -> Iterator[Psql]:
    """A hundred thousand documents, loaded without their histories."""
    url = smp_databases.make()
    with connect(url) as connection:
        connection.execute(
            "SET session_replication_role = replica; "
            "INSERT INTO smp.document (id, tenant, source_uri, name, state, version, life, "
            "generation, size_bytes, content_sha256, input_sha256, correlation_id, created_at) "
            "SELECT md5(n::text)::uuid, 't', n::text, 'n', 'complete', 1, 1, 1, 1, 's', 's', 'c', "
            f"now() + n / 7 * interval '1 ms' FROM generate_series(1, {ROWS}) AS n; "
            "ANALYZE smp.document"
        )
        yield connection
    smp_databases.drop(url)


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("place", [0, 90_000], ids=["first page", "late page"])
def test_a_page_is_read_by_its_index(large: Psql, mode: str, place: int) -> None:
    """However many documents there are, a page costs what a page costs."""
    compiled = statements.listing(tables("smp")).compile(dialect=dialect())
    ids = "SELECT id FROM smp.document ORDER BY created_at, id OFFSET %s LIMIT 1"
    ((after,),) = large.execute(ids, [place]).fetchall()
    given = {"state": None, "tenant": None, "after": after if place else None, "limit": 100}
    large.execute(f"SET plan_cache_mode = force_{mode}_plan")
    rows = large.execute(
        f"EXPLAIN (ANALYZE, FORMAT TEXT) {compiled}", given, prepare=True
    ).fetchall()
    plan = "\n".join(row[0] for row in rows)
    assert "Index Scan using document_created_at_id_idx" in plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan
