"""Rows to records, and driver errors to ours: the only place that knows both."""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from statemachine_pipeline import failpoints
from statemachine_pipeline.database.cures import first_line, unavailable
from statemachine_pipeline.errors import PoolerInTheWay, SchemaMissing
from statemachine_pipeline.records import Document, Transition

if TYPE_CHECKING:
    from collections.abc import Iterator

_DOCUMENT = tuple(name for name in Document.__slots__ if name not in {"metadata", "children"})
_CANCELLED = "57014"
_PASSING = {"25006", "25P03", "25P04", _CANCELLED}
"""A standby that does not write yet, and what took too long: a transaction, or a statement."""
_NOT_PREPARED = {"26000", "42P05"}
"""A prepared statement is missing, or there already: somebody else's connection to the server."""

_DEADLOCK = "40P01"
_UNDEFINED_TABLE, _UNDEFINED_SCHEMA = "42P01", "3F000"


PAGE_LIMIT = 1_000_000
"""Most rows of one page; far more than anybody should hold at a time."""


def page_limit(limit: int) -> int:
    """Return how many rows a page has at most.

    Raises:
        ValueError: It is no number of rows, which a driver would not know how to say.
    """
    if not 0 <= limit <= PAGE_LIMIT:
        raise ValueError(f"limit={limit} is no number of rows; use 0 to {PAGE_LIMIT:,}")
    return limit


def to_document(row: Any) -> Document:
    """Read a document from any row that has its columns."""
    values = {name: getattr(row, name) for name in _DOCUMENT}
    found = row._mapping
    return Document(
        **values,
        metadata=MappingProxyType(found["metadata"]),
        children=MappingProxyType(found["children"]),
    )


def to_transition(row: Any) -> Transition:
    """Read one history row, whatever else is in it."""
    return Transition(**{name: row._mapping[name] for name in Transition.__slots__})


@contextlib.contextmanager
def answering(doing: str) -> Iterator[None]:
    """Turn a driver's errors into ours; ``doing`` completes "the database did not answer while".

    Raises:
        DatabaseUnavailable: The connection failed or broke; whether a commit landed is unknown.
        SchemaMissing: The tables are not there.
        PoolerInTheWay: Prepared statements do not survive between here and the server.
    """
    failpoint = failpoints.active.get()
    try:
        if failpoint is None:
            yield
            return
        failpoint(doing, "before")
        yield
        failpoint(doing, "after")
    except exc.DBAPIError as error:
        mapped = _ours(doing, error)
        if mapped is error:
            raise
        raise mapped from error
    except (exc.TimeoutError, OSError) as error:
        raise unavailable(doing, error) from error


def _ours(doing: str, error: exc.DBAPIError) -> Exception:
    """Return what to raise instead; the error itself when it is nobody's fault but ours."""
    state = getattr(error.orig, "sqlstate", None)
    if state in {_UNDEFINED_TABLE, _UNDEFINED_SCHEMA} and isinstance(error, exc.ProgrammingError):
        return SchemaMissing("of this pipeline", "its tables are missing")
    if state in _NOT_PREPARED:
        return PoolerInTheWay(doing, first_line(error.orig))
    if may_pass(error):
        return unavailable(doing, error.orig)
    return error


def may_pass(error: exc.DBAPIError) -> bool:
    """Tell what may pass (a broken connection, a lock, a deadlock) from what was refused."""
    state = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or isinstance(error, exc.InterfaceError):
        return True
    # 08 connection, 53 out of resources, 58 input or output failed, 57P shut down or crashed, 55P03
    # lock timeout, 40 deadlock or serialization; none: never connected.
    if state is None:
        return isinstance(error, exc.OperationalError)
    # By code alone: asyncpg's errors of these kinds are plain DBAPIErrors.
    passing = state[:2] in {"08", "40", "53", "58"} or state[:3] in {"57P", "55P"}
    return passing or state in _PASSING


def took_too_long(error: object) -> bool:
    """Tell whether PostgreSQL cancelled the statement, so that nothing of it was written."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == _CANCELLED


def was_deadlock(error: exc.DBAPIError) -> bool:
    """Tell whether this transaction and another one waited for each other."""
    return getattr(error.orig, "sqlstate", None) == _DEADLOCK
