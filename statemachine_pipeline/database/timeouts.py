"""How long anything may wait for the database, and what ends a wait that nobody answers.

Three clocks. PostgreSQL's own timeouts, set for each transaction in the round trip that begins it:
no pooler refuses those, and they end with the transaction. This process's, beside each statement:
a connection that is dead without having been closed never answers, and PostgreSQL cannot tell us.
The kernel's, for connections that the library opens by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import psycopg
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.noting import note

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.engine import Connection, Engine

_WATCH = "statemachine_pipeline.watch"
_AUTOCOMMIT, _READ_COMMITTED = "AUTOCOMMIT", "READ COMMITTED"

_BEYOND_SECONDS = 2.0
"""Left to PostgreSQL to cancel a statement by itself, which spares the connection."""

# A dead peer is given up after about 25 s, whether it owes an answer or an acknowledgement.
_KERNEL = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a pipeline waits for its database.

    What runs out of time raises ``DatabaseUnavailable``. In a worker its attempt is given back,
    unspent; only a product that cannot be written within ``statement`` counts as a failed one.

    Attributes:
        connect: To open a connection that the library opens by itself; whole seconds, at least two.
        statement: For one statement. PostgreSQL cancels it then; and should that not be heard of,
            its connection is given up. Building a vector index and ``migrate`` are not bounded.
        lock: For rows that somebody else has locked, in transactions.
    """

    connect: timedelta = timedelta(seconds=10)
    statement: timedelta = timedelta(minutes=2)
    lock: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        if self.connect < timedelta(seconds=2):
            raise ValueError(f"connect must be at least two seconds, got {self.connect}")
        if not timedelta(0) < self.lock < self.statement:
            raise ValueError(
                f"lock must be more than zero and less than statement, got {self.lock} and "
                f"{self.statement}"
            )

    @property
    def of_connections(self) -> dict[str, Any]:
        """What libpq takes when a connection is opened; PgBouncer gets to see none of it."""
        return _KERNEL | {"connect_timeout": round(self.connect.total_seconds())}

    def of_transactions(self, isolation_level: str) -> str:
        """Return what begins a transaction: several statements in one round trip."""
        statement, lock = (round(t.total_seconds() * 1000) for t in (self.statement, self.lock))
        return (
            f"BEGIN ISOLATION LEVEL {isolation_level}; SET LOCAL statement_timeout = {statement}; "
            f"SET LOCAL lock_timeout = {lock}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {statement}"
        )


