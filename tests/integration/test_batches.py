"""Many documents in one request: shared, bounded, halved, saved at once, and given up."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import BRIEFLY, HashEmbedder, completed, leap, pipeline_with, running, until
from fix_postgres import connect

from statemachine_pipeline import Batch, Breaker, Budget, Provider, Reject, Retry, Stage, report
from statemachine_pipeline.adapters.openai import Limits, OpenAIEmbedder
from statemachine_pipeline.records import chunk_id
from statemachine_pipeline.resilience.access import Access
from statemachine_pipeline.resilience.batches import Line, Queue
from statemachine_pipeline.runner import embedding, loop, proposing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Pipeline
    from statemachine_pipeline.testing import EmbeddingServer, Said

    Psql = psycopg.Connection[Any]

TESTS = Path(__file__).resolve().parents[1]
LONG = timedelta(minutes=5)
"""Age of batches that go because they are full, or because nobody else can come."""

EMBEDDING = (
    "SELECT count(*) = %s FROM work WHERE state = 'embedding_in_progress' AND lane = 'claimed'"
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff draws zero and what is due is looked for at once."""
    monkeypatch.setattr(loop, "PROMOTE_SECONDS", 0.02)
    monkeypatch.setattr(proposing.random, "random", lambda: 0.0)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first texts of all documents that ever waited for a request."""
    found: list[str] = []
    plain = Queue.add

    def add(self: Queue, line: Line) -> None:
        plain(self, line)
        found.append(line.texts[0].text)

    monkeypatch.setattr(Queue, "add", add)
    return found


async def until_waits(waiting: list[str], first: str) -> None:
    """Return once a document waits for a request whose first text is this."""
    async with asyncio.timeout(BRIEFLY.total_seconds()):
        while first not in waiting:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.01)


class Gated(HashEmbedder):
    """An embedder that answers once it is told to; remembers its requests.

    Attributes:
        asked: The texts of each request, in order.
        most: Most requests that were under way at the same time.
        cancelled: How many were cancelled.
        bad: What a request may not hold.

    Args:
        is_open: It answers from the beginning.
        leaps: Seconds that each request takes, on the clock of the loop.
    """

    batch_size = 100

    def __init__(self, *, is_open: bool = True, leaps: float = 0.0) -> None:
        super().__init__()
        self._leaps = leaps
        self.asked: list[list[str]] = []
        self.most = self.running = self.cancelled = 0
        self.bad = "poison"
        self.refusal: Callable[[], Exception] = lambda: Reject("holds poison", "poisoned")
        self.gate, self._changed = asyncio.Event(), asyncio.Event()
        if is_open:
            self.gate.set()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked.append(list(texts))
        self.running += 1
        self.most = max(self.most, self.running)
        self._changed.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            self._changed.set()
            raise
        finally:
            self.running -= 1
        if self._leaps:
            leap(self._leaps)
        if any(self.bad in text for text in texts):
            raise self.refusal()
        return await super().embed(texts)

    async def begun(self, count: int) -> None:
        """Return once so many requests are under way."""
        await self._until(lambda: self.running >= count)

    async def given_up(self) -> None:
        """Return once a request was cancelled."""
        await self._until(lambda: self.cancelled > 0)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(BRIEFLY.total_seconds()):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()


class Counting(Gated):
    """An embedder that limits requests by tokens, one for each character."""

    def __init__(self, tokens: int, *, longest: int = 100, is_open: bool = True) -> None:
        super().__init__(is_open=is_open)
        self.limits, self._longest = Limits(inputs=100, tokens=tokens), longest

    def count_tokens(self, text: str) -> int:
        if len(text) > self._longest:
            raise Reject(f"has {len(text)} characters", "too_long")
        return len(text)


async def submit(pipeline: Pipeline, *texts: str, tenant: str = "default") -> UUID:
    """Submit a document whose chunks are these."""
    uri = f"test:{tenant}:{texts[0]}"
    data = "\n\n".join(texts).encode()
    return (await pipeline.submit(data, source_uri=uri, tenant=tenant)).document_id


async def several(pipeline: Pipeline, count: int, word: str = "text", **options: Any) -> list[UUID]:
    """Submit so many documents of one chunk each."""
    return [await submit(pipeline, f"{word} {n:02}", **options) for n in range(count)]


def service_embedder(service: EmbeddingServer, **limits: Any) -> OpenAIEmbedder:
    """Return an embedder that asks ``service``."""
    return OpenAIEmbedder(
        "model-1", dimensions=8, base_url=f"{service.address}/v1", limits=Limits(**limits)
    )


# Shared and bounded.


async def test_small_documents_of_all_tenants_share_a_request(
    engine: AsyncEngine, service: EmbeddingServer
) -> None:
    """Twenty-four documents of two tenants, one request; nobody is waited for who cannot come."""
    stage = Stage(service_embedder(service, inputs=100), concurrency=24, batch=Batch(age=LONG))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    ours = await several(pipeline, 12, tenant="ours")
    theirs = await several(pipeline, 12, "word", tenant="theirs")
    assert await completed(pipeline, *ours, *theirs) == ["complete"] * 24
    assert [len(asked.texts) for asked in service.asked] == [24]
    firsts = [text.split()[0] for text in service.texts]
    assert firsts in (["text", "word"] * 12, ["word", "text"] * 12)


@pytest.mark.parametrize(
    ("hook", "batch", "sizes"),
    [
        (Gated, Batch(inputs=4, age=LONG), {4}),
        (Gated, Batch(tokens=6, age=LONG), {3}),
        (lambda: Counting(tokens=14), Batch(age=LONG), {2}),
        (Gated, Batch(age=LONG), {12}),
    ],
    ids=["inputs", "tokens", "counted", "unbounded"],
)
async def test_a_request_is_bounded_by_texts_and_by_tokens(
    engine: AsyncEngine, hook: Callable[[], Gated], batch: Batch, sizes: set[int]
) -> None:
    """By the embedder's own count, or by a quarter of the bytes: two tokens for each of these."""
    embedder = hook()
    stage = Stage(embedder, concurrency=12, batch=batch)
    pipeline = pipeline_with(engine, store_embeddings=stage)
    sent = await several(pipeline, 12)
    assert await completed(pipeline, *sent) == ["complete"] * 12
    assert {len(texts) for texts in embedder.asked} == sizes


