"""A database that was away for longer than the dead limit is nobody's crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import hand, path_of, pipeline_with

from statemachine_pipeline.errors import StaleClaim

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

BEFORE = "pg_postmaster_start_time() - interval '1 s'"


@pytest.mark.parametrize("heard_since", [False, True])
async def test_a_worker_not_heard_of_since_the_server_restarted_costs_no_crash(
    engine: AsyncEngine, psql: psycopg.Connection[Any], heard_since: bool
) -> None:
    """Its claims are given back unspent; one that has been heard of since has died."""
    pipeline = pipeline_with(engine)
    silent = await hand(pipeline)
    sent = await pipeline.submit(b"text")
    claim, bound = await silent.claim_one()
    beat = "now() - interval '1 ms'" if heard_since else BEFORE
    psql.execute(f"UPDATE worker SET started_at = {BEFORE}, beat_at = {beat}, dead_at = now()")
    other = await hand(pipeline)
    assert await other.rescue() == 1
    spent = psql.execute("SELECT lane, attempt, crashes, alone FROM work").fetchone()
    assert spent == (("deferred", 1, 1, True) if heard_since else ("deferred", 0, 0, False))
    assert path_of(psql, sent.document_id) == ["submit", *["retry"] * heard_since]
    with pytest.raises(StaleClaim):
        await silent.earn(claim, bound)
    explained = await pipeline.explain(sent.document_id)
    assert ("the database server restarted" in explained.sentence) is not heard_since
