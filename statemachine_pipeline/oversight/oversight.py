"""Questions about a whole pipeline: ``pipeline.operations.oversight``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.database.inspection import Inspection
from statemachine_pipeline.oversight import doctor, workers
from statemachine_pipeline.oversight.checks.verdicts import Subject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.blobs import Blobs
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.oversight.doctor import Finding
    from statemachine_pipeline.oversight.workers import WorkerStanding
    from statemachine_pipeline.stages import Stages


class Oversight:
    """Looks at a whole pipeline; changes nothing. Made by ``Pipeline.operations``.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
        stages: The lifecycle and its hooks.
        ready: Awaited before the first statement: checks the schema.
        blobs: Where bytes are kept outside the database.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        t: Tables,
        stages: Stages,
        ready: Callable[[], Awaitable[None]],
        blobs: Blobs | None,
    ) -> None:
        self._engine, self._t, self._stages, self._ready = engine, t, stages, ready
        self._blobs = blobs

    async def doctor(self) -> list[Finding]:
        """Look for what is wrong or will be: server, tables, rights, hooks, workers, failures.

        Changes nothing and asks no provider; takes a second or two. A check that cannot be made is
        a finding too, so this raises nothing where the database is away or has no tables.

        Returns:
            A finding for each check, those that are well among them, in the order of the reference.
        """
        subject = Subject(
            inspection=Inspection(self._engine, self._t),
            engine=self._engine,
            t=self._t,
            stages=self._stages,
            blobs=self._blobs,
        )
        return await doctor.examine(subject)

    async def workers(self) -> list[WorkerStanding]:
        """Return every worker that is known, the oldest first; who ended well is not any more."""
        await self._ready()
        return await workers.standings(self._engine, self._t)
