"""Health proves that work moves, and probes tell a sick worker from a sick database."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import threading
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import BRIEFLY, Hooks, accept, completed, hand, pipeline_with, running, until
from fix_probes import becomes, engine_through, page, promtool_accepts, until_true
from sqlalchemy.ext.asyncio import create_async_engine

from statemachine_pipeline import Breaker, Pipeline, Provider, Stage, StageFault
from statemachine_pipeline.cli.asking import ask
from statemachine_pipeline.database.backlog import Backlog, Member, Queue
from statemachine_pipeline.database.embedded import EmbeddedServer
from statemachine_pipeline.database.timeouts import Timeouts
from statemachine_pipeline.errors import DatabaseUnavailable, SchemaMissing
from statemachine_pipeline.liveness import Liveness
from statemachine_pipeline.observability.metrics import Metrics
from statemachine_pipeline.oversight import health as asking
from statemachine_pipeline.oversight import listening
from statemachine_pipeline.oversight.listening import REQUESTS
from statemachine_pipeline.oversight.probes import Patience, Probes
from statemachine_pipeline.oversight.progress import judged
from statemachine_pipeline.oversight.status import Component, Health
from statemachine_pipeline.runner.vitals import Vitals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import psycopg
    from fix_proxy import Proxy
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Claim
    from statemachine_pipeline.runner.vitals import Phase

    Psql = psycopg.Connection[Any]

TEN = timedelta(minutes=10)
AT_ONCE = Timeouts(statement=timedelta(seconds=0.2), lock=timedelta(seconds=0.1))
QUICK = Liveness(beat=timedelta(seconds=0.2), dead_after=timedelta(seconds=60))
PASSED_ON = "SELECT count(*) = 1 FROM work WHERE state <> 'uploaded' AND lane = 'ready'"
LONG_AGO = "UPDATE work SET run_at = now() - interval '20 min'"


async def _part(pipeline: Pipeline, name: str) -> Component:
    health = await pipeline.operations.oversight.health()
    return next(one for one in health.components if one.name == name)


async def _refused(_: Claim) -> Any:
    raise StageFault("wrong key")


# What health says.


async def test_an_idle_pipeline_is_well_without_any_worker(engine: AsyncEngine) -> None:
    """Nothing is due, so nobody is missed."""
    health = await pipeline_with(engine).operations.oversight.health()
    assert health.status == "ok"
    assert [one.name for one in health.components] == ["database", "schema", "progress"]


async def test_work_due_with_no_worker_is_red(engine: AsyncEngine, psql: Psql) -> None:
    """'A deployed worker that never ran and nobody noticed'; not before one could have started."""
    pipeline = pipeline_with(engine)
    sent = await pipeline.submit(b"text")
    psql.execute("UPDATE work SET run_at = now() + interval '1 hour'")  # however long this takes
    assert (await _part(pipeline, "progress")).status == "ok"
    psql.execute(LONG_AGO)
    progress = await _part(pipeline, "progress")
    assert progress.status == "failed"
    assert progress.says.startswith("1 document is due at queue_parse, the first for")
    assert progress.says.endswith("no live worker serves it")
    assert progress.fix.startswith("start a worker")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    assert (await _part(pipeline, "progress")).status == "ok"


async def test_work_due_at_a_stage_that_no_worker_serves_is_red(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A fleet that serves only some stages lets the documents of the others pile up."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text")
    async with running(pipeline, triggers=["queue_parse"]):
        await until(psql, PASSED_ON)
        psql.execute(LONG_AGO)
        progress = await _part(pipeline, "progress")
    assert progress.status == "failed"
    assert "due at finish_parse" in progress.says


async def test_work_due_and_nothing_moved_is_red(engine: AsyncEngine, psql: Psql) -> None:
    """Red when work is due and nothing progressed for a limit, although a worker beats."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text")
    worker = await hand(pipeline)
    psql.execute(LONG_AGO)
    psql.execute(
        "UPDATE worker SET serves = '{\"queue_parse\": null}', "
        "started_at = now() - interval '1 hour', settled_at = now() - interval '11 min', "
        "beat_at = now() + interval '1 hour'"
    )
    progress = await _part(pipeline, "progress")
    assert (progress.status, worker.worker > 0) == ("failed", True)
    assert "no worker brought any document on for" in progress.says
    psql.execute("UPDATE worker SET settled_at = now()")
    assert (await _part(pipeline, "progress")).status == "degraded"
    psql.execute("UPDATE worker SET beat_at = now() - interval '20 min'")
    assert "no live worker serves it" in (await _part(pipeline, "progress")).says


