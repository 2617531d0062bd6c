"""Pauses: of a stage, of a tenant, or of a stage for one tenant."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from statemachine_pipeline.database.statements.rows import (
    LANE_CLAIMED,
    any_of,
    clock,
    rows,
    seconds,
)
from statemachine_pipeline.database.statements.turns import in_force

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables

_PLACE = ("tenant", "stage", "fault")


def pause(t: Tables) -> Any:
    """Stop claims until a time, or until resumed; says what holds now.

    A person's later word replaces the earlier one. A fault's pause is only ever made longer, and
    keeps since when it is.
    """
    p = t.pause
    for_seconds = sa.bindparam("for_seconds", type_=sa.Double)
    stored = insert(p).values(
        **{name: sa.bindparam(name) for name in (*_PLACE, "reason", "by")},
        until=sa.func.coalesce(
            clock() + seconds(for_seconds),
            sa.bindparam("until", type_=sa.TIMESTAMP(timezone=True)),
        ),
    )
    new = stored.excluded
    longer = sa.func.greatest(p.c.until, new.until)
    return stored.on_conflict_do_update(
        index_elements=_PLACE,
        set_={
            "reason": new.reason,
            "by": new.by,
            "until": sa.case((p.c.fault, longer), else_=new.until),
            "at": sa.case((sa.and_(p.c.fault, in_force(p)), p.c.at), else_=clock()),
        },
    ).returning(*_told(p), in_force(p).label("in_force"))


def resume(t: Tables) -> Any:
    """End the pauses of exactly this place, whoever made them, and wake the workers."""
    p = t.pause
    stage, tenant = (sa.bindparam(name, type_=sa.Text) for name in ("stage", "tenant"))
    ended = (
        sa.delete(p)
        .where(p.c.stage.is_not_distinct_from(stage), p.c.tenant.is_not_distinct_from(tenant))
        .returning(*p.c)
        .cte("ended")
    )
    said = sa.select(sa.func.pg_notify(t.channel, "")).select_from(ended).limit(1)
    return (
        sa.select(*_told(ended), said.scalar_subquery().label("notified"))
        .where(in_force(ended))
        .order_by(ended.c.id)
    )


def current(t: Tables) -> Any:
    """List the pauses that are in force, oldest first."""
    return sa.select(*_told(t.pause)).where(in_force(t.pause)).order_by(t.pause.c.at, t.pause.c.id)


def _told(pause: Any) -> list[Any]:
    return [pause.c[name] for name in (*_PLACE, "reason", "by", "until", "at")]


@functools.cache
def outstanding(t: Tables) -> Any:
    """Count documents that wait for a worker, now or later, or are with one.

    Who waits behind a pause without an end waits for a person. ``served`` holds the states, and
    which stage each leads to.
    """
    w, p = t.work, t.pause
    served = rows("served", {"state": sa.Text, "stage": sa.Text})
    leads_there = (
        sa.exists()
        .where(served.c.state == w.c.state, served.c.stage == p.c.stage)
        .correlate_except(served)
    )
    without_end = sa.exists().where(
        p.c.until.is_(None),
        sa.or_(p.c.tenant.is_(None), p.c.tenant == w.c.tenant),
        sa.or_(p.c.stage.is_(None), leads_there),
    )
    return sa.select(sa.func.count()).where(
        w.c.lane != sa.literal_column("'held'"),
        w.c.state == any_of(sa.select(served.c.state)),
        sa.or_(w.c.lane == LANE_CLAIMED, ~without_end),
    )
