"""The process that owns an embedded PostgreSQL and ends it when nobody uses it any more.

A script: ``embedded.py`` runs ``python -I -S watchdog.py DIRECTORY USER GROUP COMMAND``.
It must never import anything but the standard library: it stays for as long as the server runs, and
the rest of the package would stay in memory with it.

Every user of the server holds a shared lock on the lease. The kernel drops that lock when its
process ends, however it ends, so waiting for the exclusive lock is waiting for the last user, and
there is no list of process ids to go stale. The watchdog keeps the exclusive lock until PostgreSQL
is gone, which makes a newcomer wait and then start a server of its own.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATIENCE_SECONDS = 10
"""How long the server may take to shut down, and then to quit, before it is told more firmly."""

_PR_SET_PDEATHSIG = 1
_LOG_BYTES, _LOG_TAIL_BYTES = 1_000_000, 2_000


class Lock:
    """An open lock file; closing it, or the end of the process, gives the lock up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Never through a symbolic link: root may be working in somebody else's directory.
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def take(self, kind: int) -> bool:
        """Take the lock, ``LOCK_SH`` or ``LOCK_EX``, if it is free; say whether it was."""
        try:
            fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Give the lock up."""
        # Not LOCK_UN, which would also unlock the copies of this open file in other processes.
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def starting(directory: Path) -> Lock:
    """Open the lock of those who create, start or leave the server; taken before the others."""
    return Lock(directory / "start.lock")


def lease(directory: Path) -> Lock:
    """Open the lock that users share and the watchdog waits for."""
    return Lock(lease_path(directory))


def lease_path(directory: Path) -> Path:
    """Return the file of that lock, which no other folder has."""
    return directory / "lease.lock"


def alive(directory: Path) -> Lock:
    """Open the lock that the watchdog holds while its PostgreSQL runs."""
    return Lock(directory / "alive.lock")


def is_alive(directory: Path) -> bool:
    """Tell whether a watchdog runs; call while holding ``starting``."""
    with alive(directory) as probe:
        return not probe.take(fcntl.LOCK_SH)


def has_users(directory: Path) -> bool:
    """Tell whether anybody uses the server; call while holding ``starting``."""
    with lease(directory) as probe:
        # Not even shared: the watchdog has it and is stopping. Exclusive: nobody has it.
        return probe.take(fcntl.LOCK_SH) and not probe.take(fcntl.LOCK_EX)


def log(directory: Path) -> Path:
    """Return where PostgreSQL and the watchdog write what they have to say."""
    return directory / "server.log"


def open_log(directory: Path) -> FileIO:
    """Open the log for writing at its end, put aside what has grown too long."""
    path = log(directory)
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return FileIO(os.open(path, flags, 0o600), "r+")


def log_tail(directory: Path, began: int) -> str:
    """Return the last lines written after a place in the log."""
    with open_log(directory) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(began, end - _LOG_TAIL_BYTES))
        return file.read().decode(errors="replace").strip()


def orphan(data: Path) -> int | None:
    """Return the id of a process that runs PostgreSQL on the data although no watchdog does."""
    process = _recorded_process(data)
    with suppress(OSError):
        if process and Path(f"/proc/{process}/cwd").readlink() == data:
            return process
    return None


def recycled(data: Path) -> dict[str, str]:
    """Return what tells PostgreSQL that the process recorded in its data, no orphan, is not it.

    Process ids repeat, in containers at each restart. PostgreSQL takes whatever process of its user
    has its old id for itself and refuses to start; pg_ctl prevents that with this variable.
    PostgreSQL checks all the same that nobody has the shared memory recorded with it.
    """
    process = _recorded_process(data)
    return {"PG_GRANDPARENT_PID": str(process)} if process and sys.platform == "linux" else {}


def _recorded_process(data: Path) -> int | None:
    with suppress(FileNotFoundError, ValueError):
        return int((data / "postmaster.pid").read_text().partition("\n")[0])
    return None


def main(directory: str, user: str, group: str, *command: str) -> int:
    """Become the server's owner in the background.

    Returns at once, when the child that goes on holds its lock or another watchdog does. The child
    is left to init, so that the application has no zombie of it.
    """
    # Opened first, so closed first: who gets the lease from a watchdog never finds it alive.
    life = alive(Path(directory))
    users = lease(Path(directory))
    if not life.take(fcntl.LOCK_EX) or os.fork():
        return 0
    return own(command, users, int(user), int(group))


def own(command: Sequence[str], users: Lock, user: int, group: int) -> int:
    """Run the server until it ends by itself or the last user is gone."""
    root = os.geteuid() == 0
    server = subprocess.Popen(  # noqa: S603 - no shell; embedded.py makes the command
        command,
        stdin=subprocess.DEVNULL,
        user=user if root else None,
        group=group if root else None,
        extra_groups=[] if root else None,
        # Runs after the change of user, which would undo it, and before there is a second thread.
        preexec_fn=_dying_with_parent(),  # noqa: PLW1509
    )

    def shut_down(*_: object) -> None:
        server.send_signal(signal.SIGINT)

    def watch() -> None:
        fcntl.flock(users.fd, fcntl.LOCK_EX)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            server.send_signal(number)
            time.sleep(PATIENCE_SECONDS)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, shut_down)
    # A thread, because a signal that comes just before a blocking flock would not interrupt it.
    threading.Thread(target=watch, daemon=True).start()
    return server.wait()


def _dying_with_parent() -> Callable[[], None] | None:
    """Return what has Linux shut the server down should this process be killed."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGINT)

    return ask


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
