"""Runs one hook, with no transaction open, and tells what came of it as a value."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from statemachine_pipeline import vectors
from statemachine_pipeline.decide import Failed, Outcome, Postponed
from statemachine_pipeline.hooks import Done, Product, Reject, StageFault, Wait
from statemachine_pipeline.records import (
    Accepted,
    Chunks,
    ParsedText,
    Publication,
    Validated,
    Vectors,
)
from statemachine_pipeline.runner.calling import call_user
from statemachine_pipeline.runner.children import Children
from statemachine_pipeline.runner.found import bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from statemachine_pipeline.database.store import Store
    from statemachine_pipeline.database.withdrawals import Withdrawals
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.resilience.access import Accesses
    from statemachine_pipeline.stages import Bound

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
        store: For vectors that are saved batch by batch.
        withdrawals: Told before a publisher writes to a store of its own.
        accesses: The ways to the stages' providers.
        threads: Most hooks in threads at a time.
        children: Most child processes; started when first needed.
    """

    def __init__(
        self,
        store: Store,
        withdrawals: Withdrawals,
        accesses: Accesses,
        *,
        threads: int,
        children: int,
    ) -> None:
        self._store, self._withdrawals, self._accesses = store, withdrawals, accesses
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="hook")
        self._children = Children(children)

    async def close(self) -> None:
        """End child processes; threads end with their hooks, which cannot be stopped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._children.close()

    async def perform(self, claim: Claim, bound: Bound) -> Outcome:
        """Run the hook of a claimed stage until it returns, raises or its deadline passes.

        Raises:
            StaleClaim: The claim was lost meanwhile.
            DatabaseUnavailable: What the hook reads or saves could not be reached.
        """
        deadline = bound.stage.deadline.total_seconds()
        try:
            outcome = await call_user(self._run, claim, bound, deadline)
        finally:
            await claim.reader.forget(claim)
        if isinstance(outcome, Postponed):
            return await self._postponed(claim, bound, outcome)
        return outcome

    async def _postponed(self, claim: Claim, bound: Bound, outcome: Postponed) -> Outcome:
        if outcome.code == "stage_fault":
            await self._store.pause(bound.trigger, outcome.reason, "pipeline", outcome.after)
        waited = datetime.now(UTC) - claim.entered_at
        if outcome.code == "waiting" and waited > bound.stage.wait:
            return Failed(code="waited_too_long", reason=f"still waiting after {waited}")
        return outcome

    async def _run(self, claim: Claim, bound: Bound, deadline: float) -> Done:
        done = await self._performed(claim, bound, deadline)
        return bounded(done, claim.document, bound.stage.children)

    async def _performed(self, claim: Claim, bound: Bound, deadline: float) -> Done:
        async with asyncio.timeout(deadline) as limit:
            if bound.stage.kind == "embedder":
                return await self._embed(claim, bound, limit)
            async with self._accesses.of(bound.stage.provider).request(limit=limit):
                return await self._once(claim, bound, deadline)

    async def _once(self, claim: Claim, bound: Bound, deadline: float) -> Done:
        """Run a hook that is called once for an attempt."""
        hook, kind = bound.stage.hook, bound.stage.kind
        if kind == "parser":
            source = await claim.source()
            parsed = await self._call(bound, hook.parse, source, deadline)
            return _done(parsed) if isinstance(parsed, Done) else Done(parsed)
        if kind == "chunker":
            text = await claim.text()
            return Done(Chunks(tuple(await self._call(bound, hook.split, text, deadline))))
        if kind == "publisher":
            if bound.stage.stores_elsewhere and not await self._withdrawals.place(claim):
                raise Wait(WITHDRAWAL_POLL)
            return Done(await hook.publish(claim))
        if bound.stage.where == "process":
            # A child cannot reach the database, so its input is read for it.
            return _done(await self._call(bound, hook, await claim.text(), deadline))
        return _done(await self._call(bound, hook, claim, deadline))

    async def _call(
        self, bound: Bound, function: Callable[[Any], Any], argument: object, deadline: float
    ) -> Any:
        where = bound.stage.where
        if where == "process":
            return await self._children.call(function, argument, timeout_seconds=deadline)
        if where == "thread":
            loop = asyncio.get_running_loop()
            # A thread has no context of its own, and hooks report what answers said by theirs.
            run = contextvars.copy_context().run
            return await loop.run_in_executor(self._threads, run, function, argument)
        value = function(argument)
        return await value if inspect.isawaitable(value) else value

    async def _embed(self, claim: Claim, bound: Bound, limit: asyncio.Timeout) -> Done:
        """Embed what has no vector yet; each finished batch is saved at once."""
        embedder, stage = bound.stage.hook, bound.stage
        missing = await self._store.missing_vectors(claim, embedder.dimensions)
        waiting = iter(missing)
        for size in _batches(embedder, [text for _, text in missing]):
            batch = list(itertools.islice(waiting, size))
            async with self._accesses.of(stage.provider).request(limit=limit):
                values = await embedder.embed([text for _, text in batch])
            checked = _checked(claim, embedder.dimensions, [id_ for id_, _ in batch], values)
            await self._store.save_vectors(claim, checked, stage.deadline)
            # A stage that commits progress is not timed out.
            limit.reschedule(asyncio.get_running_loop().time() + stage.deadline.total_seconds())
        return Done(Vectors(embedder=claim.fingerprint, dimensions=embedder.dimensions))


def _batches(embedder: Any, texts: Sequence[str]) -> Iterable[int]:
    """Return how many of the texts go into each call."""
    if hasattr(embedder, "batches"):
        sizes: Iterable[int] = embedder.batches(texts)
        return sizes
    starts = range(0, len(texts), embedder.batch_size)
    return [min(embedder.batch_size, len(texts) - start) for start in starts]


def _checked(claim: Claim, dimensions: int, ids: Sequence[UUID], values: Any) -> Vectors:
    if len(values) != len(ids):
        raise StageFault(f"the embedder returned {len(values)} vectors for {len(ids)} texts")
    try:
        plain = tuple(map(vectors.plain, values))
    except (TypeError, ValueError) as error:
        raise StageFault(f"the embedder returned what is no vector: {error}") from error
    for chunk, vector in zip(ids, plain, strict=True):
        if len(vector) != dimensions:
            raise StageFault(
                f"the embedder says {dimensions} dimensions and returned {len(vector)}"
            )
        if not vectors.is_usable(vector):
            raise Reject(f"chunk {chunk} got a vector that is zero or not finite", "bad_vector")
    return Vectors(
        embedder=claim.fingerprint,
        dimensions=dimensions,
        chunk_ids=tuple(ids),
        values=plain,
    )


def _done(returned: object) -> Done:
    """Check what a function returned; a wrong value is the stage's fault, not the document's."""
    done = returned if isinstance(returned, Done) else Done(returned)
    if not isinstance(done.product, _PRODUCTS):
        found = type(done.product).__name__
        raise StageFault(f"the hook returned a {found}; it may return Done, a product or None")
    if not done.reported:
        return done
    try:
        json.dumps(dict(done.reported), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StageFault(f"what the hook reported is no JSON: {error}") from error
    return done
