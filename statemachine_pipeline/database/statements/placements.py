"""Which documents may stand in a store outside this database, and which have to go from there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, insert

from statemachine_pipeline.database.statements.rows import ID, LANE_CLAIMED, clock, seconds

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables


def place(t: Tables) -> Any:
    """Note that a held claim is about to publish, unless its document has to go first.

    Locks the claim, so that whoever deletes the document comes before or after, never between.
    """
    w, p = t.work, t.placement
    stage, until = (
        sa.bindparam("trigger", type_=sa.Text),
        sa.bindparam("until", type_=p.c.placed_at.type),
    )
    held = (
        sa.select(w.c.document_id)
        .where(
            w.c.document_id == sa.bindparam("document", type_=ID),
            w.c.claim_seq == sa.bindparam("seq", type_=sa.BigInteger),
            w.c.lane == LANE_CLAIMED,
        )
        .order_by(w.c.document_id)
        .with_for_update(key_share=True)
        .cte("held")
    )
    noted = insert(p).from_select(
        ["document_id", "stage", "writing_until"], sa.select(held.c.document_id, stage, until)
    )
    noted = noted.on_conflict_do_update(
        index_elements=["document_id", "stage"],
        set_={"placed_at": clock(), "writing_until": noted.excluded.writing_until},
        where=p.c.withdraw_at.is_(None),
    )
    placed = noted.returning(p.c.document_id).cte("placed")
    return sa.select(
        sa.select(sa.func.count() > 0).select_from(held).scalar_subquery().label("held"),
        sa.select(sa.func.count() > 0).select_from(placed).scalar_subquery().label("placed"),
    )


def leave(t: Tables) -> list[Any]:
    """Have the documents ``ids`` withdrawn from wherever they were placed, and publish them anew.

    A publish that began and did not settle may still be writing, so its deadline is waited for.
    """
    p, earned = t.placement, t.product
    ids = sa.any_(sa.bindparam("ids", type_=ARRAY(ID)))
    settled = sa.exists().where(
        earned.c.document_id == p.c.document_id,
        earned.c.stage == p.c.stage,
        earned.c.at >= p.c.placed_at,
    )
    marked = (
        sa.update(p)
        .where(p.c.document_id == ids, p.c.withdraw_at.is_(None))
        .values(
            withdraw_at=clock(),
            run_at=sa.case((settled, clock()), else_=sa.func.greatest(clock(), p.c.writing_until)),
            attempts=0,
            last_error=None,
        )
    )
    placed = sa.exists().where(p.c.document_id == earned.c.document_id, p.c.stage == earned.c.stage)
    return [marked, sa.delete(earned).where(earned.c.document_id == ids, placed)]


def take(t: Tables) -> Any:
    """Take withdrawals of one stage that are due, for ``lease`` seconds; skip those being taken."""
    p, d = t.placement, t.document
    due = (
        sa.select(p.c.document_id)
        .where(
            p.c.withdraw_at.is_not(None),
            p.c.stage == sa.bindparam("trigger", type_=sa.Text),
            p.c.run_at <= sa.func.statement_timestamp(),
        )
        .order_by(p.c.run_at, p.c.document_id)
        .limit(sa.bindparam("limit", type_=sa.Integer))
        .with_for_update(key_share=True, skip_locked=True)
        .cte("due")
        .prefix_with("MATERIALIZED")
    )
    taken = (
        sa.update(p)
        .where(
            p.c.document_id == due.c.document_id,
            p.c.stage == sa.bindparam("trigger", type_=sa.Text),
        )
        .values(
            claim_seq=t.claim_seq.next_value(),
            attempts=p.c.attempts + 1,
            run_at=clock() + seconds(sa.bindparam("lease", type_=sa.Double)),
        )
        .returning(p.c.document_id, p.c.claim_seq, p.c.attempts, p.c.run_at, p.c.withdraw_at)
        .cte("taken")
    )
    names = ("claim_seq", "attempts", "run_at", "withdraw_at")
    return (
        sa.select(d, *(taken.c[name] for name in names))
        .join(taken, taken.c.document_id == d.c.id)
        .order_by(taken.c.claim_seq)
    )


def _mine(t: Tables) -> Any:
    p = t.placement
    return sa.and_(
        p.c.document_id == sa.bindparam("document", type_=ID),
        p.c.stage == sa.bindparam("trigger", type_=sa.Text),
        p.c.claim_seq == sa.bindparam("seq", type_=sa.BigInteger),
    )


def forget(t: Tables) -> Any:
    """Forget a document that has gone from its store; nothing when someone else took it over."""
    return sa.delete(t.placement).where(_mine(t)).returning(t.placement.c.document_id)


def try_again(t: Tables) -> Any:
    """Give a withdrawal back that did not succeed, for another try after ``after`` seconds."""
    return (
        sa.update(t.placement)
        .where(_mine(t))
        .values(
            claim_seq=None,
            run_at=clock() + seconds(sa.bindparam("after", type_=sa.Double)),
            last_error=sa.bindparam("error", type_=sa.Text),
        )
    )


def pending(t: Tables) -> Any:
    """Read where one document still has to go from."""
    p = t.placement
    return (
        sa.select(p.c.stage, p.c.withdraw_at, p.c.last_error)
        .where(p.c.document_id == sa.bindparam("document", type_=ID), p.c.withdraw_at.is_not(None))
        .order_by(p.c.stage)
    )


def waiting(t: Tables) -> Any:
    """Count the documents that still have to go, by stage, with the longest and the last error."""
    p = t.placement
    newest = sa.func.array_agg(aggregate_order_by(p.c.last_error, p.c.run_at.desc()))
    return (
        sa.select(
            p.c.stage,
            sa.func.count().label("documents"),
            sa.func.min(p.c.withdraw_at).label("since"),
            newest.filter(p.c.last_error.is_not(None))[1].label("last_error"),
        )
        .where(p.c.withdraw_at.is_not(None))
        .group_by(p.c.stage)
        .order_by(p.c.stage)
    )
