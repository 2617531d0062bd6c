"""Merges the settles of one runner: what comes within half a millisecond is one transaction.

Linear code per document with merging below it: two settlers overlap one's commit with the other's
gathering. A bad row or a deadlock splits the batch, so that it never fails its neighbours; a
document that someone else has locked is settled by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from statemachine_pipeline.database.proposal import Settled
from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.runner.chores import end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.database.proposal import Proposal
    from statemachine_pipeline.database.settling import Answer
    from statemachine_pipeline.database.store import Store

GATHER_SECONDS = 0.0005
BATCH = 200
"""Rows of one settle: with 100 a row costs 15 % more, with 400 the other settler has nothing."""
SETTLERS = 2

_Waiting = tuple["Proposal", "asyncio.Future[Settled]"]


class Settling:
    """Takes proposals one by one and writes them in batches.

    Args:
        store: Where they are written.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def start(self) -> None:
        """Begin to write."""
        for _ in range(SETTLERS):
            self._spawn(self._run())

    async def close(self, patience: float) -> None:
        """Stop writing; what is being written may take ``patience`` seconds, who waits is told."""
        self._is_closed = True
        self._arrived.set()
        await end(list(self._tasks), patience=patience)
        _fail(self._queue, DatabaseUnavailable("settling", "the runner stopped"))

    async def settle(self, proposal: Proposal) -> Settled:
        """Write one proposal, together with whatever else is waiting.

        Raises:
            StaleClaim: Its claim is gone.
            OwnerChanged: Decide again.
            ProductFailed: Its product could not be written.
            DatabaseUnavailable: Whether it was written is unknown.
        """
        future: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        self._queue.append((proposal, future))
        self._arrived.set()
        return await future

    def _spawn(self, coroutine: object) -> None:
        task: asyncio.Task[None] = asyncio.create_task(coroutine)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        while not self._is_closed:
            await self._arrived.wait()
            await asyncio.sleep(GATHER_SECONDS)
            batch, self._queue = self._queue[:BATCH], self._queue[BATCH:]
            if not self._queue and not self._is_closed:
                self._arrived.clear()
            # A product of the user's own settles alone: what it raises concerns nobody else.
            # So do children, whose documents it locks.
            own = [one for one in batch if _is_own(one[0])]
            for one in own:
                self._spawn(self._write_alone(one))
            shared = [one for one in batch if not _is_own(one[0])]
            if shared:
                await self._write(shared)

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            first = batch[0][0]
            answers = await self._store.settle([p for p, _ in batch], first.claim.worker)
        except DatabaseUnavailable as error:
            _fail(batch, error)
        except asyncio.CancelledError:
            _fail(batch, DatabaseUnavailable("settling", "the runner stopped"))
            raise
        except Exception as error:  # noqa: BLE001 - told to whoever waits, after each had its own try
            if len(batch) == 1:
                _fail(batch, error)
                return
            for one in batch:
                self._spawn(self._write_alone(one))
        else:
            for one, answer in zip(batch, answers, strict=True):
                if answer is None:
                    self._spawn(self._write_alone(one))
                else:
                    _tell(one, answer)

    async def _write_alone(self, one: _Waiting) -> None:
        try:
            (answer,) = await self._store.settle([one[0]], one[0].claim.worker, alone=True)
            _tell(one, answer)
        except asyncio.CancelledError:
            _fail([one], DatabaseUnavailable("settling", "the runner stopped"))
            raise
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            _fail([one], error)


def _is_own(proposal: Proposal) -> bool:
    return proposal.kind == "other" or proposal.concerns_children


def _tell(one: _Waiting, answer: Answer) -> None:
    _, future = one
    if future.done():
        return
    if isinstance(answer, Settled):
        future.set_result(answer)
    elif answer is not None:
        future.set_exception(answer)


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
