"""Restarts, and what they do not do again: hops over work that is current."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import HashEmbedder, Hooks, Told, completed, path_of, pipeline_with, plain, split

from statemachine_pipeline import Claim, Done, Facts, Lifecycle, Pipeline, Retry, Stage, State
from statemachine_pipeline.adapters.publishers import PgVectorPublisher
from statemachine_pipeline.database.statements import content
from statemachine_pipeline.database.statements.rows import parameters
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import Chunk, Chunks
from statemachine_pipeline.retry import Constant
from statemachine_pipeline.runner import loop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.records import Transition

    Psql = psycopg.Connection[Any]

TEXT = b"one\n\ntwo\n\nthree\n\ntwo"
BUFFERS = ("chunk_buffer", "vector_buffer")
FORWARD = [
    "queue_parse",
    "finish_parse",
    "accept_parse",
    "store_chunks",
    "queue_embedding",
    "start_embedding",
    "store_embeddings",
    "finalize",
]


def _count(psql: Psql, table: str) -> int:
    row = psql.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def _versions(psql: Psql, table: str) -> list[Any]:
    return psql.execute(f"SELECT xmin::text, ctid::text FROM {table} ORDER BY 1, 2").fetchall()


async def _newest_life(pipeline: Pipeline, document: UUID) -> list[Transition]:
    history = await pipeline.history(document)
    return [one for one in history if one.life == history[-1].life]


def _hops(life: Sequence[Transition]) -> list[str]:
    """The triggers that were hopped, after asserting that one settle under one claim did it."""
    hops = [one for one in life if one.hop]
    began = [one for one in hops if one.version <= life[0].version + len(hops)]
    assert len({one.claim_seq for one in began}) <= 1
    return [one.trigger for one in hops]


async def _finished(engine: AsyncEngine, hooks: Hooks) -> tuple[Pipeline, UUID]:
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(TEXT, source_uri="mem:a")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    hooks.forget()
    return pipeline, sent.document_id


@pytest.mark.parametrize("failing", ["finish_parse", "accept_parse", "store_chunks", "finalize"])
async def test_a_requeued_document_stands_where_it_failed_after_one_claim_and_one_settle(
    engine: AsyncEngine, failing: str
) -> None:
    """What was earned before is not earned again."""
    hooks = Hooks()

    async def publish(claim: Any) -> Any:
        return await PgVectorPublisher().publish(claim)

    hooks.finalize = Told(publish)
    pipeline = pipeline_with(engine, hooks)
    getattr(hooks, failing).raises(Reject("not today"))
    sent = await pipeline.submit(TEXT)
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    hooks.forget()
    await pipeline.apply("requeue", sent.document_id, reason="mended")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    requeue, *life = await _newest_life(pipeline, sent.document_id)
    assert requeue.trigger == "requeue"
    assert [one.trigger for one in life] == FORWARD
    before = life[: FORWARD.index(failing)]
    assert all(one.hop for one in before)
    assert len({one.claim_seq for one in before}) == 1
    assert not life[FORWARD.index(failing)].hop
    earlier = set(FORWARD[: FORWARD.index(failing)])
    assert {name: count for name, count in hooks.told().items() if name in earlier} == (
        dict.fromkeys(earlier & set(hooks.told()), 0)
    )


async def test_a_resumed_embedding_embeds_only_what_is_missing(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Finished batches are kept when a later one fails for good."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    work = hooks.store_embeddings.embed

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        if "three" in texts:
            raise Reject("not this batch")
        return await work(texts)

    hooks.store_embeddings.embed = embed  # type: ignore[method-assign]
    sent = await pipeline.submit(TEXT)
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    assert (_count(psql, "chunk_buffer"), _count(psql, "vector_buffer")) == (4, 2)
    assert _count(psql, "chunk") == 0
    hooks.store_embeddings.embed = work  # type: ignore[method-assign]
    hooks.forget()
    await pipeline.apply("requeue", sent.document_id, reason="mended")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    assert hooks.store_embeddings.texts == ["three", "two"]
    assert sum(hooks.told().values()) == 2
    assert [_count(psql, table) for table in BUFFERS] == [0, 0]
    assert (_count(psql, "chunk"), _count(psql, "chunk_vector")) == (4, 4)


async def test_a_reprocess_with_nothing_changed_runs_nothing(
    engine: AsyncEngine, psql: Psql
) -> None:
    """One claim and one settle hop to the end; what readers see is not touched."""
    hooks = Hooks()
    pipeline, document = await _finished(engine, hooks)
    before = [_versions(psql, table) for table in ("chunk", "chunk_vector", "parsed_document")]
    await pipeline.apply("reprocess", document, reason="look again")
    assert await completed(pipeline, document) == ["complete"]
    restart, *life = await _newest_life(pipeline, document)
    assert restart.trigger == "reprocess"
    assert _hops(life) == FORWARD
    assert set(hooks.told().values()) == {0}
    after = [_versions(psql, table) for table in ("chunk", "chunk_vector", "parsed_document")]
    assert after == before
    assert [_count(psql, table) for table in BUFFERS] == [0, 0]
    assert (await pipeline.get(document)).chunk_count == 4


@pytest.mark.parametrize(
    ("changed", "calls"),
    [
        ("queue_parse", {"queue_parse": 1}),
        ("finish_parse", {"finish_parse": 1}),
        ("accept_parse", {"accept_parse": 1}),
        ("store_chunks", {"store_chunks": 1}),
    ],
)
async def test_a_changed_hook_with_the_same_output_is_run_alone(
    engine: AsyncEngine, psql: Psql, changed: str, calls: dict[str, int]
) -> None:
    """Stages after it read the same input, so they are current."""
    hooks = Hooks()
    _, document = await _finished(engine, hooks)
    getattr(hooks, changed).fingerprint = "told/another"
    pipeline = pipeline_with(engine, hooks)
    before = _versions(psql, "chunk_vector")
    await pipeline.apply("reprocess", document, reason="new hook")
    assert await completed(pipeline, document) == ["complete"]
    assert {name: count for name, count in hooks.told().items() if count} == calls
    life = (await _newest_life(pipeline, document))[1:]
    assert [one.trigger for one in life if not one.hop] == [changed]
    assert _versions(psql, "chunk_vector") == before
    assert [_count(psql, table) for table in BUFFERS] == [0, 0]


async def test_a_changed_chunker_embeds_only_what_is_new(engine: AsyncEngine, psql: Psql) -> None:
    """Unchanged passages keep id, row and vector; others go and come in one commit."""
    hooks = Hooks()
    _, document = await _finished(engine, hooks)
    kept = dict(psql.execute("SELECT text, id FROM chunk WHERE text <> 'two'").fetchall())

    async def larger(claim: Any) -> Chunks:
        parts = (await split(claim)).chunks
        joined = Chunk(index=0, text=f"{parts[0].text}, {parts[1].text}", start=0, end=8)
        return Chunks((joined, *(parts[n] for n in (2, 3))))

    hooks.store_chunks.does(larger)
    hooks.store_chunks.fingerprint = "told/larger"
    pipeline = pipeline_with(engine, hooks)
    vectors = set(psql.execute("SELECT chunk_id, xmin::text FROM chunk_vector").fetchall())
    await pipeline.apply("reprocess", document, reason="larger passages")
    assert await completed(pipeline, document) == ["complete"]
    assert hooks.store_embeddings.texts == ["one, two"]
    shown = dict(psql.execute("SELECT text, id FROM chunk ORDER BY index").fetchall())
    assert list(shown) == ["one, two", "three", "two"]
    assert shown["three"] == kept["three"]
    now = set(psql.execute("SELECT chunk_id, xmin::text FROM chunk_vector").fetchall())
    assert len(now & vectors) == 2
    assert [_count(psql, table) for table in BUFFERS] == [0, 0]
    document_row = await pipeline.get(document)
    assert (document_row.chunk_count, document_row.vector_count) == (3, 3)


async def test_a_changed_embedder_embeds_all_and_reuses_the_chunks(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Chunks stay; the vectors of the old embedder go when the new ones are published."""
    hooks = Hooks()
    _, document = await _finished(engine, hooks)
    before = _versions(psql, "chunk")
    hooks.store_embeddings = HashEmbedder("hash/2")
    pipeline = pipeline_with(engine, hooks)
    await pipeline.apply("reprocess", document, reason="new embedder")
    assert await completed(pipeline, document) == ["complete"]
    assert hooks.told() == dict.fromkeys(hooks.told(), 0) | {"store_embeddings": 4}
    assert _versions(psql, "chunk") == before
    assert _count(psql, "chunk_vector") == 4
    rows = psql.execute(
        "SELECT DISTINCT fingerprint FROM chunk_vector JOIN embedder ON id = embedder_id"
    ).fetchall()
    assert rows == [("hash/2#1",)]
    assert len(await pipeline.search("one", limit=9)) == 4


