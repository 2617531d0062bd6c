"""A synchronous connection that somebody lends, as this package's coroutines await it.

They wait for nothing but the database. On such a connection it answers at once, so a coroutine runs
to its end in one step: no event loop, no thread, and no second copy of its logic.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.datetime import TimestamptzLoader
from psycopg.types.json import JsonbLoader
from sqlalchemy import exc
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import Connection
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.orm import Session

from statemachine_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping

    from sqlalchemy.engine import Result

Lent: TypeAlias = Any
"""A SQLAlchemy Session or Connection, a psycopg connection, or Django's ``connection``."""

T = TypeVar("T")


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing but a borrowed connection."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("this coroutine waits for something else than a borrowed connection")


class Borrowed:
    """Stands for an async engine and its only connection; commits and closes nothing.

    Args:
        execute: Runs one statement with its parameters and returns its rows.
    """

    def __init__(self, execute: Any) -> None:
        self._execute = execute

    async def execute(self, statement: Any, values: Mapping[str, Any] | None = None) -> Any:
        """Run one statement."""
        return self._execute(statement, dict(values or {}))

    def connect(self) -> contextlib.nullcontext[Borrowed]:
        """Return itself, for ``async with``."""
        return contextlib.nullcontext(self)

    begin = connect


@contextlib.contextmanager
def borrowing(lent: Lent, *, writes: bool = False) -> Iterator[Borrowed]:
    """Lend a connection; what is written belongs to the transaction that runs on it.

    A psycopg connection in autocommit, where no transaction runs, gets one for as long.

    Raises:
        PipelineError: It is no connection that is known here, or it ``writes`` on one of SQLAlchemy
            in autocommit.
    """
    if isinstance(lent, Session):
        lent = lent.connection()
    if isinstance(lent, Connection):
        if writes and getattr(lent.connection.dbapi_connection, "autocommit", False):
            raise PipelineError(
                "this connection commits every statement by itself, and a document is written by "
                "several; lend one without AUTOCOMMIT, or the Session"
            )
        yield Borrowed(lent.execute)
        return
    if hasattr(lent, "ensure_connection"):  # Django's: it connects when it is first used
        lent.ensure_connection()
        lent = lent.connection
    if not isinstance(lent, psycopg.Connection):
        raise PipelineError(
            f"cannot work on a {type(lent).__name__}; lend a synchronous Session or Connection of "
            "SQLAlchemy, a psycopg 3 connection or Django's connection"
        )
    idle = lent.info.transaction_status is TransactionStatus.IDLE
    with lent.transaction() if lent.autocommit and idle else contextlib.nullcontext():
        yield Borrowed(functools.partial(_execute, lent))


_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]


def _execute(
    connection: psycopg.Connection[Any], statement: Any, values: dict[str, Any]
) -> Result[Any] | None:
    compiled = statement.compile(dialect=_DIALECT)
    given = {
        name: _bound(compiled.binds[name].type, value)
        for name, value in compiled.construct_params(values).items()
    }
    # A cursor of our own: an application's may give other rows and, as Django's, other values.
    cursor = psycopg.Cursor(connection, row_factory=tuple_row)
    cursor.adapters.register_loader("jsonb", JsonbLoader)
    cursor.adapters.register_loader("timestamptz", TimestamptzLoader)
    with cursor:
        try:
            cursor.execute(compiled.string, given)
            if cursor.description is None:
                return None
            names = [column.name for column in cursor.description]
            return IteratorResult(SimpleResultMetaData(names), iter(cursor.fetchall()))
        except psycopg.Error as error:
            raise exc.DBAPIError.instance(
                compiled.string, None, error, psycopg.Error, dialect=_DIALECT
            ) from error


def _bound(kind: Any, value: Any) -> Any:
    process = kind.dialect_impl(_DIALECT).bind_processor(_DIALECT)
    return process(value) if process else value
