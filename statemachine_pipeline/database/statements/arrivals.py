"""Many documents handed over at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, insert

from statemachine_pipeline.database.statements.rows import ID, LANE_READY, clock, rows

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables

GIVEN = {
    "id": ID,
    "tenant": sa.Text,
    "source_uri": sa.Text,
    "name": sa.Text,
    "size_bytes": sa.BigInteger,
    "path": sa.Text,
    "content_sha256": sa.Text,
    "correlation_id": sa.Text,
    "traceparent": sa.Text,
    "metadata": JSONB,
    "state": sa.Text,
    "lane": sa.Text,
    "priority": sa.SmallInteger,
    "run_at": sa.TIMESTAMP(timezone=True),
}
_OWN = [name for name in GIVEN if name not in {"lane", "priority", "run_at"}]


def submit_many(t: Tables) -> Any:
    """Write new documents, their first history rows and their work; name those that are new.

    In id order, so that two batches with the same documents wait for each other and not in a
    circle. One statement, since the foreign keys between document and history are checked at its
    end.
    """
    d, given, one = t.document, rows("given", GIVEN), sa.literal_column("1", sa.Integer)
    born = (
        insert(d)
        .from_select(
            [*_OWN, "input_sha256", "version", "life", "generation"],
            sa.select(*(given.c[name] for name in _OWN), given.c.content_sha256, one, one, one)
            .select_from(given)
            .order_by(given.c.id),
        )
        .on_conflict_do_nothing(index_elements=["id"])
        .returning(d.c.id, d.c.state, d.c.correlation_id)
        .cte("born")
    )
    told = insert(t.transition).from_select(
        ["document_id", "version", "life", "generation", "trigger", "to_state", "correlation_id"],
        sa.select(
            born.c.id,
            one,
            one,
            one,
            sa.literal_column("'submit'", sa.Text),
            born.c.state,
            born.c.correlation_id,
        ),
    )
    later = sa.and_(given.c.lane == LANE_READY, given.c.run_at > clock())
    queued = insert(t.work).from_select(
        ["document_id", "tenant", "state", "lane", "priority", "run_at"],
        sa.select(
            given.c.id,
            given.c.tenant,
            given.c.state,
            sa.case((later, "deferred"), else_=given.c.lane),
            given.c.priority,
            sa.func.coalesce(given.c.run_at, clock()),
        )
        .select_from(given.join(born, born.c.id == given.c.id))
        .order_by(given.c.id),
    )
    said = sa.select(sa.func.pg_notify(t.channel, "")).select_from(born).limit(1)
    return (
        sa.select(born.c.id, said.scalar_subquery().label("notified"))
        .order_by(born.c.id)
        .add_cte(told.cte("told"), queued.cte("queued"))
    )


def keep_blobs(t: Tables) -> Any:
    """Keep the bytes of new documents."""
    columns: dict[str, Any] = {"ids": ID, "hashes": sa.Text, "contents": BYTEA}
    arrays: list[Any] = [
        # Without the cast PostgreSQL cannot tell which unnest is meant.
        sa.cast(sa.bindparam(name, type_=ARRAY(kind)), ARRAY(kind))
        for name, kind in columns.items()
    ]
    named: list[Any] = [sa.column(name, kind) for name, kind in columns.items()]
    given = sa.func.unnest(*arrays).table_valued(*named).render_derived(name="given")
    return insert(t.blob).from_select(
        ["document_id", "sha256", "content"],
        sa.select(given.c.ids, given.c.hashes, given.c.contents),
    )
