"""`health`, `exporter` and `worker --probe-port`, as orchestrators and Prometheus use them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_postgres import connect
from fix_probes import get, promtool_accepts
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from statemachine_pipeline.cli import app, health
from statemachine_pipeline.database.cures import is_refusal
from statemachine_pipeline.database.timeouts import Timeouts
from statemachine_pipeline.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fix_proxy import Proxy

SETTINGS = ("SMP_DATABASE", "SMP_APP", "SMP_SCHEMA", "SMP_BLOBS", "DATABASE_URL")
PATIENCE_SECONDS = 60
HARDLY = timedelta(seconds=0.1)
HEAVY = {"typer", "click", "rich", "sqlalchemy", "psycopg", "loguru", "asyncio", "http", "email"}


@contextlib.contextmanager
def started(*words: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """Run a verb that goes on until it is told to stop; end it as a service manager does."""
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    process = subprocess.Popen(
        [sys.executable, "-m", "statemachine_pipeline", *words],
        env=kept | {"SMP_DATABASE": url},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, told


def said(process: subprocess.Popen[str], pattern: str) -> str:
    """Read what a process says until a line matches; return the match's group."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(f"it ended without saying {pattern}")


def free_ports(count: int) -> int:
    """Return the first of some ports in a row that are free."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                for number in range(1, count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port + number))
            except OSError:
                continue
            return port


def probe(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `health`, as an exec probe does."""
    return subprocess.run(
        [sys.executable, "-m", "statemachine_pipeline", "health", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_workers_serve_their_probes_each_on_its_own_port(database_url: str) -> None:
    """With several workers the first takes the port, the others those after it."""
    port = free_ports(2)
    words = ("worker", "--workers", "2", "--probe-port", str(port))
    with started(*words, url=database_url):
        for number in (port, port + 1):
            deadline = time.monotonic() + PATIENCE_SECONDS
            while probe("--ready", "--port", str(number)).returncode != 0:
                assert time.monotonic() < deadline
        told = probe("--port", str(port), "--live", "--json")
        assert (told.returncode, json.loads(told.stdout)["status"]) == (0, "ok")
        status, text = get(port, "/metrics")
        assert (status, "smp_stage_slots{" in text) == (200, True)
        promtool_accepts(text)
    gone = probe("--live", "--port", str(port))
    assert (gone.returncode, gone.stdout) == (5, "")
    assert "nobody answers at 127.0.0.1 port" in gone.stderr


def test_a_worker_waits_for_a_database_that_is_away_at_its_start(proxy: Proxy) -> None:
    """It lives and has not begun; it says why, once for each reason, and begins at the answer."""
    proxy.refuse()
    port = free_ports(1)
    with started("worker", "--probe-port", str(port), url=proxy.url) as process:
        said(process, "(database.lost)")
        assert [get(port, path)[0] for path in ("/livez", "/startupz", "/readyz")] == [
            200,
            503,
            503,
        ]
        before, deadline = proxy.refused, time.monotonic() + PATIENCE_SECONDS
        while proxy.refused == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        proxy.refuse(refuses=False)
        for told in ("database.back", "serves all stages", "worker.started"):
            said(process, f"({told})")
        while get(port, "/startupz")[0] != 200:
            assert time.monotonic() < deadline


def test_a_worker_that_waits_for_its_database_ends_well_when_it_is_told(proxy: Proxy) -> None:
    """SIGTERM ends the wait at once, and the exit code is that of any worker's end."""
    proxy.refuse()
    with started("worker", url=proxy.url) as process:
        said(process, "(database.lost)")


def test_a_worker_does_not_wait_for_a_server_that_refuses_it(database_url: str) -> None:
    """'A database that does not exist ends a worker at its start with that message'."""
    nowhere = make_url(database_url).set(database="nowhere").render_as_string(hide_password=False)
    found = run("worker", url=nowhere)
    assert (found.exit_code, 'database "nowhere" does not exist' in found.stderr) == (5, True)


@pytest.mark.parametrize(
    ("said", "is_refused"),
    [
        ('FATAL:  password authentication failed for user "app"', True),
        ("fe_sendauth: no password supplied", True),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.7"', True),
        ('FATAL:  role "app" does not exist', True),
        ("FATAL:  the database system is starting up", False),
        ("FATAL:  sorry, too many clients already", False),
        ("Connection refused\n\tIs the server running on that host?", False),
        ("server closed the connection unexpectedly", False),
    ],
)
def test_what_may_pass_is_told_from_a_refusal(said: str, is_refused: bool) -> None:
    """What a server says to who it does not take; one that starts, or is full, is waited for."""
    error = DatabaseUnavailable("reading the lifecycle", said)
    assert is_refusal(error) is is_refused


def test_a_probe_port_that_cannot_be_had_is_told(database_url: str) -> None:
    """Taken by somebody: exit code 1; beyond the last port there is: a usage error."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        found = run("worker", "--probe-port", port, url=database_url)
        assert (found.exit_code, f"cannot listen at 127.0.0.1 port {port}" in found.stderr) == (
            1,
            True,
        )
        found = run("exporter", "--port", port, url=database_url)
        assert (found.exit_code, "cannot listen" in found.stderr) == (1, True)
    found = run("worker", "--probe-port", "65535", "--workers", "2", url=database_url)
    assert found.exit_code == 2


def test_the_exporter_serves_what_promtool_accepts(database_url: str) -> None:
    """Database gauges, one a fleet; `--log-format json`, and stderr holds nothing else."""
    words = ("exporter", "--port", "0", "--log-format", "json")
    with started(*words, url=database_url) as process:
        assert process.stderr is not None
        lines = (json.loads(line)["body"] for line in process.stderr)
        at = (re.search(r"serving http://127\.0\.0\.1:(\d+)/metrics", line) for line in lines)
        port = int(next(filter(None, at))[1])
        status, text = get(port, "/metrics")
        assert (status, "smp_table_bytes{" in text) == (200, True)
        promtool_accepts(text)


def test_an_exporter_says_once_that_its_database_is_away(database_url: str) -> None:
    """'Its page is answered with 503', and whoever looks at its output finds the reason too."""
    with started("exporter", "--port", "0", url=database_url) as process:
        port = int(said(process, r"http://127\.0\.0\.1:(\d+)/metrics"))
        with connect(database_url) as connection:
            connection.execute("ALTER TABLE smp.pause RENAME TO elsewhere")
            refused = [get(port, "/metrics") for _ in range(2)]
            assert [status for status, _ in refused] == [503, 503]
            told = said(process, "(.*); /metrics answers 503 meanwhile")
            assert refused[0][1].strip() == told
            connection.execute("ALTER TABLE smp.elsewhere RENAME TO pause")
        assert get(port, "/metrics")[0] == 200
        assert process.stderr is not None
        assert process.stderr.readline() == "the database answers again\n"


def test_an_exec_probe_imports_the_standard_library_alone() -> None:
    """Fast enough for an exec probe: typer alone would take ten times as long."""
    program = (
        "import sys; from statemachine_pipeline.cli import main\n"
        "sys.argv = ['x', 'health', '--live', '--port', '1']\n"
        "try: main()\n"
        "except SystemExit as ended: code = ended.code\n"
        "print(code, *sorted(name.partition('.')[0] for name in sys.modules))"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    code, *modules = done.stdout.split()
    assert code == "5"
    assert HEAVY.isdisjoint(modules)
    assert modules.count("statemachine_pipeline") == 3  # the package, its cli, and what asks


def run(*words: str, url: str) -> Any:
    """Run a verb in this process."""
    return CliRunner().invoke(app, ["--database", url, *words], catch_exceptions=False)


def test_health_tells_each_part_and_what_to_do(database_url: str) -> None:
    """Exit code 0 when all is well, 1 when something failed."""
    well = run("health", url=database_url)
    assert (well.exit_code, well.stdout.split()[:3]) == (0, ["PART", "STATUS", "WHAT"])
    assert re.search(r"progress +ok +nothing is due; 0 workers live", well.stdout)
    with connect(database_url) as connection:
        connection.execute("DELETE FROM smp.lifecycle")
    found = run("health", "--json", url=database_url)
    (schema,) = json.loads(found.stdout)["components"]
    assert (found.exit_code, schema["name"], schema["status"]) == (1, "schema", "failed")
    assert schema["fix"] == "run `statemachine-pipeline migrate`"


def test_a_database_that_does_not_answer_is_told_as_any_other_part() -> None:
    """``--json`` has the same form, and the exit code is that of the unreachable."""
    found = run("health", "--json", url="postgresql://nobody@127.0.0.1:1/none")
    told = json.loads(found.stdout)
    assert (found.exit_code, told["status"]) == (5, "failed")
    assert [one["name"] for one in told["components"]] == ["database"]


def test_a_database_that_stands_still_does_not_hold_health_up(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, by what the verb waits itself and not what anything else is set to."""
    monkeypatch.setattr(health, "BRISK", Timeouts(statement=timedelta(seconds=0.2), lock=HARDLY))
    proxy.freeze(new=True)
    found = run("health", url=proxy.url)
    assert (found.exit_code, "no connection within 0.4 s" in found.stdout) == (5, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--live",), "give its --port"),
        (("--live", "--ready", "--port", "1"), "give one of them"),
        (("--port", "1", "--schema", "x"), "nothing else"),
        (("--host", "elsewhere"), "give that too"),
    ],
)
def test_what_health_cannot_be_asked_is_refused(words: tuple[str, ...], told: str) -> None:
    """A usage error says what to do."""
    found = run("health", *words, url="postgresql://nobody@127.0.0.1:1/none")
    assert found.exit_code == 2
    assert told in " ".join(found.output.split())
