"""What a document waits for, as the database has it: pauses, workers, other stores."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import BRIEFLY, Hand, completed, hand, pipeline_with
from typer.testing import CliRunner

from statemachine_pipeline import Pipeline
from statemachine_pipeline.cli import app
from statemachine_pipeline.database.providers import Providers
from statemachine_pipeline.database.workers import Workers
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.providers import Budget, Provider

if TYPE_CHECKING:
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    Psql = psycopg.Connection[Any]

SILENT = "UPDATE worker SET beat_at = now() - %s * interval '1 second' WHERE id = %s"

ELSEWHERE = """UPDATE worker SET serves = '{"finalize": null}'"""


@pytest.fixture
def pipeline(engine: AsyncEngine) -> Pipeline:
    """Return a pipeline of cheap hooks."""
    return pipeline_with(engine)


async def _submit(pipeline: Pipeline, tenant: str = "a") -> UUID:
    return (await pipeline.submit(b"text", tenant=tenant)).document_id


async def _serving(pipeline: Pipeline, *triggers: str) -> Hand:
    """Register a worker that says what it takes, as a runner does."""
    made = await hand(pipeline)
    made.worker = await Workers(pipeline.engine, pipeline._tables).register(dict.fromkeys(triggers))
    return made


async def test_a_document_tells_every_pause_that_holds_for_it(pipeline: Pipeline) -> None:
    """By whom, since when, until when and why; not those of other stages and tenants."""
    document = await _submit(pipeline)
    await _serving(pipeline, "queue_parse")
    found = await pipeline.explain(document)
    assert (found.waits_for, found.stages) == (("worker",), ("queue_parse",))
    assert found.obstacles.pauses == ()
    operations = pipeline.operations
    for place in ({"tenant": "b"}, {"stage": "finalize"}, {"stage": "queue_parse", "tenant": "b"}):
        await operations.pause(**place, reason="other")  # type: ignore[arg-type]
    made = [
        await operations.pause(stage="queue_parse", reason="no rights", by="ann"),
        await operations.pause(tenant="a", reason="a bill", for_=timedelta(hours=1)),
        await operations.pause(stage="queue_parse", tenant="a", reason="both"),
    ]
    found = await pipeline.explain(document)
    assert list(found.obstacles.pauses) == made
    assert found.waits_for == ("resume",)
    since = f"{made[0].since:%Y-%m-%d %H:%M:%S} UTC"
    said = f"stage queue_parse is paused by ann since {since}, until somebody resumes it: no rights"
    assert said in found.sentence
    assert "tenant a is paused by application since" in found.sentence
    assert "stage queue_parse for tenant a is paused" in found.sentence


async def test_a_pause_is_told_where_documents_stand_before_its_stage(
    engine: AsyncEngine, database_url: str, psql: Psql
) -> None:
    """A walk stops where there is nothing to earn; told without the hooks too, as by ``show``."""
    pipeline = pipeline_with(engine)
    document = await _submit(pipeline)
    await pipeline.operations.pause(stage="store_embeddings", reason="no budget")
    await pipeline.runner().run_until_idle()
    async with Pipeline(database_url, lifecycle=None) as stored:
        for one in (pipeline, stored):
            found = await one.explain(document)
            assert found.document.state == "embedding_queued"
            assert found.stages == ("store_embeddings",)
            assert [pause.reason for pause in found.obstacles.pauses] == ["no budget"]
    told = ["show", str(document), "--json"]
    env = {"SMP_DATABASE": database_url}
    shown = await asyncio.to_thread(CliRunner().invoke, app, told, env=env)
    record = json.loads(shown.stdout)
    assert "stage store_embeddings is paused by app" in record["explanation"]["sentence"]
    (pause,) = record["explanation"]["obstacles"]["pauses"]
    assert (pause["stage"], pause["tenant"], pause["until"]) == ("store_embeddings", None, None)
    assert record["explanation"]["waits_for"] == ["resume", "worker"]


@pytest.mark.parametrize(
    ("silent", "change", "said"),
    [
        (None, "", "no worker is alive"),
        (340, "", r"no worker is alive: the last sign of life was 3[4-9]\d s ago"),
        (340, "UPDATE worker SET dead_at = now()", "no worker is alive"),
        (0, "UPDATE worker SET draining = true", "no live worker takes queue_parse"),
        (
            0,
            "UPDATE worker SET serves = '{\"finalize\": null}'",
            "no live worker takes queue_parse",
        ),
        (0, "", None),
    ],
    ids=["none", "silent", "dead", "draining", "elsewhere", "alive"],
)
async def test_a_document_that_nobody_will_take_says_so(
    pipeline: Pipeline, psql: Psql, silent: float | None, change: str, said: str | None
) -> None:
    """'No worker has given a sign of life', or none of those that live takes its stage."""
    document = await _submit(pipeline)
    if silent is not None:
        worker = await _serving(pipeline, "queue_parse")
        psql.execute("DELETE FROM worker WHERE id <> %s", [worker.worker])
        psql.execute(SILENT, [silent, worker.worker])
    if change:
        psql.execute(change.encode())
    found = await pipeline.explain(document)
    assert re.fullmatch(said or "", found.sentence.partition("; ")[2])
    assert found.obstacles.serving == (1 if said is None else 0)
    assert found.waits_for == ("worker",)


async def test_a_runner_says_what_it_takes(pipeline: Pipeline) -> None:
    """So that a fleet that was split leaves nobody guessing."""
    document = await _submit(pipeline)
    async with pipeline.runner(triggers=["finalize"]) as runner:
        async with asyncio.timeout(BRIEFLY.total_seconds()):
            while True:
                if runner.worker is not None:
                    break
                await asyncio.sleep(0.01)
        found = await pipeline.explain(document)
    assert "no live worker takes queue_parse" in found.sentence


async def test_a_claim_of_a_silent_worker_tells_since_when(pipeline: Pipeline, psql: Psql) -> None:
    """Not only the deadline: its last beat, and what becomes of its claims."""
    document = await _submit(pipeline)
    worker = await _serving(pipeline, "queue_parse")
    await worker.claim_one()
    found = await pipeline.explain(document)
    assert found.waits_for == ()
    assert found.obstacles.holder_silent_seconds == pytest.approx(0, abs=10)
    psql.execute(SILENT, [40, worker.worker])
    found = await pipeline.explain(document)
    assert found.waits_for == ("rescue",)
    number = worker.worker
    assert f"worker {number} has been silent for 4" in found.sentence
    assert found.obstacles.holder_silent_seconds == pytest.approx(40, abs=10)
    for change in ("UPDATE worker SET dead_at = now()", "DELETE FROM worker"):
        psql.execute(change.encode())
        found = await pipeline.explain(document)
        assert found.obstacles.holder_is_dead
        assert f"worker {number} counts as dead; whoever lives takes its" in found.sentence


async def test_what_became_of_a_document_whose_worker_died_is_told(
    pipeline: Pipeline, psql: Psql
) -> None:
    """'When it was last taken over from a worker that died', for as long as this life lasts."""
    document = await _submit(pipeline)
    lost, other = await _serving(pipeline, "queue_parse"), await hand(pipeline)
    await lost.claim_one()
    psql.execute("UPDATE worker SET dead_at = now() WHERE id = %s", [lost.worker])
    assert (await pipeline.explain(document)).crash is None
    assert await other.rescue() == 1
    found = await pipeline.explain(document)
    # It says so already.
    assert found.sentence.count(f"worker {lost.worker} was taken for dead") == 1
    psql.execute("UPDATE work SET run_at = now()")
    await other.workers.leave(other.worker)
    assert await completed(pipeline, document) == ["complete"]

    found = await pipeline.explain(document)
    (taken,) = [step for step in await pipeline.history(document) if step.trigger == "retry"]
    assert found.crash == taken
    at = f"{taken.at:%Y-%m-%d %H:%M:%S} UTC"
    said = f"at queue_parse worker {lost.worker} was taken for dead, and it was taken over at {at}"
    assert found.sentence.endswith(f"are published; {said}")

    await pipeline.apply("reprocess", document, reason="test")
    assert (await pipeline.explain(document)).crash is None


async def test_a_hook_that_says_crashed_took_nobody_down(engine: AsyncEngine) -> None:
    """Codes of failures are the user's own words."""

    async def refuse(_: object) -> None:
        raise Reject("a crashed car", code="crashed")

    pipeline = pipeline_with(engine, queue_parse=refuse)
    document = await _submit(pipeline)
    assert await completed(pipeline, document) == ["dead_letter"]
    (*_, failed) = await pipeline.history(document)
    assert (failed.error, (await pipeline.explain(document)).crash) == ("crashed", None)


