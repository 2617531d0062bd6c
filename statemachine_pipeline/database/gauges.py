"""A whole pipeline in numbers, for one exporter of the fleet; read seldom, whoever asks how often.

Counting documents reads all of them: those that rest, and those that are on their way. So each
reading is kept for at least ten seconds, and for long enough that reading takes at most a hundredth
of the time. What is read in no time is a reading of its own: a million documents on their way take
about a second, and a worker that died is silent for less than the hundred of which that is one.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.database import backlog
from statemachine_pipeline.database.mapping import answering, took_too_long
from statemachine_pipeline.database.statements import gauges, inspection
from statemachine_pipeline.database.stored import stored_stages
from statemachine_pipeline.errors import DatabaseUnavailable, SchemaAhead
from statemachine_pipeline.observability import instruments
from statemachine_pipeline.observability.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.stages import Stages

KEPT_SECONDS: Final = 10.0
SHARE: Final = 0.01
"""Of the time that reading may take."""
DEAD_SECONDS: Final = 60.0
"""How long a worker counts as silent after it was declared dead, so that every scrape sees it."""

_OTHERS: Final = (
    *(gauges.fleet, gauges.letters, gauges.paused, gauges.providers, gauges.withdrawals),
    *(gauges.sizes, inspection.oldest_transaction, gauges.revision),
)
"""What is read beside documents, in some milliseconds."""


class _Kept:
    """One reading that is kept for a while; who asks meanwhile gets it, or waits for the next."""

    def __init__(self, read: Callable[[], Awaitable[Any]]) -> None:
        self._read, self._turn = read, asyncio.Lock()
        self._value: Any = None
        self._until = float("-inf")

    async def get(self) -> Any:
        async with self._turn:
            began = time.monotonic()
            if began >= self._until:
                self._value = await self._read()
                took = time.monotonic() - began
                self._until = time.monotonic() + max(KEPT_SECONDS, took / SHARE)
            return self._value


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
        self._resting, self._moving = _Kept(self._read_resting), _Kept(self._read_moving)
        self._others = _Kept(self._read_others)

    async def metrics(self) -> Metrics:
        """Return the gauges as they stood at most ten seconds ago, or as long as reading allows.

        Where there are many documents, they are counted less often. Those that rest are left out
        while that takes too long.

        Raises:
            DatabaseUnavailable: It did not answer.
        """
        metrics = Metrics()
        for state, count in (await self._resting.get()).items():
            metrics.set(instruments.DOCUMENTS, count, state=state, lane="")
        rows = await self._moving.get() | await self._others.get()
        _fill_queue(metrics, rows, self._stages)
        for fill in (_fill_fleet, _fill_trouble, _fill_server):
            fill(metrics, rows)
        return metrics

    async def _read_resting(self) -> dict[str, int]:
        await self._follow()
        given = {"states": sorted(self._stages.graph.resting)}
        try:
            with answering("counting documents"):
                async with self._engine.begin() as connection:
                    await backlog.bound(connection)
                    found = await connection.execute(gauges.resting(self._t), given)
                    return {row.state: row.documents for row in found}
        except DatabaseUnavailable as error:
            if took_too_long(error.__cause__):
                return {}
            raise

    async def _read_moving(self) -> dict[str, Any]:
        await self._follow()
        served = backlog.served(self._stages)
        with answering("counting what is on its way"):
            async with self._engine.begin() as connection:
                await backlog.bound(connection)
                found = await connection.execute(gauges.backlog(self._t), served)
                return {"backlog": found.all()}

    async def _read_others(self) -> dict[str, Any]:
        found = {}
        with answering("reading gauges"):
            async with self._engine.begin() as connection:
                await backlog.bound(connection)
                for statement in _OTHERS:
                    rows = (await connection.execute(statement(self._t))).all()
                    found[statement.__name__] = rows
        return found

    async def _follow(self) -> None:
        try:
            stored = await stored_stages(self._engine, self._t.schema)
        except SchemaAhead:  # while a newer version is rolled out, what it can read is wanted most
            return
        if stored.graph.fingerprint != self._stages.graph.fingerprint:
            self._stages = stored


def _fill_queue(metrics: Metrics, rows: dict[str, Any], stages: Stages) -> None:
    waits: dict[str, float] = {}
    runs: dict[str, float] = {}
    for row in rows["backlog"]:
        metrics.set(instruments.DOCUMENTS, row.documents, state=row.state, lane=row.lane)
        for ages, since in ((waits, row.due_at), (runs, row.claimed_at)):
            for stage in stages.awaited_at(row.state) if since is not None else ():
                ages[stage] = max(backlog.age(row, since), ages.get(stage, 0.0))
    for stage, seconds in waits.items():
        metrics.set(instruments.OLDEST_READY, seconds, stage=stage)
    for stage, seconds in runs.items():
        metrics.set(instruments.OLDEST_CLAIM, seconds, stage=stage)


def _fill_fleet(metrics: Metrics, rows: dict[str, Any]) -> None:
    counts = dict.fromkeys(("working", "draining", "silent"), 0)
    for row in rows["fleet"]:
        if row.goes_on_as is not None:
            continue  # another row is of the same process
        if row.dead_at is None or backlog.age(row, row.dead_at) < DEAD_SECONDS:
            silent = row.dead_at or row.is_silent
            counts["silent" if silent else "draining" if row.draining else "working"] += 1
    for status, count in counts.items():
        metrics.set(instruments.WORKERS, count, status=status)
    told = [backlog.age(row, row.settled_at) for row in rows["fleet"] if row.settled_at]
    if told:
        metrics.set(instruments.PROGRESS, min(told))


def _fill_trouble(metrics: Metrics, rows: dict[str, Any]) -> None:
    for row in rows["letters"]:
        metrics.set(instruments.DEAD_LETTERS, row.documents, stage=row.stage, code=row.code)
    for row in rows["paused"]:
        fault = "true" if row.fault else "false"
        metrics.set(instruments.PAUSES, row.pauses, stage=row.stage, fault=fault)
    for row in rows["providers"]:
        metrics.set(instruments.PROVIDER_CLOSED, float(row.is_down), provider=row.provider)
    for row in rows["withdrawals"]:
        metrics.set(instruments.WITHDRAWALS, row.documents, stage=row.stage)


def _fill_server(metrics: Metrics, rows: dict[str, Any]) -> None:
    for row in rows["sizes"]:
        metrics.set(instruments.TABLE_BYTES, row.bytes, table=row.name)
        metrics.set(instruments.DEAD_ROWS, row.dead_rows, table=row.name)
        metrics.set(instruments.LIVE_ROWS, row.live_rows, table=row.name)
    oldest = max((row.seconds for row in rows["oldest_transaction"]), default=0.0)
    metrics.set(instruments.OLDEST_TRANSACTION, max(oldest, 0.0))
    for row in rows["revision"]:
        metrics.set(instruments.SCHEMA_VERSION, 1, revision=row.version_num)
