"""Questions about a whole pipeline: ``pipeline.operations.oversight``."""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import TYPE_CHECKING

from statemachine_pipeline.database.gauges import Gauges
from statemachine_pipeline.database.inspection import Inspection
from statemachine_pipeline.database.listings import Listings, Which
from statemachine_pipeline.database.usage import used
from statemachine_pipeline.oversight import doctor, top, workers
from statemachine_pipeline.oversight.checks.verdicts import Subject
from statemachine_pipeline.oversight.health import STANDSTILL
from statemachine_pipeline.oversight.probes import HOST, Patience, Probes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime, timedelta
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.blobs import Blobs
    from statemachine_pipeline.database.listings import GroupKey, Groups
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.database.usage import Usage, UsageKey
    from statemachine_pipeline.oversight.doctor import Diagnosis
    from statemachine_pipeline.oversight.health import Checkup
    from statemachine_pipeline.oversight.status import Health
    from statemachine_pipeline.oversight.top import Top
    from statemachine_pipeline.oversight.workers import WorkerStanding
    from statemachine_pipeline.records import Document
    from statemachine_pipeline.runner.loop import Runner
    from statemachine_pipeline.stages import Stages

NO_PRICES: Mapping[str, float] = MappingProxyType({})
EVERYTHING = Which()


class Oversight:
    """Looks at a whole pipeline; changes nothing. Made by ``Pipeline.operations``.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
        stages: The lifecycle and its hooks.
        ready: Awaited before the first statement: checks the schema.
        blobs: Where bytes are kept, if not in the database.
        checkup: Asks the parts how they do.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        t: Tables,
        stages: Stages,
        ready: Callable[[], Awaitable[None]],
        blobs: Blobs | None,
        checkup: Checkup,
    ) -> None:
        self._engine, self._t, self._stages, self._ready = engine, t, stages, ready
        self._blobs = blobs
        self._checkup = checkup

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

    async def doctor(self) -> list[Diagnosis]:
        """Look for what is wrong or will be: server, tables, rights, hooks, workers, failures.

        Changes nothing and asks no provider; takes a second or two. A check that cannot be made has
        failed, so this raises nothing where the database is away or has no tables.

        Returns:
            One for each check, those that are well among them, in the order of the reference.
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
        return await workers.standings(self._engine, self._t, self._stages)

    async def top(self) -> Top:
        """Return what waits and runs at each stage now, how fast, and what limits the slowest."""
        await self._ready()
        return await top.top(self._engine, self._t, self._stages)

    async def documents(
        self, which: Which = EVERYTHING, *, after: UUID | None = None, limit: int = 100
    ) -> list[Document]:
        """Return documents that match in the order they came; ``after`` the last of a page.

        Raises:
            DocumentNotFound: There is no document ``after``.
        """
        await self._ready()
        return await Listings(self._engine, self._t, self._stages).page(which, after, limit)

    async def groups(self, by: GroupKey, which: Which = EVERYTHING) -> Groups:
        """Return how many documents match, by state, stage, tenant or code.

        Of more than 100,000 that match, the newest are counted, and the answer says so.
        """
        await self._ready()
        return await Listings(self._engine, self._t, self._stages).groups(which, by)

    async def usage(
        self,
        *,
        by: UsageKey = "tenant",
        since: datetime | None = None,
        tenant: str | None = None,
        prices: Mapping[str, float] = NO_PRICES,
        limit: int = 1000,
    ) -> list[Usage]:
        """Return the tokens that requests were charged for, the most first.

        What a provider counted for a request is divided among its documents by their estimated
        tokens, and estimates stand for it where it does not say. Attempts that failed count too.
        What was charged in an attempt whose end was never written, because its worker died or lost
        its claim, is in no row.

        Args:
            by: What they are added up by.
            since: Of attempts that ended at this time or later; with a time zone.
            tenant: Only this tenant's.
            prices: What a million tokens of a stage cost, by its trigger.
            limit: Most tenants, days, stages or documents.

        Raises:
            ValueError: A price is for no stage, or ``since`` has no time zone.
        """
        await self._ready()
        return await used(
            self._engine,
            self._t,
            self._stages,
            by=by,
            since=since,
            tenant=tenant,
            prices=prices,
            limit=limit,
        )
