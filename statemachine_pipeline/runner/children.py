"""Child processes for work that blocks, crashes or eats memory: parsing above all.

Not multiprocessing: its spawn breaks scripts without a main guard, and its fork is unsafe beside
threads. A child is ``python -m statemachine_pipeline.runner.child`` on a pipe (``wire.py``), in a
process group of its own, and ``spawned.py`` speaks to it. Nothing here knows a document or a
database.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from statemachine_pipeline.errors import PipelineError
from statemachine_pipeline.limits import ProcessLimits
from statemachine_pipeline.observability.logs import level_asked
from statemachine_pipeline.observability.outbound import carried
from statemachine_pipeline.runner import wire
from statemachine_pipeline.runner.errands import Errand
from statemachine_pipeline.runner.spawned import OverLimit, Spawned

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from statemachine_pipeline.symptoms import Symptoms

T = TypeVar("T")

DIED: Final = "child_crashed"
OVER_LIMIT: Final = "child_over_limit"
_NONE: Final = ProcessLimits()


class ChildUnavailable(PipelineError):
    """There was no child to run a call, which is not the call's fault."""


class ChildCrashed(PipelineError):
    """A child died, or no longer makes sense, in the middle of a call.

    Its text is made here: it says what killed the child, and nothing of the document.

    Attributes:
        code: ``child_over_limit`` when it used more than it may, else ``child_crashed``.
        detail: What else is known; it may hold text of the document.
        exit_code: Its exit code; below zero the signal that killed it; None if it was killed here.
        stderr: The end of what it wrote there. It may hold text of the document: for logs only.
    """

    def __init__(
        self,
        cause: str,
        *,
        code: str = DIED,
        detail: str | None = None,
        exit_code: int | None = None,
        stderr: str = "",
    ) -> None:
        self.code, self.detail = code, detail
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
        limits: What a call may use.
    """

    def __init__(self, size: int, limits: ProcessLimits = _NONE) -> None:
        if size < 1:
            raise ValueError(f"size={size} must be at least 1")
        self._limits = limits
        self._size = size
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Spawned] = []
        self._busy: set[Spawned] = set()
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

        Whatever it started ends with it; a call that is cancelled or timed out, or goes over a
        limit, is killed with everything that it started.

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
            ChildCrashed: The child died, or was killed at a limit.
            ChildUnavailable: There was no child to run it.
            ChildTimedOut: There was no answer in time.
            DefinitionError: The function or an argument cannot be sent.
        """
        errand = Errand(level_asked(), carried.get())
        request = await asyncio.to_thread(wire.encode_call, function, arguments, errand)
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
            case wire.Stopped(limit=limit):
                raise self._over(limit)

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
        child: Spawned | None = None
        is_sound = False
        try:
            async with asyncio.timeout(timeout_seconds):
                child = await self._take()
                self._busy.add(child)
                if self._closed:
                    raise EOFError
                answer = await asyncio.to_thread(wire.decode_answer, await child.ask(request))
            if isinstance(answer, wire.Raised) and answer.symptoms.name == "MemoryError":
                raise self._over("memory_bytes")
            has_died = isinstance(answer, wire.Stopped)
            is_worn = child.calls >= self._limits.recycle_after
            is_sound = not (self._closed or has_died or is_worn)
        except TimeoutError:
            raise ChildTimedOut(timeout_seconds) from None
        except wire.Malformed as error:
            raise ChildCrashed("answered nonsense", detail=str(error)) from None
        except OverLimit as error:
            raise self._over(error.limit) from None
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

    async def _take(self) -> Spawned:
        if self._closed:
            raise ChildUnavailable("no child process was started: the pool is closed")
        while self._idle:
            child = self._idle.pop()
            if child.is_usable:
                return child
            self._discard(child)
        return await Spawned.start(self._limits)

    async def _crash(
        self, child: Spawned | None, error: Exception
    ) -> ChildCrashed | ChildUnavailable:
        if child is None:
            return ChildUnavailable(f"no child process could be started: {error}")
        if self._closed:
            return ChildUnavailable("the child process was killed: the pool was closed")
        child.kill()  # what closed the pipe may live on
        exit_code = await child.wait()
        if not child.is_up:
            said = child.stderr.strip().splitlines() or [f"exit code {exit_code}"]
            return ChildUnavailable(f"a child process ended before it took a call: {said[-1]}")
        if child.over is not None:
            return self._over(child.over)
        code = OVER_LIMIT if exit_code in _AT_A_LIMIT else DIED
        cause = self._cause(exit_code)
        return ChildCrashed(cause, code=code, exit_code=exit_code, stderr=child.stderr)

    def _over(self, limit: str) -> ChildCrashed:
        cause = f"{_WENT_OVER[limit].format(getattr(self._limits, limit))} ({limit})"
        return ChildCrashed(cause, code=OVER_LIMIT)

    def _cause(self, exit_code: int | None) -> str:
        if exit_code is None:
            return "closed its pipe"
        if exit_code >= 0:
            return f"exited with code {exit_code} in the middle of a call"
        limit = _AT_A_LIMIT.get(exit_code)
        if limit is not None:
            return f"{_WENT_OVER[limit].format(getattr(self._limits, limit))} ({limit})"
        hint = ": out of memory?" if exit_code == -signal.SIGKILL else ""
        return f"died of {_name(-exit_code)}{hint}"

    def _discard(self, child: Spawned) -> None:
        """Kill a child now and reap it in the background."""
        if child.is_alive:  # else its number may be another's by now
            child.kill()
        self._busy.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        task = asyncio.get_running_loop().create_task(child.reap())
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)


_AT_A_LIMIT: Final = {-signal.SIGXCPU: "cpu_seconds", -signal.SIGXFSZ: "file_bytes"}
"""The kernel enforces these two itself."""
_WENT_OVER: Final = {
    "memory_bytes": "went over its limit of {:,} bytes of memory",
    "cpu_seconds": "used more than {:,} seconds of processor time",
    "answer_bytes": "answered more than {:,} bytes",
    "printed_bytes": "printed more than {:,} bytes",
    "file_bytes": "wrote a file of more than {:,} bytes",
    "processes": "had more than {:,} processes",
}


def _raised(answer: wire.Signalled | wire.Raised) -> Exception:
    if isinstance(answer, wire.Signalled):
        return answer.signal
    return HookRaised(answer.symptoms, answer.message, answer.trace)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
