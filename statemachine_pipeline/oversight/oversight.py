"""Questions about a whole pipeline: ``pipeline.operations.oversight``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.gauges import Gauges
from statemachine_pipeline.database.inspection import Inspection
from statemachine_pipeline.oversight import doctor, workers
from statemachine_pipeline.oversight.checks.verdicts import Subject
from statemachine_pipeline.oversight.health import STANDSTILL, Checkup
from statemachine_pipeline.oversight.probes import HOST, Patience, Probes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.blobs import Blobs
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.oversight.doctor import Finding
    from statemachine_pipeline.oversight.status import Health
    from statemachine_pipeline.oversight.workers import WorkerStanding
    from statemachine_pipeline.runner.loop import Runner
    from statemachine_pipeline.stages import Stages


class Oversight:
    """Looks at a whole pipeline; changes nothing. Made by ``Pipeline.operations``.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
        stages: The lifecycle and its hooks.
        ready: Checks the schema, anew at each call.
        blobs: Where bytes are kept, if not in the database.
        server: The embedded server, if it is used.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        t: Tables,
        stages: Stages,
        ready: Callable[[], Awaitable[None]],
        blobs: Blobs | None,
        server: Any,
    ) -> None:
        self._engine, self._t, self._stages, self._ready = engine, t, stages, ready
        self._blobs = blobs
        self._checkup = Checkup(engine, t, stages, ready, blobs, server)

    async def health(self, *, standstill: timedelta = STANDSTILL) -> Health:
        """Tell how each part does, and whether documents move; never raises for what it finds.

        Asks no provider: of each it tells what the fleet's requests have shown.

        Args:
            standstill: How long work may be due while nothing moves.
        """
        return await self._checkup.health(standstill)

    def probes(
        self, runner: Runner, *, port: int, host: str = HOST, patience: Patience | None = None
    ) -> Probes:
        """Return what serves `/livez`, `/readyz`, `/startupz` and `/metrics` of a runner.

        Enter it after the runner, so that it listens for as long as that works::

            async with pipeline.runner() as runner:
                async with pipeline.operations.oversight.probes(runner, port=8080):
                    ...

        Args:
            runner: Of this pipeline.
            port: Port to listen at; 0 takes a free one, which ``port`` of the answer tells.
            host: Address to listen at; nobody but this machine by default.
            patience: From when on something is wrong.
        """
        given = patience or Patience()
        asked = given.standstill, runner.vitals.serves
        readiness = functools.partial(self._checkup.readiness, *asked)
        return Probes(runner.vitals, readiness, host=host, port=port, patience=given)

    def gauges(self) -> Gauges:
        """Return what reads the numbers of the whole pipeline, and keeps them for a while.

        Made once for each exporter, of which a fleet needs one.
        """
        return Gauges(self._engine, self._t, self._stages)

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
