"""Runs one hook, with no transaction open, and tells what came of it as a value.

``call_user`` holds the only broad ``except`` around users' code.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from statemachine_pipeline import vectors
from statemachine_pipeline.decide import Failed, Outcome, Postponed, Succeeded
from statemachine_pipeline.errors import (
    DatabaseUnavailable,
    DefinitionError,
    MissingExtra,
    PipelineError,
    StaleClaim,
)
from statemachine_pipeline.hooks import (
    Done,
    Product,
    RateLimited,
    Reject,
    Retry,
    Signal,
    StageFault,
    Wait,
)
from statemachine_pipeline.records import (
    Accepted,
    Chunks,
    ParsedText,
    Publication,
    Validated,
    Vectors,
)
from statemachine_pipeline.runner.children import (
    ChildCrashed,
    Children,
    ChildTimedOut,
    HookRaised,
)
from statemachine_pipeline.runner.found import bounded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from uuid import UUID

    from statemachine_pipeline.database.store import Store
    from statemachine_pipeline.database.withdrawals import Withdrawals
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.stages import Bound

STAGE_FAULT_PAUSE = timedelta(minutes=5)
WITHDRAWAL_POLL = timedelta(seconds=2)
"""A document that was deleted and came back is published once its old self has gone."""
DETAIL_CHARS = 500
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
_OF_THE_STAGE = {"MissingExtra", "DefinitionError"}
"""Raised in a child, these say that no document could pass."""


class Performer:
    """Runs hooks where their stages say: on the loop, in a thread, in a child process.

    Args:
        store: For vectors that are saved batch by batch.
        withdrawals: Told before a publisher writes to a store of its own.
        threads: Most hooks in threads at a time.
        children: Most child processes; started when first needed.
    """

    def __init__(
        self, store: Store, withdrawals: Withdrawals, *, threads: int, children: int
    ) -> None:
        self._store, self._withdrawals = store, withdrawals
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
        hook, kind = bound.stage.hook, bound.stage.kind
        async with asyncio.timeout(deadline) as limit:
            if kind == "parser":
                source = await claim.source()
                parsed = await self._call(bound, hook.parse, source, deadline)
                return _done(parsed) if isinstance(parsed, Done) else Done(parsed)
            if kind == "chunker":
                text = await claim.text()
                return Done(Chunks(tuple(await self._call(bound, hook.split, text, deadline))))
            if kind == "embedder":
                return await self._embed(claim, bound, limit)
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
            return await loop.run_in_executor(self._threads, function, argument)
        value = function(argument)
        return await value if inspect.isawaitable(value) else value

    async def _embed(self, claim: Claim, bound: Bound, limit: asyncio.Timeout) -> Done:
        """Embed what has no vector yet; each finished batch is saved at once."""
        embedder, stage = bound.stage.hook, bound.stage
        missing = await self._store.missing_vectors(claim, embedder.dimensions)
        waiting = iter(missing)
        for size in _batches(embedder, [text for _, text in missing]):
            batch = list(itertools.islice(waiting, size))
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


async def call_user(  # noqa: C901, PLR0911 - a table of what may be raised
    function: Callable[..., Awaitable[Done]], *arguments: object
) -> Outcome:
    """Call a hook; whatever it raises becomes an outcome.

    Raises:
        StaleClaim: The claim was lost, so there is nothing to settle.
        DatabaseUnavailable: Not the hook's fault.
    """
    try:
        done = await function(*arguments)
        return Succeeded(product=done.product, children=done.children, reported=done.reported)
    except (StaleClaim, DatabaseUnavailable):
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Failed(code="hook_cancelled", reason="the hook was cancelled by its own doing")
    except SystemExit:
        return Failed(code="SystemExit", reason="the hook wanted to end the process")
    except Signal as signal:
        return _told(signal)
    except (TimeoutError, ChildTimedOut):
        return Failed(code="timed_out", reason="the stage's deadline passed")
    except ChildCrashed as error:
        return Failed(code="child_crashed", reason="the child process died", detail=_detail(error))
    except (MissingExtra, DefinitionError) as error:
        return _told(StageFault(str(error)))
    except HookRaised as error:
        if error.type_name in _OF_THE_STAGE:
            return _told(StageFault(error.message))
        reason = f"the hook raised {error.type_name}"
        return Failed(code=error.type_name, reason=reason, detail=_detail(error))
    except PipelineError as error:
        return Failed(code=type(error).__name__, reason=_detail(error))
    except Exception as error:  # noqa: BLE001 - users may raise anything
        name = type(error).__name__
        # The message may quote the document, and history is kept when the document is deleted.
        return Failed(code=name, reason=f"the hook raised {name}", detail=_detail(error))


def _told(signal: Signal) -> Outcome:
    match signal:
        case Retry(reason=reason, after=after):
            return Failed(code="retry", reason=_storable(reason), after=after)
        case Reject(reason=reason, code=code):
            return Failed(code=_storable(code), reason=_storable(reason), permanent=True)
        case RateLimited(after=after):
            return Postponed(code="rate_limited", reason=str(signal), after=after)
        case StageFault(reason=reason):
            return Postponed(code="stage_fault", reason=_storable(reason), after=STAGE_FAULT_PAUSE)
        case Wait(poll_after=after):
            return Postponed(code="waiting", reason=str(signal), after=after)
    return Failed(code=type(signal).__name__, reason="the hook raised a signal of its own")


def _detail(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception of the user's may not even have a text
        text = "its message cannot be read"
    return _storable(text)[:DETAIL_CHARS]


def _storable(text: str) -> str:
    """Replace what PostgreSQL's text cannot hold: NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
