"""How what a runner does beside its documents comes to an end."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from statemachine_pipeline.runner.chores import in_thread


async def test_what_blocks_is_called_though_nobody_waits_for_it_any_more() -> None:
    """'It is called even if whoever waits for it is cancelled': a heartbeat would beat for ever."""
    go_on, called = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as only:
        asyncio.get_running_loop().set_default_executor(only)
        busy = asyncio.create_task(asyncio.to_thread(go_on.wait, 20))
        waiting = asyncio.create_task(in_thread(called.set))
        await asyncio.sleep(0.01)  # it stands in the queue of the only thread
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        await busy
        assert await asyncio.to_thread(called.wait, 20)
