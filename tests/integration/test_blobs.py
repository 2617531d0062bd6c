"""Bytes in an object store: kept once, read by workers, erased with the last who refers to them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from child_functions import Measurer
from fix_blobs import ONE_TRY, objects_in
from fix_pipelines import (
    Hooks,
    Told,
    completed,
    pipeline_with,
    until,
    until_blocked,
)
from fix_postgres import connect
from obstore.store import LocalStore, S3Store
from sqlalchemy.ext.asyncio import AsyncSession

from statemachine_pipeline.adapters.blobs import ObjectBlobs
from statemachine_pipeline.adapters.intake import Intake
from statemachine_pipeline.blobs import PIECE_BYTES
from statemachine_pipeline.errors import (
    BlobsRefused,
    BlobsUnavailable,
    DefinitionError,
    PipelineError,
    SourceRefused,
)
from statemachine_pipeline.hooks import Done
from statemachine_pipeline.records import Child, ParsedText, Refused, Submitted
from statemachine_pipeline.retry import Constant
from statemachine_pipeline.stages import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Pipeline
    from statemachine_pipeline.hooks import Claim

    Psql = psycopg.Connection[Any]

NOW = timedelta(0)
PLACES = "SELECT sha256, content, key FROM blob ORDER BY document_id"


class Gate:
    """A store that stops before and after it writes or deletes, when a test says so."""

    def __init__(self, blobs: ObjectBlobs) -> None:
        self._blobs = blobs
        self.limit_bytes = blobs.limit_bytes
        self.before_put, self.after_put, self.before_delete = (asyncio.Event() for _ in range(3))
        self.reached = asyncio.Event()
        for gate in (self.before_put, self.after_put, self.before_delete):
            gate.set()

    async def put_if_absent(
        self, key: str, pieces: AsyncIterator[bytes], *, size_bytes: int
    ) -> None:
        await self._pass(self.before_put)
        await self._blobs.put_if_absent(key, pieces, size_bytes=size_bytes)
        await self._pass(self.after_put)

    def open(self, key: str, *, size_bytes: int) -> AsyncIterator[bytes]:
        return self._blobs.open(key, size_bytes=size_bytes)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._pass(self.before_delete)
        await self._blobs.delete(keys)

    async def _pass(self, gate: asyncio.Event) -> None:
        if not gate.is_set():
            self.reached.set()
            await gate.wait()


@pytest.fixture
def folder(tmp_path: Path) -> LocalStore:
    """An empty store in a folder."""
    return LocalStore(tmp_path / "store", mkdir=True)


async def test_bytes_are_in_the_store_and_not_in_the_database(
    engine: AsyncEngine, psql: Psql, blobs: ObjectBlobs, store: Any
) -> None:
    """With ``blobs`` all bytes go to the store, and workers read them there."""
    pipeline = pipeline_with(engine, blobs=blobs, queue_parse=Intake())
    sent = await pipeline.submit(b"some text", name="a.txt")
    ((_, content, key),) = psql.execute(PLACES).fetchall()
    assert (content, objects_in(store)) == (None, {key: b"some text"})
    assert await completed(pipeline, sent.document_id) == ["complete"]
    assert psql.execute("SELECT text FROM chunk").fetchall() == [("some text",)]


async def test_a_large_file_travels_in_pieces_and_is_parsed_from_a_file(
    engine: AsyncEngine, blobs: ObjectBlobs, store: Any, tmp_path: Path
) -> None:
    """The file the parser gets is whole, and gone when its attempt is over."""
    large = tmp_path / "large.txt"
    large.write_bytes(b"large file " * (2 * PIECE_BYTES // 11))
    seen: list[Path] = []

    async def digest(claim: Claim) -> ParsedText:
        source = await claim.source()
        assert source.data is None
        assert source.path is not None
        seen.append(source.path)
        return ParsedText(hashlib.sha256(source.path.read_bytes()).hexdigest())

    hooks = Hooks()
    hooks.finish_parse = Told(digest)
    hooks.finish_parse.raises(RuntimeError("once"))
    at_once = Stage(hooks.finish_parse, backoff=Constant(base=NOW))
    pipeline = pipeline_with(engine, hooks, blobs=blobs, queue_parse=Intake(), finish_parse=at_once)
    sent = await pipeline.submit(large)
    large.unlink()
    assert await completed(pipeline, sent.document_id) == ["complete"]
    document = await pipeline.get(sent.document_id)
    assert document.text_chars == 64
    assert [len(one) for one in objects_in(store).values()] == [document.size_bytes]
    assert [path.exists() for path in seen] == [False]
    assert len(hooks.finish_parse.claims) == 2


async def test_a_child_process_reads_the_file_of_a_large_object(
    engine: AsyncEngine, folder: LocalStore, tmp_path: Path
) -> None:
    """``run="process"``: a child has no store, and is given a file."""
    large = tmp_path / "large.txt"
    large.write_text("a line of text\n" * (PIECE_BYTES // 15 + 1))
    pipeline = pipeline_with(
        engine,
        blobs=ObjectBlobs(folder),
        queue_parse=Intake(),
        finish_parse=Stage(Measurer(), run="process"),
    )
    sent = await pipeline.submit(large)
    assert await completed(pipeline, sent.document_id) == ["complete"]
    assert (await pipeline.get(sent.document_id)).text_chars == len(str(PIECE_BYTES))


async def test_a_twin_and_a_retry_write_nothing_again(
    engine: AsyncEngine, psql: Psql, blobs: ObjectBlobs, store: Any
) -> None:
    """One object for the same bytes of one tenant; another tenant's have another key."""
    pipeline = pipeline_with(engine, blobs=blobs)
    for uri, tenant in (("mem:a", "ours"), ("mem:b", "ours"), ("mem:a", "theirs")):
        await pipeline.submit(b"text", source_uri=uri, tenant=tenant)
    assert (await pipeline.submit(b"text", source_uri="mem:a", tenant="ours")).outcome == (
        "unchanged"
    )
    assert len(objects_in(store)) == 2
    keys = "SELECT count(*), count(DISTINCT key), count(DISTINCT split_part(key, '/', 1)) FROM blob"
    assert psql.execute(keys).fetchone() == (3, 2, 2)


