"""Breakers of providers, one row each, and how providers stand, by the database's clock."""

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
    limit_of,
    real,
    refilled,
    since,
)
from statemachine_pipeline.database.statements.rows import clock, seconds
from statemachine_pipeline.database.statements.turns import waits

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
    probed, used_up = is_probed(t, now), sa.func.coalesce(is_used_up(t), sa.false())
    return (
        sa.select(
            b.c.provider,
            b.c.state,
            b.c.reason,
            sa.func.coalesce(sa.extract("epoch", b.c.until - now).cast(sa.Double), 0.0).label(
                "opens_in"
            ),
            sa.and_(b.c.state != CLOSED, b.c.until <= now, sa.not_(probed), ~used_up).label(
                "is_due"
            ),
            b.c.probe_worker,
            *(limit_of(u, kind).label(kind) for kind in KINDS),
            ahead(t, now).label("ahead"),
            used_up.label("is_used_up"),
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
            sa.func.coalesce(is_used_up(t), sa.false()).label("is_used_up"),
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

    A document has to wait that may be claimed. The probe of a worker that died is taken over.
    """
    b, u = t.breaker, t.budget
    used_up = sa.exists().where(u.c.provider == b.c.provider, is_used_up(t))
    return _told(
        t,
        sa.update(b)
        .where(
            b.c.provider == _text("name"),
            b.c.state != CLOSED,
            b.c.until <= clock(),
            sa.not_(is_probed(t, clock())),
            is_alive(t, _worker()),
            sa.not_(used_up.correlate_except(u)),
            waits(t, alone=sa.bindparam("suspect", type_=sa.Boolean)),
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
