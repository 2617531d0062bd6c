"""One scenario, run again and again in a schema of its own: by one process, or by two."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from sqlalchemy.ext.asyncio import create_async_engine

from statemachine_pipeline.database.timeouts import Timeouts, connecting
from statemachine_pipeline.errors import PipelineError
from statemachine_pipeline.testing.crashing.processes import Point, Process, points
from statemachine_pipeline.testing.crashing.remains import Ground, Remains, broken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.pipeline import Pipeline

    Does: TypeAlias = Callable[[Pipeline], Awaitable[None]]

FIRST_SECONDS = 60.0
"""Real time that the first run may take."""
LEAST_SECONDS, PATIENCE = 30.0, 20.0
"""Real time after which a process is taken to hang: so many times the first run's, or the least,
which a machine that others keep busy may need for what took a moment before."""
WAITS_SECONDS = 0.2
"""How often what waits for its time is made due, by the fast clock."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a run is made of.

    Attributes:
        make: Called for each process.
        scenario: What the application does.
        check: Looks at what is left.
        reset: Empties what hooks write elsewhere.
        documents: Most that a runner has in hand.
    """

    make: Callable[[], Pipeline]
    scenario: Does
    check: Does | None
    reset: Does | None
    documents: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of one run.

    Attributes:
        first: The process that was to be harmed.
        calls: How often hooks were called in all.
        remains: What was left.
        error: What ended it before everything rested, or what ``check`` raised.
    """

    first: Process
    calls: int
    remains: Remains
    error: Exception | None


class Trial:
    """Runs a scenario on an engine of its own.

    Args:
        given: What a run is made of.
        engine: Of all processes; what a killed one had open is rolled back.
        ground: The schema.
    """

    def __init__(self, given: Given, engine: AsyncEngine, ground: Ground) -> None:
        self._given, self._engine, self._ground = given, engine, ground
        self._seconds = FIRST_SECONDS

    async def clean(self) -> tuple[Run, tuple[Point, ...]]:
        """Run it twice without harm; return the first run, and where both can be harmed.

        Raises:
            AssertionError: It breaks a promise by itself.
        """
        begun = time.monotonic()
        first = await self.run()
        self._seconds = max(LEAST_SECONDS, PATIENCE * (time.monotonic() - begun))
        again = await self.run()
        if problems := self.problems(first, first) or self.problems(again, first):
            raise AssertionError("\n".join(["no process was harmed, and yet:", *problems]))
        return first, tuple(points(first.first.steps, again.first.steps))

    async def run(self, point: Point | None = None) -> Run:
        """Run the scenario on empty tables, until everything rests."""
        self._ground.empty()
        error: Exception | None = None
        processes = [Process(point, stored=self._ground.stored)]
        waits = asyncio.create_task(self._let_waits_pass())
        try:
            await self._ask(self._given.reset)
            await self._live(processes)
            await self._ask(self._given.check)
        except Exception as raised:  # noqa: BLE001 - told as the story of this run
            error = raised
        finally:
            waits.cancel()
        calls = sum(process.calls for process in processes)
        return Run(first=processes[0], calls=calls, remains=self._ground.look(), error=error)

    def problems(self, run: Run, clean: Run) -> list[str]:
        """Name each promise that a run broke, with what was found."""
        # An attempt of each document in hand ends with the process, and none by a lost answer.
        most = self._given.documents if run.first.is_dead else 0
        graph = self._pipeline().graph
        found = list(broken(run.remains, clean.remains, graph, most_retries=most))
        if run.error is not None:
            found.insert(0, f"{type(run.error).__name__}: {run.error}")
        return found

    async def _live(self, processes: list[Process]) -> None:
        """Run one process, and another one if it did not end by itself."""
        handed_over = False

        async def program() -> None:
            nonlocal handed_over
            pipeline = self._pipeline()
            if not handed_over:
                await self._given.scenario(pipeline)
                handed_over = True
            await pipeline.runner(documents=self._given.documents).run_until_idle()

        if await processes[0].run(program, self._seconds):
            return
        self._ground.let_an_hour_pass()
        processes.append(Process())
        if not await processes[1].run(program, self._seconds):
            raise RuntimeError("the database did not answer the process that went on")

    async def _ask(self, does: Does | None) -> None:
        if does is not None:
            await does(self._pipeline())

    async def _let_waits_pass(self) -> None:
        while True:
            await asyncio.sleep(WAITS_SECONDS)
            self._ground.let_waits_pass()

    def _pipeline(self) -> Pipeline:
        return self._given.make().at(self._engine)


@contextlib.asynccontextmanager
async def trial(given: Given) -> AsyncIterator[Trial]:
    """Prepare the database that the pipeline names.

    Raises:
        PipelineError: There are documents in the schema.
    """
    pipeline = given.make()
    async with contextlib.AsyncExitStack() as stack:
        try:
            url = pipeline.engine.url
        except PipelineError:  # it is not open
            url = (await stack.enter_async_context(pipeline)).engine.url
        address = url.render_as_string(hide_password=False)
        ground = stack.enter_context(contextlib.closing(Ground(address, pipeline.schema)))
        if count := ground.count():
            raise PipelineError(
                f"schema {pipeline.schema!r} of database {url.database!r} has {count} documents, "
                "and they would be removed; name a database or a schema of this test alone"
            )
        engine = await stack.enter_async_context(_engine(address))
        await pipeline.at(engine).migrate()
        yield Trial(given, engine, ground)


@contextlib.asynccontextmanager
async def _engine(address: str) -> AsyncIterator[AsyncEngine]:
    """Connect, and close every connection in the end.

    SQLAlchemy loses one that was just made when the task that made it is cancelled.
    """
    made: list[psycopg.AsyncConnection[Any]] = []

    async def connect(**given: Any) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(**given)
        made.append(connection)
        return connection

    options = connecting(address, Timeouts())
    options.setdefault("connect_args", {})["async_creator_fn"] = connect
    engine = create_async_engine(**options)
    try:
        yield engine
    finally:
        await engine.dispose()
        for connection in made:
            await connection.close()