HOSTILE = [
    "../../etc/passwd",
    "/etc/passwd",
    "..\\..\\x",
    "a/../../b",
    "%2e%2e%2fx",
    "~root",
    "é\u202e",
]


async def test_a_key_is_made_of_hashes_whatever_a_caller_says(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    """Names, tenants and sources are never part of a key, so none leads out of the store."""
    root = tmp_path / "store"
    pipeline = pipeline_with(engine, blobs=root.as_uri())
    known: set[Path] = set()
    for text in HOSTILE:
        tenant = text if text.isprintable() else "é"  # others are refused
        await pipeline.submit(text.encode(), source_uri=text, name=text, tenant=tenant)
        (made,) = {path for path in tmp_path.rglob("*") if path.is_file()} - known
        known.add(made)
        key = made.relative_to(root).as_posix()
        assert re.fullmatch(r"[0-9a-f]{32}/[0-9a-f]{64}/[0-9a-f]{32}", key)
        assert hashlib.sha256(text.encode()).hexdigest() == key.split("/")[1]


@pytest.mark.parametrize("as_path", [True, False])
async def test_more_bytes_than_the_store_may_take_are_refused(
    engine: AsyncEngine, psql: Psql, folder: LocalStore, tmp_path: Path, as_path: bool
) -> None:
    """The limit is named, and nothing is stored anywhere."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder, limit_bytes=10))
    (tmp_path / "file").write_bytes(b"x" * 11)
    with pytest.raises(SourceRefused, match=r"11 bytes are more than the 10 .* `limit_bytes`"):
        await pipeline.submit(tmp_path / "file" if as_path else b"x" * 11)
    assert (objects_in(folder), psql.execute(PLACES).fetchall()) == ({}, [])
    assert (await pipeline.submit(b"x" * 10)).outcome == "new"


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "gone"])
async def test_a_file_that_changes_while_it_is_stored_is_refused(
    engine: AsyncEngine, psql: Psql, blobs: ObjectBlobs, store: Any, tmp_path: Path, change: str
) -> None:
    """The bytes under a hash are those that have it, or there are none."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * (2 * PIECE_BYTES))
    gate = Gate(blobs)
    gate.before_put.clear()
    sending = asyncio.create_task(pipeline_with(engine, blobs=gate).submit(file))
    await gate.reached.wait()
    if change == "gone":
        file.unlink()
    else:
        length = {"longer": 1, "shorter": -1, "other": 0}[change]
        file.write_bytes(b"y" + b"x" * (2 * PIECE_BYTES - 1 + length))
    gate.before_put.set()
    with pytest.raises(SourceRefused, match=r"changed while it was read|No such file"):
        await sending
    assert (objects_in(store), psql.execute(PLACES).fetchall()) == ({}, [])


async def test_many_are_stored_and_one_that_changes_meanwhile_is_refused_by_itself(
    engine: AsyncEngine, psql: Psql, blobs: ObjectBlobs, store: Any, tmp_path: Path
) -> None:
    """The others go on, those behind it too; what was refused left nothing."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * (PIECE_BYTES + 1))
    gate = Gate(blobs)
    gate.before_put.clear()
    operations = pipeline_with(engine, blobs=gate).operations
    sending = asyncio.create_task(operations.submit_many([b"first", file, b"last"]))
    await gate.reached.wait()
    file.unlink()
    gate.before_put.set()
    first, gone, last = await sending
    assert isinstance(gone, Refused)
    assert gone.source == str(file)
    assert [one.outcome for one in (first, last) if isinstance(one, Submitted)] == ["new", "new"]
    assert set(objects_in(store).values()) == {b"first", b"last"}
    kept = psql.execute("SELECT count(*) FROM blob WHERE content IS NULL").fetchone()
    assert kept == (2,)


async def test_many_in_a_session_vanish_with_it(
    engine: AsyncEngine, psql: Psql, folder: LocalStore
) -> None:
    """What they leave are objects for the sweep."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    async with AsyncSession(engine) as session:
        await pipeline.operations.submit_many([b"a", b"b"], session=session)
        await session.rollback()
    assert psql.execute("SELECT count(*) FROM document").fetchone() == (0,)
    assert len(objects_in(folder)) == 2
    assert await pipeline.operations.sweep(older_than=NOW) == 2


@pytest.mark.parametrize("kind", ["session", "connection"])
async def test_a_rollback_leaves_an_object_and_never_a_document_without_bytes(
    engine: AsyncEngine, psql: Psql, folder: LocalStore, kind: str
) -> None:
    """The object comes first and the row in the caller's transaction; the orphan is swept."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    made = AsyncSession(engine) if kind == "session" else engine.connect()
    async with made as session:
        assert (await pipeline.submit(b"text", session=session)).outcome == "new"
        assert len(objects_in(folder)) == 1
        await session.rollback()
    assert psql.execute("SELECT count(*) FROM document").fetchone() == (0,)
    assert await pipeline.operations.sweep() == 0
    assert len(objects_in(folder)) == 1
    assert await pipeline.operations.sweep(older_than=NOW) == 1
    assert objects_in(folder) == {}
    assert psql.execute("SELECT count(*) FROM blob_object").fetchone() == (0,)


async def test_a_commit_of_the_callers_makes_the_document(
    engine: AsyncEngine, psql: Psql, folder: LocalStore
) -> None:
    """With ``session`` as without: document and reference appear in one commit."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    async with AsyncSession(engine) as session:
        sent = await pipeline.submit(b"text", session=session)
        assert psql.execute("SELECT count(*) FROM document").fetchone() == (0,)
        await session.commit()
    assert await completed(pipeline, sent.document_id) == ["complete"]


async def test_no_connection_is_held_while_bytes_travel(
    engine: AsyncEngine, folder: LocalStore
) -> None:
    """An upload may take minutes; the pool is for others meanwhile."""
    gate = Gate(ObjectBlobs(folder))
    gate.before_put.clear()
    sending = asyncio.create_task(pipeline_with(engine, blobs=gate).submit(b"text"))
    await gate.reached.wait()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    gate.before_put.set()
    assert (await sending).outcome == "new"


async def test_a_revision_refers_to_its_new_bytes_and_the_old_are_swept(
    engine: AsyncEngine, psql: Psql, folder: LocalStore
) -> None:
    """And back to the database, when a pipeline without a store revises it."""
    stored = pipeline_with(engine, blobs=ObjectBlobs(folder))
    await stored.submit(b"old", source_uri="mem:a")
    await stored.submit(b"new", source_uri="mem:a")
    assert await stored.operations.sweep(older_than=NOW) == 1
    assert list(objects_in(folder).values()) == [b"new"]
    await pipeline_with(engine).submit(b"newer", source_uri="mem:a")
    ((_, content, key),) = psql.execute(PLACES).fetchall()
    assert (content, key) == (b"newer", None)
    again = await stored.submit(b"newest", source_uri="mem:a")
    assert await completed(stored, again.document_id) == ["complete"]


async def test_a_deleted_documents_bytes_are_erased_at_once(
    engine: AsyncEngine, psql: Psql, blobs: ObjectBlobs, store: Any
) -> None:
    """Unless another document of the tenant has them: then with the last one."""
    pipeline = pipeline_with(engine, blobs=blobs)
    first = await pipeline.submit(b"text", source_uri="mem:a")
    second = await pipeline.submit(b"text", source_uri="mem:b")
    other = await pipeline.submit(b"other")
    await pipeline.apply("delete", first.document_id, reason="asked for", dry_run=True)
    assert len(objects_in(store)) == 2
    await pipeline.apply("delete", first.document_id, reason="asked for")
    assert set(objects_in(store).values()) == {b"text", b"other"}
    await pipeline.apply("delete", second.document_id, reason="asked for")
    assert list(objects_in(store).values()) == [b"other"]
    again = await pipeline.submit(b"text", source_uri="mem:a")
    assert again.outcome == "changed"
    assert await completed(pipeline, again.document_id, other.document_id) == ["complete"] * 2


async def test_bytes_that_could_not_be_erased_wait_for_a_sweep(
    engine: AsyncEngine, folder: LocalStore
) -> None:
    """The documents are deleted all the same, and the sweep needs no patience."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    sent = await pipeline.submit(b"text")
    down = S3Store("b", **_nobody_there())
    applied = await pipeline.at(blobs=ObjectBlobs(down)).apply(
        "delete", sent.document_id, reason="asked for"
    )
    assert applied.moved == (sent.document_id,)
    assert len(objects_in(folder)) == 1
    await pipeline.operations.sweep()
    assert objects_in(folder) == {}


async def test_a_sweep_spares_what_is_referred_to_and_what_is_young(
    engine: AsyncEngine, folder: LocalStore
) -> None:
    """Whatever the age asked for, a document keeps its bytes."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    for number in range(3):
        await pipeline.submit(b"kept %d" % number)
    async with engine.connect() as connection:
        await pipeline.submit(b"orphan", session=connection)
        await connection.rollback()
    assert await pipeline.operations.sweep(older_than=timedelta(minutes=1)) == 0
    assert await pipeline.operations.sweep(older_than=NOW) == 1
    assert set(objects_in(folder).values()) == {b"kept 0", b"kept 1", b"kept 2"}


async def _orphan(pipeline: Pipeline, content: bytes) -> None:
    async with pipeline.engine.connect() as connection:
        await pipeline.submit(content, session=connection)
        await connection.rollback()


async def test_bytes_swept_before_their_document_is_written_are_stored_again(
    engine: AsyncEngine, folder: LocalStore
) -> None:
    """A submit that found its bytes present sees that they were given up, and starts over."""
    gate = Gate(ObjectBlobs(folder))
    pipeline = pipeline_with(engine, blobs=gate)
    await _orphan(pipeline, b"text")
    gate.after_put.clear()
    sending = asyncio.create_task(pipeline.submit(b"text"))
    await gate.reached.wait()
    assert await pipeline.operations.sweep(older_than=NOW) == 1
    assert objects_in(folder) == {}
    gate.after_put.set()
    sent = await sending
    assert list(objects_in(folder).values()) == [b"text"]
    assert await completed(pipeline, sent.document_id) == ["complete"]


async def test_bytes_stored_after_they_were_given_up_are_swept(
    engine: AsyncEngine, folder: LocalStore, psql: Psql
) -> None:
    """An upload may end after the last other document with its bytes was deleted."""
    gate = Gate(ObjectBlobs(folder))
    gate.before_put.clear()
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    sending = asyncio.create_task(pipeline_with(engine, blobs=gate).submit(b"text"))
    await gate.reached.wait()
    twin = await pipeline.submit(b"text", source_uri="mem:twin")
    await pipeline.apply("delete", twin.document_id, reason="asked for")
    assert objects_in(folder) == {}
    gate.before_put.set()
    await sending
    ((_, _, key),) = psql.execute(PLACES).fetchall()
    assert len(objects_in(folder)) == 2
    await pipeline.operations.sweep()
    assert objects_in(folder) == {key: b"text"}
    assert psql.execute("SELECT count(*) FROM blob_object").fetchone() == (2,)
    await pipeline.operations.sweep(older_than=NOW)
    assert psql.execute("SELECT key FROM blob_object").fetchall() == [(key,)]


async def test_bytes_are_not_swept_under_a_transaction_that_will_refer_to_them(
    engine: AsyncEngine, folder: LocalStore
) -> None:
    """From its submit on, an open transaction of the caller's holds them, however old they are."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    async with engine.connect() as connection:
        sent = await pipeline.submit(b"text", session=connection)
        assert await pipeline.operations.sweep(older_than=NOW) == 0
        await connection.commit()
    assert await pipeline.operations.sweep(older_than=NOW) == 0
    assert await completed(pipeline, sent.document_id) == ["complete"]


async def test_a_sweep_that_locked_before_a_submit_makes_it_wait_and_start_over(
    engine: AsyncEngine, folder: LocalStore, psql: Psql, database_url: str
) -> None:
    """The row decides: held first, it is skipped; given up first, the submit stores anew."""
    gate = Gate(ObjectBlobs(folder))
    pipeline = pipeline_with(engine, blobs=gate)
    gate.after_put.clear()
    sending = asyncio.create_task(pipeline.submit(b"text"))
    await gate.reached.wait()
    with connect(database_url) as sweeper, sweeper.transaction():
        sweeper.execute("SELECT key FROM smp.blob_object FOR UPDATE")
        gate.after_put.set()
        await until_blocked(psql)
        sweeper.execute("UPDATE smp.blob_object SET erasing = true")
    await sending
    keys = psql.execute("SELECT key, erasing FROM blob_object ORDER BY erasing").fetchall()
    assert [erasing for _, erasing in keys] == [False, True]
    await pipeline.operations.sweep()
    assert list(objects_in(folder)) == [keys[0][0]]


async def test_a_document_written_between_two_looks_of_a_sweep_keeps_its_bytes(
    engine: AsyncEngine, folder: LocalStore, psql: Psql
) -> None:
    """A reference that was committed before the lock is seen by the second look."""
    from statemachine_pipeline.database.statements import objects
    from statemachine_pipeline.database.tables import tables

    t = tables("smp")
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    await _orphan(pipeline, b"text")
    (key,) = objects_in(folder)
    await pipeline.submit(b"text")
    async with engine.begin() as connection:
        given_up = await connection.execute(objects.give_up(t), {"keys": [key]})
        assert given_up.all() == []


async def test_a_delete_that_arrives_late_hits_nobody(
    engine: AsyncEngine, folder: LocalStore
) -> None:
    """The process that deletes was frozen meanwhile: a key is never used twice."""
    gate = Gate(ObjectBlobs(folder))
    pipeline = pipeline_with(engine, blobs=gate)
    sent = await pipeline.submit(b"text")
    gate.before_delete.clear()
    deleting = asyncio.create_task(pipeline.apply("delete", sent.document_id, reason="asked for"))
    await gate.reached.wait()
    again = await pipeline_with(engine, blobs=ObjectBlobs(folder)).submit(b"text")
    assert len(objects_in(folder)) == 2
    gate.before_delete.set()
    await deleting
    assert list(objects_in(folder).values()) == [b"text"]
    assert await completed(pipeline, again.document_id) == ["complete"]


async def test_many_submits_deletes_and_sweeps_at_once_lose_no_bytes(
    engine: AsyncEngine, folder: LocalStore, psql: Psql
) -> None:
    """Whatever the order: each document that stands has its bytes, and no object is forgotten."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    busy = asyncio.Event()

    async def sweeps() -> None:
        while not busy.is_set():
            await pipeline.operations.sweep(older_than=timedelta(hours=1))

    async def comes_and_goes(number: int) -> None:
        for _ in range(6):
            # Who deletes its twins again and again may leave a submit no chance; it says so.
            with contextlib.suppress(BlobsUnavailable):
                sent = await pipeline.submit(b"text %d" % (number % 2), source_uri=f"mem:{number}")
                if number % 4:
                    await pipeline.apply("delete", sent.document_id, reason="asked for")

    sweeping = asyncio.create_task(sweeps())
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(comes_and_goes(number) for number in range(8)))
    finally:
        busy.set()
        await sweeping
    await pipeline.operations.sweep(older_than=NOW)
    referred = psql.execute(
        "SELECT key FROM document LEFT JOIN blob ON document_id = id WHERE state <> 'deleted'"
    ).fetchall()
    assert referred
    assert set(objects_in(folder)) == {key for (key,) in referred}


