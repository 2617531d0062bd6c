"""What is taken out of a provider's budget, in one statement.

Levels are counted as in a leaky bucket and may go below zero: whoever takes what is not there yet
is told how long to wait for it. So the order in which the row is locked is the order of the fleet,
and a large request is not overtaken for ever by small ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from statemachine_pipeline.database.statements.levels import (
    KINDS,
    least,
    most,
    real,
    refilled,
    since,
)
from statemachine_pipeline.database.statements.rows import clock, seconds

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables


def take(t: Tables) -> Any:
    """Take requests out of a budget, in order, and put back or charge what turned out otherwise.

    ``asks`` are the tokens of each request. One whose turn comes later than ``hold_seconds`` is not
    taken, nor are those behind it. ``back_<kind>`` is added to a level, ``told_<kind>`` is the
    provider's own limit, ``left_<kind>`` what it says is left; after ``blocked`` seconds from now
    nothing more than the rate flows. ``more_<kind>`` is taken besides as far as it is there now.

    Returns:
        One row for each ask with its wait, or one without when nothing was asked; all say how the
        budget stands.
    """
    u = t.budget
    seen = (
        sa.select(u, clock().label("now"))
        .where(u.c.provider == sa.bindparam("name", type_=sa.Text))
        .order_by(u.c.provider)
        .with_for_update(key_share=True)
        .cte("seen")
        .prefix_with("MATERIALIZED")
    )
    known = _known(seen)
    levels = _levels(known)
    queue = _queue(levels)
    sums = _sums(levels, queue)
    changed = (
        sa.update(u)
        .where(u.c.provider == sums.c.provider)
        .values(
            levels_at=sa.func.greatest(u.c.levels_at, sums.c.now),
            blocked_until=sums.c.blocked_until,
            taken_until=sums.c.now + seconds(_owed(sums)),
            **{f"{kind}_told": sums.c[f"{kind}_told"] for kind in KINDS},
            **{f"{kind}_level": sums.c[f"{kind}_after"] - sums.c[f"more_{kind}"] for kind in KINDS},
        )
    )
    return (
        sa.select(
            queue.c.place,
            queue.c.wait,
            queue.c.ahead,
            sa.func.coalesce(queue.c.ahead <= sums.c.hold_seconds, sa.false()).label("is_taken"),
            *(sums.c[f"more_{kind}"] for kind in KINDS),
            *(sums.c[f"{kind}_limit"].label(kind) for kind in KINDS),
        )
        .select_from(sums.outerjoin(queue, sa.true()))
        .order_by(queue.c.place)
        .add_cte(changed.cte("changed"))
    )


def _known(seen: Any) -> Any:
    told = {kind: sa.func.coalesce(real(f"told_{kind}"), seen.c[f"{kind}_told"]) for kind in KINDS}
    return sa.select(
        *(seen.c[name] for name in ("provider", "now", "per_seconds", "hold_seconds")),
        *(seen.c[f"{kind}_level"] for kind in KINDS),
        *(told[kind].label(f"{kind}_told") for kind in KINDS),
        *(least(seen.c[f"{kind}_limit"], told[kind]).label(f"{kind}_limit") for kind in KINDS),
        since(seen.c.now, seen.c.levels_at).label("elapsed"),
        sa.func.greatest(seen.c.blocked_until, seen.c.now + seconds(real("blocked"))).label(
            "blocked_until"
        ),
    ).cte("known")


def _levels(known: Any) -> Any:
    """Return the levels now; of what has no limit there is none."""
    levels = []
    for kind in KINDS:
        limit = known.c[f"{kind}_limit"]
        # A provider that said when to come back has nothing until then.
        blocked = -real("blocked") * limit / known.c.per_seconds
        level = refilled(
            limit,
            known.c[f"{kind}_level"],
            known.c.per_seconds,
            known.c.elapsed,
            real(f"back_{kind}"),
        )
        lowest = least(level, real(f"left_{kind}"), blocked)
        levels.append(sa.case((limit.is_not(None), lowest)).label(f"{kind}_now"))
    return sa.select(known, *levels).cte("levels")


def _queue(levels: Any) -> Any:
    """Return for each ask how long it waits, and how long those before it do."""
    given = sa.func.unnest(sa.bindparam("asks", type_=ARRAY(sa.Double)))
    columns = sa.column("tokens", sa.Double), sa.column("place", sa.Integer)
    ask = given.table_valued(columns[0], with_ordinality="place").render_derived(name="ask")
    through = sa.func.sum(ask.c.tokens).over(order_by=ask.c.place)
    used = {"requests": (ask.c.place, ask.c.place - 1), "tokens": (through, through - ask.c.tokens)}
    blocked = _blocked_for(levels)

    def wait(which: int) -> Any:
        waits = (
            (used[kind][which] - levels.c[f"{kind}_now"])
            * levels.c.per_seconds
            / levels.c[f"{kind}_limit"]
            for kind in KINDS
        )
        return most(0.0, blocked, *waits)

    return (
        sa.select(
            ask.c.place,
            wait(0).label("wait"),
            wait(1).label("ahead"),
            through.label("through"),
        )
        .select_from(ask.join(levels, sa.true()))
        .cte("queue")
    )


def _owed(sums: Any) -> Any:
    """Return the seconds that it takes until nothing is owed and nobody is blocked any more."""
    owed = (
        -sums.c[f"{kind}_after"] * sums.c.per_seconds / sums.c[f"{kind}_limit"] for kind in KINDS
    )
    return most(0.0, _blocked_for(sums), *owed)


def _blocked_for(levels: Any) -> Any:
    return sa.extract("epoch", levels.c.blocked_until - levels.c.now).cast(sa.Double)


def _sums(levels: Any, queue: Any) -> Any:
    """Return the levels after what is taken, and how much of the block fits besides."""
    taken = queue.c.ahead <= levels.c.hold_seconds
    used = {
        "requests": sa.select(sa.func.count()).where(taken),
        "tokens": sa.select(sa.func.coalesce(sa.func.max(queue.c.through), 0.0)).where(taken),
    }
    after = {
        kind: levels.c[f"{kind}_now"] - used[kind].select_from(queue).scalar_subquery()
        for kind in KINDS
    }
    left = sa.select(levels, *(after[kind].label(f"{kind}_after") for kind in KINDS)).cte(
        "left_over"
    )
    more = {
        kind: most(
            0.0,
            least(real(f"more_{kind}"), left.c[f"{kind}_after"]),
        )
        for kind in KINDS
    }
    return sa.select(left, *(more[kind].label(f"more_{kind}") for kind in KINDS)).cte("sums")
