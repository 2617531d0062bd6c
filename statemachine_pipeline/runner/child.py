"""A child process: reads calls from its standard input, answers on its standard output.

Started by ``children.py`` as ``python -m statemachine_pipeline.runner.child``. It imports next to
nothing until a call names what it needs, and dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import math
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO, Final

from statemachine_pipeline.runner import wire

_PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str]) -> None:
    """Serve calls until the parent closes the pipe.

    Args:
        arguments: The parent's process id, the memory limit in bytes, the CPU limit of one call in
            seconds.
    """
    parent_pid, memory_bytes, cpu_seconds = map(int, arguments)
    _die_with(parent_pid)
    requests, answers = _claim_pipes()
    faulthandler.enable()
    _limit(memory_bytes)
    while content := _read(requests):
        _limit_cpu(cpu_seconds)
        answer = _serve(content)
        _write(answers, wire.LENGTH.pack(len(answer)))
        _write(answers, answer)


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


def _write(answers: int, content: bytes) -> None:
    rest = memoryview(content)
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


def _die_with(parent_pid: int) -> None:
    """Let the kernel kill this process when its parent dies, even within a long call into C.

    Without prctl (not Linux) the end of the pipe ends it, after the call that runs.
    """
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent_pid:  # it died before the line above
        os._exit(1)


def _limit(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        memory_bytes = min(memory_bytes, hard)
    # RLIMIT_DATA counts what is really written to (anonymous private memory, since Linux 4.7);
    # RLIMIT_AS counts reserved addresses too, which threads take by the hundred megabytes.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
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
