"""The exporter goes on: after a migration, a refusal, with its stderr closed; and who is none."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import hand, pipeline_with
from fix_probes import page
from sqlalchemy.ext.asyncio import create_async_engine
from statemachine import State

from statemachine_pipeline import Lifecycle, Pipeline
from statemachine_pipeline.cli.asking import UNREACHABLE, ask
from statemachine_pipeline.cli.exporter import _Reading
from statemachine_pipeline.database.statements import gauges
from statemachine_pipeline.hooks import Done
from statemachine_pipeline.oversight.listening import Listening

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables

    Psql = psycopg.Connection[Any]


class Short(Lifecycle):
    """One step."""

    uploaded = State(initial=True)
    looked_at = State(final=True)

    look = uploaded.to(looked_at)


class Longer(Lifecycle):
    """Another first step."""

    uploaded = State(initial=True)
    checked = State()
    looked_at = State(final=True)

    check = uploaded.to(checked)
    look = checked.to(looked_at)


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


async def _pass(_: object) -> Done:
    return Done()


async def test_gauges_follow_a_migration(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``smp_oldest_ready_age_seconds`` is of the stages that there are now."""
    monkeypatch.setattr("statemachine_pipeline.database.gauges.KEPT_SECONDS", 0.0)
    monkeypatch.setattr("statemachine_pipeline.database.gauges.SHARE", float("inf"))
    engine = create_async_engine(empty_url)
    try:
        short = Pipeline(engine, lifecycle=Short, hooks={"look": _pass})
        longer = Pipeline(engine, lifecycle=Longer, hooks={"check": _pass, "look": _pass})
        await short.migrate()
        read = short.operations.oversight.gauges().metrics
        await short.submit(b"text")
        assert 'smp_oldest_ready_age_seconds{stage="look"}' in (await read()).snapshot()
        await longer.migrate()
        assert 'smp_oldest_ready_age_seconds{stage="check"}' in (await read()).snapshot()
    finally:
        await engine.dispose()


async def test_who_is_silent_is_seen_however_long_documents_are_counted(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reading is kept for a hundred times as long as it takes; that of workers takes no time."""
    clock = Clock()

    def as_if_there_were_millions(
        t: Tables, count: Callable[[Tables], Any] = gauges.backlog
    ) -> Any:
        clock.now += 5.0
        return count(t)

    monkeypatch.setattr("statemachine_pipeline.database.gauges.time", clock)
    monkeypatch.setattr(gauges, "backlog", as_if_there_were_millions)
    pipeline = pipeline_with(engine)
    await hand(pipeline)
    read = pipeline.operations.oversight.gauges().metrics
    assert (await read()).snapshot()['smp_workers{status="silent"}'] == 0
    psql.execute("UPDATE worker SET beat_at = now() - interval '1 hour'")
    await pipeline.submit(b"text")
    clock.now += 11.0
    found = (await read()).snapshot()
    assert found['smp_workers{status="silent"}'] == 1
    assert 'smp_documents{state="uploaded",lane="ready"}' not in found


async def test_a_refusal_is_answered_and_told_once(
    engine: AsyncEngine, psql: Psql, capsys: pytest.CaptureFixture[str]
) -> None:
    """'Return the numbers, or why there are none': also of a role that may not read a table."""
    reading = _Reading(
        pipeline_with(engine).operations.oversight.gauges(), asyncio.get_running_loop()
    )
    psql.execute("ALTER TABLE pause RENAME COLUMN fault TO fault_")
    for _ in range(2):
        answer = await asyncio.to_thread(reading.page)
        assert (answer.code, answer.body) == (503, b"column pause.fault does not exist\n")
    told = capsys.readouterr().err
    assert told.count("column pause.fault does not exist; /metrics answers 503") == 1


async def test_numbers_are_served_though_nobody_reads_what_is_said(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that was closed, a pipe whose reader is gone."""
    reading = _Reading(
        pipeline_with(engine).operations.oversight.gauges(), asyncio.get_running_loop()
    )
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    psql.execute("ALTER TABLE pause RENAME COLUMN fault TO fault_")
    assert (await asyncio.to_thread(reading.page)).code == 503
    psql.execute("ALTER TABLE pause RENAME COLUMN fault_ TO fault")
    assert (await asyncio.to_thread(reading.page)).code == 200


async def test_health_of_who_is_no_worker_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """'5 when nobody answers': nor does a worker where another server does, or no port is."""
    listening = Listening("127.0.0.1", 0, {})
    try:
        for port, told in (
            (listening.port, "/readyz is no page of health there"),
            (99_999, "nobody answers at 127.0.0.1 port 99999"),
        ):
            with pytest.raises(SystemExit) as ended:
                await asyncio.to_thread(ask, "127.0.0.1", port, "/readyz", False)
            assert ended.value.code == UNREACHABLE
            assert told in capsys.readouterr().err
            with pytest.raises(SystemExit):
                await asyncio.to_thread(ask, "127.0.0.1", port, "/readyz", True)
            (component,) = json.loads(capsys.readouterr().out)["components"]
            assert (component["name"], told in component["says"]) == ("worker", True)
    finally:
        await asyncio.to_thread(listening.stop)


async def test_a_page_that_breaks_is_answered() -> None:
    """Who asks is told that it broke, and not hung up on; never what it said."""

    def broken() -> Any:
        raise ValueError("a word of a document")

    listening = Listening("127.0.0.1", 0, {"/metrics": broken})
    try:
        assert await page(listening.port, "/metrics") == (500, '{"error": "ValueError"}\n')
    finally:
        await asyncio.to_thread(listening.stop)
