"""Folders for servers of the tests, in memory where there is room."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")
ROOM_BYTES = 2**31
"""More than the servers of all processes of pytest need at once: some 300 MB each."""


@contextlib.contextmanager
def reachable() -> Iterator[Path]:
    """Make a folder that a server's account can enter; pytest's own are closed to it.

    A server has a thousand files, and each database of a test 300. On a disk, files cost the more
    the more were deleted just before: a new database took 0.30 s of processor time, and in memory
    it takes 0.06.
    """
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    folder = Path(tempfile.mkdtemp(prefix="smp-", dir=MEMORY if roomy else None))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
