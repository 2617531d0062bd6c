"""The lifecycle that a database was migrated to, for who looks at its documents without a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.database import migrate as migrations
from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.stages import Stages, by_hand

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


async def stored_stages(engine: AsyncEngine, schema: str) -> Stages:
    """Return the newest lifecycle of a schema, with no hooks: nothing of it can be run.

    Raises:
        SchemaMissing: The database was not migrated.
    """
    with answering("reading the lifecycle"):
        async with engine.connect() as connection:
            stored = await connection.run_sync(migrations.newest, schema)
    hooks = dict.fromkeys(stored.graph.forward_triggers())
    hooks |= dict.fromkeys(stored.by_hand, by_hand)
    return Stages(stored.graph, hooks, earned=stored.earned)
