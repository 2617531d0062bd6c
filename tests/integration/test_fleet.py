"""`worker --workers` and `--reload`: real processes, killed and told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from fix_postgres import connect
from typer.testing import CliRunner

from statemachine_pipeline import Lifecycle, Pipeline, State
from statemachine_pipeline.cli import app, fleet
from statemachine_pipeline.cli.opening import Target
from statemachine_pipeline.cli.userapp import find_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    import psycopg

    from statemachine_pipeline import Claim
    from statemachine_pipeline.testing import Databases

PATIENCE_SECONDS = 60
SETTINGS = ("SMP_DATABASE", "SMP_APP", "SMP_SCHEMA", "SMP_BLOBS", "DATABASE_URL")
APP = """
import asyncio
from pathlib import Path
from statemachine_pipeline import Done, Lifecycle, Pipeline, State

class Letters(Lifecycle):
    received = State(initial=True)
    filed = State(final=True)
    file = received.to(filed)

async def file(claim):
    Path("began").touch()
    await asyncio.sleep(3600 if "slow" in claim.document.name else 0.3)
    return Done(said="SAYING")

pipeline = Pipeline("embedded", lifecycle=Letters, hooks={"file": file})
"""


class Letters(Lifecycle):
    """The lifecycle of that app, for what is done here and not in a process of its own."""

    received = State(initial=True)
    filed = State(final=True)

    file = received.to(filed)


async def file(claim: Claim) -> None:
    """Stand in for the app's hook, which only workers call."""


class Led:
    """A folder with an app, and the parent of some workers on it."""

    def __init__(self, folder: Path, url: str | None) -> None:
        self.folder, self._log = folder, folder / "log"
        self.write()
        kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        self._environment = kept | {"SMP_APP": "letters:pipeline"}
        if url is not None:
            self._environment["SMP_DATABASE"] = url
        self.parent: subprocess.Popen[bytes] | None = None

    def write(self, text: str = APP) -> None:
        """Write the app."""
        (self.folder / "letters.py").write_text(text)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start the parent."""
        with self._log.open("wb") as log:
            self.parent = subprocess.Popen(
                [sys.executable, "-m", "statemachine_pipeline", "worker", *options],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        return self.parent

    @property
    def said(self) -> str:
        """What was written to stderr so far."""
        return self._log.read_text()

    def hears(self, text: str, times: int = 1) -> None:
        """Wait until something was said so often."""
        until(lambda: self.said.count(text) >= times, f"{text!r} in {self._log}")

    def both_hear(self, text: str) -> None:
        """Wait until each of two workers has said something under its own name."""
        for name in ("worker 1: ", "worker 2: "):

            def is_said(name: str = name) -> bool:
                return any(
                    line.startswith(name) and text in line for line in self.said.splitlines()
                )

            until(is_said, f"{name}{text!r} in {self._log}")

    def workers(self) -> list[psutil.Process]:
        """Return the processes of the workers."""
        assert self.parent is not None
        return psutil.Process(self.parent.pid).children()


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def led(folder: Path, url: str | None) -> Iterator[Led]:
    """Make a folder for a parent, and see to it that nothing of it is left."""
    made = Led(folder, url)
    yield made
    if made.parent is None:
        return
    if made.parent.poll() is None:
        left = made.workers()
        made.parent.kill()
        psutil.wait_procs(left, timeout=PATIENCE_SECONDS)
    made.parent.wait(PATIENCE_SECONDS)


@pytest.fixture
def letters_url(smp_databases: Databases) -> Iterator[str]:
    """Return the URL of a database that is migrated for the app."""
    url = smp_databases.make(Letters, hooks={"file": file})
    yield url
    smp_databases.drop(url)


@pytest.fixture
def letters(tmp_path: Path, letters_url: str) -> Iterator[Led]:
    """Return a folder with an app and a database of its own."""
    with led(tmp_path, letters_url) as made:
        yield made


@pytest.fixture
def looking(letters_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Return a plain connection to that database."""
    with connect(letters_url) as connection:
        yield connection


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Pipeline]:
    """Open the app's pipeline here: a process that only hands something over costs seconds."""
    async with Pipeline(url, lifecycle=Letters, hooks={"file": file}) as pipeline:
        yield pipeline


