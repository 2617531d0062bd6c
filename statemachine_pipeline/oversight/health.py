"""Whether a pipeline does its work: its parts, each with a status, a sentence and what to do.

Nothing here costs money: of a provider only what its requests have shown is told.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from statemachine_pipeline.blobs import begin_to_read
from statemachine_pipeline.database import backlog
from statemachine_pipeline.database.cures import told
from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.providers import Providers
from statemachine_pipeline.database.statements import inspection
from statemachine_pipeline.database.timeouts import BoundedEngine, Timeouts
from statemachine_pipeline.errors import DatabaseUnavailable, PipelineError
from statemachine_pipeline.obstacles import TIME
from statemachine_pipeline.oversight.progress import judged
from statemachine_pipeline.oversight.status import Component, Health

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.blobs import Blobs
    from statemachine_pipeline.database.providers import ProviderStanding
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.stages import Stages

STANDSTILL: Final = timedelta(minutes=10)
"""How long work may be due while nothing moves."""
ANSWER_SECONDS: Final = 5.0
"""How long all parts together may take to answer; a probe does not wait for longer."""
BRISK: Final = Timeouts(statement=timedelta(seconds=2.5), lock=timedelta(seconds=1))
"""A connection without an answer is cut after 4.5 s, before the time is up. To cancel a statement
of a server that stands still would take ten seconds more."""
FREE_BYTES: Final = 500 * 1024 * 1024
BUSY: Final = "see what keeps the database or the network busy"
MIGRATE: Final = "run `statemachine-pipeline migrate` with the program that is to run"
DOCTOR: Final = "`statemachine-pipeline doctor` says what is wrong"


class Checkup:
    """Asks the parts of one pipeline how they do.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
        stages: The lifecycle and its hooks.
        check: Checks the schema, anew at each call.
        blobs: Where bytes are kept, if not in the database.
        server: The embedded server, if it is used.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        t: Tables,
        stages: Stages,
        check: Callable[[], Awaitable[None]],
        blobs: Blobs | None,
        server: Any,
    ) -> None:
        self._engine, self._t = BoundedEngine(engine, BRISK), t
        self._stages, self._check = stages, check
        self._blobs, self._server = blobs, server
        self._asking: set[asyncio.Task[Component]] = set()

    async def health(self, standstill: timedelta) -> Health:
        """Ask all parts; without the database the others that are in it are not asked."""
        until = time.monotonic() + ANSWER_SECONDS
        found = [await self._asked("database", self._database(), until)]
        if self._server is not None:
            found.append(await asyncio.to_thread(_embedded, self._server))
        if found[0].status == "failed":
            return Health(tuple(found))
        found.append(await self._asked("schema", self._schema(), until))
        if found[-1].status == "failed":
            return Health(tuple(found))
        if self._blobs is not None:
            found.append(await self._asked("blobs", self._stored(self._blobs), until))
        found += await self._providers(until)
        found.append(await self._asked("progress", self._progress(standstill, None), until))
        return Health(tuple(found))

    async def readiness(self, standstill: timedelta, triggers: Collection[str]) -> Health:
        """Ask what a worker needs that serves ``triggers``: database, schema, and that it moves."""
        until = time.monotonic() + ANSWER_SECONDS
        found = [await self._asked("database", self._database(), until)]
        if found[0].status != "failed":
            found.append(await self._asked("schema", self._schema(), until))
            found.append(await self._asked("progress", self._progress(standstill, triggers), until))
        return Health(tuple(found))

    async def _asked(
        self, name: str, look: Coroutine[None, None, Component], until: float
    ) -> Component:
        """Return what a part says, or that it did not answer in time.

        What is late is not waited for, and not cancelled either: its connection is cut.
        """
        asking = asyncio.create_task(_answer(name, look))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        await asyncio.wait({asking}, timeout=max(until - time.monotonic(), 0))
        if asking.done():
            return await asking
        who = "the store" if name == "blobs" else "the database"
        return Component(name, "failed", f"{who} did not answer within {ANSWER_SECONDS:g} s", BUSY)

    async def _database(self) -> Component:
        began = time.monotonic()
        try:
            with answering("asking whether it is there"):
                async with self._engine.connect() as connection:
                    await connection.execute(sa.select(sa.literal_column("1")))
        except PipelineError as error:
            return unwell("database", error)
        return Component("database", "ok", f"answers in {time.monotonic() - began:.3f} s")

    async def _schema(self) -> Component:
        try:
            await self._check()
        except DatabaseUnavailable:
            raise
        except PipelineError as error:
            return unwell("schema", error, MIGRATE)
        return Component("schema", "ok", f"holds {self._stages.graph.name}")

    async def _stored(self, blobs: Blobs) -> Component:
        with answering("looking for an object"):
            async with self._engine.connect() as connection:
                found = (await connection.execute(inspection.stored_object(self._t))).first()
        if found is None:
            return Component("blobs", "ok", "no document has bytes there yet, so it was not asked")
        fix = "see whether the store is there and this program's account may read it"
        try:
            await begin_to_read(blobs, found.key, size_bytes=1)
        except FileNotFoundError:
            gone = f"the object {found.key} is not there, and should be"
            return Component(
                "blobs", "failed", gone, "see whether it is the right bucket or prefix"
            )
        except Exception as error:  # noqa: BLE001 - whatever a store raises, it cannot be read
            return Component("blobs", "failed", f"the store cannot be read: {error}", fix)
        return Component("blobs", "ok", "an object can be read")

    async def _providers(self, until: float) -> list[Component]:
        found: list[Component] = []

        async def look() -> Component:
            found.extend(map(_provider, await Providers(self._engine, self._t).standings()))
            return Component("providers", "ok", "their requests are known")

        asked = await self._asked("providers", look(), until)
        return found if asked.status == "ok" else [asked]

    async def _progress(self, standstill: timedelta, triggers: Collection[str] | None) -> Component:
        found = await backlog.look(self._engine, self._t, self._stages)
        return judged(found, standstill, triggers)


async def _answer(name: str, look: Coroutine[None, None, Component]) -> Component:
    try:
        return await look
    except Exception as error:  # noqa: BLE001 - whatever keeps a part from telling is its health
        return unwell(name, error)


def unwell(name: str, error: BaseException, fix: str = DOCTOR) -> Component:
    """Return a part that could not be asked; ``fix`` where the error has no cure of its own."""
    known = told(error)
    return Component(name, "failed", known.found, known.fix or fix)


def _provider(one: ProviderStanding) -> Component:
    name = f"provider {one.provider}"
    if one.state != "closed":
        fix = "mend the provider or its account; one request tries it again by itself"
        when = f"not asked since {one.since:{TIME}}, tried again from {one.until:{TIME}}"
        return Component(name, "degraded", f"{when}: {one.reason}", fix)
    if one.blocked_until is not None:
        fix = "nothing, if it is seldom; else lower the budget, or have the limit raised"
        told = f"wants to be left alone until {one.blocked_until:{TIME}}"
        return Component(name, "degraded", told, fix)
    last = next(iter(one.changes), None)
    known = f"works again since {last.at:{TIME}}" if last else "was never found to be down"
    return Component(name, "ok", f"is asked; it {known}")


def _embedded(server: Any) -> Component:
    name, place = "embedded server", server.directory
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        fix = "put the folder back, or stop all programs that use it and begin anew"
        return Component(name, "failed", f"its folder {place}: {error.strerror}", fix)
    says = f"in {place}, {free / 1024**2:,.0f} MB of disk free"
    if free < FREE_BYTES:
        return Component(name, "degraded", says, "free some space on that disk")
    return Component(name, "ok", says)
