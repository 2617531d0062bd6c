"""Workers: known, beating, dead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from statemachine_pipeline.database.statements.rows import (
    ID,
    LANE_CLAIMED,
    clock,
    judged,
    seconds,
    transition_columns,
)

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables


def register(t: Tables) -> Any:
    """Make a worker known; its id is never used again."""
    own = ("host", "pid", "version", "lifecycle", "serves")
    given = (*own, "beat_seconds", "dead_after_seconds")
    return (
        sa.insert(t.worker)
        .values(**{name: sa.bindparam(name) for name in given})
        .returning(t.worker.c.id)
    )


def beat(t: Tables) -> Any:
    """Say that a worker lives and what it did; no row says that it was declared dead."""
    ago = sa.cast(sa.bindparam("ago", type_=sa.Double), sa.Double)
    return (
        sa.update(t.worker)
        .where(
            t.worker.c.id == sa.bindparam("me", type_=sa.BigInteger), t.worker.c.dead_at.is_(None)
        )
        .values(
            beat_at=clock(),
            settled=sa.bindparam("settled", type_=sa.BigInteger),
            settled_at=clock() - seconds(ago),
        )
        .returning(t.worker.c.id)
    )


def drain(t: Tables) -> Any:
    """Say that a worker takes no more work."""
    return (
        sa.update(t.worker)
        .where(t.worker.c.id == sa.bindparam("me", type_=sa.BigInteger))
        .values(draining=True)
    )


def go_on(t: Tables) -> Any:
    """Say of a worker that lost its id under which one its process goes on."""
    return (
        sa.update(t.worker)
        .where(t.worker.c.id == sa.bindparam("me", type_=sa.BigInteger))
        .values(goes_on_as=sa.bindparam("worker", type_=sa.BigInteger))
    )


def leave(t: Tables) -> Any:
    """Forget a worker that ended well."""
    return sa.delete(t.worker).where(t.worker.c.id == sa.bindparam("me", type_=sa.BigInteger))


def declare_dead(t: Tables) -> Any:
    """Declare workers dead whose last beat is older than each said of itself.

    Locks and checks the beat again, so that a beat in the same moment wins.
    """
    k = t.worker
    silent = clock() - seconds(k.c.dead_after_seconds)
    stale = (
        sa.select(k.c.id)
        .where(k.c.dead_at.is_(None), k.c.beat_at < silent)
        .order_by(k.c.id)
        .with_for_update(skip_locked=True)
        .cte("stale")
    )
    return sa.update(k).where(k.c.id == stale.c.id).values(dead_at=clock()).returning(k.c.id)


def known(t: Tables) -> Any:
    """List workers, with the seconds since each last beat.

    ``alone`` has one document in hand, which took a worker down, and takes no other meanwhile.
    """
    k, w = t.worker, t.work.c
    alone = sa.exists().where(w.lane == LANE_CLAIMED, w.worker == k.c.id, w.alone)
    silent = sa.extract("epoch", clock() - k.c.beat_at)
    told = (k.c.id, k.c.serves, k.c.draining, k.c.dead_at, k.c.dead_after_seconds)
    known = (*told, *judged(t), sa.cast(silent, sa.Double).label("silent"), alone.label("alone"))
    return sa.select(*known).order_by(k.c.id)


def rescue(t: Tables) -> Any:
    """Read the newest rescue of a document in one of its lives.

    A failure of the same code that an attempt told of itself has a time that it ran for.
    """
    h = t.transition.c
    return (
        sa.select(*transition_columns(t))
        .where(
            h.document_id == sa.bindparam("document", type_=ID),
            h.life == sa.bindparam("life", type_=sa.Integer),
            h.error == sa.literal_column("'crashed'"),
            h.run_seconds.is_(None),
        )
        .order_by(h.version.desc())
        .limit(1)
    )


def bury(t: Tables) -> Any:
    """Forget workers that have been dead for an hour and hold nothing; people look for them."""
    held = sa.exists().where(t.work.c.lane == LANE_CLAIMED, t.work.c.worker == t.worker.c.id)
    long_ago = clock() - sa.literal_column("interval '1 hour'")
    return sa.delete(t.worker).where(t.worker.c.dead_at < long_ago, ~held)


def standings(t: Tables) -> Any:
    """List workers with what each holds, and whether the lifecycle that it runs is registered."""
    k, w = t.worker.c, t.work.c
    silent = sa.extract("epoch", clock() - k.beat_at)
    held = (
        sa.select(
            w.worker,
            sa.func.count().label("claims"),
            sa.func.min(w.entered_at).label("oldest_at"),
        )
        .where(w.lane == LANE_CLAIMED)
        .group_by(w.worker)
        .cte("held")
    )
    is_silent, _ = judged(t)
    known = sa.exists().where(t.lifecycle.c.fingerprint == k.lifecycle)
    own = (k.id, k.host, k.pid, k.version, k.serves, k.draining, k.started_at)
    return (
        sa.select(
            *own,
            *(k.settled, k.settled_at, k.dead_at, k.goes_on_as),
            sa.cast(silent, sa.Double).label("silent_seconds"),
            is_silent,
            sa.case((k.lifecycle.is_not(None), known)).label("is_lifecycle_known"),
            sa.func.coalesce(held.c.claims, 0).label("claims"),
            held.c.oldest_at,
        )
        .outerjoin(held, held.c.worker == k.id)
        .order_by(k.id)
    )
