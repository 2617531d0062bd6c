"""Dead letters: what is kept of a failure, how they are found, and how they are taken up again."""

from __future__ import annotations

import asyncio
import errno
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
from child_functions import gather_failures
from fix_pipelines import (
    BRIEFLY,
    Hooks,
    completed,
    hand,
    pipeline_with,
    plain,
    running,
    until,
    until_blocked,
)
from fix_postgres import connect
from sqlalchemy import text

from statemachine_pipeline import Pipeline, Reject, StageFault
from statemachine_pipeline.database import letters
from statemachine_pipeline.decide import Failed
from statemachine_pipeline.failures import FailureRule
from statemachine_pipeline.retry import Backoff, Constant, Exponential, Fibonacci
from statemachine_pipeline.runner import proposing

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.hooks import Claim

Psql = psycopg.Connection[Any]


async def _parse(claim: Claim) -> Any:
    """Fail as the document's name says."""
    name = claim.document.name
    if name.startswith("scan"):
        raise Reject("no text: password=abc", "no_text")
    if name.startswith("broken"):
        secret = (await claim.source()).read().decode()
        raise ValueError(f"cannot read {secret!r} with token=abc")
    raise Reject("no", "other")


async def _failed(pipeline: Pipeline, *names: str, tenant: str = "default") -> list[UUID]:
    """Submit documents and run until they are dead letters."""
    sent = [
        await pipeline.submit(
            f"hush {tenant} {name}".encode(), source_uri=f"n:{name}", name=name, tenant=tenant
        )
        for name in names
    ]
    ids = [one.document_id for one in sent]
    assert set(await completed(pipeline, *ids)) == {"dead_letter"}
    return ids


@pytest.fixture
def hooks() -> Hooks:
    """Hooks of which the parser fails."""
    made = Hooks()
    made.finish_parse.does(_parse)
    return made


@pytest.fixture
def failing(engine: AsyncEngine, hooks: Hooks) -> Pipeline:
    """A pipeline whose parser fails at the first attempt."""
    return pipeline_with(engine, hooks, finish_parse=plain(hooks.finish_parse, attempts=1))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requeue two documents in a transaction."""
    monkeypatch.setattr(letters, "BATCH", 2)


async def test_a_dead_letter_tells_how_the_document_failed(failing: Pipeline) -> None:
    """'Reason, stage, code, attempts, redacted traceback', and the type of the error."""
    (document,) = await _failed(failing, "broken")
    (letter,) = await failing.operations.dead_letters()
    assert (letter.document_id, letter.name, letter.tenant) == (document, "broken", "default")
    assert (letter.stage, letter.state, letter.code) == (
        "finish_parse",
        "parse_queued",
        "ValueError",
    )
    assert (letter.attempts, letter.crashes, letter.error_type) == (1, 0, "ValueError")
    assert letter.reason == (
        "the hook raised ValueError: cannot read 'hush default broken' with token=***"
    )
    assert letter.traceback is not None
    assert letter.traceback.startswith("ValueError\n  fix_pipelines:")
    assert letter.traceback.splitlines()[-1].startswith("  test_dead_letters:")
    assert letter.traceback.endswith("in _parse")
    assert "hush" not in letter.traceback


async def test_explain_names_stage_and_code_and_holds_the_dead_letter(failing: Pipeline) -> None:
    """'explain/show names the code'; what a signal says has no traceback."""
    (document,) = await _failed(failing, "scan")
    explained = await failing.explain(document)
    assert explained.sentence == (
        "dead_letter: no text: password=*** (finish_parse: no_text); "
        "`requeue` takes it up where it failed"
    )
    (letter,) = await failing.operations.dead_letters()
    assert explained.dead_letter == letter
    assert (letter.error_type, letter.traceback) == (None, None)
    await failing.apply("requeue", document, reason="test")
    assert (await failing.explain(document)).dead_letter is None


async def test_a_crash_is_counted_in_the_dead_letter(engine: AsyncEngine) -> None:
    """Attempts at the stage and crashes of the life, those of a rescue too."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks, queue_parse=plain(hooks.queue_parse, crashes=1))
    await pipeline.submit(b"text", name="a")
    worker = await hand(pipeline)
    await worker.claim_one()
    assert await worker.rescue(grace=-3600) == 1
    (letter,) = await pipeline.operations.dead_letters()
    assert (letter.stage, letter.code, letter.attempts, letter.crashes) == (
        "queue_parse",
        "crashed",
        1,
        1,
    )


