"""Documents that kill, hog and hang: they are parked, and their neighbours notice nothing."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harm
import noop
import poisoned
import proof
import pytest
from fix_pipelines import BRIEFLY, pipeline_with, until
from fix_postgres import connect

from statemachine_pipeline import Stage
from statemachine_pipeline.adapters.intake import Intake

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    Psql = psycopg.Connection[Any]

NEIGHBOURS = 30
ENDLESS_SECONDS = 200
"""A loaded machine starts thirty children in less."""
PARKED = {
    "fault": ("child_crashed", "the child process died of SIGSEGV"),
    "exit": ("child_crashed", "the child process exited with code 7 in the middle of a call"),
    "allocate": (
        "child_over_limit",
        "the child process went over its limit of 134,217,728 bytes of memory (memory_bytes)",
    ),
    "share": (
        "child_over_limit",
        "the child process went over its limit of 134,217,728 bytes of memory (memory_bytes)",
    ),
    "spin": (
        "child_over_limit",
        "the child process used more than 1 seconds of processor time (cpu_seconds)",
    ),
    "print": (
        "child_over_limit",
        "the child process printed more than 1,000,000 bytes (printed_bytes)",
    ),
    "write": (
        "child_over_limit",
        "the child process wrote a file of more than 1,000,000 bytes (file_bytes)",
    ),
    "bomb": ("child_over_limit", "the child process had more than 10 processes (processes)"),
    "answer": (
        "child_over_limit",
        "the child process answered more than 100,000 bytes (answer_bytes)",
    ),
    "forge": ("child_crashed", "the child process answered nonsense"),
    "unsendable": ("TypeError", "the hook raised TypeError"),
}
"""Of each harm how its document ends: the code and the reason in history."""
LAST = """
SELECT d.name, t.error, t.reason, (SELECT count(*) FROM transition r
    WHERE r.document_id = d.id AND r.trigger = 'retry' AND r.error = t.error)
FROM document d JOIN transition t ON t.document_id = d.id AND t.version = d.version
WHERE d.state = 'dead_letter'
"""


@pytest.mark.timeout(300)
async def test_bad_documents_are_parked_and_their_neighbours_notice_nothing(
    engine: AsyncEngine, psql: Psql, mark: str
) -> None:
    """A child that dies is a crash of its document, and no dead runner."""
    parsing = Stage(
        harm.Parser(),
        run="process",
        limits=harm.LIMITS,
        concurrency=3,
        deadline=timedelta(seconds=40),
        attempts=2,
        crashes=2,
    )
    pipeline = pipeline_with(engine, queue_parse=Intake(), finish_parse=parsing)
    for word in (*PARKED, "leave"):
        await pipeline.submit(f"{word} and text".encode(), name=f"{word}.txt")
    for number in range(NEIGHBOURS):
        await pipeline.submit(b"A good text %d" % number)
    await asyncio.wait_for(pipeline.runner().run_until_idle(), ENDLESS_SECONDS)
    found = {name.removesuffix(".txt"): row for name, *row in psql.execute(LAST).fetchall()}
    assert found == {name: [*ending, 1] for name, ending in PARKED.items()}
    undisturbed = """SELECT count(*) FROM document d WHERE state = 'complete' AND NOT EXISTS (
        SELECT FROM transition t WHERE t.document_id = d.id AND t.error IS NOT NULL)"""
    assert psql.execute(undisturbed).fetchone() == (NEIGHBOURS + 1,)
    assert psql.execute("SELECT count(*) FROM worker WHERE dead_at IS NOT NULL").fetchone() == (0,)
    await gone(mark)


@pytest.mark.timeout(300)
async def test_a_document_that_hangs_is_given_up_at_the_deadline(
    engine: AsyncEngine, psql: Psql, mark: str
) -> None:
    """At a stage's deadline the hook is stopped, and that is transient: no crash."""
    parsing = Stage(
        harm.Parser(), run="process", deadline=timedelta(seconds=1), attempts=1, crashes=1
    )
    pipeline = pipeline_with(engine, queue_parse=Intake(), finish_parse=parsing)
    await pipeline.submit(b"hang and text", name="hang.txt")
    await asyncio.wait_for(pipeline.runner().run_until_idle(), ENDLESS_SECONDS)
    assert psql.execute(LAST).fetchall() == [
        ("hang.txt", "timed_out", "the stage's deadline of 1 s passed", 0)
    ]
    await gone(mark)


