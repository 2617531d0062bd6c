"""How a whole pipeline stands, in numbers: what waits, what runs, who lives, how large it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from statemachine_pipeline.database.statements.levels import CLOSED, is_shut
from statemachine_pipeline.database.statements.rows import LANE_CLAIMED, judged, rows
from statemachine_pipeline.database.statements.turns import closed_at, in_force
from statemachine_pipeline.database.tables import VERSION_TABLE

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables

LETTER_GROUPS = 100
"""Most kinds of dead letters that are told apart."""

_now = sa.func.statement_timestamp


def backlog(t: Tables) -> Any:
    """Count what does not rest by state and lane, and tell since when the oldest waits or runs.

    Due is what a worker would claim now, or once it has looked for what was deferred: its time has
    come, and for one of the stages ahead nothing pauses it and its provider is asked; or its holder
    lives no more, and whoever lives takes it over. ``served`` holds for each state the stages that
    it leads to, and the providers that this program knows of.
    Looks at all of ``work`` once; what pauses a document is asked once for each tenant at a state.
    """
    w, live = t.work, t.worker.alias("live")
    served = rows("served", {"state": sa.Text, "stage": sa.Text, "provider": sa.Text})
    asked = live.c.serves.op("->>", return_type=sa.Text)(served.c.stage)
    shut = sa.exists().where(live.c.dead_at.is_(None), is_shut(t, asked)).correlate_except(live)
    is_closed = sa.or_(closed_at(t, served.c.stage), is_shut(t, served.c.provider), shut)
    found = sa.select(served.c.state, served.c.stage, is_closed.label("closed"))
    place = found.cte("place").prefix_with("MATERIALIZED")
    holder = t.worker.alias("holder")
    _, lives = judged(t, holder)
    is_held = sa.exists().where(holder.c.id == w.c.worker, lives).correlate(w)
    is_waiting = sa.and_(w.c.lane.in_(_literals("ready", "deferred")), w.c.run_at <= _now())
    is_due = sa.or_(is_waiting, sa.and_(w.c.lane == LANE_CLAIMED, sa.not_(is_held)))
    is_running = sa.and_(w.c.lane == LANE_CLAIMED, w.c.deadline_at > _now())
    counted = (
        sa.select(
            *(w.c[name] for name in ("state", "lane", "tenant")),
            sa.func.count().label("documents"),
            sa.func.count().filter(is_due).label("due"),
            sa.func.min(w.c.run_at).filter(is_due).label("due_at"),
            sa.func.count().filter(is_running).label("running"),
            sa.func.min(w.c.entered_at).filter(w.c.lane == LANE_CLAIMED).label("entered_at"),
        )
        .group_by(w.c.state, w.c.lane, w.c.tenant)
        .cte("counted")
    )
    paused = closed_at(t, place.c.stage, counted.c.tenant)
    here = sa.and_(place.c.state == counted.c.state, sa.not_(place.c.closed), sa.not_(paused))
    # One that is open is enough where ways part: whoever takes it finds out where it goes.
    is_open = sa.exists().where(here).correlate(counted)
    seen = sa.select(counted, is_open.label("open")).cte("seen")
    return (
        sa.select(
            seen.c.state,
            seen.c.lane,
            _total(seen.c.documents).label("documents"),
            _total(seen.c.running).label("running"),
            _total(seen.c.due, seen.c.open).label("due"),
            sa.func.min(seen.c.due_at).filter(seen.c.open).label("due_at"),
            sa.func.min(seen.c.entered_at).label("claimed_at"),
            _now().label("now"),
        )
        .group_by(seen.c.state, seen.c.lane)
        .order_by(seen.c.state, seen.c.lane)
    )


def fleet(t: Tables) -> Any:
    """List workers: what each serves, how it stands, and when it last brought a document on."""
    k = t.worker
    return sa.select(
        *(k.c[name] for name in ("id", "serves", "draining", "dead_at", "goes_on_as")),
        *(k.c[name] for name in ("started_at", "settled_at")),
        *judged(t),
        _now().label("now"),
    ).order_by(k.c.id)


def resting(t: Tables) -> Any:
    """Count documents in ``states``, which rest; reads all documents."""
    d, states = t.document, sa.bindparam("states", type_=ARRAY(sa.Text))
    return (
        sa.select(d.c.state, sa.func.count().label("documents"))
        .where(d.c.state == sa.any_(states))
        .group_by(d.c.state)
        .order_by(d.c.state)
    )


def letters(t: Tables) -> Any:
    """Count dead letters by stage and code, the largest groups."""
    letter, count = t.dead_letter, sa.func.count()
    return (
        sa.select(letter.c.stage, letter.c.code, count.label("documents"))
        .group_by(letter.c.stage, letter.c.code)
        .order_by(count.desc(), letter.c.stage, letter.c.code)
        .limit(LETTER_GROUPS)
    )


def paused(t: Tables) -> Any:
    """Count pauses in force by stage; those of tenants as a whole have none."""
    p, stage = t.pause, sa.func.coalesce(t.pause.c.stage, sa.literal_column("''"))
    return (
        sa.select(stage.label("stage"), p.c.fault, sa.func.count().label("pauses"))
        .where(in_force(p))
        .group_by(stage, p.c.fault)
        .order_by(stage, p.c.fault)
    )


def providers(t: Tables) -> Any:
    """Tell of each provider whether its breaker keeps the fleet from asking it."""
    b = t.breaker
    return sa.select(b.c.provider, (b.c.state != CLOSED).label("is_down")).order_by(b.c.provider)


def withdrawals(t: Tables) -> Any:
    """Count documents that have to go from publishers' own stores."""
    p = t.placement
    return (
        sa.select(p.c.stage, sa.func.count().label("documents"))
        .where(p.c.withdraw_at.is_not(None))
        .group_by(p.c.stage)
        .order_by(p.c.stage)
    )


def sizes(t: Tables) -> Any:
    """Tell of each table of the pipeline how large it is, and how many of its rows are dead."""
    names = sorted(table.name for table in t.metadata.tables.values())
    s = sa.table(
        "pg_stat_user_tables",
        *(
            sa.column(name)
            for name in ("schemaname", "relname", "relid", "n_dead_tup", "n_live_tup")
        ),
        schema="pg_catalog",
    )
    return (
        sa.select(
            s.c.relname.label("name"),
            sa.func.pg_total_relation_size(s.c.relid).label("bytes"),
            s.c.n_dead_tup.label("dead_rows"),
            s.c.n_live_tup.label("live_rows"),
        )
        .where(
            s.c.schemaname == sa.literal(t.schema, sa.Text),
            s.c.relname == sa.any_(sa.literal(names, ARRAY(sa.Text))),
        )
        .order_by(s.c.relname)
    )


def revision(t: Tables) -> Any:
    """Tell which migration the schema is at."""
    table = sa.table(VERSION_TABLE, sa.column("version_num", sa.Text), schema=t.schema)
    return sa.select(table.c.version_num)


def _literals(*names: str) -> list[Any]:
    return [sa.literal_column(f"'{name}'") for name in names]


def _total(count: Any, where: Any = None) -> Any:
    summed = sa.func.sum(count) if where is None else sa.func.sum(count).filter(where)
    # PostgreSQL sums bigint as numeric.
    return sa.cast(sa.func.coalesce(summed, 0), sa.BigInteger)
