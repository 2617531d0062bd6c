"""Child processes for work that blocks, crashes or eats memory: parsing above all.

Not multiprocessing: its spawn breaks scripts without a main guard, and its fork is unsafe beside
threads. A child is ``python -m statemachine_pipeline.runner.child`` on a pipe (``wire.py``), in a
process group of its own that is killed whole. Nothing here knows a document or a database.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from statemachine_pipeline.errors import PipelineError
from statemachine_pipeline.runner import wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from statemachine_pipeline.symptoms import Symptoms

T = TypeVar("T")

MEBIBYTE: Final = 1024 * 1024
ANSWER_LIMIT_BYTES: Final = 512 * MEBIBYTE
STDERR_TAIL_BYTES: Final = 4_000
# A process that was killed is gone within milliseconds, unless a disk or a network holds it.
_LOOK_SECONDS: Final = 0.02
_LOOKS: Final = 250
_STDERR_SECONDS: Final = 0.5


class ChildCrashed(PipelineError):
    """A child died, or no longer makes sense, in the middle of a call.

    Attributes:
        exit_code: Its exit code; below zero the signal that killed it; None if it was killed here.
        stderr: The end of what it wrote there. It may hold text of the document: for logs only.
    """

    def __init__(self, cause: str, exit_code: int | None = None, stderr: str = "") -> None:
        self.exit_code, self.stderr = exit_code, stderr
        super().__init__(f"the child process {cause}")


class ChildTimedOut(PipelineError):
    """A call took longer than it was given, and its child was killed."""

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        super().__init__(f"the child process was killed: no answer within {timeout_seconds:g} s")


class HookRaised(PipelineError):
    """The function raised an exception that is none of the hooks' signals.

    Attributes:
        symptoms: What rules can know of it.
        message: Its text; may hold text of the document.
        trace: Where the child raised it, without what it says.
    """

    def __init__(self, symptoms: Symptoms, message: str, trace: str) -> None:
        self.symptoms, self.message, self.trace = symptoms, message, trace
        super().__init__(f"{symptoms.name}: {message}")


class Children:
    """A pool of child processes, started when first needed and replaced when they die.

    Use it from one event loop. A child dies with the thread that runs the loop, so the loop should
    live in a thread that lasts.

    Args:
        size: Most children at one time.
        memory_bytes: Most memory that each may write to.
        cpu_seconds: Most processor time of one call: a backstop behind its timeout.
        recycle_after: Calls after which a child is replaced, so that leaks end with it.
    """

    def __init__(
        self,
        size: int,
        *,
        memory_bytes: int = 2048 * MEBIBYTE,
        cpu_seconds: int = 900,
        recycle_after: int = 200,
    ) -> None:
        if size < 1:
            raise ValueError(f"size={size} must be at least 1")
        self._arguments = (str(memory_bytes), str(cpu_seconds))
        self._memory_bytes = memory_bytes
        self._recycle_after = recycle_after
        self._size = size
        self._slots = asyncio.Semaphore(size)
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._reaping: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def call(self, function: Callable[..., T], *arguments: Any, timeout_seconds: float) -> T:
        """Run ``function(*arguments)`` in a child.

        A call that is cancelled or timed out kills its child with everything that it started.

        Args:
            function: A plain function or bound method that can be imported by name; its owner and
                the arguments are pickled.
            *arguments: Its arguments.
            timeout_seconds: Longest wait from the moment a child is free, its start included.

        Returns:
            What it returned: texts, chunks and products of them; or JSON values, with lists where
            it had tuples.

        Raises:
            Signal: The function raised it.
            HookRaised: The function raised anything else.
            ExceptionGroup: It raised several at once; of these two.
            ChildCrashed: The child died.
            ChildTimedOut: There was no answer in time.
            DefinitionError: The function or an argument cannot be sent.
        """
        request = await asyncio.to_thread(wire.encode_call, function, arguments)
        async with self._slots:
            answer = await self._exchange(request, timeout_seconds)
        match answer:
            case wire.Signalled() | wire.Raised():
                raise _raised(answer)
            case wire.Grouped(members=members):
                raise ExceptionGroup("the hook raised several", [_raised(one) for one in members])
            case wire.Returned(value=value):
                returned: T = value
                return returned

    async def close(self) -> None:
        """Kill every child and wait until they are gone; calls under way fail."""
        self._closed = True
        for child in (*self._idle, *self._busy):
            self._discard(child)
        for _ in range(self._size):  # whoever has or awaits a slot fails now, and gives it back
            await self._slots.acquire()
        for _ in range(self._size):
            self._slots.release()
        while self._reaping:
            await asyncio.wait(self._reaping)

    async def _exchange(self, request: bytes, timeout_seconds: float) -> wire.Answer:
        child: _Child | None = None
        is_sound = False
        try:
            async with asyncio.timeout(timeout_seconds):
                child = await self._take()
                self._busy.add(child)
                if self._closed:
                    raise EOFError
                answer = await asyncio.to_thread(wire.decode_answer, await child.ask(request))
            if isinstance(answer, wire.Raised) and answer.symptoms.name == "MemoryError":
                raise ChildCrashed(f"went over its limit of {self._memory_bytes:,} bytes of memory")
            is_sound = not self._closed and child.calls < self._recycle_after
        except TimeoutError:
            raise ChildTimedOut(timeout_seconds) from None
        except wire.Malformed as error:
            raise ChildCrashed(f"answered nonsense ({error})") from None
        except (EOFError, OSError) as error:
            raise await self._crash(child, error) from None
        else:
            return answer
        finally:
            # Whatever went wrong, cancellation too: that child is not to be spoken to again.
            if child is not None and is_sound:
                self._busy.discard(child)
                self._idle.append(child)
            elif child is not None:
                self._discard(child)

    async def _take(self) -> _Child:
        if self._closed:
            raise ChildCrashed("was not started: the pool is closed")
        while self._idle:
            child = self._idle.pop()
            if child.is_alive:
                return child
            self._discard(child)
        return await _Child.start(self._arguments)

    async def _crash(self, child: _Child | None, error: Exception) -> ChildCrashed:
        if child is None:
            return ChildCrashed(f"could not be started: {error}")
        if self._closed:
            return ChildCrashed("was killed: the pool was closed")
        child.kill()  # it has its exit code already; what it started has not
        exit_code = await child.wait()
        return ChildCrashed(_cause(exit_code), exit_code, child.stderr)

    def _discard(self, child: _Child) -> None:
        """Kill a child now and reap it in the background."""
        if child.is_alive:  # else its number may be another's by now
            child.kill()
        self._busy.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        task = asyncio.get_running_loop().create_task(child.reap())
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)


class _Child:
    """One child process and the end of its standard error."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._tail = b""
        self._drain = asyncio.get_running_loop().create_task(self._read_stderr())
        self.calls = 0

    @classmethod
    async def start(cls, limits: tuple[str, str]) -> _Child:
        """Start a child that imports what this process can import."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "statemachine_pipeline.runner.child",
            str(os.getpid()),
            *limits,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MEBIBYTE,
            start_new_session=True,  # Ctrl-C at the terminal is the worker's to handle
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        )
        return cls(process)

    @property
    def is_alive(self) -> bool:
        """Whether it has not been seen dead."""
        return self._process.returncode is None

    @property
    def stderr(self) -> str:
        """The end of its standard error."""
        return self._tail.decode("utf-8", "replace")

    async def ask(self, request: bytes) -> bytes:
        """Send a call and return the answer, both without their lengths.

        Raises:
            EOFError: It closed the pipe: it died.
            OSError: It died while the call was being sent.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018 - asked for at start
        self.calls += 1
        stdin.write(wire.LENGTH.pack(len(request)))
        stdin.write(request)
        await stdin.drain()
        (length,) = wire.LENGTH.unpack(await stdout.readexactly(wire.LENGTH.size))
        if length > ANSWER_LIMIT_BYTES:
            raise wire.Malformed(f"{length:,} bytes, more than {ANSWER_LIMIT_BYTES:,}")
        return await stdout.readexactly(length)

    def kill(self) -> None:
        """Kill it with everything it started; harmless when it is dead."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def wait(self) -> int | None:
        """Return its exit code once it is dead, or None if it lives on for seconds."""
        # wait() alone would also wait for the pipes, which a process that it started may hold open.
        waiting = asyncio.ensure_future(self._process.wait())
        for _ in range(_LOOKS):
            if self.is_alive:
                await asyncio.wait({waiting}, timeout=_LOOK_SECONDS)
        waiting.cancel()
        await asyncio.wait({self._drain}, timeout=_STDERR_SECONDS)
        return self._process.returncode

    async def reap(self) -> None:
        """Collect a killed child's exit code and close its pipes."""
        await self.wait()
        self._drain.cancel()
        # A process that it started, in a group of its own, may hold them; nobody else closes them.
        self._process._transport.close()  # type: ignore[attr-defined]

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - asked for at start
        while piece := await self._process.stderr.read(STDERR_TAIL_BYTES):
            self._tail = (self._tail + piece)[-STDERR_TAIL_BYTES:]


def _raised(answer: wire.Signalled | wire.Raised) -> Exception:
    if isinstance(answer, wire.Signalled):
        return answer.signal
    return HookRaised(answer.symptoms, answer.message, answer.trace)


def _cause(exit_code: int | None) -> str:
    if exit_code is None:
        return "closed its pipe"
    if exit_code >= 0:
        return f"exited with code {exit_code} in the middle of a call"
    name = signal.Signals(-exit_code).name
    hint = {"SIGKILL": ": out of memory?", "SIGXCPU": ": too much processor time"}.get(name, "")
    return f"died of {name}{hint}"
