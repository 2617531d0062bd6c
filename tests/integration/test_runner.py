"""The runner's own affairs: what it has in hand, its chores, its end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fix_pipelines import (
    BRIEFLY,
    Told,
    accept,
    hand,
    pipeline_with,
    plain,
    running,
    until,
    until_blocked,
)
from fix_postgres import connect

from statemachine_pipeline.liveness import Liveness
from statemachine_pipeline.retry import Constant
from statemachine_pipeline.runner import loop

if TYPE_CHECKING:
    import psycopg
    import pytest
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Claim

    Psql = psycopg.Connection[Any]

LISTENERS = """
    SELECT count(*) = {} FROM pg_stat_activity
    WHERE datname = current_database() AND starts_with(query, 'LISTEN')
"""


async def _write(psql: Psql, query: str) -> None:
    """Execute beside the loop: the runner may be in a transaction that only the loop can end."""
    await asyncio.to_thread(psql.execute, query)  # type: ignore[arg-type]


async def test_a_chore_that_has_begun_ends_before_its_runner(
    engine: AsyncEngine, psql: Psql, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off in the middle of a statement, it would leave a connection that nobody closes."""
    monkeypatch.setattr(loop, "CHORE_SECONDS", 60.0)  # one may pass on a busy machine
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(b"text")
    await (await hand(pipeline)).claim_one()
    psql.execute("UPDATE worker SET dead_at = now()")
    runner = pipeline.runner()
    with connect(database_url) as other:
        with psql.transaction():
            psql.execute("LOCK TABLE dead_letter IN EXCLUSIVE MODE")  # every settle writes to it
            task = asyncio.create_task(runner.run())
            await until_blocked(other)
            await until(other, LISTENERS.format(1))
            runner.stop()
            await until(other, LISTENERS.format(0))
        await asyncio.wait_for(task, BRIEFLY.total_seconds())
    crashes = psql.execute("SELECT crashes FROM work WHERE document_id = %s", [sent.document_id])
    assert crashes.fetchone() == (1,)


async def test_a_chore_that_failed_is_tried_again(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a rescue raises, the next one is made."""
    monkeypatch.setattr(loop, "PROMOTE_SECONDS", 0.02)
    at_once = Constant(base=timedelta(0))
    pipeline = pipeline_with(engine, queue_parse=plain(accept, backoff=at_once))
    sent = await pipeline.submit(b"text")
    await (await hand(pipeline)).claim_one()
    psql.execute(
        "CREATE SEQUENCE refused; CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM nextval('smp.refused'); RAISE 'not now'; END $$; CREATE TRIGGER refuse "
        "BEFORE UPDATE OF dead_at ON worker FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    psql.execute("UPDATE worker SET beat_at = now() - interval '1 hour'")
    beat = timedelta(seconds=0.1)
    async with running(pipeline, liveness=Liveness(beat=beat, dead_after=beat * 600)):
        await until(psql, "SELECT is_called FROM refused")
        await _write(psql, "DROP TRIGGER refuse ON worker")
        (done,) = await pipeline.wait(sent.document_id, timeout=BRIEFLY)
    assert done.state == "complete"


async def test_an_attempt_that_outlives_its_claim_does_not_hide_the_next(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A document that was moved by hand is claimed again; draining waits for that attempt."""
    begun = [asyncio.Event(), asyncio.Event()]
    ends = [asyncio.Event(), asyncio.Event()]

    async def slow(claim: Claim) -> Any:
        number = len(hook.claims) - 1
        begun[number].set()
        await ends[number].wait()
        return await accept(claim)

    hook = Told(slow)
    pipeline = pipeline_with(engine, queue_parse=plain(hook, concurrency=2))
    sent = await pipeline.submit(b"text")
    runner = pipeline.runner(triggers=["queue_parse"])
    task = asyncio.create_task(runner.run())
    await asyncio.wait_for(begun[0].wait(), BRIEFLY.total_seconds())
    for trigger in ("cancel", "requeue"):
        await pipeline.apply(trigger, sent.document_id, reason="test")
    await asyncio.wait_for(begun[1].wait(), BRIEFLY.total_seconds())
    first, _ = runner._driving
    ends[0].set()
    await asyncio.wait_for(first, BRIEFLY.total_seconds())
    assert psql.execute("SELECT lane FROM work").fetchall() == [("claimed",)]
    runner.stop()
    await until(psql, "SELECT draining FROM worker")
    ends[1].set()
    await asyncio.wait_for(task, BRIEFLY.total_seconds())
    assert (await pipeline.get(sent.document_id)).state == "parse_queued"


async def test_a_fenced_worker_waits_until_it_can_register_again(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that is away for longer than the dead limit ends no worker."""
    monkeypatch.setattr(loop, "POLL_SECONDS_LAST", 0.1)  # what it waits for, growing, in between
    pipeline = pipeline_with(engine)
    psql.execute(
        "CREATE SEQUENCE refused; CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM nextval('smp.refused'); "
        "RAISE 'starting up' USING ERRCODE = 'cannot_connect_now'; END $$"
    )
    beat = timedelta(seconds=0.1)
    async with running(pipeline, liveness=Liveness(beat=beat, dead_after=beat * 600)):
        await until(psql, "SELECT count(*) = 1 FROM worker")
        await _write(
            psql,
            "CREATE TRIGGER refuse BEFORE INSERT ON worker FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        await _write(psql, "UPDATE worker SET dead_at = now()")
        await until(psql, "SELECT is_called FROM refused")
        await _write(psql, "DROP TRIGGER refuse ON worker")
        sent = await pipeline.submit(b"text")
        (done,) = await pipeline.wait(sent.document_id, timeout=BRIEFLY)
    assert done.state == "complete"
