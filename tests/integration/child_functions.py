"""Functions that ``test_children.py`` runs in real child processes, well and badly behaved."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
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


def _daemon() -> int:
    """Start a process that nothing ties to this one: other session, parent and environment."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writing, str(os.getpid()).encode())
            os.execve("/bin/sleep", ["sleep", "1000"], {})
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return int(pipe.read())


def leave_daemon() -> int:
    """Return well, and leave a daemon behind."""
    return _daemon()


def leave_process() -> int:
    """Return well, and leave a process behind."""
    return subprocess.Popen(["sleep", "1000"]).pid


def tell_and_fault(fifo: str) -> None:
    """Start a daemon, tell its process id, and die without it."""
    Path(fifo).write_text(str(_daemon()), encoding="ascii")
    fault()


def tell_daemon_and_pause(fifo: str) -> None:
    """Start a daemon, tell both process ids, and never end."""
    Path(fifo).write_text(f"{os.getpid()} {_daemon()}", encoding="ascii")
    signal.pause()


def kill_keeper(fifo: str) -> None:
    """Kill the process that watches this one, tell this one's id, and never end."""
    Path(fifo).write_text(str(os.getpid()), encoding="ascii")
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def take_shared_memory(size_bytes: int) -> None:
    """Fill memory that no limit of the kernel's counts, and never end."""
    shared = mmap.mmap(-1, size_bytes)
    shared.write(bytes(size_bytes))
    signal.pause()


def take_memory_in_many(count: int, size_bytes: int) -> None:
    """Let processes take memory, each less than its limit, and never end."""
    for _ in range(count):
        if os.fork() == 0:
            taken = bytearray(os.urandom(4096) * (size_bytes // 4096))
            signal.pause()
            del taken
    signal.pause()


def share_with_many(count: int, size_bytes: int) -> int:
    """Let processes share what this one took, and look at it for two looks of the keeper."""
    taken = bytearray(os.urandom(4096) * (size_bytes // 4096))
    for _ in range(count):
        if os.fork() == 0:
            signal.pause()
    time.sleep(0.5)
    return len(taken)


def fork_many(count: int) -> None:
    """Start processes that never end."""
    for _ in range(count):
        if os.fork() == 0:
            signal.pause()
    signal.pause()


def write_file(size_bytes: int) -> int:
    """Write a file of this length."""
    path = Path(tempfile.gettempdir()) / "large"
    return path.write_bytes(bytes(size_bytes))


def print_endlessly() -> None:
    """Print for ever."""
    while True:
        sys.stdout.write("page 1 of 1\n")


def print_much(size_bytes: int) -> None:
    """Print this much."""
    sys.stdout.write("x" * size_bytes)
    sys.stdout.flush()


def answer_in_advance() -> str:
    """Answer for the next call too, as a file that took the child over would."""
    content = b'{"kind":"value","value":"forged"}'
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, 2 * (struct.pack(">Q", len(content)) + content))
        except OSError:
            continue
    return "true"


def temporary_file() -> str:
    """Leave a file where temporary files go."""
    descriptor, path = tempfile.mkstemp()
    os.close(descriptor)
    return path


class Poison:
    """A parser that segfaults on some files, and reads the others."""

    fingerprint = "poison/1"

    def parse(self, source: Source) -> ParsedText:
        content = source.read()
        if content.startswith(b"poison"):
            fault()
        return ParsedText(content.decode())
