"""The pipeline as applications use it: hooks, their signals, people, and splitting of fleets."""

from __future__ import annotations

import asyncio
import threading
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from fix_pipelines import (
    BRIEFLY,
    Hooks,
    Told,
    accept,
    completed,
    hand,
    path_of,
    pipeline_with,
    plain,
    running,
    until,
)
from statemachine import State

from statemachine_pipeline import Lifecycle, Pipeline, by_hand
from statemachine_pipeline.errors import DocumentNotFound, PipelineError
from statemachine_pipeline.hooks import Done, RateLimited, Reject, Retry, StageFault, Wait
from statemachine_pipeline.records import Facts, ParsedText
from statemachine_pipeline.runner import chores, loop, proposing

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.hooks import Claim

    Psql = psycopg.Connection[Any]

WORK = "SELECT lane, attempt, crashes FROM work WHERE document_id = %s"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff draws zero and what is due is looked for at once: retries follow immediately."""
    monkeypatch.setattr(loop, "PROMOTE_SECONDS", 0.02)
    monkeypatch.setattr(proposing.random, "random", lambda: 0.0)


async def _deferred(pipeline: Pipeline, psql: Psql) -> tuple[Any, ...]:
    """Run until the only document is deferred, for hours; return its document's id and work."""
    sent = await pipeline.submit(b"text")
    async with running(pipeline):
        await until(psql, "SELECT lane = 'deferred' FROM work")
    row = psql.execute(WORK, [sent.document_id]).fetchone()
    return sent.document_id, row


async def test_a_retry_counts_an_attempt_and_takes_a_step(engine: AsyncEngine, psql: Psql) -> None:
    """``Retry``: version + 1, one row, at least as long as the hook said."""
    hooks = Hooks()
    hooks.finish_parse.raises(Retry("not yet", after=timedelta(hours=1)))
    pipeline = pipeline_with(engine, hooks)
    document, work = await _deferred(pipeline, psql)
    assert work == ("deferred", 1, 0)
    assert path_of(psql, document) == ["submit", "queue_parse", "retry"]
    (*_, last) = await pipeline.history(document)
    assert (last.error, last.reason, last.attempt, last.hop) == ("retry", "not yet", 1, False)
    explained = await pipeline.explain(document)
    assert explained.until is not None
    assert (explained.until - last.at).total_seconds() > 3500
    assert "attempt 2 of 5 at finish_parse, after: not yet" in explained.sentence


@pytest.mark.usefixtures("impatient")
async def test_attempts_are_bounded(engine: AsyncEngine, psql: Psql) -> None:
    """The last failure parks the document, with what it said."""
    hooks = Hooks()
    hooks.finish_parse.raises(*(Retry(f"no {n}") for n in range(9)))
    pipeline = pipeline_with(engine, hooks, finish_parse=plain(hooks.finish_parse, attempts=3))
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    assert path_of(psql, sent.document_id) == ["submit", "queue_parse", "retry", "retry", "fail"]
    assert [claim.attempt for claim in hooks.finish_parse.claims] == [1, 2, 3]
    assert len({claim.idempotency_key for claim in hooks.finish_parse.claims}) == 1
    assert len({claim.sequence for claim in hooks.finish_parse.claims}) == 3
    letters = psql.execute("SELECT state, code, reason, attempts FROM dead_letter").fetchall()
    assert letters == [("parse_queued", "retry", "no 2", 3)]


@pytest.mark.usefixtures("impatient")
async def test_the_next_stage_begins_with_attempt_one(engine: AsyncEngine) -> None:
    """Attempts are counted per stage."""
    hooks = Hooks()
    hooks.queue_parse.raises(Retry("a"), Retry("b"))
    hooks.finish_parse.raises(Retry("c"))
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    assert [claim.attempt for claim in hooks.queue_parse.claims] == [1, 2, 3]
    assert [claim.attempt for claim in hooks.finish_parse.claims] == [1, 2]
    assert (await pipeline.get(sent.document_id)).last_error is None


async def test_a_rejected_document_is_a_dead_letter_at_once(
    engine: AsyncEngine, psql: Psql
) -> None:
    """``Reject``: permanent, with code and sentence."""
    hooks = Hooks()
    hooks.accept_parse.raises(Reject("no text on 3 pages: a scan?", code="no_text"))
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    letters = psql.execute("SELECT state, code, reason, attempts FROM dead_letter").fetchall()
    assert letters == [("parse_complete", "no_text", "no text on 3 pages: a scan?", 1)]
    sentence = (await pipeline.explain(sent.document_id)).sentence
    assert sentence == (
        "dead_letter: no text on 3 pages: a scan? (accept_parse: no_text); `requeue` takes it up "
        "where it failed"
    )


