"""Documents embedded by a service over HTTP: to the end, through its failures, and found again."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from fix_pipelines import BRIEFLY, Hooks, completed, hand, pipeline_with, plain, running, until

from statemachine_pipeline.adapters.openai import Limits, OpenAIEmbedder
from statemachine_pipeline.batching import Batch
from statemachine_pipeline.database import search
from statemachine_pipeline.database.statements.search import nearest
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.errors import EmbedderMismatch, QuestionNotEmbedded
from statemachine_pipeline.liveness import Liveness
from statemachine_pipeline.records import chunk_id
from statemachine_pipeline.runner import loop, proposing
from statemachine_pipeline.testing import EmbeddingServer, Said, drawn

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    Psql = psycopg.Connection[Any]

TESTS = Path(__file__).resolve().parents[1]
DEFERRED = "SELECT lane, attempt FROM work"
STARTS_WITHIN_SECONDS = 60
"""How long another program may take to be loaded and begin."""
STOPPED = """
    SELECT count(*) = 1 AND bool_and(lane <> 'claimed') FROM work
    WHERE EXISTS (SELECT FROM pause WHERE stage = 'store_embeddings')
"""
"""A stage that is at fault is paused first, and then the document is handed back."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff draws zero and what is due is looked for at once."""
    monkeypatch.setattr(loop, "PROMOTE_SECONDS", 0.02)
    monkeypatch.setattr(proposing.random, "random", lambda: 0.0)


def embedder(service: EmbeddingServer, **own: Any) -> OpenAIEmbedder:
    """Return an embedder that asks ``service`` for two texts at a time."""
    given: dict[str, Any] = {"dimensions": 8, "limits": Limits(inputs=2)} | own
    return OpenAIEmbedder("model-1", base_url=f"{service.address}/v1", **given)


def parts(count: int, word: str = "part") -> bytes:
    """Return a document of so many chunks."""
    return "\n\n".join(f"{word} {number}" for number in range(count)).encode()


def whole(hook: OpenAIEmbedder) -> Any:
    """Return the stage of an embedder, one document and one request at a time."""
    return plain(hook, concurrency=1, batch=Batch(requests=1))


