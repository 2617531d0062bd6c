"""A whole pipeline in numbers, for one exporter of the fleet; read seldom, whoever asks how often.

Counting documents reads all of them: those that rest, and those that are on their way. So each
reading is kept for at least ten seconds, and for long enough that reading takes at most a hundredth
of the time; but none is served that is older than a minute, as alerts would look at what was. Ages
grow on between two readings. What is read in no time is a reading of its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import sqlalchemy as sa

from statemachine_pipeline.database import backlog
from statemachine_pipeline.database.mapping import answering, took_too_long
from statemachine_pipeline.database.statements import gauges, inspection
from statemachine_pipeline.database.stored import stored_stages
from statemachine_pipeline.errors import DatabaseUnavailable, SchemaAhead
from statemachine_pipeline.observability import instruments
from statemachine_pipeline.observability.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.stages import Stages

KEPT_SECONDS: Final = 10.0
SHARE: Final = 0.01
"""Of the time that reading may take."""
SERVED_SECONDS: Final = 60.0
"""Age of a reading that is not served any more; the next begins after two thirds of it at most."""
RESTING_SECONDS: Final = 300.0
"""The same of documents at rest: they do not age, no alert looks at them, and of ten millions one
reading takes several seconds."""
PATIENCE_SECONDS: Final = 2.0
"""How long who asks waits for the next reading while the last may be served. Prometheus waits ten
seconds for a page, and each that it misses begins the time anew for which an alert has to hold."""
DEAD_SECONDS: Final = 60.0
"""How long a worker counts as silent after it was declared dead, so that every scrape sees it."""

_OTHERS: Final = (
    *(gauges.fleet, gauges.letters, gauges.paused, gauges.providers, gauges.withdrawals),
    *(gauges.sizes, inspection.oldest_transaction, gauges.revision),
)
"""What is read beside documents, in some milliseconds."""

_CLOCK: Final = sa.select(sa.func.clock_timestamp())


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """What a statement found, and when it was asked, by the clocks of this process and the server.

    Not when it began, which is later by as long as it waited for a lock. The server's is None where
    it did not answer.
    """

    rows: Sequence[Any]
    asked_at: float
    server_at: datetime | None = None

    @property
    def seconds(self) -> float:
        """How long ago that was."""
        return time.monotonic() - self.asked_at

    def age(self, then: datetime) -> float:
        """Return how long ago a time in one of the rows is now."""
        if self.server_at is None:
            return 0.0
        return max((self.server_at - then).total_seconds() + self.seconds, 0.0)


_Reading: TypeAlias = "Mapping[str, _Found]"


class _Kept:
    """One reading that is kept for a while; who asks meanwhile gets it, or waits for the next.

    Args:
        read: Reads anew.
        most: Age in seconds beyond which it is not served.
    """

    def __init__(self, read: Callable[[], Awaitable[_Reading]], most: float) -> None:
        self._read, self._most = read, most
        self._last: _Reading = {}
        self._renewing: asyncio.Task[_Reading] | None = None
        self._until = float("-inf")

    @property
    def seconds(self) -> float:
        """How old it is."""
        return max((found.seconds for found in self._last.values()), default=float("inf"))

    async def get(self) -> _Reading:
        """Return what was read last; while that may be served, the next is waited for briefly.

        So it is while statements of the next take too long. A database that is away is told.
        """
        if self._renewing is None and time.monotonic() >= self._until:
            self._renewing = asyncio.create_task(self._renew())
            self._renewing.add_done_callback(_heard)
        if (renewing := self._renewing) is not None:
            is_young = self.seconds < self._most
            await asyncio.wait({renewing}, timeout=PATIENCE_SECONDS if is_young else None)
            if renewing.done() and not (is_young and _was_late(renewing)):
                return renewing.result()
        return self._last

    async def _renew(self) -> _Reading:
        began = time.monotonic()
        try:
            self._last = await self._read()
            took = time.monotonic() - began
            kept = min(max(KEPT_SECONDS, took / SHARE), self._most * 2 / 3)
            self._until = time.monotonic() + kept
            return self._last
        finally:
            self._renewing = None


def _was_late(renewing: asyncio.Task[_Reading]) -> bool:
    error = None if renewing.cancelled() else renewing.exception()
    return error is not None and took_too_long(error.__cause__)


def _heard(renewing: asyncio.Task[_Reading]) -> None:
    """Keep asyncio from complaining of an error for which nobody waited: the next who asks will."""
    if not renewing.cancelled():
        renewing.exception()


class Gauges:
    """Reads the gauges of one schema.

    Args:
        engine: An async engine.
        t: The pipeline's tables.
        stages: Where each state leads to, while the database knows no newer lifecycle: who reads
            gauges is seldom started anew when it is migrated.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, stages: Stages) -> None:
        self._engine, self._t, self._stages = engine, t, stages
        self._parts = {
            "resting": _Kept(self._read_resting, RESTING_SECONDS),
            "moving": _Kept(self._read_moving, SERVED_SECONDS),
            "others": _Kept(self._read_others, SERVED_SECONDS),
        }

    async def metrics(self) -> Metrics:
        """Return the gauges as they stood some seconds ago, and at most a minute.

        Ages are those of now. Where there are many documents, they are counted less often; those
        that rest every five minutes at least, and they are left out while that takes too long.

        Raises:
            DatabaseUnavailable: It did not answer.
        """
        metrics = Metrics()
        rows: dict[str, _Found] = {}
        for part, kept in self._parts.items():
            rows |= await kept.get()
            metrics.set(instruments.READING, kept.seconds, part=part)
        _fill_queue(metrics, rows["backlog"], self._stages)
        _fill_fleet(metrics, rows["fleet"])
        _fill_serving(metrics, rows["fleet"], self._stages)
        for fill in (_fill_resting, _fill_trouble, _fill_server):
            fill(metrics, rows)
        return metrics

    async def _read_resting(self) -> _Reading:
        await self._follow()
        began = time.monotonic()
        given = {"states": sorted(self._stages.graph.resting)}
        try:
            with answering("counting documents"):
                async with self._engine.begin() as connection:
                    await backlog.bound(connection)
                    return {"resting": await _ask(connection, gauges.resting(self._t), given)}
        except DatabaseUnavailable as error:
            if took_too_long(error.__cause__):
                return {"resting": _Found((), began)}
            raise

    async def _read_moving(self) -> _Reading:
        await self._follow()
        served = backlog.served(self._stages)
        with answering("counting what is on its way"):
            async with self._engine.begin() as connection:
                await backlog.bound(connection)
                return {"backlog": await _ask(connection, gauges.backlog(self._t), served)}

    async def _read_others(self) -> _Reading:
        with answering("reading gauges"):
            async with self._engine.begin() as connection:
                await backlog.bound(connection)
                return {
                    statement.__name__: await _ask(connection, statement(self._t))
                    for statement in _OTHERS
                }

    async def _follow(self) -> None:
        try:
            stored = await stored_stages(self._engine, self._t.schema)
        except SchemaAhead:  # while a newer version is rolled out, what it can read is wanted most
            return
        if stored.graph.fingerprint != self._stages.graph.fingerprint:
            self._stages = stored


