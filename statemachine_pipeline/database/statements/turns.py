"""How a claim goes round the tenants of a stage: the part of its statement that is in LATERAL.

One tenant's backlog costs the others nothing: tenants are found by stepping from name to name
through the index of the ready, and each is asked for its share. With one tenant that is three steps
of the index more than a claim that knew no tenants; the claim as a whole takes as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from statemachine_pipeline.database.statements.rows import LANE_READY, any_of, rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from statemachine_pipeline.database.tables import Tables

TENANTS = 32
"""Most tenants that one claim asks at a stage; the next claim begins behind them."""

_ZERO, _ONE = (sa.literal_column(digit, sa.Integer) for digit in "01")


def places(stages: Sequence[tuple[str, Sequence[str]]], providers: Mapping[str, str]) -> Any:
    """Return the stages as a table, what is nearest to its end first.

    Stage ``n`` reads the parameters ``free_<n>``, ``deadline_<n>`` (seconds) and ``after_<n>``, the
    tenant behind whom its round begins; ``states_<n>`` may say in which order its states are asked:
    the first gets the slots if it has enough for all. Whom a stage asks is a column only if any of
    them asks.
    """
    given = [
        sa.select(
            sa.literal(stage, sa.Text).label("stage"),
            sa.bindparam(f"states_{number}", list(states), ARRAY(sa.Text)).label("states"),
            sa.bindparam(f"free_{number}", type_=sa.Integer).label("free"),
            sa.bindparam(f"deadline_{number}", type_=sa.Double).label("deadline"),
            sa.bindparam(f"after_{number}", "", sa.Text).label("after"),
        )
        for number, (stage, states) in enumerate(stages)
    ]
    if providers:
        given = [
            row.add_columns(sa.literal(providers.get(stage), sa.Text).label("provider"))
            for row, (stage, _) in zip(given, stages, strict=True)
        ]
    # Rows the planner counts: taken for more, they would make it compile the plan. Not VALUES,
    # which SQLAlchemy compiles anew each time: 8 ms for six stages.
    return sa.union_all(*given[::-1]).cte("place")


def ready_in_turn(t: Tables, place: Any, *, alone: bool) -> Any:
    """Find and lock ready documents of a place, at most ``place.free``; lateral to it.

    First each tenant gets an equal share of the free slots, then what is left over goes to whoever
    has more. A tenant's own documents come by priority and time. LIMIT may name a column of an
    outer query, not of its own.
    """
    states = sa.func.unnest(place.c.states).table_valued(sa.column("state", sa.Text))
    at = states.render_derived(name="at")
    turn = _turns(t, place, at, alone=alone)
    shared = sa.select(sa.func.count()).select_from(turn).where(~turn.c.closed).scalar_subquery()
    # With one free slot nobody is counted, so that no more tenants are looked for than needed.
    share = sa.case(
        (place.c.free > _ONE, sa.func.greatest(_ONE, place.c.free // shared)), else_=_ONE
    )
    one = _of_tenant(t, turn, at, share, alone=alone)
    first = (
        sa.select(one.c.document_id)
        .select_from(turn.join(one, sa.true()))
        .where(~turn.c.closed)
        .limit(place.c.free)
        .correlate(place, at)
        .cte("first")
        .prefix_with("MATERIALIZED")
    )
    # One's own locks are not skipped.
    taken = sa.func.array(sa.select(first.c.document_id).scalar_subquery())
    more = _of_tenant(t, turn, at, place.c.free, alone=alone, but=taken)
    left = place.c.free - sa.select(sa.func.count()).select_from(first).scalar_subquery()
    rest = (
        sa.select(more.c.document_id)
        .select_from(turn.join(more, sa.true()))
        .where(~turn.c.closed)
        .limit(sa.case((shared > _ONE, left), else_=_ZERO))
        .correlate(place, at)
    )
    both = sa.union_all(sa.select(first.c.document_id), rest)
    found = both.add_cte(turn, first, nest_here=True).lateral("found")
    return (
        sa.select(found.c.document_id)
        .select_from(at.join(found, sa.true()))
        .correlate(place)
        .limit(place.c.free)
        .lateral("leg")
    )


def _turns(t: Tables, place: Any, at: Any, *, alone: bool) -> Any:
    """List tenants with ready documents from behind ``place.after`` on, once round.

    One step of the index a tenant. The first row is where the round begins, and closed as those
    are who are paused: they are stepped over, and not counted.
    """
    turn = (
        sa.select(
            place.c.after.collate("C").label("tenant"),
            _ZERO.label("lap"),
            _ZERO.label("number"),
            sa.true().label("closed"),
        )
        .correlate(place)
        .cte("turn", recursive=True)
    )
    w, is_ready = _ready(t, at, alone=alone)
    following = (
        sa.select(w.c.tenant, turn.c.lap)
        .where(*is_ready, w.c.tenant > turn.c.tenant)
        .order_by(w.c.tenant)
        .limit(_ONE)
        .correlate_except(w)
    )
    again = (
        sa.select(w.c.tenant, _ONE)
        .where(turn.c.lap == _ZERO, *is_ready)
        .order_by(w.c.tenant)
        .limit(_ONE)
        .correlate_except(w)
    )
    found = sa.union_all(following, again).limit(_ONE).lateral("following")
    closed = sa.select(closed_at(t, place.c.stage, found.c.tenant).label("it")).lateral("closed")
    return turn.union_all(
        sa.select(
            found.c.tenant,
            found.c.lap,
            turn.c.number + sa.case((closed.c.it, _ZERO), else_=_ONE),
            closed.c.it,
        )
        .select_from(turn.join(found, sa.true()).join(closed, sa.true()))
        .where(
            turn.c.number < sa.literal_column(str(TENANTS)),
            sa.or_(found.c.lap == _ZERO, found.c.tenant <= place.c.after),
        )
        .correlate(place, at)
    )


def _of_tenant(t: Tables, turn: Any, at: Any, most: Any, *, alone: bool, but: Any = None) -> Any:
    """Find and lock ready documents of one tenant; lateral to ``turn``."""
    w, is_ready = _ready(t, at, alone=alone)
    found = sa.select(w.c.document_id).where(*is_ready, w.c.tenant == turn.c.tenant)
    if but is not None:
        found = found.where(w.c.document_id != sa.all_(but))
    return (
        found.order_by(w.c.priority, w.c.run_at, w.c.document_id)
        .limit(most)
        .with_for_update(key_share=True, skip_locked=True)
        .correlate_except(w)
        .lateral("one" if but is None else "more")
    )


def _ready(t: Tables, at: Any, *, alone: bool) -> tuple[Any, tuple[Any, ...]]:
    w = t.work.alias("w")
    is_alone = w.c.alone if alone else sa.not_(w.c.alone)
    return w, (w.c.lane == LANE_READY, w.c.state == at.c.state, is_alone)


def waits(t: Tables, *, alone: Any) -> Any:
    """Tell whether a document that nothing pauses is ready at a stage of ``served``.

    ``served`` holds states, and which stage each leads to.
    """
    w, served = t.work, rows("served", {"state": sa.Text, "stage": sa.Text})
    is_open = sa.exists().where(
        served.c.state == w.c.state,
        sa.not_(closed_at(t, served.c.stage)),
        sa.not_(closed_at(t, served.c.stage, w.c.tenant)),
    )
    return sa.exists().where(
        w.c.lane == LANE_READY,
        w.c.alone == alone,
        w.c.state == any_of(sa.select(served.c.state)),
        is_open.correlate_except(served),
    )


def closed_at(t: Tables, stage: Any, tenant: Any = None) -> Any:
    """Tell whether nobody may claim for a stage: at all, or, given a tenant, for that one."""
    p = t.pause.alias("p")
    if tenant is None:
        meant = sa.and_(p.c.tenant.is_(None), p.c.stage == stage)
    else:
        meant = sa.and_(p.c.tenant == tenant, sa.or_(p.c.stage.is_(None), p.c.stage == stage))
    return sa.exists().where(in_force(p), meant).correlate_except(p)


def in_force(pause: Any) -> Any:
    """Tell whether a pause has not ended."""
    return sa.or_(pause.c.until.is_(None), pause.c.until > sa.func.statement_timestamp())