async def test_a_transaction_with_an_old_view_is_told_so_and_deletes_nothing(
    engine: AsyncEngine, folder: LocalStore
) -> None:
    """REPEATABLE READ sees no key that was announced after its snapshot; it is no lost key."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        await connection.execute(sa.text("SELECT count(*) FROM smp.document"))
        with pytest.raises(PipelineError, match="submit before anything else"):
            await pipeline.submit(b"text", session=connection)
    assert list(objects_in(folder).values()) == [b"text"]


async def _failed(pipeline: Pipeline, document: UUID) -> tuple[str, str | None]:
    assert await completed(pipeline, document) == ["dead_letter"]
    (*_, last) = await pipeline.history(document)
    return last.error or "", (await pipeline.get(document)).last_error


async def test_an_object_that_has_gone_is_a_dead_letter(
    engine: AsyncEngine, blobs: ObjectBlobs, store: Any
) -> None:
    """The store works and has others: no other try can help."""
    pipeline = pipeline_with(engine, blobs=blobs)
    sent = await pipeline.submit(b"text")
    (key,) = objects_in(store)
    await pipeline.submit(b"another")
    await blobs.delete([key])
    code, reason = await _failed(pipeline, sent.document_id)
    assert (code, reason) == (
        "bytes_gone",
        "its bytes are no longer in the object store; submit it again",
    )


@pytest.mark.parametrize("now", [b"Text", b"tex", b"text and more"])
async def test_an_object_with_other_bytes_is_a_dead_letter(
    engine: AsyncEngine, psql: Psql, folder: LocalStore, now: bytes
) -> None:
    """What is read is checked: somebody wrote to the store by hand."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    sent = await pipeline.submit(b"text")
    (key,) = objects_in(folder)
    folder.put(key, now)
    # Longer is not read further than the document is long.
    if len(now) > len(b"text"):
        assert await completed(pipeline, sent.document_id) == ["complete"]
        return
    code, _ = await _failed(pipeline, sent.document_id)
    assert code == "bytes_changed"


