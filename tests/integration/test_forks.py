"""A lifecycle whose ways part behind a waiting state: what waits there, as everyone sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from fix_lifecycles import FORK_HOOKS, ForkLifecycle
from fix_pipelines import hand

from statemachine_pipeline import Pipeline
from statemachine_pipeline.database.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from statemachine_pipeline.oversight.status import Component

LONG_AGO = "UPDATE smp.work SET run_at = now() - interval '1 hour'"


@pytest.fixture
async def pipeline(empty_url: str) -> AsyncIterator[Pipeline]:
    """Return a pipeline with one document where ways part, due for an hour, and no worker."""
    async with Pipeline(empty_url, lifecycle=ForkLifecycle, hooks=FORK_HOOKS) as made:
        await made.migrate()
        sent = await made.submit(b"text")
        worker = await hand(made)
        await worker.settle(await worker.earn(*await worker.claim_one("look")))
        await worker.workers.leave(worker.worker)
        assert (await made.get(sent.document_id)).state == "waiting"
        async with made.engine.begin() as connection:
            await connection.execute(sa.text(LONG_AGO))
        yield made


async def _serves(pipeline: Pipeline, *triggers: str) -> None:
    workers = Workers(pipeline.engine, pipeline._tables)
    await workers.register(dict.fromkeys(triggers))


async def _progress(pipeline: Pipeline) -> Component:
    health = await pipeline.operations.oversight.health()
    (found,) = [one for one in health.components if one.name == "progress"]
    return found


@pytest.mark.parametrize("stage", ["end_left", "end_right"])
async def test_a_worker_of_either_way_serves_what_waits_where_they_part(
    pipeline: Pipeline, stage: str
) -> None:
    """'Failed where documents are due at a stage that no live worker serves', and only there."""
    oversight = pipeline.operations.oversight
    await _serves(pipeline, "look")
    found = await _progress(pipeline)
    assert found.status == "failed"
    assert "due at end_left or end_right, the first for 60 min, and no live" in found.says
    assert (await oversight.top()).slowest.limit == "unserved"

    await _serves(pipeline, stage)
    assert (await _progress(pipeline)).status == "degraded"  # due for long
    (work,) = [one for one in await oversight.doctor() if one.id == "work"]
    assert (work.status, work.message[:1]) == ("ok", "1")
    seen = await oversight.top()
    assert {one.stage: one.ready for one in seen.stages if one.ready} == {stage: 1}
    assert (seen.slowest.stage, seen.slowest.limit) == (stage, "nothing")


async def test_what_waits_where_ways_part_is_counted_once_and_waits_at_each(
    pipeline: Pipeline,
) -> None:
    """``smp_documents`` adds up; 'how long the first has been due at a stage' holds for both.

    And so does how many workers take it there: 'where ways part, at any of them'.
    """
    found = (await pipeline.operations.oversight.gauges().metrics()).snapshot()
    assert found['smp_documents{state="waiting",lane="ready"}'] == 1
    for stage in ("end_left", "end_right"):
        assert found[f'smp_oldest_ready_age_seconds{{stage="{stage}"}}'] >= 3600
    await _serves(pipeline, "end_left")
    found = (await pipeline.operations.oversight.gauges().metrics()).snapshot()
    taking = {"look": 0, "end_left": 1, "end_right": 1}
    assert {stage: found[f'smp_stage_workers{{stage="{stage}"}}'] for stage in taking} == taking


async def test_it_is_due_until_every_way_is_closed(pipeline: Pipeline) -> None:
    """'Due is what a worker would claim now': a pause of one way leaves it to the other."""
    operations = pipeline.operations
    await _serves(pipeline, "end_left", "end_right")
    assert {one.ready for one in (await operations.oversight.top()).stages} == {0, 1}
    await operations.pause(stage="end_left", reason="test")
    assert "1 document is due" in (await _progress(pipeline)).says
    top = await operations.oversight.top()
    assert (top.slowest.stage, top.slowest.limit) == ("end_right", "nothing")
    await operations.pause(stage="end_right", reason="test")
    assert "nothing is due" in (await _progress(pipeline)).says
    assert (await operations.oversight.top()).slowest.limit == "paused"
