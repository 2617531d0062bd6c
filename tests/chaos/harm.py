"""A parser in which documents do harm, each by its first word; quick to import."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.limits import ProcessLimits
from statemachine_pipeline.records import ParsedText

if TYPE_CHECKING:
    from statemachine_pipeline import Source

LIMITS = ProcessLimits(
    memory_bytes=128 * 1024 * 1024,
    cpu_seconds=1,
    answer_bytes=100_000,
    printed_bytes=1_000_000,
    file_bytes=1_000_000,
    processes=10,
)


class Nonsense:
    """Cannot be sent to anybody."""


def fault() -> None:
    """Read what is not there."""
    ctypes.string_at(0)


def _allocate() -> None:
    taken = []
    while True:
        taken.append(bytearray(os.urandom(4096) * 1024))


def _share() -> None:
    shared = mmap.mmap(-1, 256 * 1024 * 1024)
    shared.write(bytes(len(shared)))
    signal.pause()


def _spin() -> None:
    while True:
        pass


def _print() -> None:
    while True:
        sys.stdout.write("page 1 of 1\n")


def _write() -> None:
    with tempfile.TemporaryFile() as file:
        while True:
            file.write(bytes(10_000))


def _bomb() -> None:
    for _ in range(40):
        if os.fork() == 0:
            signal.pause()
    signal.pause()


def _forge() -> None:
    content = b"\x80\x04 no JSON"
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, struct.pack(">Q", len(content)) + content)
        except OSError:
            continue
    signal.pause()


def _leave() -> str:
    """Read well, and leave a process in a session of its own behind."""
    if os.fork() == 0:
        os.setsid()
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        os._exit(0)
    return "left a process behind"


HARM: dict[str, Any] = {
    "fault": fault,
    "exit": lambda: os._exit(7),
    "allocate": _allocate,
    "share": _share,
    "spin": _spin,
    "print": _print,
    "write": _write,
    "bomb": _bomb,
    "forge": _forge,
    "answer": lambda: "x" * 200_000,
    "hang": signal.pause,
    "unsendable": Nonsense,
    "leave": _leave,
}


class Parser:
    """Does what a document's first word says, or returns its text."""

    fingerprint = "poisoned/1"

    def parse(self, source: Source) -> ParsedText:
        text = source.read().decode()
        done = HARM.get(text.split()[0], lambda: text)()
        return ParsedText(done)
