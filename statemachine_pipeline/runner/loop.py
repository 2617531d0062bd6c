"""The runner: claims what it has free slots for, drives it, and looks after the queue meanwhile.

Order at the end: stop claiming, let hooks finish, flush settles, release the rest, stop beating
last, so that nobody rescues what is being finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from typing import TYPE_CHECKING, Any, Self

from statemachine_pipeline.database.turns import Turns
from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.context import working
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.resilience.access import Accesses
from statemachine_pipeline.runner import baseline, vitals
from statemachine_pipeline.runner.chores import (
    CHORE_SECONDS,
    all_ended,
    attempt,
    end,
    every,
    first_done,
    in_thread,
    say_why,
)
from statemachine_pipeline.runner.drive import Drive
from statemachine_pipeline.runner.heartbeat import Heartbeat
from statemachine_pipeline.runner.journal import Journal
from statemachine_pipeline.runner.outages import backoff_seconds
from statemachine_pipeline.runner.pausing import Pausing
from statemachine_pipeline.runner.perform import Performer
from statemachine_pipeline.runner.probing import Probing
from statemachine_pipeline.runner.registration import Registration
from statemachine_pipeline.runner.settling import Settling
from statemachine_pipeline.runner.slots import Slots
from statemachine_pipeline.runner.wake import listen
from statemachine_pipeline.runner.withdrawing import Withdrawing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType
    from uuid import UUID

    from statemachine_pipeline.database.pauses import Pauses
    from statemachine_pipeline.database.providers import Providers
    from statemachine_pipeline.database.store import Store
    from statemachine_pipeline.database.withdrawals import Withdrawals
    from statemachine_pipeline.database.workers import Workers
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.liveness import Liveness
    from statemachine_pipeline.observability.metrics import Metrics
    from statemachine_pipeline.stages import Bound, Stages

    Until = Callable[[Drive, int], Awaitable[None]]
    IsOver = Callable[[Drive, int], Awaitable[bool]]
    Meanwhile = Callable[[], Awaitable[bool]]

POLL_SECONDS_FIRST, POLL_SECONDS_LAST = 0.1, 2.0
PROMOTE_SECONDS = 1.0
COOLDOWN_SECONDS = 0.02
"""Merges wake-ups that come together, so that a freed slot is not a claim of its own."""


class Runner:
    """Drives documents until told to stop. Made by ``Pipeline.runner``.

    Also an async context manager: runs in the background and drains on exit. Installs no signal
    handlers.

    Args:
        prepare: Awaited before the first claim, and under each new id: checks the schema.
        after_load: Awaited when ``run_until_idle`` has found nothing more to do.
        store: The database.
        pauses: What nobody claims for now.
        workers: Registration and heartbeat.
        withdrawals: Documents that have to go from stores outside the database.
        providers: What the fleet knows of the services that stages ask.
        stages: The lifecycle and its hooks.
        served: The stages this runner takes.
        drain: How long hooks may go on after ``stop``.
        liveness: When this worker counts as dead.
        documents: Most documents in hand at a time; None takes as many as there are slots.
        metrics: Where it is counted what this runner does.

    Attributes:
        worker: The number under which it claims now; None before its first.
        vitals: How it does, for probes.
    """

    def __init__(
        self,
        *,
        prepare: Callable[[], Awaitable[None]],
        after_load: Callable[[], Awaitable[Mapping[str, int]]],
        store: Store,
        pauses: Pauses,
        workers: Workers,
        withdrawals: Withdrawals,
        providers: Providers,
        stages: Stages,
        served: Sequence[Bound],
        drain: timedelta,
        liveness: Liveness,
        documents: int | None,
        metrics: Metrics,
    ) -> None:
        self._prepare, self._after_load = prepare, after_load
        self._store, self._pauses, self._workers = store, pauses, workers
        self._stages, self._served = stages, tuple(served)
        self._withdrawals, self._providers = withdrawals, providers
        self._withdrawing = Withdrawing(withdrawals, self._served, metrics)
        self._drain, self._liveness = drain.total_seconds(), liveness
        self._documents = documents or sum(bound.stage.slots for bound in self._served)
        self._wake, self._fenced = asyncio.Event(), asyncio.Event()
        self._stopping, self._aborting = asyncio.Event(), asyncio.Event()
        self._looking, self._suspects = asyncio.Lock(), False
        # By task: one that was moved by hand and claimed anew may be in an old attempt too.
        self._driving: dict[asyncio.Task[None], UUID] = {}
        self._metrics, self.vitals = metrics, vitals.Vitals(metrics, [b.trigger for b in served])
        self._journal, self._outage = Journal(self.vitals), self.vitals.outage
        baseline.begin(metrics, stages.graph, self._served)
        self._registration = Registration(prepare, workers, stages, self._served, self._outage)
        self._turns, self._pausing = Turns(), Pausing(pauses, self._served)
        self.worker: int | None = None
        self._background: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Claim and drive until ``stop``; then drain.

        Raises:
            SchemaMissing: The database was not migrated.
            LifecycleMismatch: It was, for another lifecycle, perhaps while this one ran.
        """
        await self._run(self._until_stopped)

    async def run_until_idle(self, *, while_waiting: Meanwhile | None = None) -> Mapping[str, int]:
        """Run until no served stage has anything left, deferred documents included.

        A pause with an end is waited for, and logged; documents behind one without are left.

        Args:
            while_waiting: Called when nothing can be done now, in place of waiting; True goes on,
                False returns and leaves what is not due.

        Returns:
            How many documents stand in each state.
        """
        is_over = (
            functools.partial(self._is_still, while_waiting) if while_waiting else self._is_idle
        )
        await self._run(functools.partial(self._until, is_over))
        return await self._after_load()

    def stop(self) -> None:
        """Drain and end; the second call gives everything back at once."""
        if self._stopping.is_set():
            self._aborting.set()
        self._stopping.set()
        self._wake.set()

    async def __aenter__(self) -> Self:
        await self._prepare()
        self._background = asyncio.create_task(self.run())
        self._background.add_done_callback(say_why)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._background is not None:
            await self._background

    async def _run(self, until: Until) -> None:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.vitals.watched())
            await self._prepare()
            for bound in self._served:
                if hasattr(bound.stage.hook, "__aenter__"):
                    await stack.enter_async_context(bound.stage.hook)
            worker: int | None = await self._registration.register()
            while worker is not None:
                self._fenced.clear()
                with working(self._store.schema, worker):
                    is_over = await self._work_as_one(worker, until)
                if is_over:
                    return
                self.vitals.turn("registering")
                worker = await self._registration.register_again(self._stopping)

    async def _work_as_one(self, worker: int, until: Until) -> bool:
        """Work under one worker id; False when it was fenced and needs another."""
        self.worker = worker
        self.vitals.begin()
        heartbeat = Heartbeat(
            self._workers.pulse(),
            worker,
            interval=self._liveness.beat,
            dead_after=self._liveness.dead_after,
            on_fenced=functools.partial(self._fence_from, asyncio.get_running_loop()),
            vitals=self.vitals,
        )
        heartbeat.start()
        settling = Settling(self._store)
        settling.start()
        asked = {b.stage.provider for b in self._served if b.stage.provider}
        self._accesses = accesses = Accesses(self._providers, worker, asked, self._metrics)
        performer = Performer(
            *(self._store, self._pauses, self._withdrawals, accesses, self._served, self._metrics)
        )
        self._slots = slots = Slots(self._served, self._wake.set, self._metrics)
        drive = Drive(self._store, self._stages, slots, performer, settling, self._journal)
        self._probing = Probing(self._store, self._stages, accesses, slots, self._served, worker)
        ended = asyncio.Event()
        listening = asyncio.create_task(listen(self._workers, self._wake.set))
        again: tuple[tuple[float, Callable[[], Awaitable[object]]], ...] = (
            (PROMOTE_SECONDS, self._promote),
            (PROMOTE_SECONDS, functools.partial(self._withdrawing.withdraw, worker)),
            (self._liveness.beat.total_seconds() / 2, functools.partial(self._rescue, worker)),
        )
        chores = [asyncio.create_task(every(*one, ended)) for one in again]
        try:
            with contextlib.suppress(DatabaseUnavailable):
                await self._pausing.look(slots)  # before the first walk goes on into what is paused
                await self._probing.look()
            await until(drive, worker)
            await self._finish_hooks(worker)
        finally:
            ended.set()
            # Last in, first out: whatever one of them raises, the others are done, and the worker
            # beats until all is over.
            async with contextlib.AsyncExitStack() as ends:
                ends.push_async_callback(in_thread, heartbeat.stop)
                leave = functools.partial(self._workers.leave, worker)
                trouble = f"worker {worker} could not leave, and will be rescued"
                ends.push_async_callback(attempt, leave, trouble)
                ends.push_async_callback(attempt, accesses.close, "a leased budget is not returned")
                ends.push_async_callback(performer.close)
                ends.push_async_callback(settling.close, CHORE_SECONDS)
                ends.push_async_callback(end, chores, patience=CHORE_SECONDS)
                ends.push_async_callback(drive.end, list(self._driving))
                ends.push_async_callback(end, [listening])
        note(log_events.WORKER_STOPPED, "worker {} has stopped", worker)
        return not self._fenced.is_set()

    def _fence_from(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop this worker; called from the heartbeat's thread."""
        loop.call_soon_threadsafe(self._fenced.set)
        loop.call_soon_threadsafe(self._wake.set)

    async def _until_stopped(self, drive: Drive, worker: int) -> None:
        poll = POLL_SECONDS_FIRST
        while not (self._stopping.is_set() or self._fenced.is_set()):
            self._wake.clear()
            claimed = await self._claim(drive, worker)
            poll = POLL_SECONDS_FIRST if claimed else min(poll * 2, POLL_SECONDS_LAST)
            # Jitter, so that a fleet does not poll in step.
            await self._doze(poll * (0.5 + random.random() / 2))  # noqa: S311

    async def _until(self, is_over: IsOver, drive: Drive, worker: int) -> None:
        while not (self._stopping.is_set() or self._fenced.is_set()):
            self._wake.clear()
            claimed = await self._claim(drive, worker)
            try:
                if not (claimed or self._driving) and await is_over(drive, worker):
                    self._stopping.set()
                    return
            except DatabaseUnavailable as error:
                self._outage.goes_on("claim", error)
            await self._doze(POLL_SECONDS_FIRST)

    async def _is_idle(self, _drive: Drive, worker: int) -> bool:
        left = await self._store.outstanding(self._served)
        return not (left or await self._withdrawing.withdraw(worker))

    async def _is_still(self, while_waiting: Meanwhile, drive: Drive, worker: int) -> bool:
        await self._rescue(worker)
        await self._promote()
        busy = await self._claim(drive, worker) or self._driving or self._outage.failures("claim")
        if busy or await self._withdrawing.withdraw(worker):
            return False
        self._wake.set()  # what was not due may be now
        return not await while_waiting()

    async def _doze(self, seconds: float) -> None:
        if failures := self._outage.failures("claim"):
            # What ends meanwhile wakes nobody: each would be one more try at a sick database.
            stops = self._stopping.wait(), self._fenced.wait()
            await first_done(*stops, seconds=backoff_seconds(seconds, failures))
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
            await asyncio.sleep(COOLDOWN_SECONDS)

    async def _claim(self, drive: Drive, worker: int) -> bool:
        """Claim what there are slots for; True when anything came."""
        self.vitals.look()
        alone = self._suspects
        if alone and self._driving:
            return False  # what may take a worker down is run by one that holds nothing else
        if len(self._driving) >= self._documents or not any(self._slots.free.values()):
            return False
        try:
            if drive.lost_answers:
                drive.lost_answers = False
                # One that has just ended may not have been taken off yet.
                keep = [one for task, one in self._driving.items() if not task.done()]
                await self._workers.release(worker, keep=keep)
            tried = await self._probing.probe(functools.partial(self._begin, drive), suspect=alone)
            room = (1 if alone else self._documents) - len(self._driving)
            whose = worker, self._slots.free, self._served, self._turns.after
            claimed = await self._taken(*whose, documents=room, alone=alone) if room else []
            self._suspects = self._slots.alone = alone and (tried or bool(claimed))
        except DatabaseUnavailable as error:
            drive.lost_answers = True
            self._outage.goes_on("claim", error)
            return False
        self._outage.ended("claim")
        self._turns.taken((bound.state, claim.document.tenant) for claim, bound in claimed)
        for claim, bound in claimed:
            self._begin(drive, claim, bound)
        return tried or bool(claimed)

    async def _taken(self, *whose: Any, documents: int, alone: bool) -> list[tuple[Claim, Bound]]:
        began = time.monotonic()
        claimed = await self._store.claim(*whose, documents=documents, alone=alone)
        self._journal.looked(time.monotonic() - began, found=len(claimed))
        return claimed

    def _begin(self, drive: Drive, claim: Claim, bound: Bound) -> asyncio.Task[None]:
        self._slots.claim(bound.state)
        task = asyncio.create_task(drive.run(claim, bound))
        self._driving[task] = claim.document.id
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        document = self._driving.pop(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # A defect of ours. The claim stays until its deadline, so that it is not run hot.
            told = {"document_id": str(document)}
            note(log_events.DROPPED, "the runner dropped a document", error=error, **told)

    async def _finish_hooks(self, worker: int) -> None:
        """Wait for what runs, at most ``drain`` seconds, unless told or fenced meanwhile."""
        if self._fenced.is_set():
            return
        self.vitals.turn("draining")
        self._slots.close()
        with contextlib.suppress(DatabaseUnavailable):
            await self._workers.drain(worker)
        stops = self._aborting.wait(), self._fenced.wait()
        await first_done(all_ended(list(self._driving)), *stops, seconds=self._drain)

    async def _promote(self) -> None:
        # Rows that another look has locked are skipped: whoever asks what is due waits for it.
        async with self._looking:
            if await self._store.promote():
                self._wake.set()
            await self._pausing.look(self._slots)
            worthwhile = await self._probing.look()
            waiting = await self._store.has_suspects(worthwhile)
            # Once somebody else has them, nobody needs to empty its hands; whoever has one goes on.
            if waiting != self._suspects and not self._slots.alone:
                self._suspects = waiting
                self._wake.set()

    async def _rescue(self, worker: int) -> None:
        async with self._looking:
            if rescued := await self._store.rescue(worker, grace=self._liveness.grace):
                self._journal.rescued(rescued)
                self._wake.set()
