"""What a hook in a child process may use. Pure."""

from __future__ import annotations

import dataclasses
from typing import Final

MEBIBYTE: Final = 1024 * 1024
LEAST_MEMORY_BYTES: Final = 64 * MEBIBYTE
"""Below it Python itself may not start."""
_MOST: Final = 2**62
"""Far above every machine; not far above, the kernel would take it for no limit."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """What one call of a hook may use in its child process; past it the child is killed.

    The stage's deadline is the limit on time. Stages with the same limits share their children.

    Attributes:
        memory_bytes: Most memory of the child with all it started; at least 64 MiB. One process
            that asks for more gets none (``MemoryError``); the sum over all of them, and what they
            share, is looked at five times a second. Pages of mapped files do not count.
        cpu_seconds: Most processor time of each of its processes in one call.
        answer_bytes: Longest answer, as it crosses the pipe; longer ones are not even read.
        printed_bytes: Most that is printed in one call, to stdout and stderr together.
        file_bytes: Longest file that it may write, in its temporary folder or elsewhere.
        processes: Most processes at a time, the child included.
        recycle_after: Calls after which a child is replaced, so that leaks end with it; with 1 no
            two documents ever share a process.
    """

    memory_bytes: int = 2048 * MEBIBYTE
    cpu_seconds: int = 900
    answer_bytes: int = 512 * MEBIBYTE
    printed_bytes: int = 64 * MEBIBYTE
    file_bytes: int = 1024 * MEBIBYTE
    processes: int = 64
    recycle_after: int = 200

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = LEAST_MEMORY_BYTES if field.name == "memory_bytes" else 1
            if type(value) is not int or not least <= value <= _MOST:
                raise ValueError(
                    f"{field.name}={value!r} must be a whole number, at least {least:,} "
                    f"and at most {_MOST:,}"
                )
