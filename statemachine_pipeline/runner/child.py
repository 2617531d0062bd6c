"""A child process: reads calls from its standard input, answers on its standard output.

Started by ``children.py`` as ``python -m statemachine_pipeline.runner.child``. It imports next to
nothing until a call names what it needs, ends what each call left behind, and dies with its parent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import math
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO

from statemachine_pipeline.runner import keeper, offspring, wire


def main(arguments: list[str]) -> None:
    """Serve calls until the parent closes the pipe.

    Args:
        arguments: The parent's process id, then of ``ProcessLimits`` the memory, the processor time
            of one call, the length of a file and the number of processes; its temporary folder.
    """
    *numbers, folder = arguments
    parent_id, memory_bytes, cpu_seconds, file_bytes, processes = map(int, numbers)
    requests, answers = _claim_pipes()
    tell = functools.partial(_answer, answers)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if keeper.IS_POSSIBLE:
        keeper.go_on_kept(parent_id, memory_bytes, processes, folder, tell)
    faulthandler.enable()
    _limit(memory_bytes, file_bytes)
    while content := _read(requests):
        _limit_cpu(cpu_seconds)
        answer = _serve(content)
        # Before it answers: what the call left behind would be seen by the next.
        if keeper.IS_POSSIBLE and not offspring.end_all(keeper.PATIENCE_SECONDS):
            sys.exit("a process that a call left behind does not end")
        tell(answer)


def _serve(content: bytes) -> bytes:
    try:
        function, arguments = wire.decode_call(content)
        return wire.encode_result(function(*arguments))
    except Exception as error:  # noqa: BLE001 - the border of a user's code: told to the parent
        return wire.encode_failure(error)


def _read(requests: BinaryIO) -> bytes:
    """Return the next call, or nothing when the parent has closed the pipe or died."""
    header = requests.read(wire.LENGTH.size)
    if len(header) < wire.LENGTH.size:
        return b""
    (length,) = wire.LENGTH.unpack(header)
    content = requests.read(length)
    return content if len(content) == length else b""


def _answer(answers: int, content: bytes) -> None:
    for part in (wire.LENGTH.pack(len(content)), content):
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(answers, rest) :]


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


def _limit_cpu(cpu_seconds: int) -> None:
    """Grant the next call its time; the kernel kills a process that spends more."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time()) + cpu_seconds
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