async def test_a_changed_publisher_is_run_alone(engine: AsyncEngine, psql: Psql) -> None:
    """Its input is refilled from what is published; nothing is chunked or embedded."""
    hooks = Hooks()
    _, document = await _finished(engine, hooks)
    before = [_versions(psql, table) for table in ("chunk", "chunk_vector")]
    pipeline = pipeline_with(engine, hooks, finalize=plain(PgVectorPublisher(), version="2"))
    await pipeline.apply("reprocess", document, reason="new publisher")
    assert await completed(pipeline, document) == ["complete"]
    assert set(hooks.told().values()) == {0}
    assert [_versions(psql, table) for table in ("chunk", "chunk_vector")] == before
    life = (await _newest_life(pipeline, document))[1:]
    assert [one.trigger for one in life if not one.hop] == ["finalize"]
    assert [_count(psql, table) for table in BUFFERS] == [0, 0]


async def test_other_bytes_with_the_same_text_stop_at_the_parser(
    engine: AsyncEngine, psql: Psql
) -> None:
    """``revise``: intake and parser run, all that follows is current."""
    hooks = Hooks()
    pipeline, document = await _finished(engine, hooks)
    before = [_versions(psql, table) for table in ("chunk", "chunk_vector")]
    again = await pipeline.submit(TEXT + b"\n---\nanother footer", source_uri="mem:a")
    assert (again.document_id, again.outcome) == (document, "changed")
    assert await completed(pipeline, document) == ["complete"]
    assert {name for name, count in hooks.told().items() if count} == {
        "queue_parse",
        "finish_parse",
    }
    assert [_versions(psql, table) for table in ("chunk", "chunk_vector")] == before


