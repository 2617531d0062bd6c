"""Pauses of stages and tenants: what nobody claims for, who said so, and until when."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from fix_pipelines import (
    BRIEFLY,
    Hooks,
    completed,
    hand,
    path_of,
    pipeline_with,
    running,
    until,
    until_blocked,
)
from fix_postgres import connect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from statemachine_pipeline import Pipeline
from statemachine_pipeline.errors import PauseRefused
from statemachine_pipeline.hooks import StageFault
from statemachine_pipeline.observability.metrics import Metrics
from statemachine_pipeline.runner import loop
from statemachine_pipeline.runner.pausing import Pausing
from statemachine_pipeline.runner.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    from statemachine_pipeline.testing import Databases

    Psql = psycopg.Connection[Any]

HOUR = timedelta(hours=1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due, and what is paused, is looked for at once."""
    monkeypatch.setattr(loop, "PROMOTE_SECONDS", 0.02)


async def _claimed(pipeline: Pipeline) -> set[tuple[str, str]]:
    """Return tenant and stage of all that can be claimed, and give it back."""
    worker = await hand(pipeline)
    found = await worker.claim()
    await worker.workers.leave(worker.worker)
    return {(claim.document.tenant, claim.stage) for claim, _ in found}


async def _notices(runner: Any) -> None:
    """Wait until a runner has seen that a tenant is paused."""
    async with asyncio.timeout(BRIEFLY.total_seconds()):
        while True:
            if runner._slots.paused_for:
                return
            await asyncio.sleep(0.01)


async def _two_tenants_at_two_stages(pipeline: Pipeline) -> None:
    worker = await hand(pipeline)
    for tenant in ("a", "b"):
        await pipeline.submit(b"first", tenant=tenant)
        await worker.settle(await worker.earn(*await worker.claim_one("queue_parse")))
    for tenant in ("a", "b"):
        await pipeline.submit(b"second", tenant=tenant)


ALL = {(tenant, stage) for tenant in "ab" for stage in ("queue_parse", "finish_parse")}


@pytest.mark.parametrize(
    ("place", "stopped"),
    [
        ({"stage": "finish_parse"}, {("a", "finish_parse"), ("b", "finish_parse")}),
        ({"tenant": "a"}, {("a", "queue_parse"), ("a", "finish_parse")}),
        ({"stage": "finish_parse", "tenant": "a"}, {("a", "finish_parse")}),
    ],
    ids=["stage", "tenant", "both"],
)
async def test_what_is_paused_is_not_claimed_until_it_is_resumed(
    engine: AsyncEngine, place: Mapping[str, Any], stopped: set[tuple[str, str]]
) -> None:
    """A stage, a tenant, or a stage for one tenant; everything else goes on."""
    pipeline = pipeline_with(engine)
    await _two_tenants_at_two_stages(pipeline)
    assert await _claimed(pipeline) == ALL
    made = await pipeline.operations.pause(**place, reason="a bill", by="ann")
    assert (made.stage, made.tenant) == (place.get("stage"), place.get("tenant"))
    assert (made.reason, made.by, made.fault, made.until) == ("a bill", "ann", False, None)
    assert await pipeline.operations.pauses() == [made]
    assert await _claimed(pipeline) == ALL - stopped
    assert await pipeline.operations.resume(**place) == [made]
    assert await pipeline.operations.pauses() == []
    assert await _claimed(pipeline) == ALL


@pytest.mark.parametrize(
    "place",
    [{"stage": "finish_parse"}, {"tenant": "a"}, {"stage": "finish_parse", "tenant": "a"}],
    ids=["stage", "tenant", "both"],
)
async def test_a_pause_ends_by_itself(
    engine: AsyncEngine, psql: Psql, place: Mapping[str, Any]
) -> None:
    """``until`` and ``for_``: by the database's clock, for claims and for who looks."""
    pipeline = pipeline_with(engine)
    await _two_tenants_at_two_stages(pipeline)
    end = datetime.now(UTC) + HOUR
    made = await pipeline.operations.pause(**place, reason="a bill", until=end)
    assert made.until == end
    again = await pipeline.operations.pause(**place, reason="two bills", for_=2 * HOUR)
    assert again.until is not None
    assert again.until - again.since == pytest.approx(2 * HOUR, abs=timedelta(seconds=1))
    assert await pipeline.operations.pauses() == [again]
    psql.execute("UPDATE pause SET until = now()")
    assert await pipeline.operations.pauses() == []
    assert await _claimed(pipeline) == ALL
    assert await pipeline.operations.resume(**place) == []


