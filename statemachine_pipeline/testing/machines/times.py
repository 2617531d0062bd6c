"""Time that passes at once: stored times move back, so that nothing ever sleeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from statemachine_pipeline.testing.clock import MOVED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import timedelta
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline.database.tables import Tables


async def pass_waits(connection: AsyncConnection, t: Tables, by: timedelta) -> None:
    """Bring forward what is deferred, and the ends of pauses; nobody's deadline comes nearer."""
    await connection.execute(_back(t.work, ["run_at"], by).where(t.work.c.lane == "deferred"))
    await connection.execute(_back(t.pause, ["until"], by))


async def jump(
    connection: AsyncConnection, t: Tables, by: timedelta, *, alive: Collection[int]
) -> None:
    """Let time pass for everything; the workers ``alive`` beat at once."""
    for name, columns in MOVED.items():
        moved = _back(getattr(t, name), columns, by)
        dead = t.worker.c.id.not_in(alive) if name == "worker" else sa.true()
        await connection.execute(moved.where(dead))


async def expire(connection: AsyncConnection, t: Tables, document: UUID, by: timedelta) -> None:
    """Let the deadline of one claim pass."""
    mine = t.work.c.document_id == document
    await connection.execute(_back(t.work, ["deadline_at"], by).where(mine))


async def silence(connection: AsyncConnection, t: Tables, worker: int, by: timedelta) -> None:
    """Let a worker be unheard of for some time."""
    await connection.execute(_back(t.worker, ["beat_at"], by).where(t.worker.c.id == worker))


def _back(table: sa.Table, columns: Iterable[str], by: timedelta) -> Any:
    return sa.update(table).values({name: table.c[name] - by for name in columns})
