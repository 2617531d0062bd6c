"""Handing documents over: recognised, whole or not at all, and never lost."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from fix_pipelines import completed, hand, path_of, pipeline_with, until_blocked
from sqlalchemy.ext.asyncio import AsyncSession

from statemachine_pipeline import sources
from statemachine_pipeline.adapters.intake import Intake
from statemachine_pipeline.decide import Failed
from statemachine_pipeline.errors import SourceRefused, StaleClaim
from statemachine_pipeline.records import Refused

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    Psql = psycopg.Connection[Any]

OWNED = ("document", "transition", "work", "blob")


def _counts(psql: Psql) -> tuple[int, ...]:
    found = (psql.execute(f"SELECT count(*) FROM {table}").fetchone() for table in OWNED)
    return tuple(row[0] for row in found if row)


async def test_a_new_document_is_written_whole(engine: AsyncEngine, psql: Psql) -> None:
    """Document, history, work and bytes appear together."""
    sent = await pipeline_with(engine).submit(b"text", name="a.txt", metadata={"k": ["v", 1]})
    assert (sent.outcome, sent.state) == ("new", "uploaded")
    assert _counts(psql) == (1, 1, 1, 1)
    document = await pipeline_with(engine).get(sent.document_id)
    assert (document.name, document.size_bytes, document.version) == ("a.txt", 4, 1)
    assert document.metadata == {"k": ["v", 1]}


async def test_the_same_bytes_again_move_nothing(engine: AsyncEngine, psql: Psql) -> None:
    """The same bytes again say ``unchanged``, wherever the document stands."""
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(b"text", source_uri="mem:a")
    rows = "SELECT document.xmin, work.xmin, document, work FROM document, work"
    before = psql.execute(rows).fetchall()
    again = await pipeline.submit(b"text", source_uri="mem:a", name="other", priority=3)
    assert (again.document_id, again.outcome) == (sent.document_id, "unchanged")
    assert psql.execute(rows).fetchall() == before
    assert await completed(pipeline, sent.document_id) == ["complete"]
    rested = await pipeline.submit(b"text", source_uri="mem:a")
    assert (rested.outcome, rested.state) == ("unchanged", "complete")
    await pipeline.apply("reprocess", sent.document_id, reason="look again")
    assert (await pipeline.submit(b"text", source_uri="mem:a")).outcome == "unchanged"


async def test_changed_bytes_begin_a_new_generation(engine: AsyncEngine, psql: Psql) -> None:
    """``revise`` begins the next life with the new bytes and moves the fence."""
    pipeline = pipeline_with(engine)
    worker = await hand(pipeline)
    sent = await pipeline.submit(b"old", source_uri="mem:a", metadata={"v": 1})
    claim, bound = await worker.claim_one("queue_parse")
    again = await pipeline.submit(b"new", source_uri="mem:a", name="b", metadata={"v": 2})
    assert (again.document_id, again.outcome) == (sent.document_id, "changed")
    document = await pipeline.get(sent.document_id)
    assert (document.generation, document.life, document.version) == (2, 2, 2)
    assert (document.name, document.size_bytes) == ("b", 3)
    assert document.metadata == {"v": 2}
    assert document.input_sha256 == document.content_sha256
    assert psql.execute("SELECT content FROM blob").fetchone() == (b"new",)
    assert path_of(psql, sent.document_id) == ["submit", "revise"]
    with pytest.raises(StaleClaim):
        await worker.store.take_key(claim, ("bytes", "0"))
    late = worker.propose(claim, bound, Failed(code="e", reason="r"))
    (answer,) = await worker.settle(late, alone=True)
    assert isinstance(answer, StaleClaim)
    assert await completed(pipeline, sent.document_id) == ["complete"]
    shown = psql.execute("SELECT text FROM chunk").fetchall()
    assert shown == [("new",)]


async def test_changed_bytes_wait_and_rank_like_new_ones(engine: AsyncEngine) -> None:
    """``not_before`` and ``priority`` hold for a revised document too."""
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(b"old", source_uri="mem:a")
    later = datetime.now(UTC) + timedelta(hours=1)
    await pipeline.submit(b"new", source_uri="mem:a", not_before=later)
    worker = await hand(pipeline)
    assert await worker.claim() == []
    assert (await pipeline.explain(sent.document_id)).lane == "deferred"


async def test_a_correlation_id_stands_on_every_history_row(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A correlation id given at submit is on every history row; one is made up otherwise."""
    pipeline = pipeline_with(engine)
    given = await pipeline.submit(b"one", correlation_id="order-7")
    made = await pipeline.submit(b"two")
    await completed(pipeline)
    await pipeline.apply("delete", given.document_id, reason="done with it")

    def ids(document: object) -> set[Any]:
        rows = psql.execute(
            "SELECT correlation_id FROM transition WHERE document_id = %s", [document]
        )
        return {row[0] for row in rows}

    assert ids(given.document_id) == {"order-7"}
    assert len(ids(made.document_id)) == 1
    assert re.fullmatch("[0-9a-f]{32}", *ids(made.document_id))


