"""The process that owns an embedded PostgreSQL, and ends it when nobody uses it any more.

``embedded.py`` runs this file as a script, ``python -I -S watchdog.py LEASE ALIVE USER GROUP COMMAND``,
so it must never import anything but the standard library: the rest of the package would cost memory
for as long as the server runs, and may not be importable at all from here.

Every user of the server holds a shared lock on the lease file. The kernel drops that lock when its
process ends, however it ends, so waiting for the exclusive lock is waiting for the last user: there
is no list of process ids that could go stale. The exclusive lock is kept until PostgreSQL is gone,
which makes a newcomer wait and then start a server of its own.
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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

FAST_SHUTDOWN_SECONDS = 10
"""How long a fast shutdown may take before the server is told to quit at once."""

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> int:
    """Become the server's owner, in the background, and return when that is settled.

    The first process returns as soon as the lock on ALIVE is held, or because somebody else holds
    it; its child inherits the lock, is adopted by init, and so leaves no zombie to the program that
    asked for a server.
    """
    lease_path, alive_path, user, group, *command = arguments
    alive = os.open(alive_path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    lease = os.open(lease_path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    if os.fork():
        return 0
    return own(command, lease, int(user), int(group))


def own(command: Sequence[str], lease: int, user: int, group: int) -> int:
    """Run the server until it ends by itself or the last lease is given up."""
    root = os.geteuid() == 0
    server = subprocess.Popen(  # noqa: S603 - the command is built by embedded.py
        command,
        stdin=subprocess.DEVNULL,
        cwd="/",
        user=user if root else None,
        group=group if root else None,
        extra_groups=[] if root else None,
        # Runs after the change of user, which would undo it. One thread so far, so forking is safe.
        preexec_fn=die_with_parent(),  # noqa: PLW1509
    )

    def shut_down(_signal: int = 0, _frame: FrameType | None = None) -> None:
        server.send_signal(signal.SIGINT)

    def watch() -> None:
        fcntl.flock(lease, fcntl.LOCK_EX)
        shut_down()
        time.sleep(FAST_SHUTDOWN_SECONDS)
        server.send_signal(signal.SIGQUIT)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, shut_down)
    threading.Thread(target=watch, daemon=True).start()
    return server.wait()


def die_with_parent() -> Callable[[], None] | None:
    """Return what asks Linux to shut the server down should this process be killed."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)

    return ask


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