async def test_documents_are_embedded_published_and_found(
    engine: AsyncEngine, psql: Psql, service: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run against a real server, over one connection, to a search that ranks."""
    # A loaded machine may pause for longer than the five seconds that an idle connection is kept.
    monkeypatch.setattr(httpx._config.DEFAULT_LIMITS, "keepalive_expiry", 600.0)
    pipeline = pipeline_with(engine, store_embeddings=whole(embedder(service)))
    sent = [await pipeline.submit(parts(5, word)) for word in ("tree", "house")]
    assert await completed(pipeline, *(one.document_id for one in sent)) == ["complete"] * 2
    assert sorted(len(asked.texts) for asked in service.asked) == [1, 1, 2, 2, 2, 2]
    assert service.connections == 1
    best, second, *_ = await pipeline.search("house 3")
    assert (best.text, best.document.id) == ("house 3", sent[1].document_id)
    assert second.score < best.score == pytest.approx(1, abs=1e-6)
    assert service.connections == 2
    (stored,) = psql.execute(
        "SELECT vector::text FROM chunk_vector JOIN chunk ON id = chunk_id WHERE text = 'tree 2'"
    ).fetchone() or [""]
    expected = drawn(8)(["tree 2"])[0]
    assert [float(n) for n in stored.strip("[]").split(",")] == pytest.approx(expected, rel=1e-6)


@pytest.mark.usefixtures("impatient")
async def test_a_killed_worker_costs_one_batch(
    engine: AsyncEngine, database_url: str, service: EmbeddingServer, psql: Psql
) -> None:
    """Finished batches commit once each: a resume embeds only what is missing."""
    pipeline = pipeline_with(engine, store_embeddings=whole(embedder(service)))
    sent = await pipeline.submit(parts(8))

    def then_blocks(answer: Any) -> Any:
        if len(service.asked) == 2:
            service.block()  # before the victim can ask for the third batch, however slow we are
        return answer

    service.mangles(then_blocks)
    program = (
        "import asyncio, sys\n"
        "from fix_pipelines import pipeline_with\n"
        "from sqlalchemy.ext.asyncio import create_async_engine\n"
        "from statemachine_pipeline import Batch, Stage\n"
        "from statemachine_pipeline.adapters.openai import Limits, OpenAIEmbedder\n"
        "url, service = sys.argv[1:]\n"
        "hook = OpenAIEmbedder('model-1', dimensions=8, base_url=f'{service}/v1',\n"
        "                      limits=Limits(inputs=2))\n"
        "stage = Stage(hook, batch=Batch(requests=1))\n"
        "pipeline = pipeline_with(create_async_engine(url), store_embeddings=stage)\n"
        "asyncio.run(pipeline.runner().run_until_idle())\n"
    )
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    victim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, database_url, service.address),
        env={**os.environ, "PYTHONPATH": paths},
    )
    # The batch that is lost is with the service.
    assert await asyncio.to_thread(service._begun.wait, STARTS_WITHIN_SECONDS)
    victim.send_signal(signal.SIGKILL)
    await victim.wait()
    assert psql.execute("SELECT count(*) FROM vector_buffer").fetchone() == (4,)
    service.go_on()
    psql.execute("UPDATE worker SET beat_at = now() - interval '1 hour'")
    alive = Liveness(beat=timedelta(seconds=1), dead_after=timedelta(seconds=60))
    resumed = pipeline.runner(liveness=alive).run_until_idle()
    await asyncio.wait_for(resumed, BRIEFLY.total_seconds())
    assert (await pipeline.get(sent.document_id)).state == "complete"
    again = [text for one in service.asked[3:] for text in one.texts]
    assert again == [f"part {n}" for n in range(4, 8)]
    # Nobody has said how the first attempt ended, and yet its batches are charged for, once.
    rows = [row for row in await pipeline.history(sent.document_id) if row.tokens]
    assert [row.trigger for row in rows] == ["retry", "store_embeddings"]
    assert rows[0].tokens == rows[1].tokens


@pytest.mark.usefixtures("impatient")
async def test_a_failure_in_the_middle_keeps_what_was_embedded(
    engine: AsyncEngine, service: EmbeddingServer
) -> None:
    """5xx is a retry, which asks for the missing vectors only."""
    service.mangles(lambda answer: service.says(Said(500)) or answer)
    pipeline = pipeline_with(engine, store_embeddings=whole(embedder(service)))
    sent = await pipeline.submit(parts(6))
    assert await completed(pipeline, sent.document_id) == ["complete"]
    assert service.texts == [f"part {n}" for n in (0, 1, 2, 3, 2, 3, 4, 5, 4, 5)]
    steps = [step.trigger for step in await pipeline.history(sent.document_id)]
    assert steps.count("retry") == 2


async def test_one_bad_text_rejects_its_document_only(
    engine: AsyncEngine, psql: Psql, service: EmbeddingServer
) -> None:
    """400 on one input: its document is rejected, its finished batches stay, others go on."""
    service.bad = "poison"
    stage = plain(embedder(service), batch=Batch(requests=1))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    bad = await pipeline.submit(parts(4) + b"\n\npoison\n\nlast")
    good = await pipeline.submit(parts(5, "good"))
    states = await completed(pipeline, bad.document_id, good.document_id)
    assert states == ["dead_letter", "complete"]
    letter = psql.execute("SELECT code, reason, attempts FROM dead_letter").fetchone()
    refusal = "refuses a passage of 6 bytes: 400 Bad Request, bad input"
    chunk = f"chunk 4 ({chunk_id(bad.document_id, 'poison', 0)})"
    assert letter == ("input_refused", f"{chunk}: {service.address}/v1/embeddings {refusal}", 1)
    assert psql.execute("SELECT count(*) FROM vector_buffer").fetchone() == (4,)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said(401, ""), "refuses a request without key: 401 Unauthorized"),
        (Said(404, {"error": "no such model"}), "404 Not Found, no such model"),
    ],
)
async def test_a_service_that_takes_nothing_pauses_the_stage(
    engine: AsyncEngine, psql: Psql, service: EmbeddingServer, said: Said, reason: str
) -> None:
    """401 and 404: the stage is paused with a sentence, and no document is charged."""
    service.says(said)
    pipeline = pipeline_with(engine, store_embeddings=embedder(service))
    await pipeline.submit(parts(1))
    async with running(pipeline):
        await until(psql, STOPPED)
    (paused,) = psql.execute("SELECT reason FROM pause").fetchone() or ("",)
    assert reason in paused
    assert psql.execute("SELECT attempt FROM work").fetchall() == [(0,)]
    assert await (await hand(pipeline)).claim() == []


async def test_a_rate_limit_gives_the_attempt_back(
    engine: AsyncEngine, psql: Psql, service: EmbeddingServer
) -> None:
    """429 with Retry-After: deferred until then, not charged."""
    service.says(Said(429, "", {"Retry-After": "1800"}))
    pipeline = pipeline_with(engine, store_embeddings=embedder(service))
    await pipeline.submit(parts(1))
    async with running(pipeline):
        await until(psql, "SELECT lane = 'deferred' FROM work")
    assert psql.execute(DEFERRED).fetchone() == ("deferred", 0)
    (seconds,) = psql.execute("SELECT extract(epoch FROM run_at - now()) FROM work").fetchone()  # type: ignore[misc]
    assert 1700 < seconds < 1801


@pytest.mark.parametrize(
    ("vectors", "is_fault", "reason"),
    [
        ([[1.0] * 7], True, "says 8 dimensions and returned 7"),
        ([[1.0] * 7 + [None]], True, "returned what is no vector"),
        ([[1.0] * 7 + [math.nan]], False, "zero or not finite"),
        ([[0.0] * 8], False, "zero or not finite"),
    ],
    ids=["dimensions", "no numbers", "not finite", "zero"],
)
async def test_vectors_are_checked_before_they_are_kept(
    engine: AsyncEngine,
    psql: Psql,
    service: EmbeddingServer,
    vectors: list[list[float]],
    is_fault: bool,
    reason: str,
) -> None:
    """Dimension, finite, not zero: in passages and in questions."""
    entries = [{"index": n, "embedding": vector} for n, vector in enumerate(vectors)]
    service.says(Said(200, {"data": entries}), Said(200, {"data": entries}))
    pipeline = pipeline_with(engine, store_embeddings=embedder(service))
    with pytest.raises(QuestionNotEmbedded):
        await pipeline.search("a")
    sent = await pipeline.submit(parts(1))
    async with running(pipeline):
        await until(psql, STOPPED if is_fault else "SELECT count(*) = 0 FROM work")
    charged = psql.execute("SELECT attempt FROM work").fetchall()
    assert charged == ([(0,)] if is_fault else [])
    assert reason in (await pipeline.explain(sent.document_id)).sentence
    assert psql.execute("SELECT count(*) FROM vector_buffer").fetchone() == (0,)


async def test_a_question_that_cannot_be_embedded_says_why(
    engine: AsyncEngine, service: EmbeddingServer
) -> None:
    """``QuestionNotEmbedded``: what the service said, as an error of this package."""
    service.says(Said(503), Said(429, "", {"Retry-After": "3"}))
    pipeline = pipeline_with(engine, store_embeddings=embedder(service))
    with pytest.raises(QuestionNotEmbedded, match="503 Service Unavailable"):
        await pipeline.search("a")
    with pytest.raises(QuestionNotEmbedded, match="rate limited for 3 s"):
        await pipeline.search("a")
    assert await pipeline.search("a") == []


async def test_other_dimensions_than_the_databases_are_refused_at_the_start(
    engine: AsyncEngine, psql: Psql
) -> None:
    """``EmbedderMismatch`` names both, before a document is touched."""
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(b"text")
    await completed(pipeline, sent.document_id)
    other = Hooks()
    other.store_embeddings.dimensions = 5
    changed = pipeline_with(engine, other)
    await changed.submit(b"more")
    with pytest.raises(EmbedderMismatch, match=r"has 5 dimensions, but its vectors .* have 4"):
        await changed.runner().run_until_idle()
    with pytest.raises(EmbedderMismatch):
        await changed.runner().__aenter__()
    assert psql.execute("SELECT lane, attempt FROM work").fetchone() == ("ready", 0)


async def test_a_search_with_other_dimensions_is_refused(engine: AsyncEngine) -> None:
    """The first search finds it out too."""
    pipeline = pipeline_with(engine)
    await completed(pipeline, (await pipeline.submit(b"text")).document_id)
    other = Hooks()
    other.store_embeddings = Numpy(5, "hash/1")  # type: ignore[assignment]
    with pytest.raises(EmbedderMismatch, match=r"has 5 dimensions, but its vectors .* have 4"):
        await pipeline_with(engine, other).search("text")


class Numpy:
    """An embedder that returns what numpy has."""

    batch_size = 3

    def __init__(self, dimensions: int, fingerprint: str = "numpy/1") -> None:
        self.dimensions, self.fingerprint = dimensions, fingerprint

    async def embed(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return np.array(drawn(self.dimensions)(texts), dtype=np.float32)

    async def embed_query(self, text: str) -> np.ndarray[Any, Any]:
        return (await self.embed([text]))[0]


@pytest.mark.parametrize(
    ("dimensions", "indexed"),
    [
        (2_000, "vector(2000)) vector_cosine_ops"),
        (2_001, "halfvec(2001)) halfvec_cosine_ops"),
        (4_000, "halfvec(4000)) halfvec_cosine_ops"),
        (4_001, None),
    ],
)
async def test_long_vectors_are_stored_indexed_and_found(
    engine: AsyncEngine,
    psql: Psql,
    monkeypatch: pytest.MonkeyPatch,
    dimensions: int,
    indexed: str | None,
) -> None:
    """Above 2,000 dimensions the index is on halfvec; above 4,000 there is none, and no loss."""
    monkeypatch.setattr(search, "WORTH_AN_INDEX", 1)
    pipeline = pipeline_with(engine, store_embeddings=Numpy(dimensions))
    await completed(pipeline, (await pipeline.submit(parts(7))).document_id)
    best, *_ = await pipeline.search("part 5")
    assert best.text == "part 5"
    assert best.score == pytest.approx(1, abs=1e-3)
    indexes = psql.execute(
        "SELECT indexdef FROM pg_indexes WHERE indexname LIKE 'chunk_vector_embedder_%'"
    ).fetchall()
    if indexed is None:
        assert indexes == []
        return
    assert indexed in indexes[0][0]
    statement = nearest(tables("smp"), 1, dimensions).compile(dialect=engine.dialect)
    question = drawn(dimensions)(["part 5"])[0]
    given = {"question": question, "tenant": "default", "limit": 2}
    psql.execute("SET enable_seqscan = off; SET enable_sort = off")
    plan = psql.execute(f"EXPLAIN {statement}", statement.construct_params(given)).fetchall()
    assert any("chunk_vector_embedder_1_idx" in line for (line,) in plan)
