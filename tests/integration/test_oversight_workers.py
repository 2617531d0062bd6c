"""Workers as people see them: who lives, drains or is silent, what each serves and holds."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import Hooks, hand, pipeline_with, running
from typer.testing import CliRunner

from statemachine_pipeline.cli import app
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.database.workers import Workers
from statemachine_pipeline.errors import LifecycleMismatch
from statemachine_pipeline.observability.metrics import Metrics
from statemachine_pipeline.runner.outages import Outage
from statemachine_pipeline.runner.registration import Registration

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    Psql = psycopg.Connection[Any]

SILENT = 'smp_workers{status="silent"}'
OTHERS = """
INSERT INTO worker
    (host, pid, version, lifecycle, settled, settled_at, draining, beat_at, dead_at)
VALUES
    ('a', 1, '0.9', 'gone', 12, '2026-01-02 03:04:05Z', true, now(), NULL),
    ('b', 2, '0.9', NULL, 0, NULL, false, now() - interval '5 minutes', NULL),
    ('c', 3, '0.9', NULL, 0, NULL, true, now() - interval '5 minutes', now())
"""


async def test_a_worker_is_shown_with_what_it_serves_and_holds(engine: AsyncEngine) -> None:
    """Host, process, version, lifecycle, stages with providers, claims and the oldest of them."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    hooks.finish_parse.block()
    sent = (await pipeline.submit(b"text")).document_id
    async with running(pipeline):
        await hooks.finish_parse.begun()
        (found,) = await pipeline.operations.oversight.workers()
        hooks.finish_parse.go_on()
    entered = [step.at for step in await pipeline.history(sent) if step.trigger == "queue_parse"]
    assert (found.condition, found.is_lifecycle_known) == ("alive", True)
    assert (found.host, found.pid) == (socket.gethostname(), os.getpid())
    assert found.version == version("statemachine-pipeline")
    assert found.serves["finish_parse"] is None
    assert tuple(found.serves) == pipeline.stages.earned
    assert found.claims == 1
    assert found.oldest_at is not None
    assert abs((found.oldest_at - entered[0]).total_seconds()) < 20
    assert await pipeline.operations.oversight.workers() == []


async def test_the_condition_of_each_is_told(engine: AsyncEngine, psql: Psql) -> None:
    """Who was declared dead is shown for an hour; one that said no lifecycle has none."""
    pipeline = pipeline_with(engine)
    psql.execute(OTHERS)
    await hand(pipeline)
    found = await pipeline.operations.oversight.workers()
    assert [one.condition for one in found] == ["draining", "silent", "dead", "alive"]
    assert [one.is_lifecycle_known for one in found] == [False, None, None, None]
    assert [one.settled for one in found] == [12, 0, 0, 0]
    assert found[1].silent_seconds >= 300


def test_the_command_line_lists_them(database_url: str, psql: Psql) -> None:
    """A table for people, every field as JSON, and a word when there is none."""
    env = {"SMP_DATABASE": database_url}
    assert "no worker is known" in CliRunner().invoke(app, ["workers"], env=env).stderr
    psql.execute(OTHERS)
    done = CliRunner().invoke(app, ["workers"], env=env)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0].startswith("WORKER IS HOST PID VERSION LIFECYCLE CLAIMS")
    assert lines[1].startswith("1 draining a 1 0.9 unknown 0 - 12 2026-01-02 03:04:05 ")
    assert lines[2].startswith("2 silent b 2 0.9 - 0 - 0 - ")
    listed = CliRunner().invoke(app, ["workers", "--json"], env=env)
    found = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [one["condition"] for one in found] == ["draining", "silent", "dead"]
    assert set(found[0]) == {
        *("id", "condition", "host", "pid", "version", "is_lifecycle_known", "serves", "claims"),
        *("oldest_at", "settled", "settled_at", "started_at", "silent_seconds", "dead_at"),
        "goes_on_as",
    }


async def test_a_process_that_was_out_of_reach_is_not_lost(engine: AsyncEngine, psql: Psql) -> None:
    """'A process that was only out of reach goes on under another number'; nobody looks for it."""
    pipeline = pipeline_with(engine)
    oversight = pipeline.operations.oversight
    workers = Workers(engine, tables("smp"))
    prepared = asyncio.Event()

    async def prepare() -> None:
        if not prepared.is_set():
            raise LifecycleMismatch("Short", ())

    served = pipeline.stages.served(None)
    registration = Registration(prepare, workers, pipeline.stages, served, Outage(Metrics()))
    prepared.set()
    lost = await registration.register()
    psql.execute("UPDATE worker SET beat_at = now() - interval '5 minutes'")
    assert (await oversight.gauges().metrics()).snapshot()[SILENT] == 1
    prepared.clear()
    with pytest.raises(LifecycleMismatch):
        await registration.register()
    assert [one.condition for one in await oversight.workers()] == ["silent"]
    prepared.set()
    psql.execute("UPDATE worker SET dead_at = now()")
    now = await registration.register()
    found = await oversight.workers()
    assert [(one.id, one.condition, one.goes_on_as) for one in found] == [
        (lost, "dead", now),
        (now, "alive", None),
    ]
    assert (await oversight.gauges().metrics()).snapshot()[SILENT] == 0
    (told,) = [one for one in await oversight.doctor() if one.id == "workers"]
    assert (told.status, f"number: worker {lost} as {now}" in told.message) == ("ok", True)
    assert told.message.startswith("1 worker lives, 0 draining; were out of reach")
    await workers.leave(now)
    (left,) = await oversight.workers()
    assert left.goes_on_as == now
