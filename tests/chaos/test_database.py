"""The database is restarted, its disk fills, and clocks disagree, under real workers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import noop
import proof
import pytest
import worker
from fix_postgres import connect

from statemachine_pipeline.database import watchdog
from statemachine_pipeline.database.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENT = Path(__file__).with_name("patient.py")
DONE = "SELECT count(*) FROM smp.document WHERE state = 'complete'"
PARSED = "SELECT count(*) FROM smp.transition WHERE trigger = 'finish_parse'"
DOCUMENTS = 500
CHARGED = "SELECT count(*) FROM smp.transition WHERE trigger IN ('retry', 'fail')"


async def _migrate(url: str) -> None:
    async with worker.pipeline(url, "counted") as pipeline:
        await pipeline.migrate()


def _prepare(url: str, documents: int) -> None:
    asyncio.run(_migrate(url))
    with connect(url) as psql:
        psql.execute(worker.COUNTER)
    noop.load(url, documents)


def _start(url: str, mode: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(PATIENT), url, mode]
    return subprocess.Popen(command, env=os.environ | environment, start_new_session=True)


def _end(fleet: list[subprocess.Popen[bytes]]) -> None:
    for process in fleet:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _check(url: str, documents: int) -> None:
    with connect(url) as psql:
        assert proof.faults(psql) == {}
        assert proof.one(psql, DONE) == documents
        counted = psql.execute("SELECT count(*), count(DISTINCT document) FROM counter").fetchone()
        assert counted == (documents, documents)
        assert proof.one(psql, CHARGED) == 0


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that may be harmed."""
    with EmbeddedServer(tmp_path / "server", throwaway=True) as server:
        yield server


@pytest.mark.timeout(300)
def test_a_server_that_crashes_and_comes_back_costs_nothing(
    own_server: EmbeddedServer, gate: Path
) -> None:
    """An accepted document is never lost, and a stage's effects are written once."""
    _prepare(own_server.url, DOCUMENTS)
    held = {worker.GATE: str(gate)}
    fleet = [_start(own_server.url, "counted", **held) for _ in range(2)]
    try:
        with connect(own_server.url) as psql:
            proof.until(lambda: proof.one(psql, PARSED) > 100, 60, "some progress")
        recorded = (own_server.directory / "postgres" / "postmaster.pid").read_text()
        os.kill(int(recorded.splitlines()[0]), signal.SIGQUIT)
        proof.until(lambda: not watchdog.is_alive(own_server.directory), 30, "it to be down")
        own_server.start()
        with connect(own_server.url) as psql:
            before = proof.one(psql, PARSED)
            gate.touch()
            took = proof.until(lambda: proof.one(psql, PARSED) > before, 60, "work to go on")
        print(f"work went on {took:.1f} s after the server was back")  # noqa: T201
        assert [proof.end(process, 100) for process in fleet] == [0, 0]
    finally:
        _end(fleet)
    _check(own_server.url, DOCUMENTS)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file for which some documents wait, so that not all are done before anything happens."""
    return tmp_path / "gate"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 110 MB that the embedded server's account can reach."""
    folder = Path(f"/tmp/smp-small-disk-{os.getpid()}")
    folder.mkdir(mode=0o755)
    command = ["mount", "-t", "tmpfs", "-o", "size=110m,mode=0755", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"needs a small file system, and may not mount one: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


@pytest.mark.timeout(300)
def test_a_full_disk_makes_documents_wait_and_loses_none(small_disk: Path, gate: Path) -> None:
    """'No document is charged' for it; once there is space again, all complete."""
    with EmbeddedServer(small_disk / "server", throwaway=True) as server:
        if not server.directory.is_relative_to(small_disk):
            pytest.skip(f"the embedded server cannot be put there, but in {server.directory}")
        _prepare(server.url, DOCUMENTS)
        filler = small_disk / "filler"
        fleet = [_start(server.url, "counted", **{worker.GATE: str(gate)})]
        try:
            with connect(server.url) as psql:
                proof.until(lambda: proof.one(psql, PARSED) > 20, 60, "some progress")
            _fill(filler)
            gate.touch()
            log = watchdog.log(server.directory)
            full = "No space left on device"
            proof.until(lambda: full in log.read_text(), 30, "the disk to be missed")
            assert fleet[0].poll() is None, "the worker gave up"
            filler.unlink()
            begun = time.monotonic()
            # It may have stopped for want of space for its log of changes.
            server.start()
            assert proof.end(fleet[0], 100) == 0
            print(f"all was done {time.monotonic() - begun:.1f} s after there was space")  # noqa: T201
        finally:
            _end(fleet)
        _check(server.url, DOCUMENTS)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    free = shutil.disk_usage(path).free
    assert free < 1 << 16, errno.errorcode[errno.ENOSPC]


@pytest.mark.timeout(300)
def test_workers_whose_clocks_are_ten_minutes_apart_agree(empty_url: str) -> None:
    """'Only the database's clock decides'."""
    library = _faketime()
    _prepare(empty_url, 200)
    fleet = [_start_shifted(empty_url, library, by) for by in ("-5m", "+5m")]
    try:
        assert [proof.end(process, 100) for process in fleet] == [0, 0]
    finally:
        _end(fleet)
    with connect(empty_url) as psql:
        assert proof.faults(psql) == {}
        assert proof.one(psql, DONE) == 200
        assert proof.one(psql, CHARGED) == 0
        both = "SELECT count(DISTINCT worker) FROM smp.transition WHERE trigger = 'finish_parse'"
        assert proof.one(psql, both) == 2
        late = "SELECT max(at) > clock_timestamp() + interval '1 minute' FROM smp.transition"
        assert proof.one(psql, late) is False


def _faketime() -> str:
    for folder in ("/usr/lib", "/usr/local/lib"):
        for found in sorted(Path(folder).glob("*/faketime/libfaketime.so.1")):
            return str(found)
    pytest.skip("needs libfaketime: apt-get install faketime")


def _start_shifted(url: str, library: str, by: str) -> subprocess.Popen[bytes]:
    shifted = {"LD_PRELOAD": library, "FAKETIME": by, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    # Said aloud, or a library that cannot be loaded would make this show nothing.
    asked = [sys.executable, "-c", "import time; print(time.time())"]
    told = subprocess.run(asked, env=os.environ | shifted, capture_output=True, check=True)
    assert abs(float(told.stdout) - time.time()) > 200
    return _start(url, "waiting", **shifted)
