"""A publisher with a store of its own: a real LanceDB, that of ``examples/external_store.py``."""

from __future__ import annotations

import asyncio
import importlib.util
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from fix_pipelines import BRIEFLY, Hooks, completed, hand, pipeline_with, running, until
from typer.testing import CliRunner

from statemachine_pipeline import Stage
from statemachine_pipeline.cli import app
from statemachine_pipeline.errors import StaleClaim
from statemachine_pipeline.retry import Constant

if TYPE_CHECKING:
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline import Claim, Pipeline

EXAMPLE = Path(__file__).parents[2] / "examples" / "external_store.py"
DUE_NOW = "UPDATE smp.placement SET run_at = clock_timestamp() WHERE run_at IS NOT NULL"
HOURLY = Constant(base=timedelta(hours=1), jitter="none")
"""A withdrawal that failed is due again when the test says so, not when a draw does."""


def _example() -> Any:
    spec = importlib.util.spec_from_file_location("external_store", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LancePublisher: Any = _example().LancePublisher


class Store:
    """The publisher under test, and a look into its store by another handle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.publisher = LancePublisher(folder, 4)
        self._reader = LancePublisher(folder, 4)

    async def texts(self) -> list[tuple[str, str]]:
        """Return name and text of every row, sorted."""
        rows = await self._reader.nearest([1.0, 1.0, 1.0, 1.0], limit=1000)
        return sorted((row["name"], row["text"]) for row in rows)

    def go_down(self) -> None:
        """Put a file where the folder was."""
        self.folder.rename(self.folder.with_suffix(".away"))
        self.folder.write_text("not a store")

    def come_back(self) -> None:
        """Put the folder back."""
        self.folder.unlink()
        self.folder.with_suffix(".away").rename(self.folder)


@pytest.fixture
async def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    made = Store(tmp_path / "passages")
    await made.publisher.prepare()
    return made


def publishing(engine: AsyncEngine, publisher: object) -> Pipeline:
    """Return a pipeline with this publisher."""
    return pipeline_with(engine, finalize=Stage(publisher, backoff=HOURLY))


@pytest.fixture
def pipeline(engine: AsyncEngine, store: Store) -> Pipeline:
    """Return a pipeline that publishes there."""
    return publishing(engine, store.publisher)


async def _submit(pipeline: Pipeline, text: str, name: str = "a") -> UUID:
    sent = await pipeline.submit(text.encode(), source_uri=f"note:{name}", name=name)
    return sent.document_id


async def _delete(pipeline: Pipeline, document: UUID) -> None:
    await pipeline.apply("delete", document, reason="asked for")


async def test_what_is_published_elsewhere_has_its_vectors(
    pipeline: Pipeline, store: Store
) -> None:
    """``claim.vectors()``: vector ``i`` belongs to chunk ``i``."""
    document = await _submit(pipeline, "one\n\ntwo\n\nthree")
    assert await completed(pipeline, document) == ["complete"]
    embedder = Hooks().store_embeddings
    for text in ("one", "two", "three"):
        (nearest,) = await store.publisher.nearest(await embedder.embed_query(text), limit=1)
        assert nearest["text"] == text
        assert nearest["_distance"] == pytest.approx(0, abs=1e-5)
    assert [hit.text for hit in await pipeline.search("two", limit=1)] == ["two"]


async def test_a_revised_document_leaves_no_old_chunk_there(
    pipeline: Pipeline, store: Store
) -> None:
    """``publish`` makes the chunks all that readers see of the document."""
    document = await _submit(pipeline, "kept\n\nold")
    await completed(pipeline, document)
    await _submit(pipeline, "kept\n\nnew")
    await completed(pipeline, document)
    assert await store.texts() == [("a", "kept"), ("a", "new")]


async def test_a_deleted_document_goes_from_there_though_the_store_was_down(
    pipeline: Pipeline, store: Store, psql: psycopg.Connection[Any], database_url: str
) -> None:
    """``withdraw`` is tried until it has worked, and status shows what waits and why."""
    gone, kept = await _submit(pipeline, "gone"), await _submit(pipeline, "kept", "b")
    await completed(pipeline, gone, kept)
    store.go_down()
    await _delete(pipeline, gone)
    await completed(pipeline)  # comes to an end, whatever the store does
    (backlog,) = await pipeline.withdrawals.waiting()
    assert (backlog.stage, backlog.documents) == ("finalize", 1)
    assert backlog.last_error
    shown = await asyncio.to_thread(
        CliRunner().invoke, app, ["status", "--database", database_url], env={"COLUMNS": "200"}
    )
    assert "1 still to be withdrawn by the publisher of finalize, the first since" in shown.stderr

    store.come_back()
    psql.execute(DUE_NOW)
    await completed(pipeline)
    assert await store.texts() == [("b", "kept")]
    assert await pipeline.withdrawals.waiting() == []


async def test_a_running_worker_withdraws_without_being_told(
    pipeline: Pipeline, store: Store, psql: psycopg.Connection[Any]
) -> None:
    """Runners look for withdrawals beside their other work."""
    document = await _submit(pipeline, "gone")
    await completed(pipeline, document)
    async with running(pipeline):
        await _delete(pipeline, document)
        await until(psql, "SELECT count(*) = 0 FROM smp.placement")
    assert await store.texts() == []


class DiesAfterPublishing:
    """Publishes, then never returns: what a worker looks like that is killed before its settle."""

    fingerprint = "lance-publisher/1"

    def __init__(self, inner: Any) -> None:
        self.inner, self.published = inner, asyncio.Event()

    async def publish(self, claim: Claim) -> None:
        """Publish and hang."""
        await self.inner.publish(claim)
        self.published.set()
        await asyncio.Event().wait()

    async def withdraw(self, claim: Claim) -> None:
        """Withdraw."""
        await self.inner.withdraw(claim)


async def _publish_and_die(engine: AsyncEngine, store: Store, text: str) -> UUID:
    """Publish a document by a runner that ends between publish and settle."""
    dying = DiesAfterPublishing(store.publisher)
    pipeline = publishing(engine, dying)
    document = await _submit(pipeline, text)
    runner = pipeline.runner()
    running = asyncio.create_task(runner.run())
    await asyncio.wait_for(dying.published.wait(), BRIEFLY.total_seconds())
    runner.stop()
    runner.stop()
    await running
    return document


async def test_a_worker_that_dies_between_publish_and_settle_doubles_nothing(
    pipeline: Pipeline, engine: AsyncEngine, store: Store
) -> None:
    """``publish`` runs at least once, and writes the same chunks under the same ids."""
    document = await _publish_and_die(engine, store, "one\n\ntwo")
    assert await store.texts() == [("a", "one"), ("a", "two")]
    assert await completed(pipeline, document) == ["complete"]
    assert await store.texts() == [("a", "one"), ("a", "two")]


async def test_what_was_published_and_never_settled_is_withdrawn_too(
    pipeline: Pipeline, engine: AsyncEngine, store: Store, psql: psycopg.Connection[Any]
) -> None:
    """A document is noted before it is published, so a crash leaves nothing nobody knows of."""
    document = await _publish_and_die(engine, store, "one\n\ntwo")
    await _delete(pipeline, document)
    waits = "SELECT run_at = writing_until FROM smp.placement"
    assert psql.execute(waits).fetchone() == (True,), "its worker may still be writing"
    await completed(pipeline)
    assert await store.texts() == [("a", "one"), ("a", "two")]
    psql.execute(DUE_NOW)
    await completed(pipeline)
    assert await store.texts() == []


async def test_a_document_that_comes_back_is_published_after_it_went(
    pipeline: Pipeline, store: Store, psql: psycopg.Connection[Any]
) -> None:
    """Withdrawal and publication of one document never run at the same time."""
    document = await _submit(pipeline, "first")
    await completed(pipeline, document)
    store.go_down()
    await _delete(pipeline, document)
    await completed(pipeline)
    store.come_back()
    await _submit(pipeline, "second")
    async with running(pipeline):
        waiting = "SELECT count(*) = 1 FROM smp.work WHERE lane = 'deferred' AND attempt = 0"
        await until(psql, waiting)
        assert await store.texts() == [("a", "first")]
        psql.execute(DUE_NOW)
        (found,) = await pipeline.wait(document, timeout=BRIEFLY)
    assert found.state == "complete"
    assert await store.texts() == [("a", "second")]


async def test_a_twin_is_withdrawn_and_published_again_when_it_inherits(
    pipeline: Pipeline, store: Store
) -> None:
    """What rests as a duplicate is not shown twice; its heir is shown again."""
    owner, other = await _submit(pipeline, "same"), await _submit(pipeline, "other", "b")
    await completed(pipeline, owner, other)
    await _submit(pipeline, "same", "b")
    assert await completed(pipeline, owner, other) == ["complete", "duplicate"]
    assert await store.texts() == [("a", "same")]
    await _delete(pipeline, owner)
    assert await completed(pipeline, other) == ["complete"]
    assert await store.texts() == [("b", "same")]


async def test_the_shipped_publisher_has_nothing_to_be_withdrawn(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """Publishing in this database needs no note: one transaction holds all of it."""
    pipeline = pipeline_with(engine)
    document = await _submit(pipeline, "text")
    await completed(pipeline, document)
    await _delete(pipeline, document)
    assert psql.execute("SELECT count(*) FROM smp.placement").fetchone() == (0,)


async def test_a_stale_claim_publishes_nothing(pipeline: Pipeline) -> None:
    """Whoever lost a claim is refused before its publisher is called."""
    document = await _submit(pipeline, "text")
    worker = await hand(pipeline)
    claim, _ = await worker.claim_one("queue_parse")
    assert await pipeline.withdrawals.place(claim)
    await pipeline.apply("cancel", document, reason="asked for")
    with pytest.raises(StaleClaim):
        await pipeline.withdrawals.place(claim)


class Farewell:
    """A product that leaves a row."""

    async def write(self, connection: AsyncConnection, claim: Claim) -> None:
        """Insert it."""
        await connection.execute(
            sa.text("INSERT INTO public.gone VALUES (:id, :attempt)"),
            {"id": claim.document.id, "attempt": claim.attempt},
        )


class Elsewhere:
    """A publisher whose store is a set, and whose withdrawals do as they are told."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.begun = asyncio.Event()

    async def publish(self, claim: Claim) -> None:
        """Do nothing."""

    async def withdraw(self, claim: Claim) -> Any:
        """Return or raise the next answer; an event is waited for."""
        self.begun.set()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        return answer


async def _deleted(engine: AsyncEngine, publisher: Elsewhere) -> Pipeline:
    pipeline = publishing(engine, publisher)
    document = await _submit(pipeline, "text")
    await completed(pipeline, document)
    await _delete(pipeline, document)
    return pipeline


async def test_what_withdraw_returns_commits_with_the_end_of_the_withdrawal(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """A product of ``withdraw`` is written once, in the transaction that forgets it."""
    psql.execute("CREATE TABLE public.gone (document uuid, attempt integer)")
    publisher = Elsewhere(RuntimeError("no answer"), "nonsense", Farewell())
    pipeline = await _deleted(engine, publisher)
    seen = []
    for _ in range(3):
        psql.execute(DUE_NOW)
        await completed(pipeline)
        seen += [one.last_error for one in await pipeline.withdrawals.waiting()]
    assert seen == [
        "the hook raised RuntimeError",
        "withdraw returned a str; it may return a product or None",
    ]
    assert psql.execute("SELECT attempt FROM public.gone").fetchall() == [(3,)]


async def test_a_worker_that_stops_gives_its_withdrawals_back(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """Nobody has to wait for a lease of a worker that ended well."""
    publisher = Elsewhere(asyncio.Event(), None)
    pipeline = await _deleted(engine, publisher)
    async with running(pipeline):
        await asyncio.wait_for(publisher.begun.wait(), BRIEFLY.total_seconds())
    due = "SELECT claim_seq IS NULL AND run_at <= clock_timestamp() FROM smp.placement"
    assert psql.execute(due).fetchone() == (True,)
    await completed(pipeline)
    assert await pipeline.withdrawals.waiting() == []
