"""Workers make themselves known, and say that they live from a thread of their own."""

from __future__ import annotations

import importlib.metadata
import os
import socket
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy.dialects.postgresql import psycopg as dialects

from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.statements import claims, workers
from statemachine_pipeline.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables


class Workers:
    """The workers of one schema.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
    """

    def __init__(self, engine: AsyncEngine, t: Tables) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._t = t
        self._url = engine

    async def register(self, serves: Iterable[str] = ()) -> int:
        """Make this process known as a new worker; return its id, which is never used again.

        Args:
            serves: The triggers of its stages, for whoever asks what a document waits for.
        """
        values = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": importlib.metadata.version("statemachine-pipeline"),
            "serves": list(serves),
        }
        with answering("registering a worker"):
            async with self._engine.connect() as connection:
                found = await connection.execute(workers.register(self._t), values)
                return int(found.scalar_one())

    async def drain(self, worker: int) -> None:
        """Say that a worker takes no more work."""
        await self._execute(workers.drain(self._t), me=worker)

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
        return Pulse(connect_arguments(self._url), self._t)

    async def listen(self) -> AsyncIterator[None]:
        """Yield once when it begins to hear, then at each notification of new work.

        Raises:
            DatabaseUnavailable: The connection was refused or broke.
        """
        try:
            async with await psycopg.AsyncConnection.connect(
                **connect_arguments(self._url), autocommit=True
            ) as connection:
                await connection.execute(f'LISTEN "{self._t.channel}"')
                yield
                async for _ in connection.notifies():
                    yield
        except (psycopg.Error, OSError) as error:
            raise DatabaseUnavailable("listening for work", str(error)) from error


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

    def beat(self, worker: int) -> bool:
        """Say that a worker lives.

        Returns:
            False when it was declared dead: it may write nothing more.

        Raises:
            DatabaseUnavailable: It did not answer; the next beat connects again.
        """
        try:
            if self._connection is None:
                self._connection = psycopg.connect(
                    **{"connect_timeout": 5} | self._arguments, autocommit=True
                )
            found = self._connection.execute(self._statement, {"me": worker})
            return found.fetchone() is not None
        except psycopg.Error as error:
            self.close()
            raise DatabaseUnavailable("saying that a worker lives", str(error)) from error

    def close(self) -> None:
        """Give the connection up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def connect_arguments(engine: AsyncEngine) -> dict[str, Any]:
    """Return how ``engine`` connects, for a connection outside its pool."""
    _, arguments = engine.dialect.create_connect_args(engine.url)
    return {name: value for name, value in arguments.items() if name != "context"}
