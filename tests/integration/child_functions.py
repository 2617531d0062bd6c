"""Functions that ``test_children.py`` runs in real child processes, well and badly behaved."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from statemachine_pipeline.hooks import Reject, Retry
from statemachine_pipeline.records import ParsedText, Source, Span


def process_id() -> int:
    """Tell which process this is."""
    return os.getpid()


def loaded() -> list[str]:
    """Tell which top-level modules have been imported."""
    return sorted({name.partition(".")[0] for name in sys.modules})


def length(source: Source) -> int:
    """Read a source whole."""
    return len(source.read())


def parsed() -> ParsedText:
    """Return what a parser returns."""
    return ParsedText("é\x01", (Span(page=1, start=0, end=2),), ("lost",))


def large(count: int) -> str:
    """Return a text of this length."""
    return "é" * count


def reject() -> None:
    """Raise a permanent failure."""
    raise Reject("no pages", "empty")


def retry() -> None:
    """Raise a transient failure."""
    raise Retry("not yet", after=timedelta(seconds=7))


def fail() -> None:
    """Raise what is no signal."""
    raise KeyError("missing")


def set_of_numbers() -> set[int]:
    """Return what no answer can hold."""
    return {1}


def abort() -> None:
    """Die as a C library does."""
    sys.stderr.write("last words\n")
    sys.stderr.flush()
    os.abort()


def leave() -> None:
    """Exit in the middle of a call."""
    sys.exit(3)


def fault() -> None:
    """Read what is not there."""
    ctypes.string_at(0)


def take_memory(size_bytes: int) -> int:
    """Allocate this much."""
    return len(bytearray(size_bytes))


def spin() -> None:
    """Use the processor for ever."""
    while True:
        pass


def disturb() -> str:
    """Print, read and write where the pipes used to be."""
    sys.stdout.write("noise\n" * 100_000)
    os.write(1, b"noise")
    return f"heard {sys.stdin.read()!r}"


def forge() -> None:
    """Answer in the child's place, as a file that took it over would."""
    content = b"\x80\x04no JSON"
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, struct.pack(">Q", len(content)) + content)
        except OSError:
            continue
    signal.pause()


def tell_and_pause(fifo: str) -> None:
    """Start a process, tell both process ids, and never end."""
    grandchild = subprocess.Popen(["sleep", "1000"])
    Path(fifo).write_text(f"{os.getpid()} {grandchild.pid}", encoding="ascii")
    signal.pause()


def tell_and_abort(fifo: str) -> None:
    """Start a process, tell its process id, and die without it."""
    grandchild = subprocess.Popen(["sleep", "1000"])
    Path(fifo).write_text(str(grandchild.pid), encoding="ascii")
    os.abort()


def send(fifo: str) -> str:
    """Write to a pipe: ends only while somebody reads."""
    Path(fifo).write_text("hello", encoding="ascii")
    return "sent"


def receive(fifo: str) -> str:
    """Read from a pipe: ends only while somebody writes."""
    return Path(fifo).read_text(encoding="ascii")


class Measurer:
    """A parser whose text is the length of the file it was given."""

    fingerprint = "measurer/1"

    def parse(self, source: Source) -> ParsedText:
        assert source.path is not None
        return ParsedText(str(source.path.stat().st_size))


class Unreachable:
    """A parser whose provider is down."""

    fingerprint = "unreachable/1"

    def parse(self, source: Source) -> ParsedText:
        raise ConnectionRefusedError


def gather_failures(text: ParsedText) -> None:
    """Fail as a group of tasks does, quoting the document."""
    nothing: dict[str, int] = {}
    try:
        nothing[text.text]
    except KeyError as error:
        raise ExceptionGroup("several", [error]) from None