async def _ask(
    connection: AsyncConnection, statement: Any, given: Mapping[str, Any] | None = None
) -> _Found:
    server_at = (await connection.execute(_CLOCK)).scalar_one()
    asked_at = time.monotonic()
    return _Found((await connection.execute(statement, given)).all(), asked_at, server_at)


def _fill_resting(metrics: Metrics, rows: _Reading) -> None:
    for row in rows["resting"].rows:
        metrics.set(instruments.DOCUMENTS, row.documents, state=row.state, lane="")


def _fill_queue(metrics: Metrics, found: _Found, stages: Stages) -> None:
    waits: dict[str, float] = {}
    runs: dict[str, float] = {}
    for row in found.rows:
        metrics.set(instruments.DOCUMENTS, row.documents, state=row.state, lane=row.lane)
        for ages, since in ((waits, row.due_at), (runs, row.claimed_at)):
            for stage in stages.awaited_at(row.state) if since is not None else ():
                ages[stage] = max(found.age(since), ages.get(stage, 0.0))
    for stage, seconds in waits.items():
        metrics.set(instruments.OLDEST_READY, seconds, stage=stage)
    for stage, seconds in runs.items():
        metrics.set(instruments.OLDEST_CLAIM, seconds, stage=stage)


def _fill_fleet(metrics: Metrics, found: _Found) -> None:
    counts = dict.fromkeys(("working", "draining", "silent"), 0)
    for row in found.rows:
        if row.goes_on_as is not None:
            continue  # another row is of the same process
        if row.dead_at is None or backlog.age(row, row.dead_at) < DEAD_SECONDS:
            silent = row.dead_at or row.is_silent
            counts["silent" if silent else "draining" if row.draining else "working"] += 1
    for status, count in counts.items():
        metrics.set(instruments.WORKERS, count, status=status)
    told = [found.age(row.settled_at) for row in found.rows if row.settled_at]
    if told:
        metrics.set(instruments.PROGRESS, min(told))


def _fill_serving(metrics: Metrics, found: _Found, stages: Stages) -> None:
    working = [row.serves.keys() for row in found.rows if row.lives and not row.draining]
    ways = [stages.awaited_at(state) for state in stages.graph.states]
    for stage in stages.earned:
        # Who serves one of several stages takes what waits before all of them.
        together = {one for way in ways if stage in way for one in way}
        taking = sum(1 for serves in working if not serves.isdisjoint(together))
        metrics.set(instruments.SERVING, taking, stage=stage)


def _fill_trouble(metrics: Metrics, rows: _Reading) -> None:
    for row in rows["letters"].rows:
        metrics.set(instruments.DEAD_LETTERS, row.documents, stage=row.stage, code=row.code)
    for row in rows["paused"].rows:
        fault = "true" if row.fault else "false"
        metrics.set(instruments.PAUSES, row.pauses, stage=row.stage, fault=fault)
    for row in rows["providers"].rows:
        metrics.set(instruments.PROVIDER_CLOSED, float(row.is_down), provider=row.provider)
    for row in rows["withdrawals"].rows:
        metrics.set(instruments.WITHDRAWALS, row.documents, stage=row.stage)


def _fill_server(metrics: Metrics, rows: _Reading) -> None:
    for row in rows["sizes"].rows:
        metrics.set(instruments.TABLE_BYTES, row.bytes, table=row.name)
        metrics.set(instruments.DEAD_ROWS, row.dead_rows, table=row.name)
        metrics.set(instruments.LIVE_ROWS, row.live_rows, table=row.name)
    oldest = rows["oldest_transaction"]
    ages = (max(row.seconds, 0.0) + oldest.seconds for row in oldest.rows)
    metrics.set(instruments.OLDEST_TRANSACTION, max(ages, default=0.0))
    for row in rows["revision"].rows:
        metrics.set(instruments.SCHEMA_VERSION, 1, revision=row.version_num)
