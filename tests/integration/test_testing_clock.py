"""The clock that tests move, and draining by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import Hooks, hand, path_of, pipeline_with, plain

from statemachine_pipeline import (
    Provider,
    RateLimited,
    Retry,
    StageFault,
    Wait,
    by_hand,
    failpoints,
)
from statemachine_pipeline.retry import Constant
from statemachine_pipeline.testing import Clock, drain
from statemachine_pipeline.testing.clock import MOVED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Pipeline

    Psql = psycopg.Connection[Any]

HISTORY = {
    "breaker": {"opened_at", "at"},
    "breaker_change": {"at"},
    "dead_letter": {"at"},
    "document": {"created_at", "updated_at"},
    "duplicate_of": {"at"},
    "lifecycle": {"at"},
    "pause": {"at"},
    "placement": {"placed_at", "withdraw_at"},  # the first is compared with products, not with now
    "product": {"at"},
    "restore": {"at"},
    "transition": {"at"},
    "worker": {"started_at", "dead_at"},  # the first is compared with the start of the server
}
"""Times that are told and put in order, by table; no statement compares them with the clock."""

ONE_OF_EACH = """
    SET session_replication_role = replica;
    INSERT INTO blob_object (key, content) VALUES ('k', 'c');
    INSERT INTO breaker (provider, state, reason, opened_at, until, probe_worker, probe_until)
        VALUES ('p', 'half_open', 'r', now(), now(), 1, now());
    INSERT INTO budget (provider, per_seconds, hold_seconds, blocked_until, taken_until)
        VALUES ('p', 60, 10, now(), now());
    INSERT INTO pause (stage, reason, by, until) VALUES ('finalize', 'r', 'b', now());
    INSERT INTO placement (document_id, stage, writing_until, withdraw_at, run_at)
        VALUES (gen_random_uuid(), 'finalize', now(), now(), now());
    INSERT INTO work (document_id, tenant, state, lane, worker, deadline_at)
        VALUES (gen_random_uuid(), 't', 'uploaded', 'claimed', 1, now());
    INSERT INTO worker (host, pid, version, settled_at, dead_at)
        VALUES ('h', 1, '0', now(), now());
"""


def times(psql: Psql) -> set[tuple[str, str]]:
    """Return table and column of every stored time."""
    found = psql.execute(
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = 'smp' AND data_type LIKE 'timestamp%'"
    )
    return {(str(table), str(column)) for table, column in found}


def pairs(columns: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return table and column of each."""
    return {(table, one) for table, names in columns.items() for one in names}


def test_every_stored_time_is_moved_or_known_as_history(psql: Psql) -> None:
    """A new column of times has to be put on one side: into ``MOVED``, or above with a reason."""
    assert times(psql) == pairs(MOVED) | pairs(HISTORY)
    assert not pairs(MOVED) & pairs(HISTORY)


async def test_advancing_moves_what_is_compared_with_the_clock_and_nothing_else(
    database_url: str, psql: Psql
) -> None:
    """'What waits becomes due ... History and the times that people read stay as they are'."""
    psql.execute(ONE_OF_EACH)

    def read() -> dict[tuple[str, str], datetime]:
        found = {}
        for table, column in times(psql):
            row = psql.execute(f"SELECT {column} FROM {table}").fetchone()
            found |= {(table, column): row[0]} if row else {}
        return found

    before = read()
    await Clock(database_url).advance(hours=1, minutes=30)
    after = read()
    moved = {one: before[one] - after[one] for one in before if before[one] != after[one]}
    assert moved == dict.fromkeys(pairs(MOVED), timedelta(minutes=90))


def test_a_clock_counts_what_passed_and_never_goes_back(smp_clock: Clock) -> None:
    """'By how much it was moved so far'; 'Time does not go back'."""
    smp_clock.advance_blocking(minutes=1)
    smp_clock.advance_blocking(seconds=5)
    assert smp_clock.passed == timedelta(seconds=65)
    with pytest.raises(ValueError, match="time does not go back"):
        smp_clock.advance_blocking(seconds=-1)


async def one(pipeline: Pipeline, text: bytes = b"text") -> Any:
    """Submit a document and return its id."""
    return (await pipeline.submit(text)).document_id