@pytest.fixture(scope="module")
def unpaused_url(smp_databases: Databases) -> Iterator[str]:
    """The URL of a database that is shared by tests which leave nothing in it."""
    url = smp_databases.make()
    yield url
    smp_databases.drop(url)


@pytest.fixture
def unpaused(unpaused_url: str) -> Iterator[Psql]:
    """A connection to it."""
    with connect(unpaused_url) as connection:
        connection.execute("SET search_path TO smp, public")
        yield connection


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, "neither a stage nor a tenant was named; name one, or both"),
        (
            {"stage": "parse"},
            (
                "no stage 'parse'; there are queue_parse, finish_parse, accept_parse, "
                "store_chunks, store_embeddings, finalize"
            ),
        ),
        ({"stage": "queue_embedding"}, "no stage 'queue_embedding'; there are queue_parse"),
        ({"tenant": " "}, "tenant ' ' is blank; name a tenant as submit does"),
        ({"tenant": "a", "reason": " "}, "reason=' ' tells nobody anything; say reason="),
        ({"tenant": "a", "by": "\x00"}, "by='\\x00' tells nobody anything; say by="),
        ({"tenant": "a", "until": datetime(2030, 1, 1)}, "has no time zone; give it one"),  # noqa: DTZ001
        ({"tenant": "a", "until": datetime(2020, 1, 1, tzinfo=UTC)}, "ended at 2020-01-01"),
        ({"tenant": "a", "for_": timedelta(0)}, "for_=0:00:00 is no time; give a longer one"),
        (
            {"tenant": "a", "for_": HOUR, "until": datetime(2030, 1, 1, tzinfo=UTC)},
            "both until= and for_= were given; give one of them, or neither",
        ),
    ],
    ids=[
        *("nothing", "stage", "nothing to earn", "tenant", "reason", "by", "zone"),
        *("past", "no time", "two ends"),
    ],
)
async def test_a_pause_that_means_nothing_is_refused(
    unpaused_url: str, unpaused: Psql, asked: dict[str, Any], found: str
) -> None:
    """'Bad input gets an error that names what was asked, what was found, what to do'."""
    pipeline = pipeline_with(create_async_engine(unpaused_url, poolclass=sa.NullPool))
    with pytest.raises(PauseRefused) as refused:
        await pipeline.operations.pause(**({"reason": "why"} | asked))
    assert found in str(refused.value)
    assert unpaused.execute("SELECT count(*) FROM pause").fetchone() == (0,)


async def test_only_a_stage_that_is_known_can_be_resumed(engine: AsyncEngine) -> None:
    """A slip would else look like a pause that had gone already."""
    with pytest.raises(PauseRefused, match="no stage 'parse'; there are queue_parse"):
        await pipeline_with(engine).operations.resume(stage="parse")


async def test_a_pipeline_without_the_hooks_knows_the_stages(
    engine: AsyncEngine, database_url: str
) -> None:
    """As the command line has it without --app: ``migrate`` registered them."""
    async with Pipeline(database_url, lifecycle=None) as stored:
        await stored.operations.pause(stage="store_embeddings", reason="no budget")
        with pytest.raises(PauseRefused, match="no stage 'start_embedding'; there are queue_parse"):
            await stored.operations.pause(stage="start_embedding", reason="no budget")
    (pause,) = await pipeline_with(engine).operations.pauses()
    assert pause.place == "stage store_embeddings"


@pytest.mark.parametrize(
    "rows",
    [
        [(None, None, False)],
        [("finish_parse", None, True)],
        [("finish_parse", None, False)] * 2,
        [(None, "a", False)] * 2,
    ],
    ids=["of nothing", "fault without an end", "stage twice", "tenant twice"],
)
def test_postgresql_refuses_pauses_that_mean_nothing(unpaused: Psql, rows: list[Any]) -> None:
    """'What must hold is enforced in the database'."""
    insert = "INSERT INTO pause (stage, tenant, fault, reason, by) VALUES (%s, %s, %s, 'why', 'me')"
    *before, last = rows
    with unpaused.transaction(force_rollback=True):
        for row in before:
            unpaused.execute(insert, row)
        with pytest.raises(psycopg.errors.IntegrityError):
            unpaused.execute(insert, last)


