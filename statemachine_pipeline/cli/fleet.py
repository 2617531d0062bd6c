"""`worker --workers N`: a parent that keeps N worker processes running. It opens no database.

A worker is a program of its own, never a fork. It hears of its parent's death by its standard
input: a pipe whose other end only the parent holds, so that it closes with the parent, ``kill -9``
included, on every POSIX system.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from statemachine_pipeline.cli.ending import FAILED, OK, USAGE
from statemachine_pipeline.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from statemachine_pipeline.cli.opening import Target

PAUSES = (0.5, 1.0, 2.0, 4.0)
SOON_SECONDS = 30.0


def command(options: Sequence[str]) -> list[str]:
    """Return what starts one worker; its seat is added."""
    return [sys.executable, "-m", "statemachine_pipeline", "worker", *options]


def environment(target: Target) -> dict[str, str]:
    """Return the environment of a worker: a URL among its arguments would show its password."""
    asked = {f"SMP_{name.upper()}": value for name, value in dataclasses.asdict(target).items()}
    return dict(os.environ) | {name: value for name, value in asked.items() if value}


class Fleet:
    """Worker processes; one that dies is replaced.

    Args:
        words: What starts a worker, without its seat.
        size: How many.
        environment: Of the workers.
        reloads: A worker that dies is replaced at the next ``restart`` only, so that code which
            cannot be imported is tried once for each change of it.
        pauses: Seconds before a worker that ended soon after its start is replaced. Once more, and
            the fleet ends; but one that a signal killed is always replaced, after the last of them:
            a document may have done it, and it is parked at its bound.
    """

    def __init__(
        self,
        words: Sequence[str],
        size: int,
        environment: Mapping[str, str],
        *,
        reloads: bool,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._words, self._size, self._environment = tuple(words), size, environment
        self._reloads, self._pauses = reloads, tuple(pauses)
        self._working: dict[int, asyncio.subprocess.Process] = {}
        self._told = asyncio.Event()
        self._stopping = False
        self._code = OK

    async def run(self) -> int:
        """Keep all seats taken until ``stop``.

        Returns:
            0 when each worker ended well after ``stop``, 1 when one did not or dies again and
            again, 2 when the command cannot work as it was given.
        """
        await asyncio.gather(*(self._keep(seat) for seat in range(1, self._size + 1)))
        return self._code

    def stop(self) -> None:
        """Have every worker drain and end; at the second call give everything back at once."""
        self._stopping = True
        self._tell()

    def restart(self) -> None:
        """Have every worker drain, and start anew."""
        self._tell()

    def _tell(self) -> None:
        told, self._told = self._told, asyncio.Event()
        told.set()
        for process in self._working.values():
            _terminate(process)

    async def _keep(self, seat: int) -> None:
        """Keep one seat taken."""
        soon = 0
        while not self._stopping:
            told, began = self._told, time.monotonic()
            code = await self._work(seat, told)
            if told.is_set():
                self._note(code)
                continue
            ended, lived = _ended(code), time.monotonic() - began
            if self._reloads:
                say(f"worker {seat} {ended}; the next change starts it again")
                await told.wait()
                continue
            soon = soon + 1 if lived < SOON_SECONDS else 1
            if code == USAGE or (code > 0 and soon > len(self._pauses)):
                again = "" if code == USAGE else f" {soon} times soon after its start"
                say(f"worker {seat} {ended}{again}; stopping the fleet")
                self._code = USAGE if code == USAGE else FAILED
                self.stop()
                return
            pause = self._pauses[min(soon, len(self._pauses)) - 1]
            say(f"worker {seat} {ended} after {lived:.0f} s; another one in {pause:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), pause)

    async def _work(self, seat: int, told: asyncio.Event) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._words,
            *("--seat", str(seat)),
            stdin=asyncio.subprocess.PIPE,
            env=self._environment,
            # Out of the terminal's reach: Ctrl-C comes once, from the parent.
            start_new_session=True,
        )
        self._working[seat] = process
        try:
            if told.is_set():
                _terminate(process)
            return await process.wait()
        finally:
            del self._working[seat]

    def _note(self, code: int) -> None:
        # A worker that was told before it could listen ends by the signal, and holds nothing.
        asked = {OK, -signal.SIGTERM, 128 + signal.SIGTERM}
        if self._stopping and self._code == OK and code not in asked:
            self._code = FAILED


def _terminate(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


@contextlib.contextmanager
def following_parent(drain: Callable[[], None]) -> Iterator[None]:
    """Call ``drain`` when the parent of this worker has gone."""
    loop, pipe = asyncio.get_running_loop(), sys.stdin.fileno()

    def read() -> None:
        if not os.read(pipe, 1):
            loop.remove_reader(pipe)
            drain()

    loop.add_reader(pipe, read)
    try:
        yield
    finally:
        loop.remove_reader(pipe)