async def test_a_text_waits_for_company_as_long_as_its_age(engine: AsyncEngine, psql: Psql) -> None:
    """A request goes when it is full or its first text is old enough, whatever comes first."""
    embedder = Gated()
    patient = Stage(embedder, batch=Batch(inputs=2, age=LONG))
    pipeline = pipeline_with(engine, store_embeddings=patient)
    await submit(pipeline, "first")
    async with running(pipeline):
        await until(psql, EMBEDDING, 1)
        await submit(pipeline, "second")
        await until(psql, "SELECT count(*) = 0 FROM work")
    assert embedder.asked == [["first", "second"]]
    brief = Stage(embedder, batch=Batch(inputs=2, age=timedelta(milliseconds=1)))
    pipeline = pipeline_with(engine, store_embeddings=brief)
    assert await completed(pipeline, await submit(pipeline, "third")) == ["complete"]
    assert embedder.asked[1:] == [["third"]]


@pytest.mark.parametrize("requests", [1, 3])
async def test_only_so_many_requests_are_under_way(engine: AsyncEngine, requests: int) -> None:
    """``Batch(requests=...)``, of one document or of many."""
    embedder = Gated(is_open=False)
    stage = Stage(embedder, batch=Batch(inputs=1, requests=requests))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    sent = [await submit(pipeline, *(f"{n} {part}" for part in range(4))) for n in range(2)]
    ended = asyncio.create_task(completed(pipeline, *sent))
    await embedder.begun(requests)
    embedder.gate.set()
    assert await ended == ["complete"] * 2
    assert embedder.most == requests
    assert len(embedder.asked) == 8


