"""Move documents to the states that succeed those of an earlier lifecycle, and end its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from statemachine_pipeline.database.statements.rows import (
    ID,
    LANE_CLAIMED,
    LANE_DEFERRED,
    LANE_READY,
    any_of,
    clock,
    rows,
)
from statemachine_pipeline.graph import MIGRATE

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables

MOVED = {
    "id": ID,
    "base": sa.Integer,
    "from_state": sa.Text,
    "to_state": sa.Text,
    "lane": sa.Text,
}


def counts(t: Tables) -> Any:
    """Count the documents in each of ``states``."""
    states = sa.any_(sa.bindparam("states", type_=ARRAY(sa.Text)))
    return (
        sa.select(t.document.c.state, sa.func.count().label("count"))
        .where(t.document.c.state == states)
        .group_by(t.document.c.state)
        .order_by(t.document.c.state)
    )


def standing(t: Tables) -> Any:
    """Name documents in ``states``, those behind ``after`` by id: all batches are one walk."""
    d = t.document
    return (
        sa.select(d.c.id)
        .where(
            d.c.state == sa.any_(sa.bindparam("states", type_=ARRAY(sa.Text))),
            d.c.id > sa.bindparam("after", type_=ID),
        )
        .order_by(d.c.id)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )


def succeed(t: Tables) -> Any:
    """Write the moves of documents that the caller has locked; the fence of each moves too.

    What was made of a document stays, and so do its place in the queue, a time it waits for, and
    the crashes for which it is taken alone.
    """
    given, d = rows("given", MOVED), t.document
    moved = (
        sa.update(d)
        .where(d.c.id == given.c.id, d.c.version == given.c.base)
        .values(state=given.c.to_state, version=given.c.base + 1, updated_at=clock())
        .returning(
            d.c.id,
            d.c.version,
            d.c.life,
            d.c.generation,
            d.c.correlation_id,
            given.c.from_state,
            given.c.to_state,
            given.c.lane,
        )
        .cte("moved")
    )
    told = insert(t.transition).from_select(
        ["document_id", "version", "life", "generation", "correlation_id", "trigger"]
        + ["from_state", "to_state", "by", "reason"],
        sa.select(
            moved.c.id,
            moved.c.version,
            moved.c.life,
            moved.c.generation,
            moved.c.correlation_id,
            sa.literal(MIGRATE),
            moved.c.from_state,
            moved.c.to_state,
            sa.bindparam("by", type_=sa.Text),
            sa.bindparam("reason", type_=sa.Text),
        ),
    )
    queued = _queue(t, moved)
    said = sa.select(sa.func.pg_notify(t.channel, "")).select_from(queued).limit(1)
    return (
        sa.select(moved.c.from_state, said.scalar_subquery().label("notified"))
        .order_by(moved.c.id)
        .add_cte(told.cte("told"))
    )


def _queue(t: Tables, moved: Any) -> Any:
    w = t.work
    waits = sa.and_(moved.c.lane == LANE_READY, w.c.lane == LANE_DEFERRED)
    return (
        sa.update(w)
        .where(w.c.document_id == moved.c.id)
        .values(
            state=moved.c.to_state,
            lane=sa.case((waits, LANE_DEFERRED), else_=moved.c.lane),
            claim_seq=t.claim_seq.next_value(),
            attempt=0,
            worker=None,
            deadline_at=None,
            entered_at=clock(),
        )
        .returning(w.c.document_id)
        .cte("queued")
    )


def end_workers(t: Tables) -> Any:
    """Declare the workers of ``lifecycles`` dead: they get no more claims, and notice it."""
    fingerprints = sa.bindparam("lifecycles", type_=ARRAY(sa.Text))
    return (
        sa.update(t.worker)
        .where(t.worker.c.lifecycle == sa.any_(fingerprints), t.worker.c.dead_at.is_(None))
        .values(dead_at=clock())
        .returning(t.worker.c.id)
    )


def give_back(t: Tables) -> Any:
    """Give back, unspent, the claims of ``workers`` on documents in any state."""
    theirs = t.work.alias("w")
    held = (
        sa.select(theirs.c.document_id)
        .where(
            theirs.c.lane == LANE_CLAIMED,
            theirs.c.worker == sa.any_(sa.bindparam("workers", type_=ARRAY(sa.BigInteger))),
        )
        .order_by(theirs.c.document_id)
        .with_for_update(key_share=True)
        .cte("theirs")
        .prefix_with("MATERIALIZED")
    )
    return (
        sa.update(t.work)
        .where(
            t.work.c.document_id == any_of(sa.select(held.c.document_id)),
            t.work.c.lane == LANE_CLAIMED,
        )
        .values(
            lane="ready",
            worker=sa.null(),
            deadline_at=sa.null(),
            claim_seq=t.claim_seq.next_value(),
            attempt=t.work.c.attempt - 1,
        )
    )