async def test_a_fault_and_a_person_pause_side_by_side(engine: AsyncEngine, psql: Psql) -> None:
    """Neither shortens or hides the other, and whoever resumes lifts both."""
    pipeline = pipeline_with(engine)
    pauses = pipeline._pauses
    person = await pipeline.operations.pause(stage="finish_parse", reason="bills", by="ann")
    fault = await pauses.fault("finish_parse", "no key", HOUR)
    assert (fault.by, fault.fault, fault.place) == ("pipeline", True, "stage finish_parse")
    assert await pipeline.operations.pauses() == [person, fault]
    shorter = await pauses.fault("finish_parse", "wrong key", timedelta(minutes=1))
    assert (shorter.until, shorter.since) == (fault.until, fault.since)
    assert shorter.reason == "wrong key"
    longer = await pauses.fault("finish_parse", "wrong key", 3 * HOUR)
    assert longer.until is not None
    assert longer.until > longer.since + 2 * HOUR
    again = await pipeline.operations.pause(
        stage="finish_parse", reason="bills", by="bob", for_=timedelta(minutes=1)
    )
    assert await pipeline.operations.pauses() == [longer, again]
    psql.execute("UPDATE pause SET until = now() WHERE NOT fault")
    await pipeline.submit(b"text")
    worker = await hand(pipeline)
    await worker.settle(await worker.earn(*await worker.claim_one()))
    assert await _claimed(pipeline) == set()
    assert await pipeline.operations.resume(stage="finish_parse") == [longer]
    assert await _claimed(pipeline) == {("default", "finish_parse")}


async def test_a_fault_long_ago_is_not_told_as_when_the_stage_was_paused(
    engine: AsyncEngine, psql: Psql
) -> None:
    """``since`` is that of the pause in force."""
    pauses = pipeline_with(engine)._pauses
    first = await pauses.fault("finish_parse", "no key", HOUR)
    psql.execute("UPDATE pause SET until = now()")
    assert (await pauses.fault("finish_parse", "no key", HOUR)).since > first.since


@pytest.mark.usefixtures("impatient")
async def test_resuming_after_a_stage_fault_takes_its_documents_up_at_once(
    engine: AsyncEngine, psql: Psql
) -> None:
    """The pause is what they wait for: they are not deferred beside it."""
    hooks = Hooks()
    hooks.finish_parse.raises(StageFault("no key"))
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"text")
    async with running(pipeline):
        await until(psql, "SELECT count(*) FROM pause")
        await pipeline.operations.resume(stage="finish_parse")
        await pipeline.wait(sent.document_id, timeout=BRIEFLY)


async def test_workers_are_told_of_a_resume(engine: AsyncEngine, psql: Psql) -> None:
    """``resume`` sends NOTIFY, and only where it lifted something."""
    pipeline = pipeline_with(engine)
    psql.execute("LISTEN smp_work")
    await pipeline.operations.resume(tenant="a")
    await pipeline.operations.pause(tenant="a", reason="bills")
    assert list(psql.notifies(timeout=0)) == []
    await pipeline.operations.resume(tenant="a")
    assert len(list(psql.notifies(timeout=BRIEFLY.total_seconds(), stop_after=1))) == 1


async def test_slots_know_what_is_paused_for_whom(engine: AsyncEngine) -> None:
    """No walk goes on where nobody would claim."""
    pipeline = pipeline_with(engine)
    served = pipeline.stages.served(["finish_parse", "finalize"])
    slots, pausing = Slots(served, lambda: None, Metrics()), Pausing(pipeline._pauses, served)
    states = {bound.state for bound in served}
    parsing = served[0].state
    for place, kept in (
        ({"tenant": "a"}, set()),
        ({"tenant": "b"}, states),
        ({"stage": "finish_parse", "tenant": "a"}, states - {parsing}),
        ({"stage": "finish_parse"}, states - {parsing}),
        ({"stage": "store_chunks"}, states),
    ):
        await pipeline.operations.pause(**place, reason="bills")  # type: ignore[arg-type]
        await pausing.look(slots)
        assert slots.take(states, "a") == kept
        slots.give_back(kept)
        await pipeline.operations.resume(**place)  # type: ignore[arg-type]


