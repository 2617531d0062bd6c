"""Arrays as rows: how a statement takes a batch without its text depending on the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, UUID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ID = UUID(as_uuid=True)
LANE_READY = sa.literal_column("'ready'")
LANE_DEFERRED = sa.literal_column("'deferred'")
LANE_CLAIMED = sa.literal_column("'claimed'")


def rows(name: str, columns: Mapping[str, Any], *, ordinal: str | None = None) -> Any:
    """Return ``unnest`` of one array per column as a table called ``name``.

    The arrays are the parameters ``<name>_<column>``; ``ordinal`` adds a 1-based row number.
    """
    binds = [sa.bindparam(f"{name}_{column}", type_=ARRAY(t, dimensions=1)) for column, t in columns.items()]
    named = [sa.column(column, t) for column, t in columns.items()]
    call = sa.func.unnest(*binds)
    if ordinal is None:
        return call.table_valued(*named).render_derived(name=name)
    return call.table_valued(*named, with_ordinality=ordinal).render_derived(name=name)


def parameters(
    name: str, columns: Iterable[str], records: Iterable[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """Return the arrays that ``rows`` wants, from one mapping per row."""
    taken = list(records)
    return {f"{name}_{column}": [record[column] for record in taken] for column in columns}


def seconds(amount: Any) -> Any:
    """Return a number of seconds as an interval."""
    return amount * sa.literal_column("interval '1 second'", sa.Interval)


def any_of(subquery: Any) -> Any:
    """Return ``ANY`` of an array made once from a subquery.

    Unlike ``IN``, it gives the planner one plan, a look-up by key, whatever the statistics say.
    """
    return sa.any_(sa.func.array(subquery.scalar_subquery()))


def clock() -> Any:
    """Return the database's clock as it stands, not as the transaction began."""
    return sa.func.clock_timestamp()
