"""Breakers and budgets of providers: one row each, which only the database's clock moves.

Levels are counted as in a leaky bucket and may go below zero: whoever takes what is not there yet
is told how long to wait for it. So the order in which the row is locked is the order of the fleet,
and a large request is not overtaken for ever by small ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from statemachine_pipeline.database.statements.levels import (
    CLOSED,
    KINDS,
    ahead,
    is_alive,
    is_probed,
    is_used_up,
    least,
    limit_of,
    most,
    real,
    refilled,
    since,
)
from statemachine_pipeline.database.statements.rows import LANE_READY, clock, seconds

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables

CHANGES_KEPT = 100
_now = sa.func.statement_timestamp


def _text(name: str) -> Any:
    return sa.bindparam(name, type_=sa.Text)


def _worker() -> Any:
    return sa.bindparam("me", type_=sa.BigInteger)


def know(t: Tables) -> list[Any]:
    """Make a provider known, with these numbers: the newest start wins."""
    u = t.budget
    numbers = {name: real(name) for name in ("requests_limit", "tokens_limit")}
    numbers |= {name: real(name) for name in ("per_seconds", "hold_seconds")}
    budget = insert(u).values(provider=_text("provider"), **numbers)
    changed = sa.or_(*(u.c[name].is_distinct_from(budget.excluded[name]) for name in numbers))
    breaker = insert(t.breaker).values(provider=_text("provider"))
    return [
        breaker.on_conflict_do_nothing(index_elements=["provider"]),
        budget.on_conflict_do_update(
            index_elements=["provider"],
            set_={name: budget.excluded[name] for name in numbers},
            where=changed,
        ),
    ]


def look(t: Tables) -> Any:
    """Return how the providers ``names`` stand."""
    b, u, now = t.breaker, t.budget, _now()
    probed = is_probed(t, now)
    return (
        sa.select(
            b.c.provider,
            b.c.state,
            b.c.reason,
            sa.func.coalesce(sa.extract("epoch", b.c.until - now).cast(sa.Double), 0.0).label(
                "opens_in"
            ),
            sa.and_(b.c.state != CLOSED, b.c.until <= now, sa.not_(probed)).label("is_due"),
            b.c.probe_worker,
            *(limit_of(u, kind).label(kind) for kind in KINDS),
            ahead(t, now).label("ahead"),
            sa.func.coalesce(is_used_up(t), sa.false()).label("is_used_up"),
        )
        .join(u, u.c.provider == b.c.provider)
        .where(b.c.provider == sa.any_(sa.bindparam("names", type_=ARRAY(sa.Text))))
        .order_by(b.c.provider)
    )


def standings(t: Tables) -> Any:
    """Return everything about every provider, for people."""
    b, u, now = t.breaker, t.budget, _now()
    elapsed = since(now, u.c.levels_at)
    return (
        sa.select(
            *(b.c[n] for n in ("provider", "state", "reason", "opened_at", "until")),
            b.c.probe_worker,
            *(limit_of(u, kind).label(f"{kind}_limit") for kind in KINDS),
            *(
                refilled(limit_of(u, kind), u.c[f"{kind}_level"], u.c.per_seconds, elapsed).label(
                    f"{kind}_level"
                )
                for kind in KINDS
            ),
            u.c.per_seconds,
            ahead(t, now).label("ahead"),
            sa.case((u.c.blocked_until > now, u.c.blocked_until)).label("blocked_until"),
        )
        .join(u, u.c.provider == b.c.provider)
        .order_by(b.c.provider)
    )


def changes(t: Tables) -> Any:
    """Return the newest changes of every breaker, at most ``limit`` each, newest first."""
    own = t.breaker_change.alias("own")
    newest = (
        sa.select(own)
        .where(own.c.provider == t.breaker.c.provider)
        .order_by(own.c.id.desc())
        .limit(sa.bindparam("limit", type_=sa.Integer))
        .lateral("newest")
    )
    return (
        sa.select(newest)
        .select_from(t.breaker.join(newest, sa.true()))
        .order_by(newest.c.provider, newest.c.id.desc())
    )


def _told(t: Tables, changed: Any) -> Any:
    """Record a change, forget the oldest, and return how the breaker stands then."""
    log, changed = t.breaker_change, changed.cte("changed")
    names = ("provider", "state", "reason", "worker")
    noted = insert(log).from_select(
        list(names),
        sa.select(changed.c.provider, changed.c.state, changed.c.reason, _worker()),
    )
    beyond = (
        sa.select(log.c.id)
        .where(log.c.provider == sa.select(changed.c.provider).scalar_subquery())
        .order_by(log.c.id.desc())
        # The one that is being added is not seen here.
        .offset(CHANGES_KEPT - 1)
    )
    pruned = sa.delete(log).where(log.c.id == sa.any_(sa.func.array(beyond.scalar_subquery())))
    # Who waits for the provider looks at once.
    heard = sa.select(sa.func.pg_notify(t.channel, "")).where(changed.c.state == CLOSED)
    return sa.select(
        changed.c.state,
        heard.scalar_subquery().label("notified"),
    ).add_cte(noted.cte("noted"), pruned.cte("pruned"))


def open_breaker(t: Tables) -> Any:
    """Open a breaker that is closed, or whose probe this worker holds; no row: it was not."""
    b = t.breaker
    return _told(
        t,
        sa.update(b)
        .where(
            b.c.provider == _text("name"),
            sa.or_(b.c.state == CLOSED, b.c.probe_worker == _worker()),
        )
        .values(
            state="open",
            reason=_text("why"),
            opened_at=sa.func.coalesce(b.c.opened_at, clock()),
            until=clock() + seconds(real("open_seconds")),
            probe_worker=sa.null(),
            probe_until=sa.null(),
            at=clock(),
        )
        .returning(b.c.provider, b.c.state, b.c.reason),
    )


def close_breaker(t: Tables) -> Any:
    """Close a breaker whose probe this worker holds, for the whole fleet."""
    b = t.breaker
    empty = dict.fromkeys(
        ("reason", "opened_at", "until", "probe_worker", "probe_until"), sa.null()
    )
    return _told(
        t,
        sa.update(b)
        .where(b.c.provider == _text("name"), b.c.probe_worker == _worker())
        .values(state="closed", at=clock(), **empty)
        .returning(b.c.provider, b.c.state, b.c.reason),
    )


def take_probe(t: Tables) -> Any:
    """Let this worker make the one request that tries a provider again, if one is due.

    A document has to wait for it. The probe of a worker that died is taken over.
    """
    b, w = t.breaker, t.work
    waits = sa.exists().where(
        w.c.lane == LANE_READY,
        w.c.alone == sa.bindparam("suspect", type_=sa.Boolean),
        w.c.state == sa.any_(sa.bindparam("states", type_=ARRAY(sa.Text))),
    )
    return _told(
        t,
        sa.update(b)
        .where(
            b.c.provider == _text("name"),
            b.c.state != CLOSED,
            b.c.until <= clock(),
            sa.not_(is_probed(t, clock())),
            is_alive(t, _worker()),
            waits,
        )
        .values(
            state="half_open",
            probe_worker=_worker(),
            probe_until=clock() + seconds(real("lease")),
            at=clock(),
        )
        .returning(b.c.provider, b.c.state, b.c.reason),
    )


def give_probe_back(t: Tables) -> Any:
    """Let somebody else try: this worker's probe came to nothing."""
    b = t.breaker
    return _told(
        t,
        sa.update(b)
        .where(b.c.provider == _text("name"), b.c.probe_worker == _worker())
        .values(state="open", probe_worker=sa.null(), probe_until=sa.null(), at=clock())
        .returning(b.c.provider, b.c.state, b.c.reason),
    )


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
        .where(u.c.provider == _text("name"))
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