async def test_a_deleted_document_leaves_no_dead_letter(failing: Pipeline, psql: Psql) -> None:
    """'Erased with the document on delete': its reason may quote it, history does not."""
    (document,) = await _failed(failing, "broken")
    await failing.apply("delete", document, reason="test")
    assert psql.execute("SELECT count(*) FROM dead_letter").fetchone() == (0,)
    row = psql.execute("SELECT last_error FROM document").fetchone()
    assert row == (None,)
    told = psql.execute("SELECT string_agg(t::text, ' ') FROM transition t").fetchone()
    assert told is not None
    assert "ValueError" in told[0]
    assert "hush" not in told[0]


async def test_dead_letters_are_found_by_stage_code_tenant_and_time(
    failing: Pipeline, psql: Psql
) -> None:
    """'Filters: stage, code, tenant, since; page', the newest first."""
    scans = await _failed(failing, "scan-1", "scan-2", "scan-3")
    others = await _failed(failing, "other", tenant="acme")
    psql.execute(
        "UPDATE dead_letter SET at = '2026-01-01 00:00Z'::timestamptz + interval '1 day' * "
        "(SELECT count(*) FROM document d WHERE d.name < document.name) "
        "FROM document WHERE document.id = document_id"
    )
    # other, scan-1, scan-2, scan-3: a day apart
    found = failing.operations
    assert [one.name for one in await found.dead_letters()] == [
        *("scan-3", "scan-2", "scan-1", "other"),
    ]
    assert {one.document_id for one in await found.dead_letters(code="no_text")} == set(scans)
    assert [one.document_id for one in await found.dead_letters(tenant="acme")] == others
    assert len(await found.dead_letters(stage="finish_parse")) == 4
    assert await found.dead_letters(stage="store_chunks") == []
    since = datetime(2026, 1, 3, tzinfo=UTC)
    assert [one.name for one in await found.dead_letters(since=since)] == ["scan-3", "scan-2"]
    first = await found.dead_letters(limit=2)
    await failing.apply("requeue", first[-1].document_id, reason="between two pages")
    assert [one.name for one in await found.dead_letters(after=first[-1])] == ["scan-1", "other"]
    with pytest.raises(ValueError, match="has no time zone"):
        await found.dead_letters(since=datetime(2026, 1, 3))  # noqa: DTZ001


async def test_dead_letters_are_counted_by_stage_and_code(failing: Pipeline) -> None:
    """'By stage, code, with count, first, last, example'."""
    scans = await _failed(failing, "scan-1", "scan-2")
    others = await _failed(failing, "other", tenant="acme")
    groups = await failing.operations.dead_letter_groups()
    assert [(g.stage, g.code, g.count) for g in groups] == [
        ("finish_parse", "no_text", 2),
        ("finish_parse", "other", 1),
    ]
    told = {one.document_id: one.at for one in await failing.operations.dead_letters()}
    assert (groups[0].first_at, groups[0].last_at) == tuple(sorted(told[one] for one in scans))
    assert told[groups[0].example] == groups[0].last_at
    assert (groups[1].example, groups[1].reason) == (others[0], "no")
    (acme,) = await failing.operations.dead_letter_groups(tenant="acme")
    assert acme == groups[1]
    assert await failing.operations.dead_letter_groups(code="none") == []