async def test_a_store_that_is_down_is_tried_again(
    engine: AsyncEngine, psql: Psql, folder: LocalStore
) -> None:
    """Transient: an attempt is counted, and the next one waits at least half a minute."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    sent = await pipeline.submit(b"text")
    down = pipeline.at(blobs=ObjectBlobs(S3Store("b", **_nobody_there())))
    async with down.runner():
        await until(psql, "SELECT lane = 'deferred' FROM work")
    explained = await pipeline.explain(sent.document_id)
    assert explained.document.last_error == "the object store did not answer"
    assert explained.attempt == 1
    psql.execute("UPDATE work SET run_at = now(), lane = 'ready'")
    assert await completed(pipeline, sent.document_id) == ["complete"]


@pytest.mark.parametrize("why", ["no store", "another store"])
async def test_a_worker_without_the_store_charges_no_document(
    engine: AsyncEngine, psql: Psql, folder: LocalStore, tmp_path: Path, why: str
) -> None:
    """Its configuration is at fault: the stage is paused, with the reason, and goes on later."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    sent = await pipeline.submit(b"text")
    wrong = pipeline_with(engine, blobs=None if why == "no store" else (tmp_path / "x").as_uri())
    async with wrong.runner():
        reason = await until(psql, "SELECT reason FROM pause")
        await until(psql, "SELECT lane <> 'claimed' FROM work")
    assert "blobs=" in reason if why == "no store" else "holds nothing at all" in reason
    psql.execute("DELETE FROM pause")
    psql.execute("UPDATE work SET run_at = now(), lane = 'ready'")
    assert await completed(pipeline, sent.document_id) == ["complete"]