async def test_a_revision_has_the_correlation_id_it_was_given(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Rows of the new life carry the new id; older rows keep theirs."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"one", source_uri="mem:a", correlation_id="first")
    await pipeline.submit(b"two", source_uri="mem:a", correlation_id="second")
    rows = psql.execute("SELECT correlation_id FROM transition ORDER BY version").fetchall()
    assert rows == [("first",), ("second",)]


@pytest.mark.parametrize("kind", ["session", "connection"])
async def test_a_submit_in_a_callers_transaction_vanishes_with_it(
    engine: AsyncEngine, psql: Psql, kind: str
) -> None:
    """A rollback of the caller's leaves nothing, bytes included."""
    pipeline = pipeline_with(engine)
    made = AsyncSession(engine) if kind == "session" else engine.connect()
    async with made as session:
        sent = await pipeline.submit(b"text", session=session)
        assert sent.outcome == "new"
        await session.rollback()
    assert _counts(psql) == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", ["session", "connection"])
async def test_a_submit_in_a_callers_transaction_commits_with_it(
    engine: AsyncEngine, psql: Psql, kind: str
) -> None:
    """The document and the caller's own rows appear in one commit, not before."""
    psql.execute("CREATE TABLE public.contract (document_id uuid)")
    pipeline = pipeline_with(engine)
    made = AsyncSession(engine) if kind == "session" else engine.connect()
    async with made as session:
        sent = await pipeline.submit(b"text", session=session)
        await session.execute(
            sa.text("INSERT INTO public.contract VALUES (:id)"), {"id": sent.document_id}
        )
        assert _counts(psql) == (0, 0, 0, 0)
        await session.commit()
    assert _counts(psql) == (1, 1, 1, 1)
    assert psql.execute("SELECT document_id FROM public.contract").fetchone() == (sent.document_id,)
    assert await completed(pipeline, sent.document_id) == ["complete"]


async def test_a_revision_in_a_callers_transaction_vanishes_with_it(
    engine: AsyncEngine, psql: Psql
) -> None:
    """The old bytes stay when the caller rolls back."""
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(b"old", source_uri="mem:a")
    async with AsyncSession(engine) as session:
        again = await pipeline.submit(b"new", source_uri="mem:a", session=session)
        assert again.outcome == "changed"
        await session.rollback()
    assert psql.execute("SELECT content FROM blob").fetchone() == (b"old",)
    assert path_of(psql, sent.document_id) == ["submit"]


async def test_the_same_document_submitted_by_two_at_once_is_one(
    engine: AsyncEngine, psql: Psql
) -> None:
    """The second waits for the first, and then finds it unchanged."""
    pipeline = pipeline_with(engine)
    async with engine.connect() as first:
        assert (await pipeline.submit(b"text", session=first)).outcome == "new"
        second = asyncio.create_task(pipeline.submit(b"text"))
        await until_blocked(psql)
        await first.commit()
    assert (await second).outcome == "unchanged"
    assert _counts(psql) == (1, 1, 1, 1)


async def test_the_second_of_two_at_once_is_new_if_the_first_rolls_back(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A document is not taken for known because of one that vanished."""
    pipeline = pipeline_with(engine)
    async with engine.connect() as first:
        await pipeline.submit(b"text", session=first)
        second = asyncio.create_task(pipeline.submit(b"text"))
        await until_blocked(psql)
        await first.rollback()
    assert (await second).outcome == "new"
    assert _counts(psql) == (1, 1, 1, 1)


async def test_many_submitted_at_once_are_each_written_once(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Twenty callers, five documents, five rows."""
    pipeline = pipeline_with(engine)
    sent = await asyncio.gather(*(pipeline.submit(b"%d" % (n % 5)) for n in range(20)))
    assert sum(one.outcome == "new" for one in sent) == 5
    assert _counts(psql) == (5, 5, 5, 5)


async def test_a_document_is_not_claimed_before_its_time(engine: AsyncEngine, psql: Psql) -> None:
    """``not_before``: no worker takes it before this time."""
    pipeline = pipeline_with(engine)
    worker = await hand(pipeline)
    later = datetime.now(UTC) + timedelta(hours=1)
    sent = await pipeline.submit(b"text", not_before=later)
    assert await worker.claim() == []
    assert await worker.store.promote() == 0
    assert await worker.claim() == []
    explained = await pipeline.explain(sent.document_id)
    assert (explained.lane, explained.until) == ("deferred", later)
    psql.execute("UPDATE work SET run_at = now()")
    assert await worker.store.promote() == 1
    assert len(await worker.claim()) == 1


async def test_smaller_priority_is_taken_first(engine: AsyncEngine) -> None:
    """Then the one that came first."""
    pipeline = pipeline_with(engine)
    for name, priority in (("b", 0), ("late", 5), ("c", 0), ("early", -5)):
        await pipeline.submit(name.encode(), name=name, priority=priority)
    worker = await hand(pipeline)
    taken = [(await worker.claim("queue_parse", slots=1))[0][0].document.name for _ in range(4)]
    assert taken == ["early", "b", "c", "late"]


async def test_tenants_never_share_a_document(engine: AsyncEngine) -> None:
    """The same source of two tenants is two documents, and neither is a duplicate."""
    pipeline = pipeline_with(engine)
    ours = await pipeline.submit(b"text", source_uri="mem:a", tenant="ours")
    theirs = await pipeline.submit(b"text", source_uri="mem:a", tenant="theirs")
    assert theirs.outcome == "new"
    assert ours.document_id != theirs.document_id
    states = await completed(pipeline, ours.document_id, theirs.document_id)
    assert states == ["complete", "complete"]
    assert await pipeline.counts(tenant="ours") == {"complete": 1}
    hits = await pipeline.search("text", tenant="theirs")
    assert [hit.document.id for hit in hits] == [theirs.document_id]
    assert await pipeline.search("text", tenant="nobody") == []


async def test_more_bytes_than_are_stored_are_refused(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes over the limit are refused, naming it and what to do."""
    monkeypatch.setattr(sources, "BLOB_LIMIT_BYTES", 10)
    pipeline = pipeline_with(engine)
    with pytest.raises(SourceRefused, match=r"11 bytes.*more than the 10 .*submit its path"):
        await pipeline.submit(b"x" * 11)
    assert _counts(psql) == (0, 0, 0, 0)
    assert (await pipeline.submit(b"x" * 10)).outcome == "new"


async def test_a_larger_file_is_kept_by_its_path(
    engine: AsyncEngine, psql: Psql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A larger local file is kept by path, size and hash, and read from there."""
    monkeypatch.setattr(sources, "BLOB_LIMIT_BYTES", 10)
    file = tmp_path / "large.txt"
    file.write_text("one\n\ntwo and more\n\nthree")
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(file)
    assert psql.execute("SELECT count(*) FROM blob").fetchone() == (0,)
    assert psql.execute("SELECT path FROM document").fetchone() == (str(file),)
    assert (await pipeline.submit(file)).outcome == "unchanged"
    assert await completed(pipeline, sent.document_id) == ["complete"]
    file.write_text("other text, as long")
    assert (await pipeline.submit(file)).outcome == "changed"


@pytest.mark.parametrize("fate", ["changed", "gone"])
async def test_a_file_kept_by_path_that_changed_is_a_dead_letter(
    engine: AsyncEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    """Intake refuses a file that is no longer the one that was submitted."""
    monkeypatch.setattr(sources, "BLOB_LIMIT_BYTES", 10)
    file = tmp_path / "large.txt"
    file.write_text("more than ten bytes")
    pipeline = pipeline_with(engine, queue_parse=Intake())
    sent = await pipeline.submit(file)
    if fate == "changed":
        file.write_text("More than ten bytes")
    else:
        file.unlink()
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    document = await pipeline.get(sent.document_id)
    assert document.last_error is not None
    assert document.last_error.startswith("its file")
    (*_, last) = await pipeline.history(sent.document_id)
    assert (last.trigger, last.error) == ("fail", f"file_{fate}")


async def test_a_small_file_that_grew_is_kept_by_path_and_its_bytes_go(
    engine: AsyncEngine, psql: Psql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And back: what is stored is always what was submitted last."""
    monkeypatch.setattr(sources, "BLOB_LIMIT_BYTES", 10)
    file = tmp_path / "file.txt"
    pipeline = pipeline_with(engine)
    file.write_text("small")
    sent = await pipeline.submit(file)
    for content, blobs in (("has grown beyond it", 0), ("again", 1)):
        file.write_text(content)
        assert (await pipeline.submit(file)).outcome == "changed"
        assert psql.execute("SELECT count(*) FROM blob").fetchone() == (blobs,)
        assert (psql.execute("SELECT path IS NULL FROM document").fetchone() == (True,)) == (
            blobs == 1
        )
    assert await completed(pipeline, sent.document_id) == ["complete"]
    assert psql.execute("SELECT text FROM chunk").fetchall() == [("again",)]


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\windows\\x.txt", "dir/x.txt"])
async def test_a_name_is_shown_and_never_a_path(engine: AsyncEngine, name: str) -> None:
    """Only the last part of a name is kept."""
    sent = await pipeline_with(engine).submit(b"text", name=name)
    kept = (await pipeline_with(engine).get(sent.document_id)).name
    assert kept in {"passwd", "x.txt"}


@pytest.mark.parametrize("limit", [-1, 2**40])
async def test_a_page_has_a_number_of_rows(engine: AsyncEngine, limit: int) -> None:
    """A number that is none is named, and none of the driver's errors leaves."""
    pipeline = pipeline_with(engine)
    assert await pipeline.documents(limit=0) == []
    for asked in (pipeline.documents(limit=limit), pipeline.operations.events(limit=limit)):
        with pytest.raises(ValueError, match=f"limit={limit} is no number of rows; use 0 to"):
            await asked


@pytest.mark.parametrize("tenant", ["", " ", "\t", "a\x00b", "\ud800"], ids=ascii)
async def test_a_tenant_has_a_name_that_can_be_printed(engine: AsyncEngine, tenant: str) -> None:
    """Here as on the command line."""
    pipeline = pipeline_with(engine)
    with pytest.raises(SourceRefused, match=r"tenant .* is blank|that cannot be printed"):
        await pipeline.submit(b"text", tenant=tenant)
    (refused,) = await pipeline.operations.submit_many([b"text"], tenant=tenant)
    assert isinstance(refused, Refused)
