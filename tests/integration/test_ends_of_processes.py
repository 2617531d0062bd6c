"""Programs that used an object store end with their own exit code."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import asyncio, sys
from statemachine_pipeline.adapters.blobs import ObjectBlobs

async def one():
    yield b"bytes"

async def main():
    blobs = ObjectBlobs("file://" + sys.argv[1])
    await blobs.put_if_absent("key", one(), size_bytes=5)
    await blobs.delete(["key"])

asyncio.run(main())
"""
TIMES = 8
"""Without the wait, every fourth was aborted on a busy machine (6 of 25)."""


def test_a_program_that_ends_right_after_its_last_request_is_not_aborted(tmp_path: Path) -> None:
    """'Let the process end a moment later': its exit code is its own."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    ends = [subprocess.run(command, check=False, timeout=120).returncode for _ in range(TIMES)]
    assert ends == [0] * TIMES
