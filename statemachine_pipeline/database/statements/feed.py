"""History of all documents in one order that nothing is ever inserted into.

A serial number or a time is given when a row is written and seen when it commits, so a reader that
remembers the last one misses what commits late. Here a row is placed by its transaction, and read
only once every transaction up to that place has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from statemachine_pipeline.database.statements.rows import ID, transition_columns

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables


def events(t: Tables) -> Any:
    """Read history after a place, as far as no running transaction can add to it."""
    h = t.transition
    xact = sa.bindparam("xact", type_=sa.BigInteger)
    document, version = (
        sa.bindparam("document", type_=ID),
        sa.bindparam("version", type_=sa.Integer),
    )
    return (
        sa.select(*transition_columns(t), h.c.xact)
        .where(
            h.c.xact >= xact,  # the row comparison alone would not be a bound of the index
            h.c.xact < _position(t, sa.func.pg_snapshot_xmin),
            sa.tuple_(h.c.xact, h.c.document_id, h.c.version) > sa.tuple_(xact, document, version),
        )
        .order_by(h.c.xact, h.c.document_id, h.c.version)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )


def horizon(t: Tables) -> Any:
    """Read up to where every transaction has ended, and whether history is ahead of this server.

    It is after a dump of another server was restored: numbers of transactions begin anew.
    """
    newest = sa.select(sa.func.max(t.transition.c.xact)).scalar_subquery()
    return sa.select(
        _position(t, sa.func.pg_snapshot_xmin).label("xact"),
        sa.func.coalesce(newest >= _position(t, sa.func.pg_snapshot_xmax), sa.false()).label(
            "is_ahead"
        ),
    )


def _position(t: Tables, bound: Any) -> Any:
    """Return an end of the current snapshot as a place in the feed."""
    number = sa.cast(sa.cast(bound(sa.func.pg_current_snapshot()), sa.Text), sa.BigInteger)
    offset = sa.select(sa.func.coalesce(sa.func.max(t.restore.c.offset), 0)).scalar_subquery()
    return number + offset
