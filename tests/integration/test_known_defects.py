"""Fifteen ways in which pipelines of this kind have failed in production, and what catches them.

Those that another test proves exactly are named in ``PROVEN``; the others follow.
"""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from fix_pipelines import (
    BRIEFLY,
    Hooks,
    Told,
    completed,
    hand,
    path_of,
    pipeline_with,
    plain,
    running,
    until,
)
from loguru import logger
from sqlalchemy.orm import Session

from statemachine_pipeline import Done, Lifecycle, Pipeline, Retry, State, Wait, by_hand
from statemachine_pipeline.adapters.openai import OpenAIEmbedder
from statemachine_pipeline.errors import DatabaseUnavailable, SchemaMissing
from statemachine_pipeline.records import ParsedText, document_id, sha256_hex
from statemachine_pipeline.retry import Constant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Claim
    from statemachine_pipeline.testing import EmbeddingServer

    Psql = psycopg.Connection[Any]

TESTS = Path(__file__).resolve().parents[1]
EACH_STAGE_ONCE = "test_each_stage_is_settled_once_though_one_worker_is_killed_and_one_is_stopped"
PROVEN = {
    "two workers take the same document": [
        "integration/test_claims.py::test_two_workers_never_claim_the_same_document",
        "chaos/test_workers.py::" + EACH_STAGE_ONCE,
    ],
    "a worker that dies while it embeds is noticed by luck": [
        "integration/test_embedding_services.py::test_a_killed_worker_costs_one_batch",
    ],
    "empty vectors stand in for a batch that failed": [
        "integration/test_embedding_services.py::test_vectors_are_checked_before_they_are_kept",
        "unit/test_lifecycle.py::test_all_means_some_and_as_many_as_expected",
    ],
    "names of states drift away from the CHECK that guards them": [
        "integration/test_history_refused.py::test_a_declared_step_is_accepted",
        "integration/test_history_refused.py::test_a_step_that_is_no_edge_is_refused",
        "integration/test_migrations.py::test_a_lifecycle_the_database_does_not_know_is_refused",
    ],
    "events are lines of a log": [
        "integration/test_events.py::test_a_whole_life_is_told_in_order",
        "integration/test_events.py::test_what_was_rolled_back_is_never_told",
    ],
}


@pytest.mark.parametrize("defect", PROVEN)
def test_the_proof_exists(defect: str) -> None:
    """What the table names is there."""
    for proof in PROVEN[defect]:
        file, _, test = proof.partition("::")
        assert re.search(rf"^(async )?def {test}\b", (TESTS / file).read_text(), re.MULTILINE), (
            proof
        )


class RemoteService:
    """Parses elsewhere: takes each request once by its key, and answers when asked for that key.

    Args:
        answer: What it has parsed before the request has returned; None is never done.
    """

    def __init__(self, answer: str | None = None) -> None:
        self._answer = answer
        self.done: dict[UUID, str | None] = {}

    async def __call__(self, claim: Claim) -> ParsedText:
        """Submit the document at the first look, fetch the text at a later one."""
        key = claim.idempotency_key
        if key not in self.done:
            self.done[key] = self._answer
        elif (text := self.done[key]) is not None:
            return ParsedText(text)
        raise Wait(timedelta(0))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff draws zero and what is due is looked for at once."""
    monkeypatch.setattr("statemachine_pipeline.runner.loop.PROMOTE_SECONDS", 0.02)
    monkeypatch.setattr("statemachine_pipeline.runner.proposing.random.random", lambda: 0.0)


@pytest.mark.usefixtures("impatient")
async def test_an_answer_that_never_comes_ends_in_a_dead_letter(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Waiting for another service has a deadline and is counted; it is no place to be stuck in."""
    remote = RemoteService()
    stage = plain(remote, wait=timedelta(seconds=0.2), attempts=2)
    pipeline = pipeline_with(engine, finish_parse=stage)
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    assert path_of(psql, sent.document_id) == ["submit", "queue_parse", "retry", "fail"]
    letter = psql.execute("SELECT state, code, attempts FROM dead_letter").fetchone()
    assert letter == ("parse_queued", "waited_too_long", 2)
    assert len(remote.done) == 1


