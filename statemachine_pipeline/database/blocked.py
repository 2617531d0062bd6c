"""What to do when only the locks of others are in the way: nothing is wrong, so it is tried again.

A transaction that waits keeps a connection of the pool and whatever it has locked itself. So each
waits for ``Timeouts.lock`` at most, gives all of that back, and begins anew a moment later.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from statemachine_pipeline.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_DEADLOCK, _LOCK_TIMEOUT = "40P01", "55P03"
PAUSE_SECONDS = 0.5

P = ParamSpec("P")
T = TypeVar("T")


def was_blocked(error: object) -> bool:
    """Tell whether only the locks of others were in the way: a deadlock, or too long a wait."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state in {_DEADLOCK, _LOCK_TIMEOUT}


def waiting_for_locks(transaction: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Run a transaction again for as long as somebody else has locked what it needs.

    An attempt that holds its claim so waits for the document, as everybody does, and nothing of it
    is spent; its stage's deadline, or the loss of its claim, ends that.
    """

    @functools.wraps(transaction)
    async def tried(*args: P.args, **named: P.kwargs) -> T:
        while True:
            try:
                return await transaction(*args, **named)
            except DatabaseUnavailable as error:
                if not was_blocked(error.__cause__):
                    raise
            await asyncio.sleep(PAUSE_SECONDS)

    return tried
