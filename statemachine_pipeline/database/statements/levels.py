"""Breakers and budgets as conditions and numbers, for the statements that need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from statemachine_pipeline.database.statements.rows import seconds

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables

BURST = 0.9
"""Share of a limit that may be used at once: the rest keeps jitter on the way from causing a 429.

Over time all of the limit is used: only how much is saved up while nobody asks is less.
"""
KINDS = ("requests", "tokens")
CLOSED: sa.ColumnElement[str] = sa.literal_column("'closed'")
HALF_OPEN: sa.ColumnElement[str] = sa.literal_column("'half_open'")
_now = sa.func.statement_timestamp


def real(name: str) -> Any:
    """Return a number as a parameter."""
    # Cast, because a parameter that is NULL has no type.
    return sa.cast(sa.bindparam(name, type_=sa.Double), sa.Double)


def least(*numbers: Any) -> Any:
    """Return the smallest that is not NULL."""
    return sa.func.least(*numbers, type_=sa.Double)


def most(*numbers: Any) -> Any:
    """Return the greatest that is not NULL."""
    return sa.func.greatest(*numbers, type_=sa.Double)


def is_alive(t: Tables, worker: Any) -> Any:
    """Tell whether a worker was not declared dead."""
    return sa.exists().where(t.worker.c.id == worker, t.worker.c.dead_at.is_(None))


def is_probed(t: Tables, now: Any) -> Any:
    """Tell whether somebody who lives holds the probe of a breaker."""
    b = t.breaker
    return sa.and_(b.c.state == HALF_OPEN, b.c.probe_until > now, is_alive(t, b.c.probe_worker))


def is_shut(t: Tables, provider: Any, *, worker: Any = None) -> Any:
    """Tell whether no claim may be made for stages that ask ``provider``.

    Its breaker is not closed, or what others have taken of its budget lasts longer than a hook may
    be held. A provider without a row is open to all.

    Args:
        t: The tables.
        provider: Its name, or what holds it.
        worker: Who holds the probe of the breaker: for that one it is not shut.
    """
    b, u = t.breaker, t.budget
    down = sa.exists().where(b.c.provider == provider, b.c.state != CLOSED).correlate_except(b)
    if worker is not None:
        down = down.where(b.c.probe_worker.is_distinct_from(worker))
    used_up = sa.exists().where(u.c.provider == provider, is_used_up(t)).correlate_except(u)
    return sa.or_(down, used_up)


def is_used_up(t: Tables) -> Any:
    """Tell whether what others took of a budget lasts longer than a hook may be held."""
    u = t.budget
    return u.c.taken_until > _now() + seconds(u.c.hold_seconds)


def limit_of(u: Any, kind: str) -> Any:
    """Return the lower of what was configured and what the provider says; NULL is no limit."""
    return least(u.c[f"{kind}_limit"], u.c[f"{kind}_told"])


def refilled(limit: Any, level: Any, per: Any, elapsed: Any, back: Any = 0.0) -> Any:
    """Return a level after ``elapsed`` seconds; what was never counted is full."""
    full = limit * BURST
    return least(full, sa.func.coalesce(level, full) + limit / per * elapsed + back)


def since(now: Any, then: Any) -> Any:
    """Return the seconds between two times, none for one that is yet to come."""
    return most(sa.extract("epoch", now - then).cast(sa.Double), 0.0)


def ahead(t: Tables, now: Any) -> Any:
    """Return how many seconds of a budget others have taken already, blocks included."""
    return since(t.budget.c.taken_until, now)