class SignedLifecycle(Lifecycle):
    """Work that another program finishes by a call of its own."""

    received = State(initial=True)
    sent, answered = State(), State()
    ended = State(final=True)

    dispatch = received.to(sent)
    answer = sent.to(answered)
    end = answered.to(ended)


async def _signed(engine: AsyncEngine, send: Any) -> Pipeline:
    async def end(_: Claim) -> None:
        """Earn the last edge."""

    hooks = {"dispatch": send, "answer": by_hand, "end": end}
    pipeline = Pipeline(engine, lifecycle=SignedLifecycle, hooks=hooks)
    await pipeline.migrate()
    return pipeline


async def test_an_answer_that_comes_early_is_refused_and_taken_when_it_comes_again(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Before the submit has returned there is nothing to answer: the caller is told, and no worse.

    The attempt that is under way keeps its claim, and its transition is not overwritten.
    """
    send = Told(lambda _: asyncio.sleep(0))
    send.block()
    pipeline = await _signed(engine, send)
    sent = await pipeline.submit(b"text")
    async with running(pipeline):
        await send.begun()
        early = await pipeline.apply("answer", sent.document_id, reason="done", by="service")
        assert (early.moved, early.refused[0].state) == ((), "received")
        assert "'answer'" in early.refused[0].reason
        send.go_on()
        await until(psql, "SELECT lane = 'held' FROM work")
        again = await pipeline.apply("answer", sent.document_id, reason="done", by="service")
        assert again.moved == (sent.document_id,)
        await pipeline.wait(sent.document_id, timeout=BRIEFLY)
    assert path_of(psql, sent.document_id) == ["submit", "dispatch", "answer", "end"]
    assert len(send.claims) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_remote_answer_that_is_ready_before_the_submit_returns_is_found(
    engine: AsyncEngine,
) -> None:
    """What is asked for next is under the same key, so that no order of events loses it."""
    remote = RemoteService("early")
    pipeline = pipeline_with(engine, finish_parse=remote)
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    assert [hit.text for hit in await pipeline.search("early", mode="text")] == ["early"]


async def test_an_answer_that_comes_late_twice_or_to_nobody_changes_nothing(
    engine: AsyncEngine, psql: Psql
) -> None:
    """What is not possible where the document stands is refused by name, and writes no row."""
    pipeline = await _signed(engine, Told(lambda _: asyncio.sleep(0)))
    sent, cancelled = [await pipeline.submit(text) for text in (b"one", b"two")]
    await completed(pipeline)
    await pipeline.apply("cancel", cancelled.document_id, reason="not needed")
    await pipeline.apply("answer", sent.document_id, reason="done")
    await completed(pipeline)
    everything = "SELECT document.xmin, document, transition FROM document, transition"
    before = psql.execute(everything).fetchall()
    for document in (sent, cancelled):
        late = await pipeline.apply("answer", document.document_id, reason="done again")
        assert late.moved == ()
        assert "wrong_state" in late.refused[0].reason
    assert psql.execute(everything).fetchall() == before


async def test_our_own_failure_is_told_to_the_caller_and_moves_nothing(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A database that does not take the answer raises, so that the caller sends it again."""
    pipeline = await _signed(engine, Told(lambda _: asyncio.sleep(0)))
    sent = await pipeline.submit(b"text")
    await completed(pipeline)
    database = psql.info.dbname
    psql.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    await engine.dispose()
    with pytest.raises(DatabaseUnavailable):
        await pipeline.apply("answer", sent.document_id, reason="done")
    psql.execute(f'ALTER DATABASE "{database}" RESET default_transaction_read_only')
    await engine.dispose()
    assert path_of(psql, sent.document_id) == ["submit", "dispatch"]
    assert (await pipeline.apply("answer", sent.document_id, reason="done")).refused == ()


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Everything that this package and its libraries log, at any level."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level=0, diagnose=True)
    logger.enable("statemachine_pipeline")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    yield lines
    logging.getLogger().removeHandler(handler)
    logger.disable("statemachine_pipeline")
    logger.remove(sink)


@pytest.mark.usefixtures("impatient")
async def test_no_log_holds_what_a_document_says(
    engine: AsyncEngine, logged: list[str], psql: Psql
) -> None:
    """Not when it is read, not when its hook fails quoting it, not when its product is refused."""

    class Refused:
        async def write(self, connection: Any, claim: Claim) -> None:
            await connection.exec_driver_sql("SELECT 'hush'::int")

    async def refused(claim: Claim) -> Done:
        return Done(Refused())

    hooks = Hooks()
    hooks.finish_parse.raises(ValueError("cannot read hush"), Retry("again"))
    pipeline = pipeline_with(engine, hooks, accept_parse=plain(refused, attempts=2))
    sent = await pipeline.submit(b"hush, a secret", name="secret.txt")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    logger.info("this test listens")
    assert any("this test listens" in line for line in logged)
    assert [line for line in logged if "hush" in line] == []


class OrderLifecycle(Lifecycle):
    """States and triggers that occur nowhere else."""

    ordered = State(initial=True)
    picked, packed, weighed = State(), State(), State()
    shipped, returned = State(final=True), State(final=True)

    pick = ordered.to(picked)
    pack = picked.to(packed)
    weigh = packed.to(weighed)
    ship = weighed.to(shipped)
    refuse = weighed.to(returned)


async def test_claims_checks_and_guards_come_from_one_declaration(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A state that is renamed is claimed, guarded and indexed under its new name, or nowhere."""
    earned = dict.fromkeys(["pick", "pack", "ship"], Told(lambda _: asyncio.sleep(0)))
    pipeline = Pipeline(
        engine, lifecycle=OrderLifecycle, hooks=earned | {"weigh": None, "refuse": None}
    )
    await pipeline.migrate()
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["shipped"]
    assert path_of(psql, sent.document_id) == ["submit", "pick", "pack", "weigh", "ship"]
    (check,) = psql.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c' "
        "AND conrelid = 'smp.transition'::regclass AND pg_get_constraintdef(oid) LIKE '%>pick>%'"
    ).fetchone() or [""]
    allowed = set(re.findall(r"'([a-z_]*>[a-z_]+>[a-z_]+)'", check))
    assert set(OrderLifecycle.graph.codes()) <= allowed


async def test_what_waits_or_has_failed_is_not_taken_before_its_time(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Who can do nothing with a document does not claim it; a failure always has a not-before."""
    hooks = Hooks()
    hour = Constant(base=timedelta(hours=1), jitter="none")
    failing = plain(hooks.finish_parse, backoff=hour)
    pipeline = pipeline_with(engine, hooks, queue_parse=by_hand, finish_parse=failing)
    await pipeline.migrate()
    worker = await hand(pipeline)
    held = await pipeline.submit(b"for somebody else")
    assert await worker.claim() == []
    await pipeline.apply("queue_parse", held.document_id, reason="go")
    for fault in (Wait(timedelta(hours=1)), ValueError("no")):
        hooks.finish_parse.raises(fault)
        async with running(pipeline):
            await until(psql, "SELECT lane = 'deferred' FROM work")
        (wait,) = psql.execute(
            "SELECT extract(epoch FROM run_at - entered_at) FROM work"
        ).fetchone() or [None]
        assert wait >= 3600
        await worker.store.promote()
        assert await worker.claim() == []
        psql.execute("UPDATE work SET run_at = now()")
        await worker.store.promote()
    with pytest.raises(psycopg.errors.NotNullViolation):
        psql.execute("UPDATE work SET run_at = NULL")


async def test_one_document_has_one_id_whoever_names_it(engine: AsyncEngine) -> None:
    """Callers, batches, synchronous callers and workers compute it in the same way."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    expected = document_id("t", "mem:a")
    single = await pipeline.submit(b"text", source_uri="mem:a", tenant="t")
    (many,) = await pipeline.operations.submit_many([b"text"], tenant="t")
    async with engine.begin() as connection:

        def blocking(lent: Any) -> Any:
            with Session(bind=lent) as session:
                return pipeline.blocking.submit(session, b"text", source_uri="mem:a", tenant="t")

        again = await connection.run_sync(blocking)
    assert {single.document_id, again.document_id} == {expected}
    assert many.document_id == document_id("t", f"sha256:{sha256_hex(b'text')}")
    await completed(pipeline)
    claimed = {claim.document.id for claim in hooks.queue_parse.claims}
    assert claimed == {expected, many.document_id}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("trigger", "state"),
    [
        ("queue_parse", "uploaded"),
        ("finish_parse", "parse_queued"),
        ("accept_parse", "parse_complete"),
        ("store_chunks", "parse_validated"),
        ("finalize", "embeddings_stored"),
    ],
)
async def test_a_failure_is_named_after_its_stage_and_tried_again_there(
    engine: AsyncEngine, psql: Psql, trigger: str, state: str
) -> None:
    """A retry is taken up where it failed; when there are no more, the dead letter says where."""
    hooks = Hooks()
    if trigger == "finalize":
        hooks.finalize = Told(hooks.finalize.publish)
    hook = getattr(hooks, trigger)
    hook.raises(*[ValueError("no")] * 3)
    pipeline = pipeline_with(engine, **(vars(hooks) | {trigger: plain(hook, attempts=3)}))
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    assert [(claim.stage, claim.attempt) for claim in hook.claims] == [
        (trigger, attempt) for attempt in (1, 2, 3)
    ]
    letters = psql.execute("SELECT state, code FROM dead_letter").fetchall()
    assert letters == [(state, "ValueError")]


async def test_a_parse_that_changes_leaves_no_old_text(engine: AsyncEngine, psql: Psql) -> None:
    """A passage at the same place with other words is another passage."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"one\n\ntwo\n\nthree")
    await completed(pipeline)

    async def better(claim: Claim) -> ParsedText:
        return ParsedText("one\n\nTWO\n\nthree")

    hooks.finish_parse.does(better)
    hooks.finish_parse.fingerprint = "better/2"
    again = pipeline_with(engine, hooks)
    await again.apply("reprocess", sent.document_id, reason="a better parser")
    assert await completed(again, sent.document_id) == ["complete"]
    stored = psql.execute(
        "SELECT text FROM chunk JOIN chunk_vector ON chunk_id = id ORDER BY index"
    ).fetchall()
    assert stored == [("one",), ("TWO",), ("three",)]


async def test_a_fleet_that_does_nothing_is_noticed(engine: AsyncEngine, empty_url: str) -> None:
    """Who asks is told that work waits for a worker, and a worker that cannot work ends."""
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(b"text")
    explained = await pipeline.explain(sent.document_id)
    assert (explained.lane, explained.worker) == ("ready", None)
    assert "for a worker" in explained.sentence
    with pytest.raises(TimeoutError, match="uploaded"):
        await pipeline.wait(sent.document_id, timeout=timedelta(seconds=0.05))
    async with Pipeline(empty_url) as unmigrated:
        with pytest.raises(SchemaMissing):
            await unmigrated.runner().run()


async def test_looking_never_asks_a_paid_service(
    engine: AsyncEngine, service: EmbeddingServer
) -> None:
    """Starting, idling and every question that is not a search cost nothing at a provider."""
    embedder = OpenAIEmbedder("model-1", dimensions=8, base_url=f"{service.address}/v1")
    pipeline = pipeline_with(engine, store_embeddings=embedder)
    sent = await pipeline.submit(b"text")
    await completed(pipeline)
    assert len(service.asked) == 1
    async with running(pipeline):
        await pipeline.counts()
        await pipeline.explain(sent.document_id)
        await pipeline.history(sent.document_id)
        await pipeline.documents(state="complete")
        await pipeline.wait(sent.document_id, timeout=BRIEFLY)
        await pipeline.operations.events()
        await pipeline.search("text", mode="text")
    assert len(service.asked) == 1
