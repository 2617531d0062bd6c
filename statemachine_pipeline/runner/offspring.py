"""The processes that descend from this one: found, measured and killed through ``/proc``.

Linux only, and exact only in a subreaper (``prctl(2)``): there whatever loses its parent, a daemon
too, becomes a child of this process, so nothing that it started gets out of sight. Nothing else is
ever killed: who descends from here is asked again once its number can no longer become another's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_MEMORY: Final = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
_SHARES: Final = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")
_LOOK_SECONDS: Final = 0.001
KIBIBYTE: Final = 1024


def adopt() -> None:
    """Become the parent of every descendant that loses its own."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with(parent_id: int, death: signal.Signals) -> None:
    """Let the kernel send this process a signal when its parent dies.

    Even within a long call into C. Without prctl (not Linux) nothing happens.
    """
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death, 0, 0, 0)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent_id:  # it died before the line above
        os._exit(1)


def descendants(root: int) -> list[int]:
    """Return the numbers of all processes below ``root``, ended ones included."""
    own = Path(f"/proc/self/task/{os.getpid()}/children")
    return _below(root, _listed if own.exists() else scanned())


def memory_bytes(processes: Sequence[int], enough: int) -> int:
    """Return how much memory processes hold together: written to, and not backed by a file.

    What several share counts once. That is looked up only where it decides whether the sum is above
    ``enough``, because the kernel walks all their pages for it.
    """
    held = sum(_sum(one, "status", _MEMORY) for one in processes)
    if held <= enough or len(processes) == 1:
        return held
    return sum(_sum(one, "smaps_rollup", _SHARES) for one in processes)


def has_ended(process_id: int) -> bool:
    """Tell whether a process is gone, or only waits to be collected."""
    try:
        return _stat(process_id)[0] in b"ZX"
    except OSError:
        return True


def end_all(patience_seconds: float) -> bool:
    """Kill every process below this one and collect it; False if some live on.

    A killed process starts no others, so it also ends processes that start each other.
    """
    until = time.monotonic() + patience_seconds
    while _others_live():
        if time.monotonic() > until:
            return False
        for one in descendants(os.getpid()):
            _kill(one)
        time.sleep(_LOOK_SECONDS)
    return True


def scanned() -> Callable[[int], list[int]]:
    """Return the children of any process by reading all, for kernels that do not list them."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            one = int(path.name)
            children.setdefault(_parent(one), []).append(one)
    return lambda parent: children.get(parent, [])


def _below(root: int, children: Callable[[int], list[int]]) -> list[int]:
    found: list[int] = []
    unseen = [root]
    while unseen:
        below = children(unseen.pop())
        found += below
        unseen += below
    return found


def _listed(parent: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (thread / "children").read_bytes().split())
    return found


def _others_live() -> bool:
    """Collect children that ended; tell whether there are others."""
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, _ = os.waitpid(-1, os.WNOHANG)
            if not ended:
                return True
    return False


def _kill(process_id: int) -> None:
    with contextlib.suppress(OSError):  # it has ended; or it is another user's by now
        descriptor = os.pidfd_open(process_id)
        try:
            if _descends(process_id):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _descends(process_id: int) -> bool:
    me = os.getpid()
    while process_id > 1:
        process_id = _parent(process_id)
        if process_id == me:
            return True
    return False


def _parent(process_id: int) -> int:
    return int(_stat(process_id)[1])


def _stat(process_id: int) -> list[bytes]:
    # The name in brackets may hold anything, brackets and blanks too.
    return Path(f"/proc/{process_id}/stat").read_bytes().rpartition(b")")[2].split()


def _sum(process_id: int, file: str, names: tuple[bytes, ...]) -> int:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process_id}/{file}").read_bytes().splitlines()
        return KIBIBYTE * sum(int(line.split()[1]) for line in lines if line.startswith(names))
    return 0