@pytest.mark.parametrize(
    ("signal", "error"),
    [
        (RateLimited(timedelta(hours=1)), "rate limited for 3600 s"),
        (Wait(timedelta(hours=1)), "waiting; next look in 3600 s"),
    ],
)
async def test_what_is_nobodys_fault_gives_the_attempt_back(
    engine: AsyncEngine, psql: Psql, signal: Exception, error: str
) -> None:
    """No attempt, no history row; released as deferred for as long as told."""
    hooks = Hooks()
    hooks.finish_parse.raises(signal)
    pipeline = pipeline_with(engine, hooks)
    document, work = await _deferred(pipeline, psql)
    assert work == ("deferred", 0, 0)
    assert path_of(psql, document) == ["submit", "queue_parse"]
    assert (await pipeline.get(document)).last_error == error
    until_seconds = psql.execute("SELECT extract(epoch FROM run_at - now()) FROM work").fetchone()
    assert until_seconds is not None
    assert 3500 < until_seconds[0] <= 3600


@pytest.mark.usefixtures("impatient")
async def test_a_stage_fault_pauses_the_stage_and_charges_nobody(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Other stages go on; documents wait before the paused one."""
    hooks = Hooks()
    hooks.store_embeddings.faults.append(StageFault("the key was refused"))
    pipeline = pipeline_with(engine, hooks)
    document = (await pipeline.submit(b"text")).document_id
    async with running(pipeline):
        # The pause is made first; what waits behind it alone is due at once.
        await until(psql, "SELECT lane <> 'claimed' FROM work WHERE EXISTS (SELECT FROM pause)")
    charged = psql.execute("SELECT attempt, crashes FROM work").fetchall()
    assert charged == [(0, 0)]
    assert psql.execute("SELECT stage, reason FROM pause").fetchall() == [
        ("store_embeddings", "the key was refused")
    ]
    other = await pipeline.submit(b"other text")
    async with running(pipeline):
        await until(
            psql,
            "SELECT state IN ('embedding_queued', 'embedding_in_progress') AND lane = 'ready' "
            "FROM work WHERE document_id = %s",
            other.document_id,
        )
    assert path_of(psql, document)[-1] == "start_embedding"
    psql.execute("DELETE FROM pause; UPDATE work SET run_at = now()")
    assert await completed(pipeline, document, other.document_id) == ["complete", "complete"]


async def test_waiting_has_an_end(engine: AsyncEngine, psql: Psql) -> None:
    """Past the stage's ``wait`` it counts as a failed attempt."""
    hooks = Hooks()
    hooks.finish_parse.raises(Wait(timedelta(hours=1)))
    pipeline = pipeline_with(
        engine, hooks, finish_parse=plain(hooks.finish_parse, wait=timedelta(0), attempts=1)
    )
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    assert psql.execute("SELECT code FROM dead_letter").fetchall() == [("waited_too_long",)]


async def test_a_hook_past_its_deadline_is_stopped_and_has_failed(
    engine: AsyncEngine, psql: Psql
) -> None:
    """``timed_out``, transient: the hook is cancelled, the attempt counted."""
    hooks = Hooks()
    hooks.finish_parse.block()
    stage = plain(hooks.finish_parse, deadline=timedelta(seconds=0.1), attempts=1)
    pipeline = pipeline_with(engine, hooks, finish_parse=stage)
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    assert psql.execute("SELECT code, attempts FROM dead_letter").fetchall() == [("timed_out", 1)]


@pytest.mark.usefixtures("impatient")
async def test_an_exception_is_transient_and_its_message_is_no_history(
    engine: AsyncEngine, psql: Psql
) -> None:
    """The type is in history; the message, which may quote the document, is not."""
    hooks = Hooks()
    hooks.finish_parse.raises(ValueError("bad text: hush"))
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    retry = (await pipeline.history(sent.document_id))[2]
    assert (retry.trigger, retry.error) == ("retry", "ValueError")
    assert retry.reason == "the hook raised ValueError"


def is_calm(facts: Facts) -> bool:
    """Open only when the hook reported so."""
    return facts.reported.get("calm") is True


class GuardedLifecycle(Lifecycle):
    """One stage with a guard on what its hook says, and one that people take."""

    uploaded = State(initial=True)
    checked, approved = State(), State()
    ended = State(final=True)

    check = uploaded.to(checked, cond=is_calm)
    approve = checked.to(approved)
    finish = approved.to(ended)


class Note:
    """A user's product: a row in a table of theirs."""

    def __init__(self, text: str, fault: Exception | None = None) -> None:
        self.text, self.fault = text, fault

    async def write(self, connection: AsyncConnection, claim: Claim) -> None:
        await connection.execute(
            sa.text("INSERT INTO public.note VALUES (:id, :text)"),
            {"id": claim.document.id, "text": self.text},
        )
        if self.fault is not None:
            raise self.fault


@pytest.fixture
async def guarded(engine: AsyncEngine, psql: Psql) -> tuple[Pipeline, Told]:
    """A pipeline of GuardedLifecycle, and the hook of its first stage."""
    psql.execute("CREATE TABLE public.note (document_id uuid, text text UNIQUE)")

    async def check(_: Claim) -> Done:
        return Done(Note("seen"), calm=True)

    async def finish(_: Claim) -> None:
        """Earn the last edge."""

    told = Told(check)
    pipeline = Pipeline(
        engine,
        lifecycle=GuardedLifecycle,
        hooks={"check": told, "approve": by_hand, "finish": finish},
    )
    await pipeline.migrate()
    return pipeline, told


def _notes(psql: Psql) -> list[str]:
    return [row[0] for row in psql.execute("SELECT text FROM public.note ORDER BY 1")]


async def test_a_refused_guard_is_a_permanent_failure_that_names_it(
    guarded: tuple[Pipeline, Told], psql: Psql
) -> None:
    """Same input, same facts: ``guard_refused:<guard>``, and nothing of the product is kept."""
    pipeline, check = guarded

    async def upset(_: Claim) -> Done:
        return Done(Note("refused"), calm=False)

    check.does(upset)
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    (*_, last) = await pipeline.history(sent.document_id)
    assert (last.trigger, last.error) == ("fail", "guard_refused:is_calm")
    assert _notes(psql) == []
    assert psql.execute("SELECT count(*) FROM product").fetchone() == (0,)


async def test_a_users_product_commits_with_its_transition(
    guarded: tuple[Pipeline, Told], psql: Psql
) -> None:
    """Both in one transaction, once."""
    pipeline, _ = guarded
    sent = await pipeline.submit(b"text")
    await completed(pipeline)
    assert _notes(psql) == ["seen"]
    rows = psql.execute(
        "SELECT n.xmin = t.xmin FROM public.note n JOIN transition t USING (document_id) "
        "WHERE trigger = 'check' AND document_id = %s",
        [sent.document_id],
    ).fetchall()
    assert rows == [(True,)]


@pytest.mark.usefixtures("impatient")
async def test_a_product_that_fails_undoes_its_settle_and_counts_an_attempt(
    guarded: tuple[Pipeline, Told], psql: Psql
) -> None:
    """Neither its rows nor the transition are kept; the next attempt is a new one."""
    pipeline, check = guarded

    async def failing(claim: Claim) -> Done:
        fault = ValueError("hush") if claim.attempt == 1 else None
        return Done(Note("undone" if fault else "again", fault), calm=True)

    check.does(failing)
    sent = await pipeline.submit(b"text")
    await completed(pipeline)
    assert _notes(psql) == ["again"]
    assert path_of(psql, sent.document_id) == ["submit", "retry", "check"]
    retry = (await pipeline.history(sent.document_id))[1]
    assert (retry.error, retry.reason) == ("ValueError", "its product raised ValueError")


async def test_a_product_that_breaks_a_constraint_is_a_dead_letter_at_once(
    guarded: tuple[Pipeline, Told], psql: Psql
) -> None:
    """What a product raises is looked up in the same table: 'IntegrityError permanent'."""
    pipeline, check = guarded
    psql.execute("INSERT INTO public.note VALUES (NULL, 'taken')")

    async def failing(claim: Claim) -> Done:
        return Done(Note("taken"), calm=True)

    check.does(failing)
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    (letter,) = await pipeline.operations.dead_letters()
    assert (letter.stage, letter.code, letter.attempts) == ("check", "sqlstate_23505", 1)
    assert letter.error_type == "sqlalchemy.exc.IntegrityError"


async def test_an_edge_kept_by_hand_waits_for_apply(guarded: tuple[Pipeline, Told]) -> None:
    """Lane held; no worker takes it, and explain says what it waits for."""
    pipeline, _ = guarded
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["checked"]
    explained = await pipeline.explain(sent.document_id)
    assert explained.lane == "held"
    assert explained.sentence == "checked: waits until somebody applies approve"
    too_early = await pipeline.apply("finish", sent.document_id, reason="test")
    assert "wrong_state" in too_early.refused[0].reason
    applied = await pipeline.apply("approve", sent.document_id, reason="read it", by="ann")
    assert applied.moved == (sent.document_id,)
    taken = (await pipeline.history(sent.document_id))[-1]
    assert (taken.trigger, taken.by, taken.reason) == ("approve", "ann", "read it")
    for_workers = await pipeline.apply("finish", sent.document_id, reason="test")
    assert "taken_by_workers" in for_workers.refused[0].reason
    assert await completed(pipeline, sent.document_id) == ["ended"]


async def test_hooks_run_where_they_belong(engine: AsyncEngine) -> None:
    """``async def`` on the loop, ``def`` in a thread; both see the same claim."""
    seen: dict[str, str] = {}

    async def on_loop(claim: Claim) -> Any:
        seen["loop"] = threading.current_thread().name
        return await accept(claim)

    def in_thread(claim: Claim) -> ParsedText:
        seen["thread"] = threading.current_thread().name
        return ParsedText(f"text of {claim.document.name}")

    pipeline = pipeline_with(engine, queue_parse=on_loop, finish_parse=in_thread)
    sent = await pipeline.submit(b"bytes", name="a")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    assert seen["loop"] == threading.main_thread().name
    assert seen["thread"].startswith("hook")
    assert [hit.text for hit in await pipeline.search("x")] == ["text of a"]


async def test_a_chunker_may_run_in_a_child_process(engine: AsyncEngine) -> None:
    """Given input already read, by a hook importable by name."""
    from statemachine_pipeline.adapters.chunkers import MarkdownChunker

    stage = plain(MarkdownChunker(), run="process")
    pipeline = pipeline_with(engine, store_chunks=stage)
    sent = await pipeline.submit(b"# Title\n\nA passage.")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    (hit,) = await pipeline.search("passage")
    assert "A passage." in hit.text


async def test_fleets_split_at_embedding_queued(engine: AsyncEngine, psql: Psql) -> None:
    """A CPU fleet stops before ``start_embedding``; an embedding fleet goes on."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    ids = [(await pipeline.submit(b"text %d" % n)).document_id for n in range(3)]
    cpu = ["queue_parse", "finish_parse", "accept_parse", "store_chunks"]
    counts = await asyncio.wait_for(
        pipeline.runner(triggers=cpu).run_until_idle(), BRIEFLY.total_seconds()
    )
    assert counts == {"embedding_queued": 3}
    assert psql.execute("SELECT DISTINCT lane, attempt FROM work").fetchall() == [("ready", 0)]
    assert hooks.store_embeddings.texts == []
    embedding = pipeline.runner(triggers=["store_embeddings"])
    counts = await asyncio.wait_for(embedding.run_until_idle(), BRIEFLY.total_seconds())
    assert counts == {"embeddings_stored": 3}
    last = pipeline.runner(triggers=["finalize"])
    counts = await asyncio.wait_for(last.run_until_idle(), BRIEFLY.total_seconds())
    assert counts == {"complete": 3}
    hops = [one.trigger for one in await pipeline.history(ids[0]) if one.hop]
    assert hops == ["queue_embedding", "start_embedding"]


async def test_explain_says_what_a_document_waits_for(engine: AsyncEngine, psql: Psql) -> None:
    """Why is it here, and what comes next, at every turn of a life."""
    hooks = Hooks()
    hooks.finish_parse.block()
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"text")

    async def sentence() -> str:
        return (await pipeline.explain(sent.document_id)).sentence

    assert await sentence() == (
        "uploaded: ready for a worker to make attempt 1 of 5 at queue_parse; no worker is alive"
    )
    async with running(pipeline):
        claim = await hooks.finish_parse.begun()
        said = await sentence()
        assert said.startswith(
            f"parse_queued: worker {claim.worker} is at finish_parse, attempt 1 of 5, until "
        )
        hooks.finish_parse.go_on()
        await pipeline.wait(sent.document_id, timeout=BRIEFLY)
    assert await sentence() == "complete: 1 chunk and 1 vector are published"
    options = {one.trigger: one for one in (await pipeline.explain(sent.document_id)).options}
    assert set(options) == {"reprocess", "revise", "delete"}
    await pipeline.apply("reprocess", sent.document_id, reason="test")
    await pipeline.apply("cancel", sent.document_id, reason="by mistake")
    assert await sentence() == "cancelled: by mistake; `requeue` takes it up where it stopped"
    await pipeline.apply("delete", sent.document_id, reason="gone")
    assert await sentence() == (
        "deleted: only its history is kept; submitting it again begins a new life"
    )


async def test_waiting_ends_when_all_rest_or_time_is_up(engine: AsyncEngine) -> None:
    """``wait`` returns the documents, or says how many still move."""
    hooks = Hooks()
    hooks.finish_parse.block()
    pipeline = pipeline_with(engine, hooks)
    one, two = [(await pipeline.submit(b"%d" % n)).document_id for n in range(2)]
    with pytest.raises(TimeoutError, match="2 of 2 documents do not rest after 0 s: 2 uploaded"):
        await pipeline.wait(one, two, timeout=timedelta(0))
    async with running(pipeline):
        waiting = asyncio.create_task(pipeline.wait(one, two, timeout=BRIEFLY))
        await hooks.finish_parse.begun()
        hooks.finish_parse.go_on()
        assert [found.id for found in await waiting] == [one, two]


async def test_what_is_not_there_is_named(engine: AsyncEngine) -> None:
    """Every question about an unknown document raises, and nothing is moved."""
    pipeline = pipeline_with(engine)
    known, unknown = (await pipeline.submit(b"text")).document_id, uuid.uuid4()
    for question in (pipeline.get, pipeline.history, pipeline.explain):
        with pytest.raises(DocumentNotFound, match=str(unknown)):
            await question(unknown)
    with pytest.raises(DocumentNotFound):
        await pipeline.wait(unknown, timeout=BRIEFLY)
    with pytest.raises(DocumentNotFound):
        await pipeline.apply("cancel", known, unknown, reason="test")
    assert (await pipeline.get(known)).state == "uploaded"


async def test_documents_are_listed_page_by_page(engine: AsyncEngine) -> None:
    """In the order they came, each once, with filters."""
    pipeline = pipeline_with(engine)
    ids = [
        (await pipeline.submit(b"%d" % n, tenant="a" if n % 2 else "b")).document_id
        for n in range(7)
    ]
    pages, after = [], None
    while page := await pipeline.documents(after=after, limit=3):
        pages.append([one.id for one in page])
        after = page[-1].id
    assert pages == [ids[:3], ids[3:6], ids[6:]]
    await pipeline.apply("cancel", ids[1], ids[2], reason="test")
    assert [one.id for one in await pipeline.documents(state="cancelled")] == ids[1:3]
    assert [one.id for one in await pipeline.documents(tenant="a")] == ids[1::2]
    assert [one.id for one in await pipeline.documents(tenant="a", state="cancelled")] == [ids[1]]
    assert await pipeline.counts() == {"uploaded": 5, "cancelled": 2}
    assert await pipeline.counts(tenant="b") == {"uploaded": 3, "cancelled": 1}


async def test_apply_by_state_says_first_what_it_would_do(engine: AsyncEngine) -> None:
    """``dry_run`` writes nothing and answers the same."""
    pipeline = pipeline_with(engine)
    ids = [
        (await pipeline.submit(b"%d" % n, tenant="a" if n else "b")).document_id for n in range(4)
    ]
    would = await pipeline.apply("cancel", state="uploaded", tenant="a", reason="r", dry_run=True)
    assert set(would.moved) == set(ids[1:])
    assert await pipeline.counts() == {"uploaded": 4}
    did = await pipeline.apply("cancel", state="uploaded", tenant="a", reason="r")
    assert (did.matched, did.moved, did.refused) == (would.matched, would.moved, ())
    assert await pipeline.counts() == {"cancelled": 3, "uploaded": 1}
    for trigger, reason in (("reprocess", "wrong_state"), ("fly", "unknown_trigger")):
        refused = await pipeline.apply(trigger, state="cancelled", reason="r")
        assert refused.moved == ()
        assert {one.document_id for one in refused.refused} == set(ids[1:])
        assert all(reason in one.reason for one in refused.refused)
    with pytest.raises(ValueError, match="either"):
        await pipeline.apply("cancel", reason="r")
    with pytest.raises(ValueError, match="either"):
        await pipeline.apply("cancel", ids[0], state="uploaded", reason="r")


async def test_a_worker_that_ends_gives_back_what_it_holds(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping twice gives everything back at once, unspent."""
    monkeypatch.setattr(chores, "LEAVE_SECONDS", 60.0)  # however busy the machine is
    hooks = Hooks()
    hooks.finish_parse.block()
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"text")
    runner = pipeline.runner()
    task = asyncio.create_task(runner.run())
    await hooks.finish_parse.begun()
    runner.stop()
    runner.stop()
    await asyncio.wait_for(task, BRIEFLY.total_seconds())
    assert psql.execute(WORK, [sent.document_id]).fetchone() == ("ready", 0, 0)
    assert psql.execute("SELECT count(*) FROM worker").fetchone() == (0,)
    assert path_of(psql, sent.document_id) == ["submit", "queue_parse"]