@pytest.mark.usefixtures("small_batches")
async def test_a_group_is_requeued_and_a_dry_run_says_which(
    failing: Pipeline, hooks: Hooks
) -> None:
    """'Requeue one, a group, all that match, with dry_run': how many and which."""
    scans = sorted(await _failed(failing, *(f"scan-{n}" for n in range(5))))
    (other,) = await _failed(failing, "other")
    asked: dict[str, Any] = {"code": "no_text", "stage": "finish_parse", "reason": "an OCR came"}
    would = await failing.operations.requeue(**asked, dry_run=True)
    assert (list(would.matched), list(would.moved), would.refused) == (scans, scans, ())
    assert await failing.counts() == {"dead_letter": 6}

    hooks.finish_parse.does(Hooks().finish_parse._work)
    done = await failing.operations.requeue(**asked, by="ann")
    assert (list(done.matched), sorted(done.moved), done.refused) == (scans, scans, ())
    assert set(await completed(failing, *scans)) == {"complete"}
    step = next(s for s in await failing.history(scans[0]) if s.trigger == "requeue")
    assert (step.by, step.reason) == ("ann", "an OCR came")
    assert [one.document_id for one in await failing.operations.dead_letters()] == [other]
    assert (await failing.operations.requeue(other, reason="one")).moved == (other,)
    assert await completed(failing, other) == ["complete"]


@pytest.mark.usefixtures("small_batches")
async def test_a_requeue_takes_each_document_once_while_workers_run(
    failing: Pipeline, hooks: Hooks
) -> None:
    """'Safe with workers running': one that fails again at once is not requeued again."""
    scans = await _failed(failing, *(f"scan-{n}" for n in range(7)))
    hooks.forget()
    async with running(failing):
        done = await failing.operations.requeue(code="no_text", reason="try", by="ann")
        assert len(done.moved) == 7
        await failing.wait(*scans, timeout=BRIEFLY)
    assert len(hooks.finish_parse.claims) == 7
    assert await failing.counts() == {"dead_letter": 7}


async def test_one_that_failed_anew_for_another_reason_is_left_where_it_is(
    failing: Pipeline, psql: Psql, database_url: str
) -> None:
    """What matches is looked at again under the lock."""
    (document,) = await _failed(failing, "scan")
    with psql.transaction():
        psql.execute("SELECT id FROM document FOR UPDATE")
        requeue = asyncio.create_task(failing.operations.requeue(code="no_text", reason="test"))
        with connect(database_url) as other:
            await until_blocked(other)
        psql.execute("UPDATE dead_letter SET code = 'other'")
    done = await requeue
    assert (done.matched, done.moved) == ((document,), ())
    assert done.refused[0].reason == (
        "it is no such dead letter any more, and stands in 'dead_letter'"
    )


async def test_a_requeue_of_nothing_in_particular_is_refused(failing: Pipeline) -> None:
    """'Neither documents nor what has to match, or both'."""
    (document,) = await _failed(failing, "scan")
    with pytest.raises(ValueError, match="either document ids or one of"):
        await failing.operations.requeue(reason="test")
    with pytest.raises(ValueError, match="either document ids or one of"):
        await failing.operations.requeue(document, code="no_text", reason="test")


async def test_the_database_refuses_a_dead_letter_without_stage_or_code(
    failing: Pipeline, psql: Psql
) -> None:
    """'What must hold is enforced in the database, since other programs may write to it'."""
    await _failed(failing, "scan")
    for change in ("code = ''", "stage = ''", "attempts = -1", "crashes = -1"):
        with pytest.raises(psycopg.errors.CheckViolation):
            psql.execute(f"UPDATE dead_letter SET {change}")


HOUR = timedelta(hours=1)
WAITS: list[tuple[Backoff, float]] = [
    (Constant(base=HOUR, jitter="none"), 3600),
    (Constant(base=HOUR, jitter="equal"), 2700),
    (Constant(base=HOUR), 1800),
    (Exponential(base=HOUR, cap=2 * HOUR, jitter="none"), 3600),
    (Fibonacci(base=HOUR, cap=2 * HOUR), 1800),
]


@pytest.mark.parametrize(
    ("backoff", "expected"),
    WAITS,
    ids=[f"{n}-{type(b).__name__}" for n, (b, _) in enumerate(WAITS)],
)
async def test_the_wait_of_a_stages_schedule_is_stored(
    engine: AsyncEngine,
    psql: Psql,
    monkeypatch: pytest.MonkeyPatch,
    backoff: Backoff,
    expected: float,
) -> None:
    """'Durable (run_at), per stage': the delay that was drawn stands in the work row."""
    monkeypatch.setattr(proposing.random, "random", lambda: 0.5)
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks, queue_parse=plain(hooks.queue_parse, backoff=backoff))
    await pipeline.submit(b"text", name="a")
    worker = await hand(pipeline)
    claim, bound = await worker.claim_one()
    facts = worker.proposer.facts(claim, bound)
    failed = Failed(code="x", reason="y")
    await worker.settle(worker.proposer.propose(claim, bound, failed, facts, frozenset(), 0.0))
    row = psql.execute("SELECT lane, extract(epoch FROM run_at - now()) FROM work").fetchone()
    assert row is not None
    assert row[0] == "deferred"
    assert expected - 60 < row[1] <= expected


