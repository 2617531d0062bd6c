"""A child process: is given its limits and its keeper, then serves calls (``serving.py``).

Started by ``children.py`` as ``python -m statemachine_pipeline.runner.child``. It imports next to
nothing until a call names what it needs, and dies with its parent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import signal
import sys
from pathlib import Path
from typing import BinaryIO

from statemachine_pipeline.runner import keeper


def main(arguments: list[str]) -> None:
    """Serve calls until the parent closes the pipe.

    Args:
        arguments: The parent's process id, then of ``ProcessLimits`` the memory, the processor time
            of one call, the length of a file and the number of processes; its temporary folder.
    """
    *numbers, folder = arguments
    parent_id, memory_bytes, cpu_seconds, file_bytes, processes = map(int, numbers)
    requests, answers = _claim_pipes()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if keeper.IS_POSSIBLE:
        keeper.go_on_kept(parent_id, memory_bytes, processes, folder, answers)
    faulthandler.enable()
    _limit(memory_bytes, file_bytes)
    from statemachine_pipeline.runner import serving  # not needed by the keeper

    serving.serve(requests, answers, cpu_seconds)


def _claim_pipes() -> tuple[BinaryIO, int]:
    """Move the pipes away from where a hook that prints or reads would disturb them.

    The second is a bare descriptor: only the end of the process closes it, so that the parent sees
    the pipe closed exactly when there is an exit code.
    """
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _limit(memory_bytes: int, file_bytes: int) -> None:
    # RLIMIT_DATA counts what is really written to (anonymous private memory, since Linux 4.7);
    # RLIMIT_AS counts reserved addresses too, which threads take by the hundred megabytes.
    for kind, limit in ((resource.RLIMIT_DATA, memory_bytes), (resource.RLIMIT_FSIZE, file_bytes)):
        _, hard = resource.getrlimit(kind)
        own = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (own, own))
    # Python ignores it, and a hook would see a full disk, which another try might cure.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        # Out of memory, the kernel takes a child before its worker or the database.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1:])