async def test_nothing_is_written_when_the_store_cannot_take_the_bytes(
    engine: AsyncEngine, psql: Psql, tmp_path: Path
) -> None:
    """Down or refused: submit says which, and there is no document."""
    down = pipeline_with(engine, blobs=ObjectBlobs(S3Store("b", **_nobody_there())))
    with pytest.raises(BlobsUnavailable, match="did not answer while storing bytes"):
        await down.submit(b"text")

    class Refusing(Gate):
        async def put_if_absent(self, key: str, pieces: Any, *, size_bytes: int) -> None:
            raise PermissionError("read only")

    refusing = Refusing(ObjectBlobs(tmp_path.as_uri()))
    with pytest.raises(BlobsRefused, match="refused to store bytes: read only; check"):
        await pipeline_with(engine, blobs=refusing).submit(b"text")
    assert psql.execute("SELECT count(*) FROM document").fetchone() == (0,)


async def test_documents_kept_in_the_database_are_read_beside_those_in_the_store(
    engine: AsyncEngine, folder: LocalStore
) -> None:
    """A pipeline may begin with a store at any time; older documents stay where they are."""
    before = await pipeline_with(engine).submit(b"before")
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    after = await pipeline.submit(b"after")
    states = await completed(pipeline, before.document_id, after.document_id)
    assert states == ["complete", "complete"]
    assert list(objects_in(folder).values()) == [b"after"]


