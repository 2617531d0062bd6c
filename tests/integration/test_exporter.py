"""The exporter goes on: after a migration, a refusal, with its stderr closed; and who is none."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fix_lifecycles import Longer, Short
from fix_pipelines import hand, pipeline_with
from fix_probes import page
from sqlalchemy.ext.asyncio import create_async_engine

from statemachine_pipeline import Pipeline
from statemachine_pipeline.cli.asking import UNREACHABLE, ask
from statemachine_pipeline.cli.exporter import _Reading
from statemachine_pipeline.database.statements import gauges
from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.hooks import Done
from statemachine_pipeline.oversight.listening import Listening

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables

    Psql = psycopg.Connection[Any]


async def test_why_it_ends_is_an_error_of_its_log(database_url: str) -> None:
    """Whoever reads the log for errors only finds the one that matters most."""
    words = ("--schema", "nothing_there", "--log-format", "json", "--log-level", "ERROR")
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "statemachine_pipeline", "exporter", "--port", "0"),
        *("--database", database_url, *words),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await program.communicate()
    line = json.loads(said)
    assert (program.returncode, line["severity_text"]) == (1, "ERROR")
    assert line["body"].startswith("error: ")


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


def as_if_there_were_millions(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let counting what is on its way take five seconds, by the clock that is returned."""
    clock = Clock()

    def slow(t: Tables, count: Callable[[Tables], Any] = gauges.backlog) -> Any:
        clock.now += 5.0
        return count(t)

    monkeypatch.setattr("statemachine_pipeline.database.gauges.time", clock)
    monkeypatch.setattr(gauges, "backlog", slow)
    return clock


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
    clock = as_if_there_were_millions(monkeypatch)
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


async def test_ages_grow_between_two_readings_and_none_is_served_after_a_minute(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'Ages are those of now', of what was read 'at most a minute' ago, however long that took."""
    clock = as_if_there_were_millions(monkeypatch)
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text")
    read = pipeline.operations.oversight.gauges().metrics
    before = (await read()).snapshot()
    clock.now += 39.0
    after = (await read()).snapshot()
    age, waits = 'smp_reading_age_seconds{part="moving"}', "smp_oldest_ready_age_seconds{stage="
    (waits,) = (name for name in before if name.startswith(waits))
    assert (before[age], after[age]) == (0.0, 39.0)
    assert after[waits] - before[waits] == pytest.approx(39.0)
    assert after['smp_reading_age_seconds{part="others"}'] == 0.0, "it was read anew"

    await pipeline.submit(b"another")
    clock.now += 2.0
    found = (await read()).snapshot()
    assert found['smp_documents{state="uploaded",lane="ready"}'] == 2
    assert found[age] == 0.0


async def test_the_last_reading_stands_in_for_one_that_is_late_until_it_is_too_old(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is late is missed, and 'the time begins anew for which an alert has to hold'."""
    clock = Clock()
    monkeypatch.setattr("statemachine_pipeline.database.gauges.time", clock)
    monkeypatch.setattr("statemachine_pipeline.database.gauges.PATIENCE_SECONDS", 0.0)
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text")
    age = 'smp_reading_age_seconds{part="moving"}'
    read = pipeline.operations.oversight.gauges().metrics
    await read()
    with psql.transaction():
        psql.execute("LOCK TABLE work IN ACCESS EXCLUSIVE MODE")
        clock.now += 59.0
        assert (await read()).snapshot()[age] == 59.0
        clock.now += 1.0
        asked = asyncio.create_task(read())
    assert (await asked).snapshot()[age] <= 1.0, "it was waited for"
    monkeypatch.setattr("statemachine_pipeline.database.gauges.PATIENCE_SECONDS", 60.0)
    await read()  # what else is under way


async def test_the_last_reading_stands_in_for_one_that_was_stopped_until_it_is_too_old(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'So it is while statements of the next take too long': one lock is no blind alert."""
    clock = Clock()
    monkeypatch.setattr("statemachine_pipeline.database.gauges.time", clock)
    monkeypatch.setattr("statemachine_pipeline.database.gauges.PATIENCE_SECONDS", 60.0)
    read = pipeline_with(engine).operations.oversight.gauges().metrics
    await read()
    monkeypatch.setattr("statemachine_pipeline.database.backlog.STATEMENT_SECONDS", 0.05)
    with psql.transaction():
        psql.execute("LOCK TABLE work IN ACCESS EXCLUSIVE MODE")
        clock.now += 59.0
        assert (await read()).snapshot()['smp_reading_age_seconds{part="moving"}'] == 59.0
        clock.now += 1.0
        with pytest.raises(DatabaseUnavailable, match="statement timeout"):
            await read()


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


def test_a_worker_that_is_frozen_is_told_from_one_that_is_gone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """'Takes the request and says nothing, and the exit code is 5'."""
    monkeypatch.setattr("statemachine_pipeline.cli.asking.ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        port = frozen.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            ask("127.0.0.1", port, "/livez", False)
    assert ended.value.code == UNREACHABLE
    told = (
        f"nobody answers at 127.0.0.1 port {port}: it took the request and said nothing for 0.1 s"
    )
    assert told in capsys.readouterr().err


async def test_a_page_that_breaks_is_answered() -> None:
    """Who asks is told that it broke, and not hung up on; never what it said."""

    def broken() -> Any:
        raise ValueError("a word of a document")

    listening = Listening("127.0.0.1", 0, {"/metrics": broken})
    try:
        assert await page(listening.port, "/metrics") == (500, '{"error": "ValueError"}\n')
    finally:
        await asyncio.to_thread(listening.stop)
