"""Workers are killed and stopped for real; nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import noop
import patient
import proof
import pytest
import worker
from fix_postgres import connect

from statemachine_pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

DOCUMENTS = 2000
SETTLED_ONCE = """
SELECT trigger, count(*), count(DISTINCT document_id) FROM smp.transition
WHERE trigger NOT IN ('submit', 'retry') GROUP BY trigger ORDER BY trigger
"""
PROGRESS = "SELECT count(*) FROM smp.transition WHERE trigger = 'finish_parse'"


async def _migrate(url: str) -> None:
    async with worker.pipeline(url, "counted") as pipeline:
        await pipeline.migrate()


@pytest.mark.timeout(300)
def test_each_stage_is_settled_once_though_one_worker_is_killed_and_one_is_stopped(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage's database effects and its transition commit together, once."""
    gate = tmp_path / "gate"
    monkeypatch.setenv(worker.GATE, str(gate))
    asyncio.run(_migrate(empty_url))
    with connect(empty_url) as psql:
        psql.execute(worker.COUNTER)
        noop.load(empty_url, DOCUMENTS)
        fleet = [_start(empty_url, "counted") for _ in range(4)]
        killed, stopped, *others = fleet
        try:
            proof.until(lambda: proof.one(psql, PROGRESS) > 200, 60, "some progress")
            os.kill(killed.pid, signal.SIGKILL)
            killed.wait()
            frozen = _stopped_with_claims(psql, stopped.pid)
            gate.touch()

            alive = "SELECT count(*) FROM smp.worker WHERE dead_at IS NULL"

            def only_two_live() -> bool:
                proof.bury(psql, killed.pid, stopped.pid)
                return bool(proof.one(psql, alive) == 2)

            proof.until(only_two_live, 60, "two workers to be declared dead")
            lost = "SELECT count(*) FROM smp.work WHERE claim_seq = ANY(%s)"
            proof.until(
                lambda: psql.execute(lost, [frozen]).fetchone() == (0,),
                60,
                "their claims to be taken",
            )
            # What it had sent before it was stopped was settled or refused by now.
            late = "SELECT count(*) FROM smp.transition WHERE claim_seq = ANY(%s) AND error IS NULL"
            before = psql.execute(late, [frozen]).fetchone()
            os.kill(stopped.pid, signal.SIGCONT)
            assert [proof.end(process, 120) for process in (stopped, *others)] == [0, 0, 0]
        finally:
            for process in fleet:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

        assert proof.faults(psql) == {}
        expected = sorted(
            (t, DOCUMENTS, DOCUMENTS) for t in noop.PlainLifecycle.graph.forward_triggers()
        )
        assert psql.execute(SETTLED_ONCE).fetchall() == expected
        counted = psql.execute("SELECT count(*), count(DISTINCT document) FROM counter").fetchone()
        assert counted == (DOCUMENTS, DOCUMENTS)
        rescued = proof.one(psql, "SELECT count(*) FROM smp.transition WHERE error = 'crashed'")
        assert rescued > 0, "nothing was rescued, so the faults hit nobody"
        assert psql.execute(late, [frozen]).fetchone() == before, "a zombie's write was accepted"


@pytest.mark.timeout(300)
def test_a_killed_worker_changes_nothing_of_what_readers_see(
    empty_url: str, database_url: str, tmp_path: Path
) -> None:
    """An accepted document is never lost, and nothing of it is doubled."""
    files = _write_documents(tmp_path)
    asyncio.run(_submit(database_url, files))
    with connect(database_url) as psql:
        assert proof.end(_start(database_url, "shipped"), 100) == 0
        undisturbed = proof.published(psql)
        assert len(undisturbed) >= len(files)

    asyncio.run(_submit(empty_url, files))
    with connect(empty_url) as psql:
        victim, other = _start(empty_url, "shipped"), _start(empty_url, "shipped")
        claimed = "SELECT count(*) FROM smp.work WHERE lane = 'claimed' AND worker = {}"
        mine = f"SELECT min(id) FROM smp.worker WHERE pid = {victim.pid}"
        proof.until(lambda: proof.one(psql, mine) is not None, 30, "the victim to register")
        proof.until(
            lambda: proof.one(psql, claimed.format(proof.one(psql, mine))) > 0, 30, "it to claim"
        )
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()

        def other_has_ended() -> bool:
            proof.bury(psql, victim.pid)
            return other.poll() is not None

        proof.until(other_has_ended, 100, "the other worker to do all")
        assert other.returncode == 0
        assert proof.faults(psql) == {}
        assert proof.published(psql) == undisturbed


def _start(url: str, mode: str) -> subprocess.Popen[bytes]:
    """Start a worker that is dead when the test says so, and not when the machine is slow."""
    return subprocess.Popen([sys.executable, patient.__file__, url, mode], start_new_session=True)


def _stopped_with_claims(psql: psycopg.Connection, pid: int) -> list[int]:
    """Stop a process while it holds claims, and return them."""
    found: list[int] = []

    def holds() -> bool:
        os.kill(pid, signal.SIGSTOP)
        found[:] = _claims_when_still(psql, pid)
        if not found:
            os.kill(pid, signal.SIGCONT)
        return bool(found)

    proof.until(holds, 60, "a worker to hold something")
    return found


def _claims_when_still(psql: psycopg.Connection, pid: int) -> list[int]:
    """Return the claims of a stopped process, once what it had sent before has been answered."""
    held = (
        "SELECT coalesce(array_agg(w.claim_seq ORDER BY w.claim_seq), '{}') FROM smp.work w "
        f"JOIN smp.worker k ON k.id = w.worker WHERE k.pid = {pid} AND w.lane = 'claimed'"
    )
    seen: list[list[int]] = []

    def still() -> bool:
        seen.append(proof.one(psql, held))
        return len(seen) > 10 and all(one == seen[-1] for one in seen[-10:])

    proof.until(still, 60, "the stopped worker's statements to end")
    return seen[-1]


def _write_documents(folder: Path) -> list[Path]:
    files = []
    for number in range(30):
        paragraphs = [
            f"Paragraph {n} of report {number}, about lending in month {n}." for n in range(40)
        ]
        path = folder / f"report-{number}.md"
        path.write_text(f"# Report {number}\n\n" + "\n\n".join(paragraphs))
        files.append(path)
    return files


async def _submit(url: str, files: list[Path]) -> None:
    async with Pipeline(url) as pipeline:
        await pipeline.migrate()
        for file in files:
            await pipeline.submit(file)