async def test_draining_lets_hooks_finish_and_takes_nothing_new(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Leaving the context drains: what has begun is settled."""
    hooks = Hooks()
    hooks.queue_parse.block()
    stage = plain(hooks.queue_parse, concurrency=1)
    pipeline = pipeline_with(engine, hooks, queue_parse=stage)
    first = await pipeline.submit(b"first", priority=-1)
    second = await pipeline.submit(b"second")
    runner = pipeline.runner()
    task = asyncio.create_task(runner.run())
    await hooks.queue_parse.begun()
    runner.stop()
    await until(psql, "SELECT draining FROM worker")
    hooks.queue_parse.go_on()
    await asyncio.wait_for(task, BRIEFLY.total_seconds())
    assert (await pipeline.get(first.document_id)).state != "uploaded"
    assert (await pipeline.get(second.document_id)).state == "uploaded"
    assert psql.execute("SELECT count(*) FROM work WHERE lane = 'claimed'").fetchone() == (0,)


async def test_a_pipeline_that_is_not_open_says_so() -> None:
    """Using it outside ``async with`` names the mistake."""
    pipeline = Pipeline("postgresql://nowhere/none")
    with pytest.raises(PipelineError, match="async with"):
        await pipeline.counts()


async def test_a_pipeline_from_the_stored_graph_looks_and_moves(engine: AsyncEngine) -> None:
    """Without the class, documents can be looked at and moved, but not run."""
    sent = await pipeline_with(engine).submit(b"text")
    async with Pipeline(engine, lifecycle=None) as stored:
        assert (await stored.get(sent.document_id)).state == "uploaded"
        assert (await stored.explain(sent.document_id)).lane == "ready"
        applied = await stored.apply("cancel", sent.document_id, reason="test")
        assert applied.moved == (sent.document_id,)
        assert (await stored.explain(sent.document_id)).sentence.startswith("cancelled: test")


async def test_a_bad_neighbour_does_not_fail_a_batch(engine: AsyncEngine, psql: Psql) -> None:
    """A row that PostgreSQL refuses splits the batch; the others are settled."""
    hooks = Hooks()

    async def read(claim: Claim) -> ParsedText:
        source = await claim.source()
        return ParsedText("a\x00b" if source.data == b"bad" else str(claim.document.id))

    hooks.finish_parse.does(read)
    hooks.finish_parse.block()
    stage = plain(hooks.finish_parse, attempts=1, concurrency=20)
    pipeline = pipeline_with(engine, hooks, finish_parse=stage)
    good = [(await pipeline.submit(b"%d" % n)).document_id for n in range(6)]
    bad = await pipeline.submit(b"bad")
    async with running(pipeline):
        await until(
            psql, "SELECT count(*) = 7 FROM work WHERE lane = 'claimed' AND state = 'parse_queued'"
        )
        hooks.finish_parse.go_on()
        done = await pipeline.wait(*good, bad.document_id, timeout=BRIEFLY)
    assert [one.state for one in done] == ["complete"] * 6 + ["dead_letter"]


async def test_hand_and_runner_agree_on_what_is_left(engine: AsyncEngine) -> None:
    """``run_until_idle`` waits for what is deferred at stages it serves, and only those."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text")
    worker = await hand(pipeline)
    served = pipeline.stages.served(["finalize"])
    assert await worker.store.outstanding(served) == 0
    assert await worker.store.outstanding(pipeline.stages.served(None)) == 1
