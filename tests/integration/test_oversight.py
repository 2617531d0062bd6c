"""What whoever operates a pipeline asks it: load, usage, documents that match."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_limited_server import LimitedServer
from fix_pipelines import BRIEFLY, Hooks, completed, hand, pipeline_with, plain, running, until

from statemachine_pipeline.adapters.openai import Limits, OpenAIEmbedder
from statemachine_pipeline.batching import Batch
from statemachine_pipeline.database import listings
from statemachine_pipeline.database.listings import Which
from statemachine_pipeline.hooks import RateLimited, Reject, Retry
from statemachine_pipeline.providers import Provider, report
from statemachine_pipeline.retry import Exponential

if TYPE_CHECKING:
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Pipeline
    from statemachine_pipeline.hooks import Claim

    Psql = psycopg.Connection[Any]

PLENTY = 1e9
EVERYTHING = Which()


def words(count: int, kind: str) -> bytes:
    """Return a document of so many chunks of different lengths."""
    return "\n\n".join(f"{kind} {'word ' * (n % 5)}{n}" for n in range(count)).encode()


def service_of(server: LimitedServer, **own: Any) -> OpenAIEmbedder:
    """Return an embedder that asks a server which counts words as tokens."""
    url = f"{server.address}/v1"
    return OpenAIEmbedder("m", dimensions=2, base_url=url, limits=Limits(inputs=7), **own)


def counted(server: LimitedServer) -> int:
    """Return the tokens that a server answered for."""
    return sum(entry.tokens for entry in server.books if entry.status == 200)


async def used(pipeline: Pipeline, by: str) -> dict[str, int]:
    """Return tokens by key."""
    return {one.key: one.tokens for one in await pipeline.operations.oversight.usage(by=by)}


async def test_tokens_add_up_to_what_the_service_counted(engine: AsyncEngine) -> None:
    """'Totals must equal what the embedding server counted', by tenant, day, stage and document."""
    with LimitedServer(requests=PLENTY, tokens=PLENTY) as server:
        pipeline = pipeline_with(engine, store_embeddings=plain(service_of(server)))
        sent = [
            await pipeline.submit(words(n, f"{tenant} {n}"), tenant=tenant)
            for tenant in ("ours", "theirs")
            for n in (1, 5, 9, 23)
        ]
        ids = [one.document_id for one in sent]
        assert await completed(pipeline, *ids) == ["complete"] * len(ids)
        total = counted(server)
        assert len(server.books) > len(ids) / 2

    documents = await used(pipeline, "document")
    assert documents.keys() == {str(one) for one in ids}
    assert min(documents.values()) > 0
    for by in ("tenant", "day", "stage", "document"):
        assert sum((await used(pipeline, by)).values()) == total
    assert (await used(pipeline, "stage")).keys() == {"store_embeddings"}
    assert (await used(pipeline, "tenant")).keys() == {"ours", "theirs"}
    assert set(await used(pipeline, "day")) <= {
        f"{datetime.now(UTC) - timedelta(days=ago):%Y-%m-%d}" for ago in (0, 1)
    }
    # Whole texts were sent for the larger ones, and more of them.
    (row,) = [one for one in await pipeline.history(ids[0]) if one.tokens]
    assert (row.trigger, row.attempt) == ("store_embeddings", 1)


class Moody:
    """An embedder that is charged for its requests, and fails after some of them."""

    dimensions = 2
    batch_size = 1
    fingerprint = "moody/1"

    def __init__(self, *faults: BaseException | None) -> None:
        self.faults, self.asked = list(faults), 0
        self.blocks_at: int | None = None
        self.blocked = asyncio.Event()

    async def embed(self, texts: list[str]) -> list[list[float]]:
        self.asked += 1
        if self.asked == self.blocks_at:
            self.blocked.set()
            await asyncio.Event().wait()
        report(tokens=100)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        return [[1.0, 2.0]] * len(texts)

    async def embed_query(self, text: str) -> list[float]:
        return [1.0, 2.0]


@pytest.mark.parametrize("waits", [False, True], ids=["failed", "given back"])
async def test_attempts_that_end_badly_are_charged_too(engine: AsyncEngine, *, waits: bool) -> None:
    """'Attempts that fail after paying are counted too', and so are those given back."""
    at_once = timedelta(milliseconds=1)
    fault = RateLimited(at_once) if waits else Retry("it did not come through", after=at_once)
    stage = plain(
        Moody(None, fault),
        concurrency=1,
        backoff=Exponential(base=at_once, cap=at_once),
        provider=Provider("acme"),
    )
    pipeline = pipeline_with(engine, store_embeddings=stage)
    sent = await pipeline.submit(b"one\n\ntwo\n\nthree")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    rows = [one for one in await pipeline.history(sent.document_id) if one.tokens]
    charged = [(one.trigger, one.attempt) for one in rows]
    assert charged == ([] if waits else [("retry", 1)]) + [("store_embeddings", 1 if waits else 2)]
    # What a request before the failed one brought is kept, and one text is asked for again.
    assert sum(one.tokens or 0 for one in rows) == 400
    assert await used(pipeline, "stage") == {"store_embeddings": 400}


async def test_what_was_charged_is_told_though_a_person_ends_it(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A document that was given back and is cancelled then leaves what it cost in its history."""
    stage = plain(Moody(RateLimited(timedelta(hours=1))), provider=Provider("acme"))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    sent = await pipeline.submit(b"one")
    async with running(pipeline):
        await until(psql, "SELECT count(*) > 0 FROM work WHERE tokens > 0")
    await pipeline.apply("cancel", sent.document_id, reason="a test")
    (row,) = [one for one in await pipeline.history(sent.document_id) if one.tokens]
    assert (row.trigger, row.tokens) == ("cancel", 100)
    assert await used(pipeline, "stage") == {"store_embeddings": 100}


