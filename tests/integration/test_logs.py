"""The log of a pipeline at work: whose a line is, from submit to the provider."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import (
    HashEmbedder,
    Hooks,
    Told,
    completed,
    hand,
    pipeline_with,
    running,
    split,
    until,
)
from logging_hooks import SECRET, Parser, chatter, configure_anew, forge, log_and_die, log_in_a_fork
from loguru import logger

from statemachine_pipeline import Provider, Reject, Stage, correlation_headers
from statemachine_pipeline.adapters.openai import OpenAIEmbedder
from statemachine_pipeline.batching import Batch
from statemachine_pipeline.errors import SourceRefused
from statemachine_pipeline.failures import FailureRule
from statemachine_pipeline.limits import ProcessLimits
from statemachine_pipeline.records import Incoming
from statemachine_pipeline.runner.children import ChildCrashed, Children

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg
    from fix_logs import Log
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.testing import EmbeddingServer

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-b7ad6b7169203331-01"
WHOSE = ("document_id", "tenant", "correlation_id", "trace_id", "stage", "attempt", "worker_id")
WORDS = "the patient is called Ann"


def whose(line: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that say whose work a line is about."""
    return {name: line.get(name) for name in WHOSE}


async def speak(claim: Claim) -> Any:
    """Log by both libraries, on the loop and in a thread, then chunk."""
    logger.info("own loguru")
    logging.getLogger("lib.loop").info("own logging")
    await asyncio.to_thread(logging.getLogger("lib.thread").info, "in a thread")
    return await split(claim)


async def test_every_line_of_an_attempt_says_whose_it_is(engine: AsyncEngine, log: Log) -> None:
    """'Document, tenant, correlation id, stage, attempt, worker': hooks' own and children's too."""
    pipeline = pipeline_with(
        engine,
        finish_parse=Stage(Parser(), run="process"),
        store_chunks=Told(speak),
    )
    sent = await pipeline.submit(
        WORDS.encode(), tenant="acme", correlation_id="corr-1", traceparent=PARENT
    )
    assert await completed(pipeline, sent.document_id) == ["complete"]
    known = {
        "document_id": str(sent.document_id),
        "tenant": "acme",
        "correlation_id": "corr-1",
        "trace_id": TRACE,
        "attempt": 1,
        "worker_id": log.of("worker.started")[0]["worker_id"],
    }
    own = [line for line in log.lines if "logging_hooks" in line["logger"]]
    own += [line for line in log.lines if line["logger"].startswith("lib.")]
    others = {"own loguru", "a thread in a child"}
    own += [line for line in log.lines if line["body"] in others]
    stages = [whose(line) == known | {"stage": line["stage"]} for line in own]
    assert len(own) == 7
    assert all(stages), own
    assert {line["stage"] for line in own} == {"finish_parse", "store_chunks"}
    for event in ("document.claimed", "stage.started", "stage.succeeded", "document.ended"):
        assert log.of(event), event
        assert all(whose(line).items() >= known.items() for line in log.of(event)), event
    (submitted,) = log.of("document.submitted")
    assert whose(submitted).items() >= {k: known[k] for k in WHOSE[:4]}.items()
    assert {line["pipeline"] for line in log.of("stage.started")} == {pipeline.schema}
    children = {line["process.pid"] for line in own if line["stage"] == "finish_parse"}
    assert children & {line["process.pid"] for line in log.of("stage.started")} == set()
    levels = {
        line["event_name"]: line["severity_text"]
        for line in log.lines
        if "stage" in line and "event_name" in line
    }
    assert (levels["stage.started"], levels["stage.succeeded"]) == ("DEBUG", "INFO")


async def test_no_line_holds_the_document_or_a_secret(engine: AsyncEngine, log: Log) -> None:
    """'A grep over all logs finds no document text and no secret', planted where they leak."""

    async def leak(claim: Claim) -> None:
        text = (await claim.text()).text
        try:
            raise KeyError(text)
        except KeyError as error:
            raise RuntimeError(f"{text} postgresql://ann:{SECRET}@db/x") from error

    pipeline = pipeline_with(
        engine,
        finish_parse=Stage(Parser(), run="process"),
        store_chunks=Stage(Told(leak), attempts=1),
    )
    sent = await pipeline.submit(
        WORDS.encode(), source_uri=f"https://ann:{SECRET}@host/a?sig={SECRET}", name=WORDS
    )
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    (parked,) = log.of("document.dead_lettered")
    assert (parked["error.code"], parked["stage"]) == ("RuntimeError", "store_chunks")
    told = "".join(log.texts)
    assert WORDS not in told
    assert SECRET not in told


