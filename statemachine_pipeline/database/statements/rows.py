"""Records as rows: how a statement takes a batch without its text depending on the batch.

A batch travels as one JSON array: dumping 34 arrays of text cost the worker three times as much.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy.dialects.postgresql import UUID

from statemachine_pipeline.liveness import SILENT_BEATS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

    from statemachine_pipeline.database.tables import Tables

ID = UUID(as_uuid=True)
LANE_READY: sa.ColumnElement[str] = sa.literal_column("'ready'")
LANE_DEFERRED: sa.ColumnElement[str] = sa.literal_column("'deferred'")
LANE_CLAIMED: sa.ColumnElement[str] = sa.literal_column("'claimed'")

INDEXABLE = 4_000
"""Most dimensions that pgvector has an index for: 2,000 of ``vector``, and 4,000 of ``halfvec``."""
_INDEXABLE_WHOLE = 2_000


def compared_as(dimensions: int) -> VECTOR | HALFVEC:
    """Return the type that vectors are cast to for a search, and in its index.

    Half precision is as good for ranking: the ten nearest of 6,000 with 3,072 dimensions were found
    as well as with whole numbers (0.997 of them).
    """
    halved = _INDEXABLE_WHOLE < dimensions <= INDEXABLE
    return HALFVEC(dimensions) if halved else VECTOR(dimensions)


def rows(name: str, columns: Mapping[str, Any]) -> Any:
    """Return the JSON parameter ``name`` as a table of that name, one row per record."""
    given = sa.cast(sa.bindparam(name, type_=sa.Text), sa.JSON)
    named = [sa.column(column, kind) for column, kind in columns.items()]
    call = sa.func.json_to_recordset(given)
    return call.table_valued(*named).render_derived(name=name, with_types=True)


def parameters(name: str, records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the parameter that ``rows`` reads."""
    return {name: json.dumps(list(records), default=str)}


def leading(served: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the parameter ``served`` of states, and which stage each leads to."""
    return parameters("served", ({"state": state, "stage": stage} for state, stage in served))


def seconds(amount: Any) -> Any:
    """Return a number of seconds as an interval."""
    return amount * sa.literal_column("interval '1 second'", sa.Interval)


def milliseconds(duration: timedelta) -> str:
    """Return a duration as PostgreSQL's settings take it."""
    return f"{round(duration.total_seconds() * 1000)}ms"


def transition_columns(t: Tables) -> list[Any]:
    """Return the columns of history that ``Transition`` has."""
    return [column for column in t.transition.c if column.name not in {"prev", "xact"}]


def judged(t: Tables, worker: Any = None) -> tuple[Any, Any]:
    """Return whether a worker is silent and whether it lives, by what it said of itself."""
    k = (t.worker if worker is None else worker).c
    silence, silent = clock() - k.beat_at, seconds(SILENT_BEATS * k.beat_seconds)
    lives = sa.and_(k.dead_at.is_(None), silence < seconds(k.dead_after_seconds))
    return (silence >= silent).label("is_silent"), lives.label("lives")


def any_of(subquery: Any) -> Any:
    """Return ``ANY`` of an array made once from a subquery.

    Unlike ``IN``, it gives the planner one plan, a look-up by key, whatever the statistics say.
    """
    return sa.any_(sa.func.array(subquery.scalar_subquery()))


def clock() -> Any:
    """Return the database's clock as it stands, not as the transaction began."""
    return sa.func.clock_timestamp()