async def test_a_fault_pauses_its_stage_for_as_long_as_the_stage_says(
    engine: AsyncEngine, psql: Psql
) -> None:
    """'Make its duration a number on Stage', for what is raised and what is classified."""
    for number, fault in enumerate([StageFault("no"), OSError(errno.ENOSPC, "no")]):
        hooks = Hooks()
        # Once for each document that comes by: the first one is still there the second time.
        hooks.finish_parse.raises(*[fault] * (number + 1))
        stage = plain(hooks.finish_parse, fault_pause=timedelta(hours=7))
        pipeline = pipeline_with(engine, hooks, finish_parse=stage)
        sent = await pipeline.submit(f"text {number}".encode(), source_uri=f"n:{number}")
        sent_id = sent.document_id
        async with running(pipeline):
            given_back = "SELECT lane <> 'claimed' AND attempt = 0 FROM work WHERE document_id = %s"
            await until(psql, "SELECT count(*) = 1 FROM pause")
            await until(psql, given_back, sent_id)
        row = psql.execute("SELECT extract(epoch FROM until - now()), reason FROM pause").fetchone()
        assert row is not None
        assert 7 * 3600 - 60 < row[0] <= 7 * 3600
        assert row[1] == ["no", "the hook raised OSError (ENOSPC)"][number]
        psql.execute("DELETE FROM pause")


async def test_what_a_child_raises_is_classified_like_the_rest(engine: AsyncEngine) -> None:
    """'So that exceptions raised in a child process are classified too', groups among them."""
    hooks = Hooks()
    rules = [FailureRule(LookupError, "permanent", code="not_there")]
    stage = plain(gather_failures, run="process", failures=rules)
    pipeline = pipeline_with(engine, hooks, accept_parse=stage)
    sent = await pipeline.submit(b"hush", name="a")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    (letter,) = await pipeline.operations.dead_letters()
    assert (letter.code, letter.attempts, letter.error_type) == ("not_there", 1, "KeyError")
    assert letter.traceback is not None
    assert "child_functions:" in letter.traceback
    assert "hush" not in letter.traceback


async def test_a_stage_fault_of_a_product_pauses_the_stage(engine: AsyncEngine, psql: Psql) -> None:
    """A product that may not write to its table is the stage's fault: no document is charged."""

    class Forbidden:
        async def write(self, connection: Any, claim: Claim) -> None:
            await connection.execute(text("SELECT no_such_function(1)"))

    async def make(claim: Claim) -> Any:
        return Forbidden()

    hooks = Hooks()
    hooks.accept_parse.does(make)
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"text", name="a")
    async with running(pipeline):
        await until(psql, "SELECT lane = 'deferred' FROM work")
    row = psql.execute("SELECT stage, reason FROM pause").fetchone()
    assert row == ("accept_parse", "its product raised ProgrammingError (SQLSTATE 42883)")
    assert (await pipeline.explain(sent.document_id)).attempt == 0


async def test_a_rate_limit_of_any_client_gives_the_attempt_back(
    engine: AsyncEngine, psql: Psql
) -> None:
    """429 with Retry-After, raised by httpx and not by a signal."""
    request = httpx.Request("POST", "https://example.org/")
    answer = httpx.Response(429, headers={"Retry-After": "600"}, request=request)
    hooks = Hooks()
    hooks.finish_parse.raises(httpx.HTTPStatusError("no", request=request, response=answer))
    pipeline = pipeline_with(engine, hooks)
    await pipeline.submit(b"text", name="a")
    async with running(pipeline):
        await until(psql, "SELECT lane = 'deferred' FROM work")
    row = psql.execute("SELECT attempt, extract(epoch FROM run_at - now()) FROM work").fetchone()
    assert row is not None
    assert row[0] == 0
    assert 540 < row[1] <= 600