async def test_what_dead_workers_held_is_due_and_red(engine: AsyncEngine, psql: Psql) -> None:
    """'Or its holder lives no more': a fleet that dies with all work in hand is no idle one."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text")
    worker = await hand(pipeline)
    await worker.claim_one()
    psql.execute(LONG_AGO)
    assert (await _part(pipeline, "progress")).says == "nothing is due; 1 worker lives"
    psql.execute("UPDATE worker SET beat_at = now() - interval '20 min'")
    progress = await _part(pipeline, "progress")
    assert progress.status == "failed"
    assert progress.says.startswith("1 document is due at queue_parse, the first for 20 min")
    assert progress.says.endswith("no live worker serves it")
    gauges = (await pipeline.operations.oversight.gauges().metrics()).snapshot()
    assert gauges['smp_oldest_ready_age_seconds{stage="queue_parse"}'] >= 20 * 60
    assert gauges['smp_stage_workers{stage="queue_parse"}'] == 0


async def test_what_nobody_may_claim_is_not_due(engine: AsyncEngine, psql: Psql) -> None:
    """Not behind a pause, nor for a provider that is not asked; a person sees those elsewhere."""
    asked = Provider("somebody", breaker=Breaker(failures=1))
    pipeline = pipeline_with(engine, queue_parse=Stage(accept, provider=asked))
    oversight = pipeline.operations.oversight
    await pipeline.submit(b"text", tenant="a")
    psql.execute(LONG_AGO)
    for how in ({"stage": "queue_parse"}, {"tenant": "a"}, {"stage": "queue_parse", "tenant": "a"}):
        await pipeline.operations.pause(**how, reason="test", by="me")
        assert (await _part(pipeline, "progress")).says == "nothing is due; 0 workers live"
        await pipeline.operations.resume(**how)
        assert (await _part(pipeline, "progress")).status == "failed"
    psql.execute(
        "INSERT INTO breaker (provider, state, reason, opened_at, until) "
        "VALUES ('somebody', 'open', 'it failed', now(), now())"
    )
    psql.execute(
        "INSERT INTO budget (provider, per_seconds, hold_seconds) VALUES ('somebody', 1, 1)"
    )
    health = await oversight.health()
    assert health.status == "degraded"
    assert [(c.name, c.status) for c in health.components if c.status != "ok"] == [
        ("provider somebody", "degraded")
    ]
    # Somebody without the class knows from the workers whom a stage asks.
    async with Pipeline(engine, lifecycle=None) as looking:
        assert (await _part(looking, "progress")).status == "failed"
        await hand(pipeline)
        psql.execute('UPDATE worker SET serves = \'{"queue_parse": "somebody"}\'')
        assert (await _part(looking, "progress")).says == "nothing is due; 1 worker lives"


async def test_a_stage_at_fault_is_named_and_so_is_whom_it_asks(
    engine: AsyncEngine, psql: Psql
) -> None:
    """'The pipeline has paused it, as it could work for no document': the fix is `resume`."""
    asked = Provider("somebody", breaker=Breaker(failures=1))
    pipeline = pipeline_with(engine, queue_parse=Stage(_refused, provider=asked))
    await pipeline.submit(b"text")
    async with running(pipeline), Pipeline(engine, lifecycle=None) as stored:
        await until(psql, "SELECT count(*) = 1 FROM pause")
        psql.execute(
            "INSERT INTO breaker_change (provider, state, worker, at) "
            "VALUES ('somebody', 'closed', 1, '2026-01-01')"
        )
        for looking in (pipeline, stored):
            health = await looking.operations.oversight.health()
            told = {one.name: one for one in health.components if one.status != "ok"}
            assert health.status == "failed"
            assert list(told) == ["stage queue_parse", "provider somebody"]
            stage, provider = told.values()
            assert stage.says.endswith("UTC: wrong key")
            assert "`statemachine-pipeline resume --stage queue_parse`" in stage.fix
            assert provider.says == "not asked by queue_parse, which is paused by fault: wrong key"
    await pipeline.operations.resume(stage="queue_parse")
    await pipeline.operations.pause(stage="queue_parse", reason="test", by="me")
    health = await pipeline.operations.oversight.health()
    assert [one.name for one in health.components if one.status != "ok"] == []
    says = next(one.says for one in health.components if one.name == "provider somebody")
    assert says == "is asked; it was down until 2026-01-01 00:00:00 UTC"


async def test_what_was_deferred_and_is_due_counts_though_nobody_looked(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Only a worker makes the deferred ready: without one they would never be due."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text")
    psql.execute("UPDATE work SET lane = 'deferred', run_at = now() + interval '1 hour'")
    assert (await _part(pipeline, "progress")).status == "ok"
    psql.execute(LONG_AGO)
    assert (await _part(pipeline, "progress")).status == "failed"


@pytest.mark.parametrize(
    ("due_seconds", "idle_seconds", "running", "status"),
    [
        (599, 3600, 0, "ok"),
        (601, 601, 0, "failed"),
        (601, 599, 0, "degraded"),
        (601, 3600, 1, "degraded"),
    ],
)
def test_progress_is_judged_by_what_is_due_and_what_moved(
    due_seconds: float, idle_seconds: float, running: int, status: str
) -> None:
    """Failed: due for ten minutes, nothing brought on for as long, and no attempt in its time."""
    queue = Queue(stages=("file",), due=1, due_seconds=due_seconds, running=running)
    member = Member(serves=frozenset({"file"}), idle_seconds=idle_seconds)
    found = Backlog(queues=(queue,), members=(member,))
    assert judged(found, TEN, None).status == status
    assert judged(found, TEN, ["another"]).status == "ok"


@pytest.mark.parametrize(
    ("due_seconds", "late_seconds", "status"),
    [(59, 0, "degraded"), (61, 0, "failed"), (59, 601, "failed")],
)
def test_nobody_is_missed_before_a_minute(
    due_seconds: float, late_seconds: float, status: str
) -> None:
    """Degraded until documents were due for a minute; a standstill elsewhere is told before."""
    queues = (
        Queue(stages=("file",), due=1, due_seconds=due_seconds, running=0),
        Queue(stages=("scan",), due=int(late_seconds > 0), due_seconds=late_seconds, running=0),
    )
    scanner = Member(serves=frozenset({"scan"}), idle_seconds=3600)
    found = judged(Backlog(queues=queues, members=(scanner,)), TEN, None)
    assert found.status == status
    assert ("no live worker serves it" in found.says) is (late_seconds == 0)
    # A standstill that is shorter than the minute is one only where somebody serves.
    alone = Backlog(queues=queues[:1], members=())
    assert judged(alone, timedelta(seconds=1), ["file"]).says.endswith("no live worker serves it")


async def test_without_the_schema_it_is_named(empty_url: str) -> None:
    """Component schema, with what to do."""
    made = create_async_engine(empty_url)
    health = await pipeline_with(made).operations.oversight.health()
    await made.dispose()
    assert [(c.name, c.status) for c in health.components] == [
        ("database", "ok"),
        ("schema", "failed"),
    ]
    assert "statemachine-pipeline migrate" in health.components[-1].fix


async def test_objects_are_read_by_one_byte(engine: AsyncEngine, tmp_path: Path) -> None:
    """Blobs: reachable, cheap."""
    store = tmp_path / "objects"
    store.mkdir()
    pipeline = pipeline_with(engine, blobs=f"file://{store}")
    assert "no document has bytes there yet" in (await _part(pipeline, "blobs")).says
    await pipeline.submit(b"text")
    assert (await _part(pipeline, "blobs")).says == "an object can be read"
    store.rename(tmp_path / "elsewhere")
    store.mkdir()
    assert (await _part(pipeline, "blobs")).status == "failed"


async def test_the_embedded_server_tells_its_place(
    engine: AsyncEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Component embedded server: where it is, and whether its disk has room."""
    pipeline = pipeline_with(engine)
    server = pipeline._server = EmbeddedServer(tmp_path / "server")
    assert (await _part(pipeline, "embedded server")).status == "failed", "its folder is not there"
    server.directory.mkdir(parents=True)
    assert (await _part(pipeline, "embedded server")).status == "ok"
    monkeypatch.setattr("statemachine_pipeline.oversight.health.FREE_BYTES", 1 << 62)
    assert (await _part(pipeline, "embedded server")).fix == "free some space on that disk"
    server.directory.rmdir()