async def test_what_was_saved_is_charged_though_the_attempt_is_given_back(
    engine: AsyncEngine, psql: Psql
) -> None:
    """'Tokens of finished batches count once': its worker is stopped at the second of three."""
    moody = Moody()
    stage = plain(moody, provider=Provider("acme"), batch=Batch(requests=1))
    pipeline = pipeline_with(engine, store_embeddings=stage)
    sent = await pipeline.submit(b"one\n\ntwo\n\nthree")
    moody.blocks_at = 2
    async with running(pipeline, drain=timedelta(0)):
        await asyncio.wait_for(moody.blocked.wait(), BRIEFLY.total_seconds())
        assert psql.execute("SELECT tokens, lane FROM work").fetchall() == [(100, "claimed")]
    assert psql.execute("SELECT tokens, lane FROM work").fetchall() == [(100, "ready")]
    moody.blocks_at = None
    assert await completed(pipeline, sent.document_id) == ["complete"]
    rows = [one for one in await pipeline.history(sent.document_id) if one.tokens]
    assert [(one.trigger, one.tokens) for one in rows] == [("store_embeddings", 300)]


async def test_hooks_of_other_stages_are_charged_by_what_they_report(engine: AsyncEngine) -> None:
    """``report(tokens=...)`` of any hook; a price makes a cost of it, and others cost nothing."""
    hooks = Hooks()

    async def ask(claim: Claim) -> Any:
        report(tokens=30)
        report(tokens=20)
        return await parse(claim)

    parse = hooks.finish_parse._work
    hooks.finish_parse.does(ask)
    pipeline = pipeline_with(engine, hooks)
    await pipeline.submit(b"one")
    await completed(pipeline)
    usage = pipeline.operations.oversight.usage
    found = {one.key: one for one in await usage(by="stage", prices={"finish_parse": 2.0})}
    assert found["finish_parse"].tokens == 50
    assert found["finish_parse"].cost == pytest.approx(0.0001)
    # The cheap embedder reports nothing, so its estimate stands.
    assert found["store_embeddings"].tokens > 0
    assert found["store_embeddings"].cost is None
    assert await usage(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert await usage(tenant="nobody") == []
    with pytest.raises(ValueError, match="no stage earns nothing; there are queue_parse, "):
        await usage(prices={"nothing": 1.0})
    with pytest.raises(ValueError, match="has no time zone"):
        await usage(since=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point


async def test_top_shows_what_waits_runs_and_is_in_the_way(engine: AsyncEngine, psql: Psql) -> None:
    """Ready, claimed, deferred, due, rate, mean time, slots, and one sentence for all of it."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    top = pipeline.operations.oversight.top
    assert (await top()).slowest.limit == "idle"
    for n in range(3):
        await pipeline.submit(f"text {n}".encode())
    seen = await top()
    assert [one.stage for one in seen.stages] == list(pipeline.stages.earned)
    first = seen.stages[0]
    assert (first.stage, first.ready, first.claimed, first.workers) == ("queue_parse", 3, 0, 0)
    assert (seen.slowest.stage, seen.slowest.limit) == ("queue_parse", "unserved")
    await pipeline.operations.pause(stage="queue_parse", reason="a test")
    assert (await top()).slowest.limit == "paused"
    await pipeline.operations.resume(stage="queue_parse")

    hooks.finish_parse.block()
    async with running(pipeline):
        await until(psql, "SELECT count(*) = 3 FROM work WHERE lane = 'claimed'")
        await until(psql, "SELECT count(*) = 3 FROM work WHERE state = 'parse_queued'")
        seen = await top()
        hooks.finish_parse.go_on()
        await until(psql, "SELECT count(*) = 0 FROM work")
    stages = {one.stage: one for one in seen.stages}
    assert (stages["finish_parse"].claimed, stages["finish_parse"].workers) == (3, 1)
    assert stages["finish_parse"].slots == pipeline.stages.served(["finish_parse"])[0].stage.slots
    assert stages["queue_parse"].per_second == pytest.approx(0.1)
    assert stages["queue_parse"].run_seconds is not None
    assert (seen.slowest.stage, seen.slowest.limit) == ("finish_parse", "hook")
    assert (await top()).slowest.limit == "idle"


async def test_who_waits_behind_a_document_that_took_a_worker_down_is_told(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Slots are free then, and nothing is taken; another worker that is not alone ends that."""
    pipeline = pipeline_with(engine)
    suspect = (await pipeline.submit(b"suspect")).document_id
    psql.execute("UPDATE work SET crashes = 1, alone = true")
    behind = (await pipeline.submit(b"behind it")).document_id
    busy = await hand(pipeline)
    serves = """UPDATE worker SET serves = '{"queue_parse": null}'"""
    psql.execute(serves)
    top = pipeline.operations.oversight.top
    seen = await top()
    assert (seen.slowest.limit, seen.stages[0].ready, seen.stages[0].suspects) == ("nothing", 2, 1)
    ((claim, _),) = await busy.claim(alone=True, slots=1)
    assert claim.document.id == suspect
    seen = await top()
    assert (seen.stages[0].workers, seen.stages[0].alone, seen.slowest.limit) == (1, 1, "alone")
    assert seen.slowest.sentence.startswith("queue_parse: 1 is ready, the oldest for ")
    assert ": 1 of 1 worker is alone with a document that took" in seen.slowest.sentence
    explained = await pipeline.explain(behind)
    assert (explained.waits_for, explained.obstacles.all_are_alone) == (("worker",), True)
    assert explained.sentence.endswith("and takes nothing else until that ends")

    await hand(pipeline)
    psql.execute(serves)
    assert (await top()).slowest.limit == "hook"
    assert not (await pipeline.explain(behind)).obstacles.all_are_alone


async def test_documents_are_found_by_what_they_are(engine: AsyncEngine, psql: Psql) -> None:
    """'filters state, stage, tenant, code, age, name or id contains', in pages by key."""
    hooks = Hooks()
    hooks.finish_parse.raises(Reject("no", code="broken"))
    pipeline = pipeline_with(engine, hooks)
    bad = (await pipeline.submit(b"bad", name="Bad.TXT", tenant="ours")).document_id
    await completed(pipeline)
    good = (await pipeline.submit(b"good", name="good.txt", tenant="theirs")).document_id
    await completed(pipeline)
    new = (await pipeline.submit(b"new", name="new.md", tenant="ours")).document_id
    psql.execute(
        "UPDATE document SET updated_at = now() - interval '2 hours' WHERE id = %s", [good]
    )
    oversight = pipeline.operations.oversight

    async def found(**which: Any) -> list[UUID]:
        return [one.id for one in await oversight.documents(Which(**which))]

    assert await found() == [bad, good, new]
    assert await found(state="dead_letter") == [bad]
    assert await found(stage="finish_parse") == [bad]
    assert await found(stage="queue_parse") == [new]
    assert await found(tenant="ours") == [bad, new]
    assert await found(code="broken") == [bad]
    assert await found(older_than=timedelta(hours=1)) == [good]
    assert await found(contains=".txt") == [bad, good]
    assert await found(contains=str(new)[:13].upper()) == [new]
    assert await found(contains="%") == []
    page = await oversight.documents(after=bad, limit=1)
    assert [one.id for one in page] == [good]


async def test_documents_are_counted_by_kind(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'--group state|stage|tenant|code', and a count that would scan for ever stops and says so."""
    hooks = Hooks()
    hooks.finish_parse.raises(Reject("no", code="broken"))
    pipeline = pipeline_with(engine, hooks)
    await pipeline.submit(b"bad", tenant="ours")
    await completed(pipeline)
    for text in (b"1", b"2"):
        await pipeline.submit(text, tenant="theirs")
    oversight = pipeline.operations.oversight

    async def counts(by: Any, which: Which = EVERYTHING) -> list[tuple[str | None, int]]:
        answer = await oversight.groups(by, which)
        assert not answer.is_capped
        return [(one.key, one.count) for one in answer.groups]

    assert await counts("state") == [("uploaded", 2), ("dead_letter", 1)]
    assert await counts("stage") == [("queue_parse", 2), ("finish_parse", 1)]
    assert await counts("tenant") == [("theirs", 2), ("ours", 1)]
    assert await counts("code") == [(None, 2), ("broken", 1)]
    assert await counts("state", Which(tenant="ours")) == [("dead_letter", 1)]
    monkeypatch.setattr(listings, "MOST_COUNTED", 2)
    capped = await oversight.groups("state")
    assert capped.is_capped
    assert sum(one.count for one in capped.groups) == 2
    monkeypatch.setattr(listings, "MOST_COUNTED", 4)
    assert not (await oversight.groups("state")).is_capped
