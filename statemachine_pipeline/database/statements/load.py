"""How much waits at each stage, and how fast it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from statemachine_pipeline.database.statements.rows import (
    LANE_CLAIMED,
    LANE_DEFERRED,
    LANE_READY,
    clock,
    rows,
    seconds,
)

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables

_SERVED = {"state": sa.Text, "stage": sa.Text}


def lanes(t: Tables) -> Any:
    """Count what is on its way by stage and lane, and for how long the oldest is ready."""
    w, served = t.work, rows("served", _SERVED)
    age = sa.extract("epoch", clock() - sa.func.min(w.c.run_at).filter(w.c.lane == LANE_READY))
    suspects = sa.func.count().filter(w.c.lane == LANE_READY, w.c.alone).label("suspects")
    counts = (
        sa.func.count().filter(w.c.lane == lane).label(name)
        for name, lane in (
            ("ready", LANE_READY),
            ("deferred", LANE_DEFERRED),
            ("claimed", LANE_CLAIMED),
        )
    )
    return (
        sa.select(served.c.stage, *counts, suspects, sa.cast(age, sa.Double).label("ready_seconds"))
        .join(served, served.c.state == w.c.state)
        .group_by(served.c.stage)
        .order_by(served.c.stage)
    )


def recent(t: Tables) -> Any:
    """Count attempts of the last ``within`` seconds by stage, among the newest ``limit`` rows.

    ``covered`` is how many seconds these rows go back, so that a busy pipeline's rate is right too.
    """
    h, served = t.transition, rows("served", _SERVED)
    since = clock() - seconds(sa.bindparam("within", type_=sa.Double))
    newest = (
        sa.select(h.c.from_state, h.c.attempt, h.c.run_seconds, h.c.at)
        .order_by(h.c.xact.desc())
        .limit(sa.bindparam("limit", type_=sa.Integer))
        .cte("newest")
    )
    everything = sa.select(
        sa.func.count().label("count"), sa.func.min(newest.c.at).label("first_at")
    ).cte("everything")
    return (
        sa.select(
            served.c.stage,
            sa.func.count().label("attempts"),
            sa.func.avg(newest.c.run_seconds).label("run_seconds"),
            sa.func.max(everything.c["count"]).label("rows"),
            sa.cast(
                sa.extract("epoch", clock() - sa.func.max(everything.c.first_at)), sa.Double
            ).label("covered"),
        )
        .select_from(newest.join(served, served.c.state == newest.c.from_state))
        .join(everything, sa.true())
        .where(newest.c.at >= since, newest.c.attempt.is_not(None))
        .group_by(served.c.stage)
        .order_by(served.c.stage)
    )