async def test_readers_see_the_old_version_until_the_new_one_is_whole(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A revision that fails half-way leaves what was published."""
    hooks = Hooks()
    pipeline, document = await _finished(engine, hooks)
    # The request, and its first half.
    hooks.store_embeddings.faults.extend([Reject("not today")] * 2)
    await pipeline.submit(b"four\n\nfive", source_uri="mem:a")
    assert await completed(pipeline, document) == ["dead_letter"]
    shown = psql.execute("SELECT text FROM chunk ORDER BY index").fetchall()
    assert shown == [("one",), ("two",), ("three",), ("two",)]
    assert _count(psql, "chunk_vector") == 4
    assert _count(psql, "chunk_buffer") == 2
    await pipeline.apply("requeue", document, reason="mended")
    assert await completed(pipeline, document) == ["complete"]
    shown = psql.execute("SELECT text FROM chunk ORDER BY index").fetchall()
    assert shown == [("four",), ("five",)]
    assert (_count(psql, "chunk_vector"), _count(psql, "chunk_buffer")) == (2, 0)


async def test_going_back_to_earlier_bytes_publishes_them_again(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Products of an older generation whose data has gone are made anew."""
    hooks = Hooks()
    pipeline, document = await _finished(engine, hooks)
    for content_, texts in ((b"four", ["four"]), (TEXT, ["one", "two", "three", "two"])):
        await pipeline.submit(content_, source_uri="mem:a")
        assert await completed(pipeline, document) == ["complete"]
        shown = psql.execute("SELECT text FROM chunk ORDER BY index").fetchall()
        assert [row[0] for row in shown] == texts
        assert _count(psql, "chunk_vector") == len(texts)


async def test_a_cancelled_document_goes_on_where_it_stood(engine: AsyncEngine) -> None:
    """Buffers stay in cancelled too."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(TEXT)
    runner = pipeline.runner(triggers=["queue_parse", "finish_parse", "accept_parse"])
    await runner.run_until_idle()
    assert (await pipeline.get(sent.document_id)).state == "parse_validated"
    await pipeline.apply("cancel", sent.document_id, reason="not now")
    hooks.forget()
    await pipeline.apply("requeue", sent.document_id, reason="now")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    assert hooks.told() == dict.fromkeys(hooks.told(), 0) | {
        "store_chunks": 1,
        "store_embeddings": 4,
    }


async def test_a_repeat_of_every_buffer_write_changes_nothing(
    engine: AsyncEngine, psql: Psql
) -> None:
    """The same text, chunks and vectors again: the same rows, not even written."""
    hooks = Hooks()
    # Two requests, and a half of each.
    hooks.store_embeddings.faults.extend([Reject("stop here")] * 4)
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(TEXT)
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    t, document = tables("smp"), sent.document_id
    psql.execute("INSERT INTO embedder (fingerprint, dimensions) VALUES ('e', 2)")
    (embedder,) = psql.execute("SELECT id FROM embedder WHERE fingerprint = 'e'").fetchone() or ()
    chunks = [row[0] for row in psql.execute("SELECT id FROM chunk_buffer ORDER BY index")]
    (text,) = (
        psql.execute(
            "SELECT jsonb_build_object('document_id', document_id, 'generation', generation, "
            "'fingerprint', fingerprint, 'sha256', sha256, 'text', text, 'spans', spans, "
            "'warnings', warnings) FROM parsed_document"
        ).fetchone()
        or ()
    )
    passages = [row[0] for row in psql.execute("SELECT to_jsonb(chunk_buffer) FROM chunk_buffer")]
    placed = [
        {"document_id": document, "chunk_id": chunk, "place": place}
        for place, chunk in enumerate(chunks, start=1)
    ]
    vectors = {
        "embedder": embedder,
        "dimensions": 2,
        "flat": [float(n) for n in range(1, 9)],
    } | parameters("vector", placed)

    async def write() -> list[list[Any]]:
        async with engine.begin() as connection:
            await connection.execute(content.put_texts(t), parameters("text", [text]))
            await connection.execute(content.put_chunks(t), parameters("passage", passages))
            await connection.execute(content.put_vectors(t), vectors)
        return [_versions(psql, name) for name in ("parsed_document", *BUFFERS)]

    before = [_versions(psql, name) for name in ("parsed_document", "chunk_buffer")]
    first = await write()
    assert first[:2] == before
    assert len(first[2]) == 4
    assert await write() == first


async def test_a_deleted_document_leaves_its_history_and_nothing_of_its_text(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Chunks, vectors, buffers, text, products and bytes go; codes stay."""
    pipeline, document = await _finished(engine, Hooks())
    secret = await pipeline.submit(b"hush hush", source_uri="mem:b", metadata={"k": "hush"})
    hooks = Hooks()
    hooks.store_chunks.raises(RuntimeError("cannot cut: hush hush"), Reject("no"))
    failing = pipeline_with(engine, hooks, store_chunks=plain(hooks.store_chunks, attempts=1))
    assert await completed(failing, secret.document_id) == ["dead_letter"]
    for one in (document, secret.document_id):
        await pipeline.apply("delete", one, reason="asked for")
        assert (await pipeline.get(one)).state == "deleted"
        assert path_of(psql, one)[-1] == "delete"
    owned = (
        "work",
        "dead_letter",
        "product",
        "blob",
        "text_owner",
        "duplicate_of",
        "parsed_document",
        "chunk_buffer",
        "vector_buffer",
        "chunk",
        "chunk_vector",
    )
    assert {name: _count(psql, name) for name in owned} == dict.fromkeys(owned, 0)
    for table in ("document", "transition"):
        rows = psql.execute(f"SELECT {table}::text FROM {table}").fetchall()
        assert not [row for row in rows if "hush" in row[0]]
    gone = await pipeline.get(document)
    assert (gone.chunk_count, gone.vector_count, gone.text_chars) == (0, 0, 0)


async def test_deleting_a_working_document_cancels_it_first(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Both edges are in history, in one life."""
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(TEXT)
    await pipeline.apply("delete", sent.document_id, reason="asked for")
    assert path_of(psql, sent.document_id) == ["submit", "cancel", "delete"]
    assert _count(psql, "work") == 0


async def test_submitting_a_deleted_document_revives_it(engine: AsyncEngine, psql: Psql) -> None:
    """From deleted, ``revise`` takes any bytes, the same ones too."""
    hooks = Hooks()
    pipeline, document = await _finished(engine, hooks)
    await pipeline.apply("delete", document, reason="asked for")
    for trigger in ("requeue", "reprocess", "delete", "cancel"):
        applied = await pipeline.apply(trigger, document, reason="test")
        assert not applied.moved
        assert len(applied.refused) == 1
    again = await pipeline.submit(TEXT, source_uri="mem:a")
    assert (again.document_id, again.outcome) == (document, "changed")
    assert await completed(pipeline, document) == ["complete"]
    assert _count(psql, "chunk") == 4
    assert hooks.told()["finish_parse"] == 1
    revived = await pipeline.get(document)
    assert (revived.generation, revived.life) == (2, 2)


def is_unfinished(facts: Facts) -> bool:
    """The hook wants to be asked once more."""
    return bool(facts.reported.get("left"))


class Rounds(Lifecycle):
    """A stage that is gone through until nothing is left."""

    waiting = State(initial=True)
    counted = State()
    finished = State(final=True)

    count = waiting.to(counted)
    again = counted.to(waiting, cond=is_unfinished)
    finish = counted.to(finished)


class Polled(Lifecycle):
    """A stage that is begun anew until nothing is left."""

    waiting = State(initial=True)
    finished = State(final=True)

    count = waiting.to(waiting, cond=is_unfinished)
    finish = waiting.to(finished)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due is looked for at once."""
    monkeypatch.setattr(loop, "PROMOTE_SECONDS", 0.02)


async def _rounds(
    engine: AsyncEngine, lifecycle: type[Lifecycle], *says: Done | Exception
) -> tuple[Pipeline, list[int]]:
    """Return a pipeline whose hook says these things in turn, and the attempts it saw."""
    attempts: list[int] = []

    async def count(claim: Claim) -> Done:
        attempts.append(claim.attempt)
        said = says[len(attempts) - 1]
        if isinstance(said, Exception):
            raise said
        return said

    hooks = dict.fromkeys(lifecycle.graph.forward_triggers())
    stage = Stage(count, attempts=2, backoff=Constant(base=timedelta(milliseconds=1)))
    pipeline = Pipeline(engine, lifecycle=lifecycle, hooks=hooks | {"count": stage}, schema="odd")
    await pipeline.migrate()
    return pipeline, attempts


async def test_a_stage_that_is_gone_through_again_is_never_hopped_over(
    engine: AsyncEngine,
) -> None:
    """'The same input was not its last word': by hops alone it would lead round for ever."""
    pipeline, attempts = await _rounds(engine, Rounds, Done(left=1), Reject("no"), Done(left=0))
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    await pipeline.apply("requeue", sent.document_id, reason="test")
    assert await completed(pipeline, sent.document_id) == ["finished"]
    assert attempts == [1, 1, 1]


@pytest.mark.usefixtures("impatient")
async def test_coming_back_to_a_stage_begins_its_attempts_anew(engine: AsyncEngine) -> None:
    """Attempts are those of one stay."""
    pipeline, attempts = await _rounds(
        engine, Polled, Retry("not yet"), Done(left=1), Retry("not yet"), Done(left=0)
    )
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["finished"]
    assert attempts == [1, 2, 1, 2]