async def test_a_worker_that_can_start_no_child_charges_no_document(
    engine: AsyncEngine, psql: Psql, mark: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its documents wait, with the reason, for a machine that is well."""
    parsing = Stage(harm.Parser(), run="process", attempts=1, crashes=1)
    pipeline = pipeline_with(engine, queue_parse=Intake(), finish_parse=parsing)
    sent = await pipeline.submit(b"A good text")
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such module >&2\nexit 1\n")
    broken.chmod(0o755)
    async with pipeline.runner():
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(broken))
            await until(psql, "SELECT lane = 'deferred' FROM work WHERE state = 'parse_queued'")
        told = (await pipeline.get(sent.document_id)).last_error
        assert told == "a child process ended before it took a call: no such module"
        psql.execute("UPDATE work SET run_at = now()")
        (ended,) = await pipeline.wait(sent.document_id, timeout=timedelta(seconds=30))
    assert ended.state == "complete"
    assert {step.error for step in await pipeline.history(sent.document_id)} == {None}
    await gone(mark)


CRASHES = """
SELECT reason, count(*), bool_or(d.source_uri = %s) FROM smp.transition t
JOIN smp.document d ON d.id = t.document_id WHERE t.error = 'crashed'
GROUP BY reason ORDER BY min(t.at)
"""
MOST = """
SELECT max(count) FROM (SELECT count(*) FROM smp.transition t WHERE error = 'crashed'
    AND document_id NOT IN (SELECT id FROM smp.document WHERE source_uri = %s)
    GROUP BY document_id) AS each
"""
LASTED = """
SELECT extract(epoch FROM (SELECT max(at) FROM smp.transition WHERE to_state = 'complete')
    - (SELECT min(at) FROM smp.transition WHERE error = 'crashed'))
"""
CLAIMED = "SELECT count(*) FROM smp.work WHERE lane = 'claimed'"
ENDED = "SELECT state, last_error FROM smp.document WHERE source_uri = %s"


@pytest.mark.timeout(180)
def test_a_document_that_kills_its_workers_is_parked_and_takes_nobody_with_it(
    empty_url: str,
) -> None:
    """Its neighbours are rescued once, and finish; from then on it dies alone, at most so often."""
    asyncio.run(_migrate(empty_url))
    noop.load(empty_url, 1 + poisoned.BYSTANDERS)
    deaths = _supervise(empty_url, workers=2, seconds=120)
    with connect(empty_url) as psql:
        assert proof.faults(psql) == {}
        crashes = psql.execute(CRASHES, [poisoned.POISON]).fetchall()
        together, *alone = crashes
        assert together[1:] == (1 + poisoned.BYSTANDERS, True)
        assert [row[1:] for row in alone] == [(1, True)] * 2
        assert deaths == [-signal.SIGSEGV] * 3
        state, reason = psql.execute(ENDED, [poisoned.POISON]).fetchone() or ("", "")
        assert (state, reason) == ("dead_letter", alone[-1][0])
        assert re.fullmatch(r"worker \d+ was taken for dead", reason)
        assert psql.execute(MOST, [poisoned.POISON]).fetchone() == (1,)
        states = psql.execute("SELECT state, count(*) FROM smp.document GROUP BY state")
        assert dict(states.fetchall()) == {"complete": poisoned.BYSTANDERS, "dead_letter": 1}
        seconds = proof.one(psql, LASTED)
        sys.stdout.write(f"{poisoned.BYSTANDERS} bystanders had finished after {seconds:.1f} s\n")


async def _migrate(url: str) -> None:
    async with poisoned.pipeline(url) as pipeline:
        await pipeline.migrate()


def _supervise(url: str, *, workers: int, seconds: float) -> list[int]:
    """Keep workers running, as a supervisor would, until all end well; return how others died."""
    command = [sys.executable, poisoned.__file__, url]
    working = [subprocess.Popen(command)]
    deaths: list[int] = []
    dead: list[int] = []

    def all_ended() -> bool:
        for seat, process in enumerate(working):
            if process.poll():
                assert process.returncode < 0, "a worker failed"
                deaths.append(process.returncode)
                dead.append(process.pid)
                working[seat] = subprocess.Popen(command)
        proof.bury(psql, *dead)
        return all(process.poll() == 0 for process in working)

    try:
        with connect(url) as psql:
            # Two that come at once would share the documents out; one takes all.
            proof.until(lambda: proof.one(psql, CLAIMED), 30, "the first worker to claim")
            working += [subprocess.Popen(command) for _ in range(1, workers)]
            proof.until(all_ended, seconds, "the workers to end")
    finally:
        for process in working:
            process.kill()
            process.wait()
    return deaths


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """A variable that everything has in its environment which this test starts."""
    made = f"{time.monotonic_ns()}"
    monkeypatch.setenv("SMP_TEST_MARK", made)
    return f"SMP_TEST_MARK={made}"


async def gone(mark: str) -> None:
    """Wait until nothing with the mark is left; what was killed ends in the kernel's time."""
    begun = time.monotonic()
    while found := left(mark):
        assert time.monotonic() - begun < BRIEFLY.total_seconds(), found
        await asyncio.sleep(0.02)


def left(mark: str) -> list[str]:
    """Return the command lines of processes with the mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found