async def _submit(letters: Led, url: str, name: str) -> None:
    (letters.folder / name).write_text(f"a letter called {name}")
    async with opened(url) as pipeline:
        await pipeline.submit(letters.folder / name)


def _ask(connection: psycopg.Connection[Any], query: str) -> bool:
    row = connection.execute(query).fetchone()  # type: ignore[arg-type]
    return bool(row and row[0])


def test_a_worker_that_dies_is_replaced_and_all_share_the_embedded_server(tmp_path: Path) -> None:
    """Restarts a worker that died unexpectedly and says so; the first SIGTERM drains all."""
    with led(tmp_path, None) as made:
        parent = made.start("--workers", "2")
        made.hears("serves all stages", 2)
        victim, other = made.workers()
        victim.kill()
        made.hears("was killed by SIGKILL after")
        made.hears("serves all stages", 3)
        assert victim.pid not in [one.pid for one in made.workers()]
        assert other in made.workers()
        assert (
            len({line for line in made.said.splitlines() if "embedded PostgreSQL in" in line}) == 2
        )
        everyone = made.workers()
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(PATIENCE_SECONDS) == 0, made.said
        assert made.said.count("worker stopped") == 2
        assert not any(one.is_running() for one in everyone)


def test_a_worker_that_forgets_its_app_is_refused_once_the_database_answers(
    letters_url: str,
) -> None:
    """A setting (exit code 2): documents would else pass stages that the app insists on."""
    found = CliRunner().invoke(app, ["--database", letters_url, "worker"])
    assert found.exit_code == 2
    assert "not the shipped one" in found.stderr
    assert "serves all stages" not in found.stderr


def test_a_worker_says_what_is_paused(letters: Led, letters_url: str) -> None:
    """A library logs nothing by itself, but the verb has nobody else who would say it.

    The lines of a fleet come out of one stderr.
    """
    letters.start("--workers", "2")
    letters.hears("serves all stages", 2)

    async def pause() -> None:
        async with opened(letters_url) as pipeline:
            reason = "a \x1b[31mflood"
            await pipeline.operations.pause(stage="file", reason=reason, by="cli:ann")

    asyncio.run(pause())
    said = " WARNING pause.began: stage file is paused by cli:ann until somebody resumes it: a "
    letters.both_hear(f"{said}\\x1b[31mflood")

    async def resume() -> None:
        async with opened(letters_url) as pipeline:
            await pipeline.operations.resume(stage="file")

    asyncio.run(resume())
    letters.both_hear(" INFO pause.ended: stage file is no longer paused")


def test_a_fleet_logs_as_it_is_told(letters: Led) -> None:
    """'``--log-format json``, through workers of a fleet too': then stderr holds nothing else."""
    parent = letters.start("--workers", "2", "--log-format", "json", "--log-level", "info")
    letters.hears('"worker.started"', 2)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(PATIENCE_SECONDS) == 0, letters.said
    lines = [json.loads(line) for line in letters.said.splitlines()]
    assert len({line["process.pid"] for line in lines}) == 3
    events = [line.get("event_name") for line in lines]
    assert events.count("worker.started") == events.count("worker.stopped") == 2
    assert any(line["body"].startswith("2 workers; stop with") for line in lines)


def test_an_app_that_configured_its_log_keeps_it(letters: Led) -> None:
    """Unless the command line, or its environment, says otherwise."""
    letters.write(
        "import pathlib\nfrom statemachine_pipeline import configure_logging\n"
        f"configure_logging(sink=pathlib.Path('own.log'))\n{APP}"
    )
    letters.start()
    own = letters.folder / "own.log"
    until(lambda: own.exists() and "worker.started" in own.read_text(), "a line in own.log")
    assert "worker.started" not in letters.said


def test_a_second_signal_stops_all_workers_at_once(
    letters: Led, letters_url: str, looking: psycopg.Connection[Any]
) -> None:
    """The first signal drains all, the second gives everything back; code as of one worker."""
    asyncio.run(_submit(letters, letters_url, "slow.txt"))
    parent = letters.start("--workers", "2")
    letters.hears("serves all stages", 2)
    until(lambda: _ask(looking, "SELECT lane = 'claimed' FROM smp.work"), "a claim")
    parent.send_signal(signal.SIGINT)
    letters.hears("SIGTERM: finishing", 2)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(PATIENCE_SECONDS) == 130, letters.said
    given_back = "SELECT lane = 'ready' AND attempt = 0 AND crashes = 0 FROM smp.work"
    assert _ask(looking, given_back)