async def test_a_suspect_waits_for_a_worker_with_nothing_in_hand(
    pipeline: Pipeline, psql: Psql
) -> None:
    """It took a worker down before."""
    document = await _submit(pipeline)
    await _serving(pipeline, "queue_parse")
    psql.execute("UPDATE work SET crashes = 1, alone = true")
    found = await pipeline.explain(document)
    assert found.waits_for == ("idle_worker", "worker")
    assert "it took a worker down before" in found.sentence


async def test_what_is_deferred_tells_the_time_and_what_else(
    pipeline: Pipeline, psql: Psql
) -> None:
    """A document may wait for several things."""
    document = await _submit(pipeline)
    await _serving(pipeline, "queue_parse")
    psql.execute("UPDATE work SET lane = 'deferred', run_at = now() + interval '1 hour'")
    assert (await pipeline.explain(document)).waits_for == ("time",)
    await pipeline.operations.pause(tenant="a", reason="a bill")
    assert (await pipeline.explain(document)).waits_for == ("time", "resume")


async def test_a_deleted_document_tells_where_it_still_has_to_go_from(
    pipeline: Pipeline, psql: Psql
) -> None:
    """'It comes to rest, or anyone can see exactly what it waits for'."""
    document = await _submit(pipeline)
    assert (await pipeline.explain(document)).obstacles.withdrawals == ()
    await pipeline.apply("delete", document, reason="asked for")
    psql.execute(
        "INSERT INTO placement (document_id, stage, writing_until, withdraw_at, run_at, last_error)"
        " VALUES (%s, 'finalize', now(), now(), now(), 'the store is down')",
        [document],
    )
    found = await pipeline.explain(document)
    assert found.waits_for == ("withdrawal",)
    (withdrawal,) = found.obstacles.withdrawals
    assert (withdrawal.stage, withdrawal.last_error) == ("finalize", "the store is down")
    since = f"{withdrawal.since:%Y-%m-%d %H:%M:%S} UTC"
    assert found.sentence.endswith(
        f"; the publisher of finalize has had to withdraw it since {since}, and the last try "
        "failed: the store is down"
    )


