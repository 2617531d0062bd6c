"""The query by which a fleet is made larger and smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fix_pipelines
from test_pages import PRODUCTION, shown

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine


def asked(psql: psycopg.Connection[tuple[int]]) -> int:
    """Return what the page's query answers."""
    query = shown(PRODUCTION, "sql")[0].body
    ((count,),) = psql.execute(query).fetchall()  # type: ignore[arg-type]
    return count


async def test_the_query_for_keda_counts_what_workers_have_to_do(
    engine: AsyncEngine, psql: psycopg.Connection[tuple[int]]
) -> None:
    """One integer: what is due or in hand. Not what is paused, deferred for later, or at rest."""
    pipeline = fix_pipelines.pipeline_with(engine)
    async with pipeline:
        assert asked(psql) == 0
        for number in range(3):
            await pipeline.submit(b"text %d" % number, source_uri=f"test:{number}")
        assert asked(psql) == 3
        await pipeline.operations.pause(tenant="default", reason="a test")
        assert asked(psql) == 0
        await pipeline.operations.resume(tenant="default")
        await pipeline.runner().run_until_idle()
        assert asked(psql) == 0
