"""The first SIGINT or SIGTERM drains a runner, the second ends it at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.cli.ending import OK, SIGNALLED
from statemachine_pipeline.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DRAINS: Final = "finishing what runs, taking nothing new; again to stop at once"
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stops:
    """Signals received so far.

    Args:
        stop: Called at each of the first two; drains at the first and aborts at the second.
        meaning: What the first of them does, for people.
    """

    def __init__(self, stop: Callable[[], None], meaning: str) -> None:
        self._stop, self._meaning = stop, meaning
        self._received: list[signal.Signals] = []

    def __len__(self) -> int:
        return len(self._received)

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that this signal ended; 0 without one."""
        return SIGNALLED + self._received[0] if self._received else OK

    def receive(self, number: signal.Signals) -> None:
        """Drain at the first signal, abort at the second; a third has its usual effect."""
        self._received.append(number)
        self._stop()
        if len(self) == 1:
            say(f"{number.name}: {self._meaning}")
        else:
            say(f"{number.name}: giving everything back")
            _leave_to_python()

    def lose_parent(self) -> None:
        """Drain because the process that started this one has gone, unless it drains already."""
        if not self._received:
            self._stop()
            say("the parent process has gone: finishing what runs, taking nothing new")


@contextlib.contextmanager
def stopping(stop: Callable[[], None], meaning: str = DRAINS) -> Iterator[Stops]:
    """Let signals call ``stop`` for as long as this context lasts."""
    loop = asyncio.get_running_loop()
    stops = Stops(stop, meaning)
    for number in _STOPPING:
        loop.add_signal_handler(number, stops.receive, number)
    try:
        yield stops
    finally:
        _leave_to_python()


def _leave_to_python() -> None:
    for number in _STOPPING:
        asyncio.get_running_loop().remove_signal_handler(number)