async def test_draining_jumps_over_backoff(
    engine: AsyncEngine, psql: Psql, smp_clock: Clock
) -> None:
    """'Run until every document rests ... without sleeping through waits'."""
    hooks = Hooks()
    hooks.finish_parse.raises(*[OSError("unplugged")] * 4)
    hourly = Constant(base=timedelta(hours=1), jitter="none")  # a draw might be due at once
    slow = plain(hooks.finish_parse, backoff=hourly)
    pipeline = pipeline_with(engine, hooks, finish_parse=slow)
    document = await one(pipeline)
    assert await drain(pipeline, clock=smp_clock) == {"complete": 1}
    assert path_of(psql, document)[2:7] == ["retry"] * 4 + ["finish_parse"]
    assert smp_clock.passed > timedelta(hours=3, minutes=50)


async def test_draining_polls_until_a_service_has_answered(
    engine: AsyncEngine, psql: Psql, smp_clock: Clock
) -> None:
    """Each ``Wait`` is waited for by the clock, and costs no attempt."""
    hooks = Hooks()
    hooks.finish_parse.raises(*[Wait(timedelta(hours=5))] * 3)
    pipeline = pipeline_with(engine, hooks)
    await one(pipeline)
    assert await drain(pipeline, clock=smp_clock) == {"complete": 1}
    assert timedelta(hours=14, minutes=50) < smp_clock.passed < timedelta(hours=15, minutes=10)
    # Its beat was not moved with the rest, or it would have had to register again.
    workers = psql.execute("SELECT count(DISTINCT worker) FROM transition").fetchone()
    assert workers == (1,)


async def test_a_service_that_never_answers_is_given_up_in_time(
    engine: AsyncEngine, smp_clock: Clock
) -> None:
    """'Past the stage's ``wait`` (24 h) it is transient': the clock moves that limit too."""
    hooks = Hooks()
    hooks.finish_parse.raises(*[Wait(timedelta(hours=5))] * 100)
    pipeline = pipeline_with(engine, hooks)
    document = await one(pipeline)
    assert await drain(pipeline, clock=smp_clock) == {"dead_letter": 1}
    assert smp_clock.passed > timedelta(hours=24)
    (failed,) = [t for t in await pipeline.history(document) if t.trigger == "fail"]
    assert failed.to_state == "dead_letter"


async def test_draining_jumps_over_the_pause_of_a_stage_at_fault(
    engine: AsyncEngine, smp_clock: Clock
) -> None:
    """'A pause ... ': the stage is tried again when it is over."""
    hooks = Hooks()
    hooks.finish_parse.raises(StageFault("wrong key"))
    pipeline = pipeline_with(engine, hooks)
    await one(pipeline)
    assert await drain(pipeline, clock=smp_clock) == {"complete": 1}
    assert smp_clock.passed > timedelta(0)


async def test_draining_jumps_over_an_open_breaker_and_a_blocked_budget(
    engine: AsyncEngine, psql: Psql, smp_clock: Clock
) -> None:
    """'A breaker, a budget ...': a provider that is down or has had enough is asked later."""
    hooks = Hooks()
    hooks.finish_parse.raises(*[ConnectionError("down")] * 6, RateLimited(timedelta(hours=2)))
    shaky = plain(hooks.finish_parse, provider=Provider("shaky"), attempts=20)
    pipeline = pipeline_with(engine, hooks, finish_parse=shaky)
    await one(pipeline)
    assert await drain(pipeline, clock=smp_clock) == {"complete": 1}
    assert smp_clock.passed > timedelta(hours=1, minutes=50)
    opened = psql.execute("SELECT count(*) FROM breaker_change WHERE state = 'open'").fetchone()
    assert opened is not None
    assert opened[0] >= 1


async def test_draining_outlives_a_worker_that_died(
    engine: AsyncEngine, psql: Psql, smp_clock: Clock
) -> None:
    """'The death of a worker': what it held is rescued, and the crash is counted."""
    pipeline = pipeline_with(engine)
    document = await one(pipeline)
    dead = await hand(pipeline)
    await dead.claim_one()
    assert await drain(pipeline, clock=smp_clock) == {"complete": 1}
    assert path_of(psql, document)[:3] == ["submit", "retry", "queue_parse"]
    assert timedelta(0) < smp_clock.passed < timedelta(minutes=10)