async def test_a_large_document_does_not_hold_up_another_tenants_small_one(
    engine: AsyncEngine, psql: Psql, waiting: list[str]
) -> None:
    """Tenants take turns: three chunks are done while most of forty still wait."""
    embedder = Counting(tokens=1_000, is_open=False)
    stage = Stage(embedder, batch=Batch(inputs=4, requests=1))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    large = await submit(pipeline, *(f"large {n}" for n in range(40)), tenant="a")
    async with running(pipeline):
        await embedder.begun(1)
        small = await submit(pipeline, "small 0", "small 1", "small 2", tenant="b")
        await until_waits(waiting, "small 0")
        embedder.gate.set()
        await until(psql, "SELECT count(*) = 0 FROM work")
    asked = list(itertools.chain.from_iterable(embedder.asked))
    assert asked.index("small 2") < 12
    assert [text for text in asked if "large" in text] == [f"large {n}" for n in range(40)]
    assert [(await pipeline.get(one)).vector_count for one in (large, small)] == [40, 3]


async def test_each_request_is_announced_with_its_tokens(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider's budget hears of every request once, halves included."""
    announced: list[tuple[str, int]] = []
    plain = Access.request

    def request(self: Access, *, tokens: int = 0, **more: Any) -> Any:
        if tokens:
            announced.append((self.provider.name, tokens))
        return plain(self, tokens=tokens, **more)

    monkeypatch.setattr(Access, "request", request)
    embedder = Counting(tokens=1_000)
    stage = Stage(embedder, provider=Provider("p"), concurrency=1, batch=Batch(age=LONG))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    await completed(pipeline, await submit(pipeline, "one", "four", "poison"))
    assert announced == [("p", sum(map(len, texts))) for texts in embedder.asked]
    assert embedder.asked == [
        ["one", "four", "poison"],
        ["one"],
        ["four", "poison"],
        ["four"],
        ["poison"],
    ]


async def test_no_request_is_larger_than_its_provider_lets_through(engine: AsyncEngine) -> None:
    """Limits that only headers tell bound the next requests; the stage is not at fault."""
    embedder = Counting(tokens=1_000)
    work = embedder.embed

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        report(tokens=sum(map(len, texts)), headers={"x-ratelimit-limit-tokens": "39"})
        return await work(texts)

    embedder.embed = embed  # type: ignore[method-assign]
    budget = Budget(per=timedelta(seconds=0.1))
    stage = Stage(
        embedder,
        provider=Provider("p", budget=budget),
        concurrency=10,
        batch=Batch(age=LONG, requests=1),
    )
    pipeline = pipeline_with(engine, store_embeddings=stage)
    for word in ("text", "word"):
        sent = await several(pipeline, 10, word)
        assert await completed(pipeline, *sent) == ["complete"] * 10
    assert [len(texts) for texts in embedder.asked] == [10, 5, 5]


async def test_who_waits_for_the_budget_is_not_timed_out(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider was not asked for it yet: its attempt is given back, and so is its turn."""
    monkeypatch.setattr(embedding, "SHORTEST", LONG)  # so that it is still deferred when we look
    embedder = Counting(tokens=1_000)
    budget = Budget(requests=1, per=timedelta(days=365), hold=timedelta(days=900))
    stage = Stage(
        embedder, provider=Provider("p", budget=budget), deadline=timedelta(minutes=1), attempts=1
    )
    pipeline = pipeline_with(engine, store_embeddings=stage)
    await submit(pipeline, "one")
    async with running(pipeline):
        await until(psql, "SELECT requests_level < -0.09 FROM budget")
        leap(61)
        await until(psql, "SELECT lane = 'deferred' AND attempt = 0 FROM work")
    assert embedder.asked == []
    assert psql.execute("SELECT requests_level > 0.89 FROM budget").fetchone() == (True,)


async def test_a_request_that_waited_in_vain_is_not_made(engine: AsyncEngine, psql: Psql) -> None:
    """Another request of its only document failed meanwhile: that is what ends the attempt."""
    embedder = Counting(tokens=1_000)
    embedder.refusal = lambda: Retry("cannot")
    budget = Budget(tokens=10, per=timedelta(seconds=5), hold=timedelta(minutes=1))
    stage = Stage(
        embedder,
        provider=Provider("p", budget=budget, breaker=Breaker(failures=2)),
        attempts=1,
        batch=Batch(inputs=1, requests=2),
    )
    pipeline = pipeline_with(engine, store_embeddings=stage)
    assert await completed(pipeline, await submit(pipeline, "poison", "another")) == ["dead_letter"]
    assert embedder.asked == [["poison"]]
    assert psql.execute("SELECT reason FROM dead_letter").fetchone() == ("cannot",)
    (level,) = psql.execute("SELECT tokens_level FROM budget").fetchone()  # type: ignore[misc]
    assert level > 2


# Refused.


@pytest.mark.parametrize("own", [True, False], ids=["own", "service"])
async def test_a_refused_request_is_halved_to_the_chunk_that_is_to_blame(
    engine: AsyncEngine, psql: Psql, service: EmbeddingServer, own: bool
) -> None:
    """Its document is parked with the chunk named; neighbours and its own good chunks are saved."""
    service.bad = "poison"
    embedder = Gated() if own else service_embedder(service, inputs=100)
    stage = Stage(embedder, concurrency=16, batch=Batch(age=LONG))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    good = await several(pipeline, 15)
    bad = await submit(pipeline, "mild", "a cup of poison", "after")
    states = await completed(pipeline, *good, bad)
    assert states == ["complete"] * 15 + ["dead_letter"]
    code, reason = psql.execute("SELECT code, reason FROM dead_letter").fetchone() or ("", "")
    assert code == ("poisoned" if own else "input_refused")
    assert reason.startswith(f"chunk 1 ({chunk_id(bad, 'a cup of poison', 0)}): ")
    assert "cup" not in reason
    assert psql.execute("SELECT document_id FROM vector_buffer").fetchall() == [(bad,)]
    asked = embedder.asked if isinstance(embedder, Gated) else service.asked
    harmless = 0 if own else 1
    assert len(asked) <= 1 + 2 * math.ceil(math.log2(18)) + harmless


async def test_what_is_under_way_is_saved_before_its_document_is_rejected(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Another request holds texts of it: they are paid for, and a requeue needs them."""
    embedder = Gated(is_open=False)
    work = embedder.embed

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        if "poison" in texts:
            embedder.asked.append(list(texts))
            raise Reject("holds poison")
        return await work(texts)

    embedder.embed = embed  # type: ignore[method-assign]
    stage = Stage(embedder, batch=Batch(inputs=2, requests=2))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    sent = await submit(pipeline, "one", "two", "poison", "three")
    async with running(pipeline):
        await embedder.begun(1)
        for _ in range(20):  # as many round trips as its end would take many times over
            assert (await pipeline.get(sent)).state == "embedding_in_progress"
        assert embedder.asked == [["one", "two"], ["poison", "three"], ["poison"]]
        embedder.gate.set()
        await until(psql, "SELECT count(*) = 1 FROM dead_letter")
    assert psql.execute("SELECT count(*) FROM vector_buffer").fetchone() == (2,)


async def test_a_vector_that_cannot_be_searched_rejects_only_its_document(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Zero or not finite: the others of its request are saved."""
    embedder = Gated()
    embedder.bad = "never"
    work = embedder.embed

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        vectors = await work(texts)
        return [[0.0] * 4 if "zero" in t else v for t, v in zip(texts, vectors, strict=True)]

    embedder.embed = embed  # type: ignore[method-assign]
    stage = Stage(embedder, concurrency=3, batch=Batch(age=LONG))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    sent = [await submit(pipeline, text) for text in ("one", "zero", "two")]
    assert await completed(pipeline, *sent) == ["complete", "dead_letter", "complete"]
    assert len(embedder.asked) == 1
    letter = psql.execute("SELECT code, reason FROM dead_letter").fetchone()
    chunk = f"chunk 0 ({chunk_id(sent[1], 'zero', 0)})"
    assert letter == ("bad_vector", f"{chunk}: got a vector that is zero or not finite")


async def test_a_text_that_is_too_long_is_never_sent(engine: AsyncEngine, psql: Psql) -> None:
    """What ``count_tokens`` rejects costs nothing, and the chunk is named."""
    embedder = Counting(tokens=100, longest=9)
    pipeline = pipeline_with(engine, store_embeddings=embedder)
    sent = [await submit(pipeline, *texts) for texts in (["short"], ["brief", "not so short"])]
    assert await completed(pipeline, *sent) == ["complete", "dead_letter"]
    assert embedder.asked == [["short"]]
    chunk = f"chunk 1 ({chunk_id(sent[1], 'not so short', 0)})"
    letter = psql.execute("SELECT code, reason FROM dead_letter").fetchone()
    assert letter == ("too_long", f"{chunk}: has 12 characters")


@pytest.mark.usefixtures("impatient")
async def test_a_document_that_fails_its_requests_is_embedded_alone(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Isolation before blame: from the third attempt on it burns nobody's attempts but its own."""
    embedder = Gated()
    embedder.refusal = lambda: Retry("cannot")
    stage = Stage(embedder, concurrency=4, batch=Batch(age=LONG))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    sent = [*await several(pipeline, 3), await submit(pipeline, "poison")]
    assert await completed(pipeline, *sent) == ["complete"] * 3 + ["dead_letter"]
    retries = psql.execute(
        "SELECT count(*) FROM transition WHERE trigger = 'retry' GROUP BY document_id ORDER BY 1"
    ).fetchall()
    assert retries == [(2,), (2,), (2,), (4,)]
    assert [len(texts) for texts in embedder.asked] == [4, 4, *[1] * 6]


# Saved at once, under each document's fence.


async def test_a_lost_claim_takes_no_neighbour_with_it(engine: AsyncEngine, psql: Psql) -> None:
    """A document that is cancelled while its request is under way: the others are saved."""
    embedder = Gated(is_open=False)
    stage = Stage(embedder, concurrency=3, batch=Batch(age=LONG))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    sent = {f"text {n:02}": one for n, one in enumerate(await several(pipeline, 3))}
    async with running(pipeline):
        await embedder.begun(1)
        (texts,) = embedder.asked
        first, *others = (sent[text] for text in texts)
        await pipeline.apply("cancel", first, reason="test")
        embedder.gate.set()
        await until(psql, "SELECT count(*) = 0 FROM work")
    states = [(await pipeline.get(one)).state for one in (first, *others)]
    assert states == ["cancelled", "complete", "complete"]
    assert len(embedder.asked) == 1
    assert psql.execute("SELECT count(*) FROM vector_buffer").fetchone() == (0,)


async def test_a_locked_document_holds_up_no_neighbour(
    engine: AsyncEngine, psql: Psql, database_url: str
) -> None:
    """Somebody's open transaction: its vectors are kept and saved once it ends."""
    embedder = Gated(is_open=False)
    stage = Stage(embedder, concurrency=3, batch=Batch(age=LONG))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    sent = await several(pipeline, 3)
    with connect(database_url) as other:
        async with running(pipeline):
            await embedder.begun(1)
            with other.transaction():
                other.execute("SELECT FROM smp.work WHERE document_id = %s FOR UPDATE", [sent[0]])
                embedder.gate.set()
                await until(psql, "SELECT count(*) = 1 FROM work")
            await until(psql, "SELECT count(*) = 0 FROM work")
    assert [(await pipeline.get(one)).state for one in sent] == ["complete"] * 3
    assert len(embedder.asked) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_killed_worker_costs_the_request_that_was_under_way(
    engine: AsyncEngine, database_url: str, service: EmbeddingServer, psql: Psql
) -> None:
    """After kill -9 with several documents in one request, a resume asks for its texts only."""
    program = (
        "import asyncio, sys\n"
        "from datetime import timedelta\n"
        "from fix_pipelines import pipeline_with\n"
        "from sqlalchemy.ext.asyncio import create_async_engine\n"
        "from statemachine_pipeline import Batch, Stage\n"
        "from statemachine_pipeline.adapters.openai import Limits, OpenAIEmbedder\n"
        "url, service = sys.argv[1:]\n"
        "hook = OpenAIEmbedder('model-1', dimensions=8, base_url=f'{service}/v1',\n"
        "                      limits=Limits(inputs=4))\n"
        "stage = Stage(hook, batch=Batch(requests=1, age=timedelta(minutes=5)), concurrency=3)\n"
        "pipeline = pipeline_with(create_async_engine(url), store_embeddings=stage)\n"
        "asyncio.run(pipeline.runner().run_until_idle())\n"
    )
    pipeline = pipeline_with(engine, store_embeddings=service_embedder(service, inputs=4))
    sent = [
        await submit(pipeline, *(f"{tenant} {n}" for n in range(4)), tenant=tenant)
        for tenant in ("a", "b", "c")
    ]
    answer = service.answer

    def answer_once(*given: Any) -> Said:
        """Answer the first request; the next ones wait."""
        if service.asked:
            service.block()
        return answer(*given)

    service.answer = answer_once  # type: ignore[method-assign]
    victim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, database_url, service.address),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
    )
    await until(psql, "SELECT count(*) >= 4 FROM vector_buffer")
    await service.begun()
    victim.send_signal(signal.SIGKILL)
    await victim.wait()
    lost = service.asked[-1].texts
    saved = {text for one in service.asked[:-1] for text in one.texts}
    service.answer = answer  # type: ignore[method-assign]
    service.go_on()
    before = len(service.asked)
    psql.execute("UPDATE worker SET beat_at = now() - interval '1 day'")
    assert await completed(pipeline, *sent) == ["complete"] * 3
    again = {text for one in service.asked[before:] for text in one.texts}
    assert set(lost) <= again
    assert not again & saved
    assert len(lost) <= 4


# Given up.


@pytest.mark.usefixtures("impatient")
async def test_a_request_that_hangs_ends_with_the_deadline(engine: AsyncEngine) -> None:
    """Its documents are timed out and tried again, and nothing of it is left behind."""
    embedder = Gated(is_open=False)
    stage = Stage(embedder, concurrency=2, deadline=timedelta(minutes=1), batch=Batch(age=LONG))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    sent = await several(pipeline, 2)
    ended = asyncio.create_task(pipeline.runner().run_until_idle())
    await embedder.begun(1)
    leap(61)
    await embedder.given_up()
    embedder.gate.set()
    assert (await ended)["complete"] == 2
    for one in sent:
        errors = [step.error for step in await pipeline.history(one) if step.error]
        assert set(errors) == {"timed_out"}


async def test_who_waits_behind_others_is_not_timed_out(
    engine: AsyncEngine, waiting: list[str]
) -> None:
    """Where requests are saved one after the other, waiting for them is no failure."""
    embedder = Gated(is_open=False, leaps=24)
    batch = Batch(inputs=1, requests=1)
    stage = Stage(embedder, deadline=timedelta(minutes=2), batch=batch, attempts=1)
    pipeline = pipeline_with(engine, store_embeddings=stage)
    before = await submit(pipeline, *(f"before {n}" for n in range(6)))
    running_on = asyncio.create_task(pipeline.runner().run_until_idle())
    await embedder.begun(1)
    behind = await submit(pipeline, "behind")
    await until_waits(waiting, "behind")
    embedder.gate.set()
    await running_on
    assert [(await pipeline.get(one)).state for one in (before, behind)] == ["complete"] * 2
    assert embedder.asked == [*([f"before {n}"] for n in range(6)), ["behind"]]


async def test_a_runner_that_is_aborted_leaves_no_task_behind(
    engine: AsyncEngine, psql: Psql
) -> None:
    """The request is cancelled, what waits is given back, no attempt is charged."""
    embedder = Gated(is_open=False)
    stage = Stage(embedder, batch=Batch(inputs=2, requests=1))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    await several(pipeline, 5)
    runner = pipeline.runner()
    before = asyncio.all_tasks()
    run = asyncio.create_task(runner.run())
    await embedder.begun(1)
    await until(psql, EMBEDDING, 5)
    runner.stop()
    runner.stop()
    await asyncio.wait_for(run, BRIEFLY.total_seconds())
    assert embedder.cancelled == 1
    assert asyncio.all_tasks() == before
    assert psql.execute("SELECT DISTINCT lane, attempt FROM work").fetchall() == [("ready", 0)]
