"""What a worker says of its own beats is what everyone judges it by."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import hand, pipeline_with, running, until

from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.database.workers import Workers
from statemachine_pipeline.liveness import USUAL, Liveness

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Pipeline

    Psql = psycopg.Connection[Any]

SLOW = Liveness(beat=timedelta(minutes=10), dead_after=timedelta(minutes=50))
QUICK = Liveness(beat=timedelta(seconds=1), dead_after=timedelta(seconds=4))


async def _silent(pipeline: Pipeline, psql: Psql, liveness: Liveness, minutes: float) -> int:
    """Register a worker that serves the first stage, and let it be unheard of for some time."""
    workers = Workers(pipeline.engine, pipeline._tables, liveness=liveness)
    worker = await workers.register({"queue_parse": None})
    psql.execute(
        "UPDATE worker SET beat_at = now() - %s * interval '1 minute' WHERE id = %s",
        [minutes, worker],
    )
    return worker


@pytest.mark.parametrize(
    ("liveness", "minutes", "condition", "lives"),
    [
        (SLOW, 10, "alive", True),
        (SLOW, 30, "silent", True),
        (SLOW, 51, "silent", False),
        (QUICK, 0.1, "silent", False),
    ],
)
async def test_every_surface_judges_a_worker_by_what_it_said_of_itself(
    engine: AsyncEngine,
    psql: Psql,
    liveness: Liveness,
    minutes: float,
    condition: str,
    lives: bool,
) -> None:
    """'Each worker says so of itself, and everyone judges it by that'."""
    pipeline = pipeline_with(engine)
    document = (await pipeline.submit(b"text")).document_id
    psql.execute("UPDATE work SET run_at = now() - interval '2 minutes'")  # due, and not just now
    await _silent(pipeline, psql, liveness, minutes)
    oversight, is_silent = pipeline.operations.oversight, condition == "silent"

    (worker,) = await oversight.workers()
    assert worker.condition == condition
    gauges = (await oversight.gauges().metrics()).snapshot()
    assert gauges['smp_workers{status="silent"}'] == is_silent

    obstacles = (await pipeline.explain(document)).obstacles
    assert (obstacles.serving, obstacles.all_are_silent) == (int(lives), is_silent)
    (stage,) = [one for one in (await oversight.top()).stages if one.stage == "queue_parse"]
    assert stage.workers == lives
    (progress,) = [one for one in (await oversight.health()).components if one.name == "progress"]
    assert progress.status == ("ok" if lives else "failed")


async def test_a_holder_is_silent_after_two_beats_of_its_own(
    engine: AsyncEngine, psql: Psql
) -> None:
    """'Waiting for what, until when, held by whom'."""
    pipeline = pipeline_with(engine)
    document = (await pipeline.submit(b"text")).document_id
    holder = await hand(pipeline)
    holder.worker = await _silent(pipeline, psql, SLOW, 19)
    await holder.claim_one()
    assert (await pipeline.explain(document)).waits_for == ()
    psql.execute("UPDATE worker SET beat_at = now() - interval '21 minutes'")
    found = await pipeline.explain(document)
    assert found.waits_for == ("rescue",)
    assert found.obstacles.holder_dead_after_seconds == SLOW.dead_after.total_seconds()


async def test_a_worker_that_beats_seldom_is_rescued_when_it_said_so(
    engine: AsyncEngine, psql: Psql
) -> None:
    """'Silence after which others take its claims', whatever these others have for themselves."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text")
    holder, other = await hand(pipeline), await hand(pipeline)
    holder.worker = await _silent(pipeline, psql, SLOW, 49)
    await holder.claim_one()
    assert await other.rescue() == 0
    later = "UPDATE worker SET beat_at = now() - interval '51 minutes' WHERE id = %s"
    psql.execute(later, [holder.worker])
    assert await other.rescue() == 1


async def test_a_runner_says_what_it_was_told(engine: AsyncEngine, psql: Psql) -> None:
    """``Liveness(beat=..., dead_after=...)`` is the user's, and stands in its worker's row."""
    pipeline = pipeline_with(engine)
    told = "SELECT beat_seconds, dead_after_seconds FROM worker"
    async with running(pipeline, liveness=SLOW):
        await until(psql, "SELECT true FROM worker")
        assert psql.execute(told).fetchall() == [(600, 3000)]


def test_a_row_that_says_nothing_is_judged_as_usual() -> None:
    """The defaults of the table are those of ``Liveness``."""
    columns = tables("smp").worker.c
    for name, usual in (("beat_seconds", USUAL.beat), ("dead_after_seconds", USUAL.dead_after)):
        default: Any = columns[name].server_default
        assert float(default.arg) == usual.total_seconds()
