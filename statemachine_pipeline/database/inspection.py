"""Looks at a database from outside: what the server says, what gets through to it, what is allowed.

Everything is undone or only read. Who judges what is found stands in ``oversight``.
"""

from __future__ import annotations

import secrets
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from statemachine_pipeline.database import arrivals, migrate
from statemachine_pipeline.database.documents import Documents
from statemachine_pipeline.database.lifecycles import registered
from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.statements import claims, inspection, workers
from statemachine_pipeline.database.watchdog import lease_path
from statemachine_pipeline.errors import PipelineError
from statemachine_pipeline.liveness import USUAL
from statemachine_pipeline.records import Incoming

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.lifecycles import Stored
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.stages import Stages

STATEMENT_MILLISECONDS = 5_000
"""A look that takes longer has found something by that alone."""

HEARD_WITHIN_SECONDS = 3.0
_REHEARSAL = "doctor"

_QUICKLY = sa.text(
    "SELECT set_config('statement_timeout', :limit, true), "
    "set_config('transaction_read_only', 'on', true)"
)


class Inspection:
    """Looks at the database of one pipeline.

    Args:
        engine: The pipeline's.
        t: Its tables.
    """

    def __init__(self, engine: AsyncEngine, t: Tables) -> None:
        self._engine, self._t = engine, t
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def driver(self) -> str:
        """The driver of the engine."""
        return self._engine.dialect.driver

    @property
    def pool_size(self) -> int | None:
        """Most connections of the engine's pool; None when there is no telling."""
        pool: Any = self._engine.pool
        if not isinstance(pool, sa.pool.QueuePool):
            return None
        more: int = getattr(pool, "_max_overflow", 0)
        return None if more < 0 else pool.size() + more

    async def rows(self, make: Callable[[Tables], Any], **values: Any) -> Sequence[Any]:
        """Execute a statement that only reads, for at most five seconds."""
        with answering("looking"):
            async with self._engine.begin() as connection:
                await connection.execute(_QUICKLY, {"limit": str(STATEMENT_MILLISECONDS)})
                return (await connection.execute(make(self._t), values)).all()

    async def settings(self, *names: str) -> dict[str, str]:
        """Return settings of the server by name; those this role may not see are left out."""
        found = await self.rows(inspection.settings, names=list(names))
        return {row.name: row.setting for row in found}

    async def embedded_directory(self) -> Path | None:
        """Return where the embedded server keeps its data; None for any other server."""
        data = (await self.settings("data_directory")).get("data_directory")
        found = None if data is None else Path(data).parent
        return found if found is not None and lease_path(found).exists() else None

    async def check_schema(self, stages: Stages) -> None:
        """Check that the tables are those of this version, and the lifecycle is one of theirs.

        Raises:
            SchemaMissing: They are not.
            LifecycleMismatch: It is not.
        """
        with answering("checking the schema"):
            async with self._engine.connect() as connection:
                await connection.run_sync(
                    migrate.check, self._t.schema, stages.graph, stages.kept_by_hand
                )

    async def lifecycles(self) -> list[Stored]:
        """Return the lifecycles that the database was migrated to, the newest last."""
        with answering("reading lifecycles"):
            async with self._engine.connect() as connection:
                return await connection.run_sync(registered, self._t.schema)

    async def pooler(self) -> tuple[bool, bool]:
        """Tell whether something stands between, and whether statements are prepared all the same.

        A pooler gives each client a number of its own, which is not the one that the server has.
        """
        with answering("looking for a pooler"):
            async with self._autocommit.connect() as connection:
                driver = await _driver(connection)
                row = (await connection.execute(inspection.server(self._t))).one()
                is_prepared = driver.prepare_threshold is not None
                return driver.info.backend_pid != row.backend, is_prepared

    async def hears(self) -> bool:
        """Tell whether a notification by another connection arrives within three seconds."""
        channel = f"{self._t.channel}_{secrets.token_hex(8)}"
        with answering("listening"):
            async with self._autocommit.connect() as listening:
                await listening.execute(sa.text(f'LISTEN "{channel}"'))
                try:
                    await self._notify(channel)
                    driver = await _driver(listening)
                    heard = driver.notifies(timeout=HEARD_WITHIN_SECONDS, stop_after=1)
                    return bool([one async for one in heard])
                finally:
                    await listening.execute(sa.text(f'UNLISTEN "{channel}"'))

    async def _notify(self, channel: str) -> None:
        async with self._autocommit.connect() as other:
            await other.execute(sa.select(sa.func.pg_notify(channel, "")))

    async def rehearse(self, stages: Stages) -> int:
        """Submit a document and claim as a worker does, then take all of it back.

        Returns:
            How many documents could be claimed: none where everything is paused.
        """
        with answering("rehearsing a claim"):
            async with self._engine.connect() as connection:
                undone = await connection.begin()
                try:
                    return await self._rehearsed(connection, stages)
                finally:
                    await undone.rollback()

    async def _rehearsed(self, connection: AsyncConnection, stages: Stages) -> int:
        incoming = Incoming(b"-", source_uri=f"{_REHEARSAL}:{uuid.uuid4()}", name=_REHEARSAL)
        submission = arrivals.prepare(incoming, _REHEARSAL)
        # Told to no log, for it will never have been there.
        await Documents(self._engine, self._t, stages).submit_new([submission], connection)
        me = (await connection.execute(workers.register(self._t), _ME)).scalar_one()
        places = [(bound.trigger, stages.leading_to(bound)) for bound in stages]
        values = {"worker": me, "documents": 1}
        for number in range(len(places)):
            values |= {f"free_{number}": 1, f"deadline_{number}": 60.0}
        statement = claims.claim(self._t, places, alone=False)
        return len((await connection.execute(statement, values)).all())


_ME = {"host": _REHEARSAL, "pid": 0, "version": "", "lifecycle": None, "serves": {}} | {
    "beat_seconds": USUAL.beat.total_seconds(),
    "dead_after_seconds": USUAL.dead_after.total_seconds(),
}


async def _driver(connection: Any) -> Any:
    """Return the driver's connection.

    Raises:
        PipelineError: It is another driver than psycopg.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    if not hasattr(driver, "pgconn"):
        raise PipelineError("this can be seen through psycopg only")
    return driver