# Probes.


async def test_a_blocked_event_loop_turns_livez_red_while_the_database_is_up(
    engine: AsyncEngine,
) -> None:
    """Served from a thread, so that a blocked loop is seen."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    blocks, seen = threading.Event(), list[dict[str, Any]]()

    async def block(claim: Claim) -> Any:
        blocks.wait(60)
        return await accept(claim)

    def watch(port: int) -> None:
        # A loop of its own, as the other one is blocked.
        try:
            seen.append(asyncio.run(becomes(port, "/livez", 503)))
        finally:
            blocks.set()

    hooks.queue_parse.does(block)
    patience = Patience(loop=timedelta(seconds=1))
    runner = pipeline.runner()
    probes = pipeline.operations.oversight.probes(runner, port=0, patience=patience)
    async with runner, probes:
        await becomes(probes.port, "/livez", 200)
        watching = threading.Thread(target=watch, args=(probes.port,))
        watching.start()
        await pipeline.submit(b"text")
        await asyncio.to_thread(watching.join)
        await becomes(probes.port, "/livez", 200)
    red = [one for one in seen[0]["components"] if one["status"] != "ok"]
    assert [one["name"] for one in red] == ["event loop"]


async def test_a_database_that_is_away_leaves_livez_green_and_turns_readyz_red(
    proxy: Proxy, psql: Psql
) -> None:
    """``/livez`` never asks the database: an outage would restart the whole fleet."""
    async with engine_through(proxy) as made:
        pipeline = pipeline_with(made)
        runner = pipeline.runner()
        probes = pipeline.operations.oversight.probes(runner, port=0)
        async with runner, probes:
            await becomes(probes.port, "/readyz", 200)
            proxy.refuse()
            red = await becomes(probes.port, "/readyz", 503)
            assert [one["name"] for one in red["components"]] == ["database"]
            assert (await page(probes.port, "/livez"))[0] == 200
            assert (await page(probes.port, "/startupz"))[0] == 200
            proxy.refuse(refuses=False)
            await becomes(probes.port, "/readyz", 200)


async def test_a_database_that_stands_still_is_cut_off_and_named(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """'Bound the whole answer': to have a statement cancelled would take ten seconds more."""
    monkeypatch.setattr(asking, "BRISK", AT_ONCE)
    async with engine_through(proxy) as made:
        async with made.connect():
            pass  # of the pool from now on
        proxy.freeze(new=True)
        (database,) = (await pipeline_with(made).operations.oversight.health()).components
    assert (database.name, database.status) == ("database", "failed")
    assert "did not answer while asking whether it is there" in database.says
    assert [one.message for one in caplog.records if one.name == "psycopg"] == []


async def test_a_part_that_is_late_is_not_waited_for(engine: AsyncEngine) -> None:
    """All parts together have five seconds, and what a late one waits for is the database."""
    checkup, answers = pipeline_with(engine).operations.oversight._checkup, asyncio.Event()

    async def look() -> Component:
        await answers.wait()
        return Component("progress", "ok", "late")

    progress = await checkup._asked("progress", look(), until=time.monotonic())
    assert (progress.status, progress.says) == ("failed", "the database did not answer within 5 s")
    (asked,) = checkup._asking
    answers.set()
    assert (await asked).says == "late"


async def test_a_worker_that_drains_is_not_ready(engine: AsyncEngine) -> None:
    """Not draining; it still lives."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    hooks.queue_parse.block()
    await pipeline.submit(b"text")
    runner = pipeline.runner()
    probes = pipeline.operations.oversight.probes(runner, port=0)
    async with probes:
        assert (await page(probes.port, "/startupz"))[0] == 503
        assert (await page(probes.port, "/livez"))[0] == 200
        async with runner:
            await hooks.queue_parse.begun()
            await becomes(probes.port, "/startupz", 200)
            await becomes(probes.port, "/readyz", 200)
            runner.stop()
            red = await becomes(probes.port, "/readyz", 503)
            assert red["components"][0]["says"] == "it is draining, and takes nothing"
            assert (await page(probes.port, "/livez"))[0] == 200
            hooks.queue_parse.go_on()
        assert (await page(probes.port, "/readyz"))[0] == 503
        assert (await page(probes.port, "/livez"))[0] == 200