async def test_what_people_do_is_logged_with_whose_it_was(engine: AsyncEngine, log: Log) -> None:
    """'``document.submitted`` and ``documents.moved`` are logged', the ids in them."""
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(b"one", correlation_id="c-1", traceparent=PARENT)
    await pipeline.submit(b"one", correlation_id="c-2")
    many = [Incoming(b"two", correlation_id="c-3", traceparent=PARENT), Incoming(b"three")]
    await pipeline.operations.submit_many(many)
    lines = log.of("document.submitted")
    assert [line["outcome"] for line in lines] == ["new", "unchanged", "new", "new"]
    assert [line["correlation_id"] for line in lines[:3]] == ["c-1", "c-2", "c-3"]
    assert [line.get("trace_id") for line in lines] == [TRACE, None, TRACE, None]
    await pipeline.apply("cancel", sent.document_id, reason="no", by="ann", dry_run=True)
    assert log.of("documents.moved") == []
    await pipeline.apply("cancel", sent.document_id, reason="no: api_key=abc", by="ann")
    (moved,) = log.of("documents.moved")
    expected = {
        "document_id": str(sent.document_id),
        "correlation_id": "c-1",
        "trace_id": TRACE,
        "trigger": "cancel",
        "by": "ann",
        "body": "cancel by ann: no: api_key=***",
    }
    assert expected.items() <= moved.items()
    await pipeline.apply("cancel", state="uploaded", reason="all")
    both = log.of("documents.moved")[1]
    assert both["documents"] == 2
    assert "c-3" in both["correlation_id"].split(",")


async def test_dead_letters_that_are_requeued_are_told(engine: AsyncEngine, log: Log) -> None:
    """'By whatever way': all that match are moved by another statement."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, store_chunks=Stage(hooks.store_chunks, attempts=1))
    hooks.store_chunks.raises(ValueError("no"))
    sent = await pipeline.submit(b"one", correlation_id="c-1")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    await pipeline.operations.requeue(code="ValueError", reason="mended")
    (moved,) = log.of("documents.moved")
    assert (moved["trigger"], moved["correlation_id"]) == ("requeue", "c-1")


async def test_a_rescue_says_what_becomes_of_each_document(engine: AsyncEngine, log: Log) -> None:
    """'A rescue that parks a document': nobody else would tell whoever is paged."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, queue_parse=Stage(hooks.queue_parse, crashes=1))
    sent = await pipeline.submit(b"one", correlation_id="c-1", traceparent=PARENT)
    worker = await hand(pipeline)
    await worker.claim_one()
    assert await worker.rescue(grace=-3600) == 1
    (rescued,), (parked,) = log.of("document.rescued"), log.of("document.dead_lettered")
    for line in (rescued, parked):
        assert (line["document_id"], line["correlation_id"]) == (str(sent.document_id), "c-1")
        assert (line["stage"], line["trace_id"]) == ("queue_parse", TRACE)
    assert parked["severity_text"] == "WARNING"


async def test_children_found_in_a_document_are_in_its_trace(engine: AsyncEngine) -> None:
    """'Carried by children found in documents, on ``Document``'."""
    from statemachine_pipeline import Child, Done, ParsedText

    async def unpack(claim: Claim) -> Done:
        found = [] if claim.document.depth else [Child("inner.txt", b"inner")]
        return Done(ParsedText((await claim.source()).read().decode()), children=found)

    pipeline = pipeline_with(engine, finish_parse=Told(unpack))
    sent = await pipeline.submit(b"outer", traceparent=PARENT)
    await completed(pipeline)
    (child,) = await pipeline.documents(parent=sent.document_id)
    parent = await pipeline.get(sent.document_id)
    assert (parent.traceparent, child.traceparent) == (PARENT, PARENT)
    await pipeline.submit(b"changed", source_uri=parent.source_uri, traceparent=OTHER)
    assert (await pipeline.get(sent.document_id)).traceparent == OTHER


