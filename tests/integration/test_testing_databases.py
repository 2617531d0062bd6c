"""Databases that proofs empty before each of their runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fix_pipelines import Hooks, hand, pipeline_with, plain

from statemachine_pipeline import Provider, Reject
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.testing import drain
from statemachine_pipeline.testing.databases import EMPTIED

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    Psql = psycopg.Connection[Any]

KEPT = {"embedder", "lifecycle"}
"""What is kept does nothing to documents that come later."""


async def test_nothing_is_left_of_documents_workers_and_providers(
    engine: AsyncEngine, psql: Psql
) -> None:
    """'Nothing is left of documents, workers and providers', and no order of rows forbids it."""
    hooks = Hooks()
    hooks.finish_parse.raises(Reject("encrypted"), *[ConnectionError("down")] * 6)
    shaky = plain(hooks.finish_parse, provider=Provider("shaky"), attempts=20)
    pipeline = pipeline_with(engine, hooks, finish_parse=shaky)
    for content in (b"bad", b"text", b"text", b"more"):
        await pipeline.submit(content)
        await drain(pipeline)
    await pipeline.submit(b"in hand")
    await (await hand(pipeline)).claim_one()
    await pipeline.operations.pause(stage="finalize", reason="a holiday")
    psql.execute(
        "INSERT INTO placement (document_id, stage, writing_until) "
        "SELECT id, 'finalize', now() FROM document LIMIT 1"
    )
    with psql.transaction():
        for table in EMPTIED:
            psql.execute(f"DELETE FROM {table}")
    known = [table.name for table in tables("smp").metadata.sorted_tables]
    left = {name for name in known if psql.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone()}
    assert left == KEPT