async def test_draining_leaves_what_waits_for_people(
    engine: AsyncEngine, empty_url: str, smp_clock: Clock
) -> None:
    """'Every document rests or waits for a person': pauses without an end, and by_hand."""
    pipeline = pipeline_with(engine)
    await pipeline.operations.pause(stage="finalize", reason="a holiday")
    await one(pipeline)
    assert await drain(pipeline, clock=smp_clock) == {"embeddings_stored": 1}
    assert smp_clock.passed == timedelta(0)
    async with pipeline_with(engine).at(empty_url) as elsewhere:
        kept = pipeline_with(elsewhere.engine, finalize=by_hand)
        await kept.migrate()
        await one(kept)
        assert await drain(kept) == {"embeddings_stored": 1}


async def test_draining_sees_what_came_due_while_it_looked(
    engine: AsyncEngine, psql: Psql, smp_clock: Clock
) -> None:
    """'What came due in the meantime counts too': after the runner had looked for what is due."""
    hooks = Hooks()
    hooks.finish_parse.raises(Wait(timedelta(hours=1)))
    pipeline = pipeline_with(engine, hooks)
    await one(pipeline)

    def come_due(doing: str, moment: str) -> None:
        if (doing, moment) == ("looking at the queue", "after"):
            psql.execute("UPDATE work SET run_at = clock_timestamp() WHERE lane = 'deferred'")

    token = failpoints.active.set(come_due)
    try:
        assert await drain(pipeline, clock=smp_clock) == {"complete": 1}
    finally:
        failpoints.active.reset(token)
    assert smp_clock.passed == timedelta(0)


async def test_draining_passes_by_a_suspect_that_nobody_may_take(
    engine: AsyncEngine, psql: Psql, smp_clock: Clock
) -> None:
    """What took a worker down is claimed alone; while it may not be, others go on."""
    pipeline = pipeline_with(engine)
    await pipeline.operations.pause(tenant="late", reason="a bill")
    suspect = (await pipeline.submit(b"suspect", tenant="late")).document_id
    psql.execute("UPDATE work SET crashes = 1, alone = true WHERE document_id = %s", [suspect])
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await pipeline.submit(b"tomorrow", not_before=tomorrow)
    assert await drain(pipeline, clock=smp_clock) == {"uploaded": 1, "complete": 1}


async def test_a_document_that_never_rests_is_told_of(
    engine: AsyncEngine, smp_clock: Clock
) -> None:
    """'They do not rest ``within`` that time; the message says of some why'."""
    hooks = Hooks()
    hooks.finish_parse.raises(*[Retry("not yet", after=timedelta(hours=3))] * 100)
    patient = plain(hooks.finish_parse, attempts=1000)
    pipeline = pipeline_with(engine, hooks, finish_parse=patient)
    await one(pipeline)
    with pytest.raises(AssertionError, match=r"1 document\(s\) do not rest within .*\n.*not yet"):
        await drain(pipeline, clock=smp_clock, within=timedelta(hours=10))
    assert smp_clock.passed <= timedelta(hours=10)


async def test_a_runner_need_not_wait_for_what_is_not_due(engine: AsyncEngine, psql: Psql) -> None:
    """'Called when nothing can be done now ... False returns and leaves what is not due'."""
    pipeline = pipeline_with(engine)
    later = datetime.now(UTC) + timedelta(days=1)
    tomorrow = (await pipeline.submit(b"later", not_before=later)).document_id
    lost = await hand(pipeline)
    suspect = (await pipeline.submit(b"suspect")).document_id
    psql.execute("UPDATE work SET crashes = 1, alone = true WHERE document_id = %s", [suspect])
    due = await one(pipeline, b"due now, not promoted")
    psql.execute("UPDATE work SET lane = 'deferred' WHERE document_id = %s", [due])
    held = await one(pipeline, b"held by a worker that is dead")
    psql.execute(
        "UPDATE work SET lane = 'claimed', attempt = 1, worker = %s, deadline_at = now() "
        "WHERE document_id = %s",
        [lost.worker, held],
    )
    psql.execute("UPDATE worker SET beat_at = now() - interval '1 day'")

    async def leave() -> bool:
        return False

    await pipeline.runner().run_until_idle(while_waiting=leave)
    assert [(await pipeline.get(it)).state for it in (suspect, due)] == ["complete"] * 2
    assert (await pipeline.get(tomorrow)).state == "uploaded"
    assert path_of(psql, held)[:2] == ["submit", "retry"]  # how long it backs off is drawn