async def test_documents_found_in_one_are_kept_in_the_database(
    engine: AsyncEngine, psql: Psql, folder: LocalStore
) -> None:
    """Their bytes commit with their parent's transition, of which a store cannot be a part."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks, blobs=ObjectBlobs(folder))

    async def unpack(claim: Claim) -> Done:
        text = (await claim.source()).read()
        found = [Child("part", b"found")] if text == b"parent" else []
        return Done(ParsedText(text.decode()), children=found)

    hooks.finish_parse.does(unpack)
    sent = await pipeline.submit(b"parent", source_uri="mem:a")
    async with pipeline.runner() as runner:
        assert await runner.run_until_idle() == {"complete": 2}
    assert list(objects_in(folder).values()) == [b"parent"]
    kept = psql.execute("SELECT content FROM blob WHERE content IS NOT NULL").fetchall()
    assert kept == [(b"found",)]
    await pipeline.apply("delete", sent.document_id, reason="asked for")
    assert (objects_in(folder), psql.execute(PLACES).fetchall()) == ({}, [])


async def test_a_deletion_without_an_event_loop_leaves_bytes_to_the_sweep(
    engine: AsyncEngine, psql: Psql, folder: LocalStore
) -> None:
    """A synchronous caller's transaction may still be rolled back; nor can it submit."""
    pipeline = pipeline_with(engine, blobs=ObjectBlobs(folder))
    sent = await pipeline.submit(b"text")
    with pytest.raises(DefinitionError, match="only the asynchronous submit can reach"):
        pipeline.blocking.submit(psql, b"more")
    pipeline.blocking.apply(psql, "delete", sent.document_id, reason="asked for")
    assert list(objects_in(folder).values()) == [b"text"]
    assert await pipeline.operations.sweep(older_than=NOW) == 1
    assert objects_in(folder) == {}


async def test_a_blob_is_in_one_place(engine: AsyncEngine, psql: Psql) -> None:
    """PostgreSQL refuses bytes that are nowhere, in two places, or under a key nobody announced."""
    import psycopg

    await pipeline_with(engine).submit(b"text")
    for change in ("content = NULL", "key = 'k'", "content = NULL, key = 'k'"):
        with pytest.raises(psycopg.errors.IntegrityError):
            psql.execute(f"UPDATE blob SET {change}")


async def test_a_pipeline_without_a_store_has_nothing_to_sweep(engine: AsyncEngine) -> None:
    """Asking for it is a mistake that is told."""
    with pytest.raises(PipelineError, match="keeps bytes in the database"):
        await pipeline_with(engine).operations.sweep()


def _nobody_there() -> dict[str, Any]:
    return {
        "endpoint": "http://127.0.0.1:9",
        "access_key_id": "k",
        "secret_access_key": "s",
        "client_options": {"allow_http": True},
        "retry_config": ONE_TRY,
    }
