"""History after a restore: in the same order as before, on whatever server it is gone on with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from statemachine_pipeline.database.statements import feed

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from statemachine_pipeline.database.tables import Tables


def follow_own_numbers(connection: Connection, t: Tables, name: str) -> None:
    """After a restore from another server, number history on from where that one ended.

    Transactions count from another number here, and events would be sorted before old ones.

    Args:
        connection: As the owner, in the transaction that migrates.
        t: The tables.
        name: Of their schema, quoted.
    """
    if not connection.execute(feed.horizon(t)).one().is_ahead:
        return
    # What writers in between were given is beyond reach; who holds the table is waited for.
    connection.execute(sa.text(f"LOCK TABLE {name}.transition IN ACCESS EXCLUSIVE MODE"))
    newest = connection.execute(sa.select(sa.func.max(t.transition.c.xact))).scalar_one()
    running = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
    first = connection.execute(sa.text(f"SELECT {running}")).scalar_one()
    offset = newest + 1 - first
    connection.execute(sa.insert(t.restore).values(offset=offset))
    connection.execute(
        sa.text(
            f"ALTER TABLE {name}.transition ALTER COLUMN xact "
            f"SET DEFAULT pg_current_xact_id()::text::bigint + {offset:d}"
        )
    )
