"""One child process as its worker sees it: started, asked, killed with all it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.limits import MEBIBYTE
from statemachine_pipeline.runner import hearsay, keeper, wire
from statemachine_pipeline.runner.errands import IS_LINE, LINE_BYTES, LINES

if TYPE_CHECKING:
    from statemachine_pipeline.limits import ProcessLimits

STDERR_TAIL_BYTES: Final = 4_000
_READ_BYTES: Final = 64 * 1024
# A keeper that was told to end is gone within milliseconds, unless somebody stopped or killed it; a
# process that was killed, unless a disk or a network holds it.
_LOOK_SECONDS: Final = 0.02
_LOOKS: Final = 250
_LOOKS_BEFORE_FORCE: Final = 100
_STDERR_SECONDS: Final = 0.5


class OverLimit(Exception):
    """A call used more than it may, as far as the pipes show.

    Attributes:
        limit: The field of ``ProcessLimits``.
    """

    def __init__(self, limit: str) -> None:
        self.limit = limit
        super().__init__(limit)


class Spawned:
    """One child process, with a temporary folder of its own and the end of its standard error.

    Attributes:
        is_up: It said that it takes calls. Before that it has seen nothing of any document.
        calls: How many it was asked.
        over: The limit for which it was killed, as far as what it printed shows.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, limits: ProcessLimits, folder: str
    ) -> None:
        self._process, self._limits, self._folder = process, limits, folder
        self._tail = b""
        self._printed_bytes = 0
        self._drain = asyncio.get_running_loop().create_task(self._read_stderr())
        self.is_up = False
        self.calls = 0
        self.over: str | None = None

    @classmethod
    async def start(cls, limits: ProcessLimits) -> Spawned:
        """Start a child that imports what this process can import."""
        folder = tempfile.mkdtemp(prefix="smp-child-")
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "statemachine_pipeline.runner.child",
                str(os.getpid()),
                str(limits.memory_bytes),
                str(limits.cpu_seconds),
                str(limits.file_bytes),
                str(limits.processes),
                folder,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=MEBIBYTE,
                start_new_session=True,  # Ctrl-C at the terminal is the worker's to handle
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
                    "TMPDIR": folder,
                },
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(process, limits, folder)

    @property
    def is_alive(self) -> bool:
        """Whether it has not been seen dead."""
        return self._process.returncode is None

    @property
    def is_usable(self) -> bool:
        """Whether it lives, and has said nothing that nobody asked for: the next would be told."""
        stdout = self._process.stdout
        return self.is_alive and self.over is None and not stdout._buffer  # type: ignore[union-attr]

    @property
    def stderr(self) -> str:
        """The end of its standard error."""
        return self._tail.decode("utf-8", "replace")

    async def ask(self, request: bytes) -> bytes:
        """Send a call and return the answer, both without their lengths.

        Raises:
            EOFError: It closed the pipe: it died. Or it never came up.
            OSError: It died while the call was being sent.
            OverLimit: Its answer is longer than allowed, or it printed or logged more.
            Malformed: It logged what is no line.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018 - asked for at start
        self.calls += 1
        self._printed_bytes = 0
        if not self.is_up:
            self.is_up = await stdout.readexactly(len(wire.READY)) == wire.READY
            if not self.is_up:
                raise EOFError
        stdin.write(wire.LENGTH.pack(len(request)))
        stdin.write(request)
        await stdin.drain()
        length = await self._heard(stdout)
        if length > self._limits.answer_bytes:
            raise OverLimit("answer_bytes")
        return await stdout.readexactly(length)

    async def _heard(self, stdout: asyncio.StreamReader) -> int:
        """Log what the child says before its answer; return how long that is."""
        lines = 0
        while True:
            (length,) = wire.LENGTH.unpack(await stdout.readexactly(wire.LENGTH.size))
            if not length & IS_LINE:
                return int(length)
            length ^= IS_LINE
            if length > LINE_BYTES:
                raise wire.Malformed("a line of its log is too long")
            self._printed_bytes += length
            if self._printed_bytes > self._limits.printed_bytes:
                raise OverLimit("printed_bytes")
            line = await stdout.readexactly(length)
            lines += 1
            if lines <= LINES:
                hearsay.retell(line, self._process.pid)

    def kill(self) -> None:
        """Kill it with everything it started; harmless when it is dead."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if keeper.IS_POSSIBLE and self.is_alive:
                # Not by Popen, which would collect it before asyncio can.
                os.kill(self._process.pid, signal.SIGTERM)
            else:
                os.killpg(self._process.pid, signal.SIGKILL)

    async def wait(self) -> int | None:
        """Return its exit code once it is dead, or None if it lives on for seconds."""
        # wait() alone would also wait for the pipes, which a process that it started may hold open.
        waiting = asyncio.ensure_future(self._process.wait())
        for look in range(_LOOKS):
            if self.is_alive:
                await asyncio.wait({waiting}, timeout=_LOOK_SECONDS)
            if self.is_alive and look == _LOOKS_BEFORE_FORCE:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
        waiting.cancel()
        await asyncio.wait({self._drain}, timeout=_STDERR_SECONDS)
        return self._process.returncode

    async def reap(self) -> None:
        """Collect a killed child's exit code, close its pipes and remove its folder."""
        await self.wait()
        self._drain.cancel()
        # Without a keeper a process that it started may hold them; nobody else closes them.
        self._process._transport.close()  # type: ignore[attr-defined]
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - asked for at start
        while piece := await self._process.stderr.read(_READ_BYTES):
            self._tail = (self._tail + piece)[-STDERR_TAIL_BYTES:]
            self._printed_bytes += len(piece)
            if self._printed_bytes > self._limits.printed_bytes and self.over is None:
                self.over = "printed_bytes"
                self.kill()