async def test_a_worker_that_counts_as_dead_is_ready_again_under_another_id(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops what it does, asks for another id and works on: no reason to restart it."""
    runner = pipeline_with(engine).runner(liveness=QUICK)
    vitals, turns = runner.vitals, list[str]()
    turn = vitals.turn
    monkeypatch.setattr(vitals, "turn", lambda phase: (turns.append(phase), turn(phase)))
    async with runner:
        await until_true(lambda: vitals.phase == "working")
        first, looked_at = runner.worker, vitals.looked_at
        await until_true(lambda: vitals.looked_at > looked_at)
        psql.execute("UPDATE worker SET dead_at = now() WHERE id = %s", [first])
        await until_true(lambda: turns.count("working") == 2)
        assert runner.worker != first
    assert turns == ["working", "fenced", "registering", "working", "draining", "ended"]


async def test_a_ready_worker_is_judged_by_its_own_stages(engine: AsyncEngine, psql: Psql) -> None:
    """Progress as in health, of what it serves: those it does not serve are another's."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text")
    runner = pipeline.runner(triggers=["queue_parse"])
    probes = pipeline.operations.oversight.probes(runner, port=0)
    async with runner, probes:
        await until(psql, PASSED_ON)
        psql.execute(LONG_AGO)
        assert (await _part(pipeline, "progress")).status == "failed"
        await becomes(probes.port, "/readyz", 200)


async def test_a_runner_that_ended_with_an_error_does_not_live(
    engine: AsyncEngine, psql: Psql
) -> None:
    """In a program whose main part goes on, nobody else would restart it."""
    pipeline = pipeline_with(engine)
    runner = pipeline.runner()
    probes = pipeline.operations.oversight.probes(runner, port=0)
    psql.execute("DELETE FROM lifecycle")
    async with probes:
        with pytest.raises(SchemaMissing):
            await asyncio.wait_for(runner.run(), BRIEFLY.total_seconds())
        red = await becomes(probes.port, "/livez", 503)
    assert red["components"][0]["says"].startswith("it ended with an error")


async def _well() -> Health:
    return Health(())


@pytest.fixture
async def probes() -> AsyncIterator[Probes]:
    """Probes of a runner that does nothing."""
    made = Probes(Vitals(Metrics()), _well, host="127.0.0.1", port=0, patience=Patience())
    async with made:
        yield made


@pytest.mark.parametrize(
    ("phase", "moment", "name"),
    [
        ("working", {"looked_at": -601}, "claims"),
        ("registering", {"looked_at": -601}, None),
        ("fenced", {"since": -121}, "heartbeat"),
        ("fenced", {"since": -60}, None),
        ("working", {"ticked_at": -31}, "event loop"),
    ],
)
async def test_a_worker_lives_by_what_it_does_itself(
    probes: Probes, phase: Any, moment: dict[str, float], name: str | None
) -> None:
    """Loop, claims, fence; one that waits for a database to get another id lives."""
    vitals = probes._vitals
    vitals.turn(phase)
    for attribute, ago in moment.items():
        setattr(vitals, attribute, time.monotonic() + ago)
    red = [one.name for one in probes.live().components if one.status != "ok"]
    assert red == ([name] if name else [])


async def test_a_worker_that_counts_as_dead_says_why(probes: Probes) -> None:
    """The database is named, with how long it is away, and what to do."""
    vitals = probes._vitals
    vitals.turn("fenced")
    (fenced,) = probes.ready().components
    assert "until it has another number" in fenced.says
    assert "the database" not in fenced.says
    vitals.outage.goes_on("beat", DatabaseUnavailable("beating", "it is away"))
    vitals.outage.since = time.monotonic() - 67.9
    phases: tuple[Phase, ...] = ("fenced", "registering")
    for phase in phases:
        vitals.turn(phase)
        (away,) = probes.ready().components
        assert away.says.endswith(": the database has not been reached for 68 s")
        assert away.fix.startswith("see why it does not reach the database")


async def test_what_needs_no_cure_is_told_without_one(
    probes: Probes, capsys: pytest.CaptureFixture[str]
) -> None:
    """`health --port` says what is known, and ends there."""
    probes._vitals.turn("draining")
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(ask, "127.0.0.1", probes.port, "/readyz", as_json=False)
    assert (ended.value.code, capsys.readouterr()) == (
        1,
        ("failed\n", "runner is failed: it is draining, and takes nothing\n"),
    )


async def test_one_request_too_many_is_hung_up_on(
    probes: Probes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded: who opens connections without end gets no thread for each."""
    monkeypatch.setattr(listening._Handler, "timeout", 60.0)
    room = probes._listening._server._room
    silent = [socket.create_connection(("127.0.0.1", probes.port)) for _ in range(REQUESTS)]
    await until_true(lambda: room._value == 0)
    assert await asyncio.to_thread(_hung_up, probes.port)
    for one in silent:
        one.close()
    await until_true(lambda: room._value == REQUESTS)
    assert (await page(probes.port, "/livez"))[0] == 200


async def test_whoever_says_nothing_is_hung_up_on(
    probes: Probes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No thread waits for ever; and no request is logged, nor a page that is not there."""
    monkeypatch.setattr(listening._Handler, "timeout", 0.1)
    assert await asyncio.to_thread(_hung_up, probes.port)
    monkeypatch.setattr(listening._Handler, "timeout", 60.0)
    assert (await page(probes.port, "/"))[0] == 404
    assert (await page(probes.port, "/livez?x=1"))[0] == 200
    assert capfd.readouterr() == ("", "")


def _hung_up(port: int) -> bool:
    """Connect, say nothing, and wait for the other side to end it."""
    with socket.create_connection(("127.0.0.1", port), BRIEFLY.total_seconds()) as connection:
        return connection.recv(1) == b""


async def test_a_probe_port_that_is_taken_is_told(probes: Probes) -> None:
    """The error is Python's own, with the address."""
    again = Probes(probes._vitals, _well, host="127.0.0.1", port=probes.port, patience=Patience())
    with pytest.raises(OSError, match="in use"):
        await again.__aenter__()


async def test_a_stage_at_fault_is_no_standstill(engine: AsyncEngine, psql: Psql) -> None:
    """It is paused, and told there; its documents are not due."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    hooks.queue_parse.raises(StageFault("wrong key"))
    await pipeline.submit(b"text")
    async with running(pipeline):
        await until(psql, "SELECT count(*) = 1 FROM pause")
        await until(psql, "SELECT count(*) = 1 FROM work WHERE lane <> 'claimed'")
        progress = await _part(pipeline, "progress")
    assert progress.says.startswith("nothing is due")


# The numbers of a whole pipeline.


async def test_the_exporter_tells_the_numbers_of_the_whole_pipeline(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cached query; each gauge of the list, in a format that promtool accepts."""
    from statemachine_pipeline.observability.instruments import OF_THE_DATABASE
    from statemachine_pipeline.observability.prometheus import exposition

    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    worker = await hand(pipeline)
    # Whatever this machine does meanwhile, it is not silent, and nothing is read anew.
    psql.execute("UPDATE worker SET settled_at = now(), beat_at = now() + interval '1 hour'")
    still = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("statemachine_pipeline.database.gauges.time", still)
    await pipeline.submit(b"claimed")
    await worker.claim_one()
    await pipeline.submit(b"waiting")
    psql.execute(LONG_AGO)
    await pipeline.operations.pause(stage="finalize", reason="test", by="me")
    psql.execute("INSERT INTO breaker (provider) VALUES ('somebody')")
    psql.execute(
        "INSERT INTO placement (document_id, stage, withdraw_at, run_at, writing_until) "
        "VALUES (%s, 'finalize', now(), now(), now())",
        [sent.document_id],
    )
    psql.execute(
        "INSERT INTO dead_letter (document_id, stage, state, code, reason, attempts, crashes) "
        "VALUES (%s, 'finalize', 'indexing', 'unreadable', 'test', 1, 0)",
        [sent.document_id],
    )
    gauges = pipeline.operations.oversight.gauges()
    found = (await gauges.metrics()).snapshot()

    named = {series.partition("{")[0] for series in found}
    assert named == {metric.name for metric in OF_THE_DATABASE}
    for series, value in {
        'smp_documents{state="complete",lane=""}': 1,
        'smp_documents{state="uploaded",lane="claimed"}': 1,
        'smp_documents{state="uploaded",lane="ready"}': 1,
        'smp_dead_letters{stage="finalize",code="unreadable"}': 1,
        'smp_workers{status="working"}': 1,
        'smp_workers{status="silent"}': 0,
        'smp_pauses{stage="finalize",fault="false"}': 1,
        'smp_provider_unavailable{provider="somebody"}': 0,
        'smp_withdrawals_waiting{stage="finalize"}': 1,
    }.items():
        assert found[series] == value, series
    assert 1200 <= found['smp_oldest_ready_age_seconds{stage="queue_parse"}'] < 1300
    assert found['smp_table_bytes{table="document"}'] > 0

    await pipeline.submit(b"another")
    again = await gauges.metrics()
    assert again.snapshot() == found, "it is kept for a while"
    promtool_accepts(exposition(again, OF_THE_DATABASE, process=False).decode())


async def test_documents_at_rest_are_left_out_while_counting_them_takes_too_long(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'Each statement ends': who watches must not be the load, nor lose the rest for it."""
    gauges = pipeline_with(engine).operations.oversight.gauges()
    monkeypatch.setattr("statemachine_pipeline.database.backlog.STATEMENT_SECONDS", 0.05)
    with psql.transaction():
        psql.execute("LOCK TABLE document IN ACCESS EXCLUSIVE MODE")
        assert (await gauges._read_resting())["resting"].rows == ()


def test_health_is_plain_values() -> None:
    """Frozen values, as bad as the worst part."""
    parts = [Component("a", "ok", ""), Component("b", "degraded", ""), Component("c", "failed", "")]
    assert [Health(tuple(parts[:n])).status for n in range(4)] == ["ok", "ok", "degraded", "failed"]
    assert json.dumps(dataclasses.asdict(Health(tuple(parts))))