async def test_nonsense_is_no_traceparent(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """'Clear SourceRefused error on nonsense', wherever a document is handed over."""
    pipeline = pipeline_with(engine)
    with pytest.raises(SourceRefused, match="its traceparent is none"):
        await pipeline.submit(b"x", traceparent="00-xyz")
    with pytest.raises(SourceRefused, match="its traceparent is none"):
        pipeline.blocking.submit(psql, b"x", traceparent="00-xyz")
    (refused,) = await pipeline.operations.submit_many([Incoming(b"x", traceparent="00-xyz")])
    assert "its traceparent is none" in refused.reason  # type: ignore[union-attr]
    sent = pipeline.blocking.submit(psql, b"x", traceparent=PARENT)
    psql.commit()
    assert (await pipeline.get(sent.document_id)).traceparent == PARENT


@pytest.mark.parametrize(
    ("traces", "sent"),
    [((PARENT, PARENT, PARENT), PARENT), ((PARENT, OTHER, None), None), ((None,) * 3, None)],
    ids=["one trace", "several", "none"],
)
async def test_requests_name_the_documents_they_are_for(
    engine: AsyncEngine,
    log: Log,
    service: EmbeddingServer,
    traces: tuple[str | None, ...],
    sent: str | None,
) -> None:
    """'``X-Correlation-ID``, and ``traceparent`` only if all texts belong to one trace'."""
    embedder = OpenAIEmbedder("m", dimensions=8, base_url=f"{service.address}/v1")
    # A request goes out once as many wait as there are slots: all three in one.
    batch = Batch(age=timedelta(seconds=60), requests=1)
    pipeline = pipeline_with(
        engine,
        store_embeddings=Stage(embedder, batch=batch, provider=Provider("local"), concurrency=3),
    )
    for name, parent in zip("abc", traces, strict=True):
        await pipeline.submit(name.encode(), correlation_id=f"corr-{name}", traceparent=parent)
    await completed(pipeline)
    (asked,) = service.asked
    headers = {name.lower(): value for name, value in asked.headers.items()}
    assert sorted(headers["x-correlation-id"].split(",")) == ["corr-a", "corr-b", "corr-c"]
    assert headers.get("traceparent") == sent
    (line,) = log.of("request.answered")
    assert sorted(line["correlation_id"].split(",")) == ["corr-a", "corr-b", "corr-c"]
    told = {name: line.get(name) for name in ("stage", "provider", "documents", "texts", "tenant")}
    expected = {"stage": "store_embeddings", "provider": "local", "documents": 3, "texts": 3}
    assert told == expected | {"tenant": "default"}
    # Of several documents it names none: not even the one that happened to be the last to come.
    assert {"document_id", "attempt"} & set(line) == set()
    assert line.get("trace_id") == (TRACE if sent else None)


async def test_a_request_that_failed_says_why_as_history_does(
    engine: AsyncEngine, log: Log
) -> None:
    """Code and type, and never what the exception says: a service quotes what it was sent."""
    embedder, rule = HashEmbedder(), FailureRule(LookupError, "permanent", code="not_there")
    embedder.faults += [LookupError(WORDS), Reject(WORDS, code="too_odd")]
    pipeline = pipeline_with(engine, store_embeddings=Stage(embedder, failures=[rule]))
    for text in (b"a", b"b"):
        await completed(pipeline, (await pipeline.submit(text)).document_id)
    failed = log.of("request.failed")
    assert [one["error.code"] for one in failed] == ["not_there", "too_odd"]
    assert {one.code for one in await pipeline.operations.dead_letters()} == {
        "not_there",
        "too_odd",
    }
    types = ["LookupError", "statemachine_pipeline.hooks.Reject"]
    assert [one["error.type"] for one in failed] == types
    assert WORDS not in str(failed)


async def test_a_request_is_in_the_name_of_nobody_else(engine: AsyncEngine, log: Log) -> None:
    """'Request tasks run in the context of whichever document triggered them': not any more."""
    told: list[tuple[set[str], dict[str, str]]] = []

    @dataclasses.dataclass
    class Embedder:
        dimensions = 4
        batch_size = 1
        fingerprint = "telling/1"

        async def embed(self, texts: list[str]) -> list[list[float]]:
            told.append((set(texts), correlation_headers()))
            logger.info("asked for {} texts", len(texts))
            return [[1.0, 2.0, 3.0, 4.0] for _ in texts]

        async def embed_query(self, text: str) -> list[float]:
            raise NotImplementedError

    pipeline = pipeline_with(
        engine, store_embeddings=Stage(Embedder(), batch=Batch(age=timedelta(0), requests=1))
    )
    for name in "abcdef":
        await pipeline.submit(name.encode(), correlation_id=name)
    await completed(pipeline)
    # One text a request, one request at a time: each but the first is begun by the one before.
    assert sorted((*texts, headers["X-Correlation-ID"]) for texts, headers in told) == [
        (name, name) for name in "abcdef"
    ]
    lines = [line for line in log.lines if line["body"] == "asked for 1 texts"]
    assert sorted(line["correlation_id"] for line in lines) == list("abcdef")
    assert {line["stage"] for line in lines} == {"store_embeddings"}
    assert all(line["document_id"] and line["attempt"] == 1 for line in lines)


async def test_a_hook_in_a_thread_can_name_its_document(engine: AsyncEngine) -> None:
    """'A helper function for users' own HTTP hooks', wherever they run."""
    told: list[dict[str, str]] = []

    class Chunker:
        fingerprint = "thread/1"

        def split(self, text: Any) -> list[Any]:
            told.append(correlation_headers())
            return []

    pipeline = pipeline_with(engine, store_chunks=Stage(Chunker(), run="thread", attempts=1))
    await pipeline.submit(b"x", correlation_id="corr-1", traceparent=PARENT)
    await completed(pipeline)
    assert told == [{"X-Correlation-ID": "corr-1", "traceparent": PARENT}]
    assert correlation_headers() == {}


async def test_a_chatty_child_is_cut_short(log: Log) -> None:
    """'Bounded in size': a thousand lines of a call, and the call goes on."""
    async with Children(1) as children:
        assert await children.call(chatter, 1_500, timeout_seconds=60) == 1_500
        assert await children.call(chatter, 1, timeout_seconds=60) == 1
    lines = [line["body"] for line in log.by("logging_hooks")]
    assert lines == [f"line {number}" for number in range(1_000)] + ["line 0"]


async def test_an_application_that_is_imported_by_a_child_configures_nothing(
    log: Log, tmp_path: Path
) -> None:
    """Its lines would come twice: by the child, and by the worker."""
    own = tmp_path / "own.log"
    async with Children(1) as children:
        await children.call(configure_anew, str(own), timeout_seconds=60)
    assert [line["body"] for line in log.by("logging_hooks")] == ["once"]
    assert not own.exists()


async def test_what_a_child_said_before_it_died_is_told(log: Log) -> None:
    """Whoever asks why has nothing else."""
    async with Children(1) as children:
        with pytest.raises(ChildCrashed):
            await children.call(log_and_die, timeout_seconds=60)
    assert [line["body"] for line in log.by("logging_hooks")] == ["about to die"]


@pytest.mark.parametrize(
    ("length", "content"),
    [(2**40, b""), (4, b"nope"), (2, b"[]")],
    ids=["longer than a line", "no JSON", "another shape"],
)
async def test_a_child_that_forges_its_log_is_replaced(
    log: Log, length: int, content: bytes
) -> None:
    """'A hostile child's log lines are data, never trusted'."""
    async with Children(1) as children:
        with pytest.raises(ChildCrashed, match="answered nonsense"):
            await children.call(forge, length, content, timeout_seconds=60)
        assert await children.call(chatter, 0, timeout_seconds=60) == 0


async def test_lines_count_as_what_a_child_prints(log: Log) -> None:
    """What it may print it may log, and no more."""
    limits = ProcessLimits(printed_bytes=10_000)
    async with Children(1, limits) as children:
        with pytest.raises(ChildCrashed, match="printed more than 10,000 bytes"):
            await children.call(chatter, 500, timeout_seconds=60)


async def test_a_fork_of_a_child_says_nothing(log: Log) -> None:
    """What two processes write on one pipe, nobody can take apart."""
    async with Children(1) as children:
        assert await children.call(log_in_a_fork, timeout_seconds=60) == 0
    assert [line["body"] for line in log.by("logging_hooks")] == ["in its parent"]


async def test_without_a_log_children_are_told_nothing(quiet: None) -> None:
    """Nothing is paid for what nobody asked for: a child does not even import loguru for it."""
    async with Children(1) as children:
        assert await children.call(chatter, 3, timeout_seconds=60) == 3


async def test_a_worker_in_the_background_logs_like_any_other(
    engine: AsyncEngine, log: Log, psql: psycopg.Connection[Any]
) -> None:
    """The worker's own lines have its number, and the pipeline's name."""
    pipeline = pipeline_with(engine)
    async with running(pipeline):
        await pipeline.submit(b"x")
        await until(psql, "SELECT count(*) = 1 FROM smp.document WHERE state = 'complete'")
    (stopped,) = log.of("worker.stopped")
    assert stopped["worker_id"] == log.of("worker.started")[0]["worker_id"]
    assert stopped["pipeline"] == "smp"
