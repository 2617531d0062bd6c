"""Workers make themselves known, and say that they live from a thread of their own."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import secrets
import socket
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import psycopg as dialects

from statemachine_pipeline.database.cures import unavailable
from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.statements import claims, workers
from statemachine_pipeline.database.timeouts import Timeouts, Watch, cut
from statemachine_pipeline.errors import NotHeard
from statemachine_pipeline.liveness import USUAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.liveness import Liveness

NOTHING: Mapping[str, str | None] = MappingProxyType({})


class Workers:
    """The workers of one schema.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
        timeouts: How long to wait for connections outside the engine's pool.
        liveness: When those that it registers count as silent, and when as dead.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        t: Tables,
        timeouts: Timeouts | None = None,
        liveness: Liveness = USUAL,
    ) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._t, self._timeouts, self._liveness = t, timeouts or Timeouts(), liveness
        self._given = _from_url(engine)

    async def register(
        self, serves: Mapping[str, str | None] = NOTHING, lifecycle: str | None = None
    ) -> int:
        """Make this process known as a new worker; return its id, which is never used again.

        Args:
            serves: The triggers of its stages with the providers that they ask, if any; for whoever
                wants to know what a document waits for.
            lifecycle: The fingerprint of what it runs; a migration that retires it ends the worker.
        """
        values = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": importlib.metadata.version("statemachine-pipeline"),
            "lifecycle": lifecycle,
            "serves": dict(serves),
            "beat_seconds": self._liveness.beat.total_seconds(),
            "dead_after_seconds": self._liveness.dead_after.total_seconds(),
        }
        with answering("registering a worker"):
            async with self._engine.connect() as connection:
                found = await connection.execute(workers.register(self._t), values)
                worker = int(found.scalar_one())
                # The engine may have been told more than its URL says: a password, a certificate.
                driver = (await connection.get_raw_connection()).driver_connection
                self._given |= _as_connected(driver)
                return worker

    async def drain(self, worker: int) -> None:
        """Say that a worker takes no more work."""
        await self._execute(workers.drain(self._t), me=worker)

    async def go_on(self, lost: int, worker: int) -> None:
        """Say that a process which lost its id works under another one: it did not die."""
        await self._execute(workers.go_on(self._t), me=lost, worker=worker)

    async def leave(self, worker: int) -> int:
        """Give back what a worker still holds, unspent, and forget it."""
        released = await self.release(worker, keep=())
        await self._execute(workers.leave(self._t), me=worker)
        return released

    async def release(self, worker: int, *, keep: Iterable[UUID]) -> int:
        """Give back, unspent, every claim of a worker but those on ``keep``."""
        return await self._execute(claims.release(self._t), me=worker, keep=list(keep))

    async def _execute(self, statement: Any, **values: Any) -> int:
        with answering("ending a worker"):
            async with self._engine.connect() as connection:
                found = await connection.execute(statement, values)
                return int(found.rowcount)

    def pulse(self) -> Pulse:
        """Return what a heartbeat thread beats with."""
        return Pulse(self._arguments, self._t)

    @property
    def _arguments(self) -> dict[str, Any]:
        # Used seldom, so nothing is gained by preparing; behind a pooler it would not work.
        return self._timeouts.of_connections | self._given | {"prepare_threshold": None}

    async def listen(self, *, probe_after: float) -> AsyncIterator[bool]:
        """Yield once it listens, once it is known to hear, and at each notification of new work.

        Sends itself a notification by another connection at the start, and whenever nothing came
        for ``probe_after`` seconds: a listener behind a pooler, or on a connection that is dead
        without being closed, is as silent as one for whom there is nothing.

        Yields:
            Whether it is known to hear.

        Raises:
            DatabaseUnavailable: The connection was refused or broke.
            NotHeard: What it sent itself does not arrive.
        """
        own = f"{self._t.channel}_{secrets.token_hex(8)}"
        try:
            async with await psycopg.AsyncConnection.connect(
                **self._arguments, autocommit=True
            ) as connection:
                with _watched(connection, self._timeouts):
                    await connection.execute(f'LISTEN "{self._t.channel}"; LISTEN "{own}"')
                yield False
                async for _ in self._notifications(connection, own, probe_after):
                    yield True
        except (psycopg.Error, OSError) as error:
            raise unavailable("listening for work", error) from error

    async def _notifications(
        self, connection: psycopg.AsyncConnection[Any], own: str, probe_after: float
    ) -> AsyncIterator[None]:
        patience = self._timeouts.connect.total_seconds()
        heard, probing = False, True
        await self._notify(own)
        while True:
            wait = patience if probing else probe_after
            names = {n.channel async for n in connection.notifies(timeout=wait, stop_after=1)}
            if names and not (heard and names == {own}):
                heard = True
                yield
            if not names and probing:
                raise NotHeard(self._t.channel)
            if not names:
                await self._notify(own)
            probing = not names or (probing and own not in names)

    async def _notify(self, channel: str) -> None:
        with answering("telling itself of work"):
            async with self._engine.connect() as connection:
                await connection.execute(sa.select(sa.func.pg_notify(channel, "")))


@contextlib.contextmanager
def _watched(connection: psycopg.AsyncConnection[Any], timeouts: Timeouts) -> Iterator[None]:
    watch = Watch(connection, timeouts.connect.total_seconds())
    try:
        yield
    finally:
        watch.end()


class Pulse:
    """One direct, blocking connection that does nothing but beat.

    Args:
        arguments: For ``psycopg.connect``.
        t: The pipeline's tables.
    """

    def __init__(self, arguments: dict[str, Any], t: Tables) -> None:
        self._arguments = arguments
        dialect = dialects.dialect()  # type: ignore[no-untyped-call]
        self._statement = str(workers.beat(t).compile(dialect=dialect))
        self._connection: psycopg.Connection[Any] | None = None
        self._is_cut = False

    def beat(self, worker: int, settled: int, ago: float | None) -> bool:
        """Say that a worker lives, and what it has done.

        Args:
            worker: Which one.
            settled: How many outcomes it has written that brought a document on.
            ago: Seconds since the last of them; None when there was none.

        Returns:
            False when it was declared dead: it may write nothing more.

        Raises:
            DatabaseUnavailable: It did not answer; the next beat connects again.
        """
        is_new, self._is_cut = self._connection is None, False
        try:
            if self._connection is None:
                self._connection = psycopg.connect(**self._arguments, autocommit=True)
            told = {"me": worker, "settled": settled, "ago": ago}
            found = self._connection.execute(self._statement, told)
            return found.fetchone() is not None
        except psycopg.Error as error:
            self.close()
            if is_new or self._is_cut:
                raise unavailable("saying that a worker lives", error) from error
        # It died between two beats, as when the server was started anew, which may be well again.
        return self.beat(worker, settled, ago)

    def break_off(self) -> None:
        """Break a beat that gets no answer; from another thread."""
        connection = self._connection
        if connection is not None:
            self._is_cut = True
            cut(connection)

    def close(self) -> None:
        """Give the connection up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _from_url(engine: AsyncEngine) -> dict[str, Any]:
    """Return how ``engine`` connects, as far as its URL says."""
    _, arguments = engine.dialect.create_connect_args(engine.url)
    return {name: value for name, value in arguments.items() if name != "context"}


def _as_connected(driver: Any) -> dict[str, Any]:
    """Return how a connection was made, for others like it."""
    given: dict[str, Any] = driver.info.get_parameters()
    return given | ({"password": driver.info.password} if driver.info.password else {})