async def test_a_worker_knows_the_pauses_before_its_first_claim(
    engine: AsyncEngine, psql: Psql
) -> None:
    """No walk goes on into what was paused before the worker came, however slow its chores are."""
    pipeline = pipeline_with(engine)
    later = await pipeline.submit(b"later", not_before=datetime.now(UTC) + HOUR)
    sent = await pipeline.submit(b"text")
    await pipeline.operations.pause(stage="finish_parse", reason="bills")
    psql.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN new; END $$; "
        "CREATE TRIGGER wait BEFORE UPDATE ON work FOR EACH ROW "
        "WHEN (old.lane = 'deferred' AND new.lane = 'ready') EXECUTE FUNCTION wait(); "
        "UPDATE work SET run_at = now() WHERE lane = 'deferred'; SELECT pg_advisory_lock(1)"
    )
    async with running(pipeline):
        await until_blocked(psql)  # the chore that promotes, and looks at pauses afterwards
        await until(
            psql,
            "SELECT lane <> 'claimed' AND state <> 'uploaded' FROM work WHERE document_id = %s",
            sent.document_id,
        )
        assert path_of(psql, sent.document_id) == ["submit", "queue_parse"]
        assert path_of(psql, later.document_id) == ["submit"]
        psql.execute("SELECT pg_advisory_unlock(1)")


@pytest.mark.usefixtures("impatient")
async def test_a_worker_finishes_its_stage_and_hands_a_paused_tenants_document_back(
    engine: AsyncEngine, psql: Psql
) -> None:
    """The pause of a tenant stops walks too: the document stands ready at its next stage."""
    hooks = Hooks()
    hooks.finish_parse.block()
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"text", tenant="a")
    async with pipeline.runner() as runner:
        await hooks.finish_parse.begun()
        await pipeline.operations.pause(tenant="a", reason="bills")
        await _notices(runner)
        hooks.finish_parse.go_on()
        await until(psql, "SELECT count(*) FROM work WHERE lane = 'ready'")
        assert path_of(psql, sent.document_id) == ["submit", "queue_parse", "finish_parse"]
        other = await pipeline.submit(b"text", tenant="b")
        await pipeline.wait(other.document_id, timeout=BRIEFLY)
        assert (await pipeline.get(sent.document_id)).state == "parse_complete"
        await pipeline.operations.resume(tenant="a")
        await pipeline.wait(sent.document_id, timeout=BRIEFLY)


@pytest.mark.parametrize(
    ("place", "left"),
    [
        ({"stage": "store_embeddings"}, ["embedding_queued", "embedding_queued"]),
        ({"tenant": "a"}, ["uploaded", "complete"]),
        ({"stage": "store_embeddings", "tenant": "b"}, ["complete", "embedding_queued"]),
    ],
    ids=["stage", "tenant", "both"],
)
async def test_a_load_ends_where_only_a_person_can_go_on(
    engine: AsyncEngine, place: Mapping[str, Any], left: list[str]
) -> None:
    """``run_until_idle`` leaves documents behind a pause without an end where they are."""
    pipeline = pipeline_with(engine)
    sent: list[UUID] = [
        (await pipeline.submit(b"text", tenant=one)).document_id for one in ("a", "b")
    ]
    await pipeline.operations.pause(**place, reason="bills")
    assert await completed(pipeline, *sent) == left
    await pipeline.operations.resume(**place)
    assert await completed(pipeline, *sent) == ["complete", "complete"]


async def test_a_load_waits_for_a_pause_that_ends(engine: AsyncEngine, psql: Psql) -> None:
    """As for one that a stage's fault made."""
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(b"text")
    await pipeline.operations.pause(stage="finalize", reason="a moment", for_=HOUR)
    loading = asyncio.create_task(completed(pipeline, sent.document_id))
    await until(psql, "SELECT count(*) FROM work WHERE state = 'embeddings_stored'")
    assert await pipeline._pauses.current()
    assert not loading.done()
    psql.execute("UPDATE pause SET until = now()")
    assert await loading == ["complete"]