class BoundedEngine(AsyncEngine):
    """The pool of another engine, from which nobody waits for ever.

    Its transactions are begun with local timeouts. Each statement is watched: without an answer in
    time its connection is cut, so that it fails as broken and does not go back to the pool. A
    SQLAlchemy session on it, or ``run_sync`` on ``sync_engine``, works as on the other engine.

    Args:
        engine: Whose pool is used.
        timeouts: How long to wait.
        isolation_level: Of its transactions, whatever the other engine's is.
    """

    def __init__(
        self, engine: AsyncEngine, timeouts: Timeouts, isolation_level: str = _READ_COMMITTED
    ) -> None:
        # Not by super: SQLAlchemy would take this for the one async engine of that pool, and show
        # it to sessions of the application's.
        self.sync_engine = engine.sync_engine
        self._timeouts, self._level = timeouts, isolation_level
        self._watched = AsyncEngine(self._derived())
        self._closing: set[asyncio.Task[None]] = set()

    def connect(self) -> AsyncConnection:
        """Return a connection that is watched, in a transaction from its first statement on."""
        statement = self._timeouts.statement.total_seconds()
        limit = statement + min(statement, _BEYOND_SECONDS)
        in_transaction = self._level != _AUTOCOMMIT
        return _Watched(self._watched, limit, self._closing, in_transaction=in_transaction)

    async def dispose(self, close: bool = True) -> None:
        """Close the pool, after the connections that cancelled tasks left behind in closing.

        One that came back to the pool only later would stay open until it is collected.
        """
        if self._closing:
            await asyncio.wait(self._closing)
        await super().dispose(close)

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Return a connection that is watched, in a transaction."""
        async with self.connect() as connection, connection.begin():
            yield connection

    def execution_options(self, **options: Any) -> AsyncEngine:
        """Return an engine with other options; another isolation level is bounded too."""
        level = options.pop("isolation_level", self._level)
        other = AsyncEngine(self.sync_engine.execution_options(**options))
        return BoundedEngine(other, self._timeouts, level)

    def _derived(self) -> Engine:
        own = self.sync_engine
        if own.dialect.driver == "psycopg":
            # The driver begins nothing by itself then, so that the timeouts can travel with BEGIN.
            made = own.execution_options(isolation_level=_AUTOCOMMIT)
            begin = self._timeouts.of_transactions(self._level)
        else:
            made = own.execution_options(isolation_level=self._level)
            begin = _as_one_select(self._timeouts)
        if self._level != _AUTOCOMMIT:
            sa.event.listen(made, "begin", lambda connection: _begin(connection, begin))
        sa.event.listen(made, "before_cursor_execute", _touch)
        sa.event.listen(made, "commit", _touch)
        sa.event.listen(made, "rollback", _touch)
        return made


class _Watched(AsyncConnection):
    """A connection whose every statement has to be answered within ``limit`` seconds."""

    def __init__(
        self,
        engine: AsyncEngine,
        limit: float,
        closing: set[asyncio.Task[None]],
        *,
        in_transaction: bool,
    ) -> None:
        super().__init__(engine)
        self._limit, self.is_in_transaction = limit, in_transaction
        self._closing = closing
        self._watch: Watch | None = None

    async def start(self, is_ctxmanager: bool = False) -> Self:
        # psycopg takes a first cancellation for a wish to cancel the statement, and waits for the
        # server to agree; a dead one does not. The second one ends that.
        try:
            async with asyncio.timeout(self._limit + 1), asyncio.timeout(self._limit):
                await super().start(is_ctxmanager)
        except TimeoutError as error:
            raise exc.TimeoutError(f"no connection within {self._limit:g} s") from error
        record = self.sync_connection
        if record is not None:
            self._watch = Watch(record.connection.driver_connection, self._limit)
            record.info[_WATCH] = self._watch
        return self

    async def __aexit__(self, *raised: object) -> None:
        # As SQLAlchemy's own, which nobody can wait for once the task here was cancelled.
        task = asyncio.create_task(self.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            if self._watch is not None:
                self._watch.end()
                self._watch = None


class Watch:
    """Cuts a connection when nothing was sent on it for ``limit`` seconds and it is still in use.

    Args:
        driver: The driver's connection.
        limit: Seconds.
    """

    def __init__(self, driver: Any, limit: float) -> None:
        self._driver, self._limit = driver, limit
        self._loop = asyncio.get_running_loop()
        self.touch()
        self._timer = self._loop.call_at(self._until, self._look)

    def touch(self) -> None:
        """Begin to count anew."""
        self._until = self._loop.time() + self._limit

    def end(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
            return
        told = "the database did not answer for {:g} s; the connection is given up"
        note(log_events.CONNECTION_CUT, told, self._limit)
        cut(self._driver)


def cut(driver: Any) -> None:
    """Break a connection, so that whoever waits for it hears at once that it is broken.

    May be called from another thread. Cancelling would ask the server, which does not answer.
    """
    pgconn = getattr(driver, "pgconn", None)
    if pgconn is None:
        driver.terminate()
        return
    # It may have been closed meanwhile.
    with (
        contextlib.suppress(psycopg.OperationalError, OSError),
        socket.socket(fileno=os.dup(pgconn.socket)) as own,
    ):
        own.shutdown(socket.SHUT_RDWR)


async def commits_by_itself(connection: AsyncConnection) -> bool:
    """Tell whether a connection is in autocommit, so that nothing on it can be undone."""
    if isinstance(connection, _Watched):
        return not connection.is_in_transaction
    record = await connection.get_raw_connection()
    return bool(getattr(record.dbapi_connection, "autocommit", False))


def unbounded(engine: AsyncEngine, isolation_level: str = _READ_COMMITTED) -> AsyncEngine:
    """Return an engine on the same pool for what may take as long as it likes."""
    return AsyncEngine(engine.sync_engine.execution_options(isolation_level=isolation_level))


def connecting(url: str, timeouts: Timeouts) -> dict[str, Any]:
    """Return what SQLAlchemy's ``create_async_engine`` wants for a URL; it may leave much out.

    ``postgres://`` is what hosts hand out. What the URL says itself of waiting counts, and
    ``prepare_threshold=none`` in it turns prepared statements off, as old poolers need.

    Raises:
        DefinitionError: That is neither a number nor none.
    """
    if url.startswith("postgres://"):
        url = "postgresql://" + url.removeprefix("postgres://")
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if not parsed.drivername.endswith("+psycopg"):
        return {"url": parsed}
    given = {k: v for k, v in timeouts.of_connections.items() if k not in parsed.query}
    if "PGCONNECT_TIMEOUT" in os.environ:
        given.pop("connect_timeout", None)
    if "prepare_threshold" in parsed.query:
        asked = str(parsed.query["prepare_threshold"]).lower()
        if asked != "none" and not asked.isdecimal():
            raise DefinitionError(
                f"prepare_threshold={asked!r} in the database URL must be a number, or none"
            )
        given["prepare_threshold"] = None if asked == "none" else int(asked)
        parsed = parsed.difference_update_query(["prepare_threshold"])
    return {"url": parsed, "connect_args": given}


def _begin(connection: Connection, statement: str) -> None:
    # Past SQLAlchemy, whose execution of this costs as much as the rest of a short transaction.
    # Should it fail, SQLAlchemy has to see that: it then drops the whole pool, and not one of it.
    try:
        cursor = connection.connection.cursor()
        cursor.execute(statement)
        cursor.close()
    except Exception:  # noqa: BLE001 - the second try raises it as SQLAlchemy does
        connection.exec_driver_sql(statement)


def _touch(connection: Connection, *_: object) -> None:
    if not connection.invalidated and (watch := connection.info.get(_WATCH)) is not None:
        watch.touch()


def _as_one_select(timeouts: Timeouts) -> str:
    """For drivers that begin by themselves, and take one statement at a time."""
    milliseconds = {
        "statement_timeout": timeouts.statement,
        "lock_timeout": timeouts.lock,
        "idle_in_transaction_session_timeout": timeouts.statement,
    }
    calls = (
        f"set_config('{name}', '{round(value.total_seconds() * 1000)}', true)"
        for name, value in milliseconds.items()
    )
    return "SELECT " + ", ".join(calls)
