"""Runs one hook, with no transaction open, and tells what came of it as a value."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import inspect
import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from statemachine_pipeline import failpoints
from statemachine_pipeline.decide import Failed, Outcome, Postponed
from statemachine_pipeline.hooks import Done, Product, StageFault, Wait
from statemachine_pipeline.records import (
    Accepted,
    Chunk,
    Chunks,
    ParsedText,
    Publication,
    Validated,
    Vectors,
)
from statemachine_pipeline.redaction import type_name
from statemachine_pipeline.runner.calling import call_user, deadline, outcome_of
from statemachine_pipeline.runner.children import Children
from statemachine_pipeline.runner.embedding import Batcher
from statemachine_pipeline.runner.found import bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from statemachine_pipeline.database.pauses import Pauses
    from statemachine_pipeline.database.store import Store
    from statemachine_pipeline.database.withdrawals import Withdrawals
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.limits import ProcessLimits
    from statemachine_pipeline.observability.metrics import Metrics
    from statemachine_pipeline.resilience.access import Accesses
    from statemachine_pipeline.runner.shares import Bill
    from statemachine_pipeline.stages import Bound

CALLING = "calling the hook of "
"""Begins the name of a step: a hook, from before it is called until its outcome is known."""

WITHDRAWAL_POLL = timedelta(seconds=2)
"""A document that was deleted and came back is published once its old self has gone."""
_PRODUCTS = (
    type(None),
    ParsedText,
    Chunks,
    Vectors,
    Publication,
    Accepted,
    Validated,
    Product,
)


class Performer:
    """Runs hooks where their stages say: on the loop, in a thread, in a child process.

    Args:
        store: For vectors that are saved request by request.
        pauses: Told of stages that are at fault.
        withdrawals: Told before a publisher writes to a store of its own.
        accesses: The ways to the stages' providers.
        served: The stages of this runner. Each may have as many threads or child processes as it
            makes attempts at a time, so that none of them waits while its deadline passes; they
            are started when first needed.
        metrics: Where it is counted how full requests are.
    """

    def __init__(
        self,
        store: Store,
        pauses: Pauses,
        withdrawals: Withdrawals,
        accesses: Accesses,
        served: Sequence[Bound],
        metrics: Metrics,
    ) -> None:
        self._store, self._pauses = store, pauses
        self._withdrawals, self._accesses, self._metrics = withdrawals, accesses, metrics
        threads = sum(b.stage.slots for b in served if b.stage.where == "thread")
        self._threads = ThreadPoolExecutor(max(1, threads), thread_name_prefix="hook")
        sizes: Counter[ProcessLimits] = Counter()
        for stage in (bound.stage for bound in served if bound.stage.where == "process"):
            sizes[stage.process_limits] += stage.slots
        self._children = {limits: Children(size, limits) for limits, size in sizes.items()}
        self._batchers: dict[str, Batcher] = {}
        self._context = contextvars.copy_context()  # in which no document is at work

    async def close(self) -> None:
        """End requests and children; threads end with their hooks, which cannot be stopped."""
        for batcher in self._batchers.values():
            await batcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for pool in self._children.values():
            await pool.close()

    async def perform(self, claim: Claim, bound: Bound, bill: Bill) -> Outcome:
        """Run the hook of a claimed stage until it returns, raises or its deadline passes.

        Whatever becomes of it, ``bill`` says what its requests were charged for.

        Raises:
            StaleClaim: The claim was lost meanwhile.
            DatabaseUnavailable: What the hook reads or saves could not be reached.
        """
        # Outside ``call_user``, which takes whatever a failpoint raises for the hook's own.
        failpoints.reached(CALLING + bound.trigger, "before")
        try:
            outcome = await call_user(bound.stage, self._run, claim, bound, bill)
        finally:
            await claim.reader.forget(claim)
        failpoints.reached(CALLING + bound.trigger, "after")
        return await self._followed(claim, bound, outcome)

    async def judge(self, claim: Claim, bound: Bound, error: BaseException) -> Outcome:
        """Say what it means that the product of a stage could not be written.

        Raises:
            StaleClaim: The claim was lost meanwhile.
            DatabaseUnavailable: The stage could not be paused.
        """
        outcome = outcome_of(error, bound.stage, "its product raised")
        return await self._followed(claim, bound, outcome)

    async def _followed(self, claim: Claim, bound: Bound, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Postponed):
            return await self._postponed(claim, bound, outcome)
        return outcome

    async def _postponed(self, claim: Claim, bound: Bound, outcome: Postponed) -> Outcome:
        if outcome.code == "stage_fault":
            await self._pauses.fault(bound.trigger, outcome.reason, outcome.after)
            # The pause is what keeps it waiting; whoever lifts that need not wait for this too.
            return dataclasses.replace(outcome, after=timedelta(0))
        # From the database's clock alone: this host's may be wrong by minutes.
        waited = claim.deadline_at - bound.stage.deadline - claim.entered_at
        if outcome.code == "waiting" and waited > bound.stage.wait:
            return Failed(code="waited_too_long", reason=f"still waiting after {waited}")
        return outcome

    async def _run(self, claim: Claim, bound: Bound, bill: Bill) -> Done:
        done = await self._performed(claim, bound, bill)
        return bounded(done, claim.document, bound.stage.children)

    async def _performed(self, claim: Claim, bound: Bound, bill: Bill) -> Done:
        async with deadline(bound.stage.deadline) as limit:
            if bound.stage.kind == "embedder":
                return await self._batcher(bound).embed(claim, limit, bill)
            access, rules = self._accesses.of(bound.stage.provider), bound.stage.failures
            async with access.request(is_late=limit.expired, rules=rules) as request:
                try:
                    return await self._once(claim, bound)
                finally:
                    bill.tokens += request.tokens or 0

    async def _once(self, claim: Claim, bound: Bound) -> Done:
        """Run a hook that is called once for an attempt."""
        hook, kind = bound.stage.hook, bound.stage.kind
        if kind == "parser":
            source = await claim.source()
            return _parsed(await self._call(bound, hook.parse, source))
        if kind == "chunker":
            text = await claim.text()
            return Done(_chunks(await self._call(bound, hook.split, text)))
        if kind == "publisher":
            if bound.stage.stores_elsewhere and not await self._withdrawals.place(claim):
                raise Wait(WITHDRAWAL_POLL)
            return Done(await hook.publish(claim))
        if bound.stage.where == "process":
            # A child cannot reach the database, so its input is read for it.
            return _done(await self._call(bound, hook, await claim.text()))
        return _done(await self._call(bound, hook, claim))

    async def _call(self, bound: Bound, function: Callable[[Any], Any], argument: object) -> Any:
        where = bound.stage.where
        if where == "process":
            seconds = bound.stage.deadline.total_seconds()
            children = self._children[bound.stage.process_limits]
            return await children.call(function, argument, timeout_seconds=seconds)
        if where == "thread":
            loop = asyncio.get_running_loop()
            # A thread has no context of its own, and hooks report what answers said by theirs.
            run = contextvars.copy_context().run
            return await loop.run_in_executor(self._threads, run, function, argument)
        value = function(argument)
        return await value if inspect.isawaitable(value) else value

    def _batcher(self, bound: Bound) -> Batcher:
        if bound.trigger not in self._batchers:
            access = self._accesses.of(bound.stage.provider)
            self._batchers[bound.trigger] = self._context.run(
                Batcher, self._store.vectors, bound, access, self._metrics
            )
        return self._batchers[bound.trigger]


def _chunks(returned: object) -> Chunks:
    """Check what a chunker returned."""
    found = tuple(returned) if isinstance(returned, Iterable) else (returned,)
    for one in found:
        if not isinstance(one, Chunk):
            found_one = type_name(type(one))
            raise StageFault(f"the chunker returned {found_one}; it may return a list of Chunk")
    return Chunks(found)


def _parsed(returned: object) -> Done:
    """Check what a parser returned: without a text the next stage would blame the document."""
    done = _done(returned)
    if not isinstance(done.product, ParsedText):
        found = type_name(type(done.product))
        raise StageFault(f"the parser returned {found}; it may return ParsedText, or Done with one")
    return done


def _done(returned: object) -> Done:
    """Check what a function returned; a wrong value is the stage's fault, not the document's."""
    done = returned if isinstance(returned, Done) else Done(returned)
    if not isinstance(done.product, _PRODUCTS):
        found = type_name(type(done.product))
        raise StageFault(f"the hook returned {found}; it may return Done, a product or None")
    if not done.reported:
        return done
    try:
        json.dumps(dict(done.reported), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StageFault(f"what the hook reported is no JSON: {error}") from error
    return done