async def test_a_closed_provider_is_named(pipeline: Pipeline, psql: Psql) -> None:
    """'Waiting for what, until when', also for a document that nobody has claimed yet."""
    document = await _submit(pipeline)
    worker = await hand(pipeline)
    await worker.workers.register({"queue_parse": "ocr", "finalize": "store"})
    providers = Providers(pipeline.engine, pipeline._tables)
    for name in ("ocr", "store"):
        await providers.know(Provider(name, budget=Budget(requests=1)))
    assert (await pipeline.explain(document)).obstacles.closed == ()
    await providers.open("ocr", worker.worker, "5 requests failed", timedelta(hours=1))
    await providers.open("store", worker.worker, "gone", timedelta(hours=1))
    found = await pipeline.explain(document)
    assert found.waits_for == ("provider",)
    (until,) = psql.execute("SELECT until FROM breaker WHERE provider = 'ocr'").fetchone() or []
    said = f"provider 'ocr' is not asked until {until:%Y-%m-%d %H:%M:%S} UTC: 5 requests failed"
    assert found.obstacles.closed == (said,)
    assert found.sentence.endswith(f"; {said}")
    psql.execute("UPDATE budget SET blocked_until = now() + interval '1 minute'")
    assert len((await pipeline.explain(document)).obstacles.closed) == 2


async def test_workers_are_registered_with_what_they_take(engine: AsyncEngine, psql: Psql) -> None:
    """For whoever looks at the table."""
    pipeline = pipeline_with(engine)
    await Workers(engine, pipeline._tables).register({"finalize": None, "queue_parse": "ocr"})
    assert psql.execute("SELECT serves FROM worker").fetchone() == (
        {"finalize": None, "queue_parse": "ocr"},
    )