def test_workers_drain_when_their_parent_is_killed(
    letters: Led, letters_url: str, looking: psycopg.Connection[Any]
) -> None:
    """A ``kill -9`` of the parent must not leave workers for ever, nor lose what they hold."""
    parent = letters.start("--workers", "2")
    letters.hears("serves all stages", 2)
    workers = letters.workers()
    asyncio.run(_submit(letters, letters_url, "quick.txt"))
    until((letters.folder / "began").exists, "a hook that runs")
    parent.kill()
    parent.wait()
    gone, alive = psutil.wait_procs(workers, timeout=PATIENCE_SECONDS)
    assert (len(gone), alive) == (2, [])
    letters.hears("the parent process has gone", 2)
    assert _ask(looking, "SELECT state = 'filed' FROM smp.document")
    assert _ask(looking, "SELECT count(*) = 0 FROM smp.worker")


@pytest.fixture
def always_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a loaded machine takes to start a program, it ends soon after its start."""
    monkeypatch.setattr(fleet, "SOON_SECONDS", float("inf"))


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("raise SystemExit(5)", 1, "ended with code 5 3 times soon"),
        ("raise SystemExit(2)", 2, "ended with code 2; stopping"),
    ],
    ids=["no database", "usage"],
)
@pytest.mark.usefixtures("always_soon")
async def test_a_fleet_gives_up_on_a_worker_that_cannot_live(
    program: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dying again and again at once ends with code 1; what cannot work, with code 2 at once."""
    words = [sys.executable, "-c", program]
    doomed = fleet.Fleet(words, 1, os.environ, reloads=False, pauses=(0.0, 0.0))
    assert await asyncio.wait_for(doomed.run(), PATIENCE_SECONDS) == code
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("always_soon")
async def test_a_worker_that_signals_kill_is_always_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Documents may have done it, and each is parked at its bound; code that exits is no better."""
    program = (
        "import os, signal, sys; open(sys.argv[1], 'ab').write(b'x')\n"
        "if os.path.getsize(sys.argv[1]) < 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.exit(5)"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "starts")]
    doomed = fleet.Fleet(words, 1, os.environ, reloads=False, pauses=(0.0, 0.0))
    assert await asyncio.wait_for(doomed.run(), PATIENCE_SECONDS) == 1
    said = capsys.readouterr().err
    assert said.count("was killed by SIGKILL") == 5
    assert "ended with code 5 6 times soon" in said


def test_a_database_url_is_not_among_the_arguments_of_workers() -> None:
    """Everybody on a machine may read arguments; the URL holds a password."""
    target = Target(database="postgresql://me:swordfish@host/db")
    assert "swordfish" not in " ".join(fleet.command(["--triggers", "file"]))
    assert fleet.environment(target)["SMP_DATABASE"] == target.database


def test_workers_are_told_all_that_their_parent_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without its parent's object store would pause every stage that reads bytes."""
    monkeypatch.setenv("SMP_SCHEMA", "kept")
    told = Target(app="a:b", database="embedded", blobs="s3://mine/x")
    for name, value in fleet.environment(told).items():
        monkeypatch.setenv(name, value)
    heard = Target()
    assert find_app(heard.app) == "a:b"
    assert heard.explicit_database == "embedded"
    assert heard.explicit_schema == "kept"
    assert heard.explicit_blobs == "s3://mine/x"


def test_a_change_of_the_app_restarts_its_workers(
    letters: Led, letters_url: str, looking: psycopg.Connection[Any]
) -> None:
    """Drains before it starts again, says what changed, and waits while the app is broken."""
    parent = letters.start("--reload")
    letters.hears("serves all stages")
    letters.write("def broken(:\n")
    letters.hears("changed: letters.py; draining, then starting again")
    letters.hears("worker stopped")
    letters.hears("the next change starts it again")
    assert "SyntaxError" in letters.said
    letters.write(APP.replace("SAYING", "anew"))
    letters.hears("serves all stages", 2)
    asyncio.run(_submit(letters, letters_url, "quick.txt"))
    anew = "SELECT count(*) > 0 FROM smp.product WHERE reported ->> 'said' = 'anew'"
    until(lambda: _ask(looking, anew), "the new code to run")
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(PATIENCE_SECONDS) == 0, letters.said
