"""Embeds the texts of all documents in hand together: one batcher for each runner and stage.

Attempts hand in what they miss and wait. Requests are formed of whatever waits, and each that is
answered is saved at once for all its documents.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
from collections import deque
from typing import TYPE_CHECKING, Any

from statemachine_pipeline import vectors
from statemachine_pipeline.batching import estimated_tokens
from statemachine_pipeline.hooks import Done, RateLimited, Reject, StageFault
from statemachine_pipeline.observability import instruments
from statemachine_pipeline.records import Vectors
from statemachine_pipeline.resilience.batches import Line, Queue, Text
from statemachine_pipeline.resilience.budgets import SHORTEST
from statemachine_pipeline.runner.shares import Attempt, Item, being_asked, named, reduce, stale

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from statemachine_pipeline.database.vectors import VectorBuffer
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.observability.metrics import Metrics
    from statemachine_pipeline.resilience.access import Access, FreeAccess
    from statemachine_pipeline.runner.shares import Bill
    from statemachine_pipeline.stages import Bound

LAST_SHARED_ATTEMPT = 2
"""A document that failed more often shares no request: whatever it does is done to itself."""


class Batcher:
    """Forms, sends and saves the requests of one stage.

    Args:
        buffer: Where missing vectors are looked up and finished ones kept.
        bound: The stage.
        access: The way to its provider.
        metrics: Where it is counted how full requests are.
    """

    def __init__(
        self, buffer: VectorBuffer, bound: Bound, access: Access | FreeAccess, metrics: Metrics
    ) -> None:
        self._buffer, self._stage, self._access = buffer, bound.stage, access
        self._trigger, self._metrics = bound.trigger, metrics
        self._provider = bound.stage.provider.name if bound.stage.provider else None
        self._embedder = bound.stage.hook
        self._limits = bound.stage.request_limits
        self._queue = Queue(self._limits)
        self._attempts: dict[Line, Attempt] = {}
        self._requests: dict[asyncio.Task[None], frozenset[Attempt]] = {}
        self._saves: dict[asyncio.Task[None], frozenset[Attempt]] = {}
        self._timer: asyncio.TimerHandle | None = None
        # That of whoever made it: requests are for several documents, and begun by any.
        self._context = contextvars.copy_context()

    async def close(self) -> None:
        """Send nothing more, and give up what is under way."""
        self._stop_timer()
        tasks = [*self._requests, *self._saves]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def embed(self, claim: Claim, limit: asyncio.Timeout, bill: Bill) -> Done:
        """Embed what has no vector yet; return when all of it is saved.

        Args:
            claim: The document's.
            limit: The deadline of the attempt, which starts anew with each request that is saved.
            bill: Where its share of each request is added.

        Raises:
            Reject: One of its texts is to blame, or its vector; the chunk is named.
            StaleClaim: The claim was lost meanwhile.
        """
        missing = await self._buffer.missing(claim, self._embedder.dimensions)
        texts = await self._counted(missing)
        if texts:
            await self._wait(claim, limit, bill, texts)
        return Done(Vectors(embedder=claim.fingerprint, dimensions=self._embedder.dimensions))

    async def _counted(self, missing: Sequence[tuple[Any, int, str]]) -> deque[Text]:
        if hasattr(self._embedder, "count_tokens"):
            # A tokenizer takes 10 ms for a long book, and a while to load.
            return await asyncio.to_thread(self._count, missing)
        return deque(Text(*row, estimated_tokens(row[2])) for row in missing)

    def _count(self, missing: Sequence[tuple[Any, int, str]]) -> deque[Text]:
        counted: deque[Text] = deque()
        for chunk, index, text in missing:
            try:
                tokens = int(self._embedder.count_tokens(text))
            except Reject as refused:
                raise named(refused, Text(chunk, index, text, 0)) from refused
            counted.append(Text(chunk, index, text, tokens))
        return counted

    async def _wait(
        self, claim: Claim, limit: asyncio.Timeout, bill: Bill, texts: deque[Text]
    ) -> None:
        loop = asyncio.get_running_loop()
        line = Line(
            claim.document.tenant,
            texts,
            since=loop.time(),
            alone=claim.attempt > LAST_SHARED_ATTEMPT or claim.crashes > 0,
        )
        attempt = Attempt(claim, bill, line, limit, loop.create_future(), left=len(texts))
        self._attempts[line] = attempt
        try:
            self._queue.add(line)
            self._send()
            await attempt.over
        except asyncio.CancelledError:
            if limit.expired() and (said := self._said_late(attempt)) is not None:
                raise said from None
            raise
        finally:
            attempt.over.cancel()
            del self._attempts[line]
            self._queue.remove(line)
            self._drop_forsaken()

    def _said_late(self, attempt: Attempt) -> BaseException | None:
        """Return what ends an attempt at its deadline, if that is not the deadline itself.

        Its own failure, which waited for requests of its other texts; or what gives it back, as
        nobody was asked for it yet, or a provider that was down before.
        """
        if attempt.error is not None:
            return attempt.error
        return self._access.refusal() if attempt.asked else RateLimited(SHORTEST)

    def _bound(self) -> None:
        """Let no request be larger than its provider lets through in half of the time it has."""
        most = self._access.most_tokens(self._stage.deadline / 2)
        if most is not None:
            tokens = min(most, self._limits.tokens)
            self._queue.limits = dataclasses.replace(self._limits, tokens=tokens)

    def _send(self) -> None:
        """Send what is due, as far as requests may be under way; look again when more will be."""
        self._stop_timer()
        self._bound()
        loop = asyncio.get_running_loop()
        while len(self._requests) < self._stage.batch.requests:
            oldest = self._queue.oldest
            if oldest is None:
                return
            due = oldest + self._stage.batch.age.total_seconds()
            # Nobody else can come when every document in hand waits already.
            is_due = self._queue.is_full or len(self._queue.lines) >= self._stage.slots
            if not is_due and loop.time() < due:
                self._timer = loop.call_at(due, self._send)
                return
            items = [(self._attempts[line], text) for line, text in self._queue.take()]
            self._start(items)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, items: list[Item]) -> None:
        attempts = frozenset(attempt for attempt, _ in items)
        for attempt in attempts:
            attempt.requests += 1
        task = asyncio.create_task(self._work_off(items), context=self._context.copy())
        self._requests[task] = attempts
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        for attempt in self._requests.pop(task):
            attempt.requests -= 1
            self._end_if_over(attempt)
        self._send()

    def _drop_forsaken(self) -> None:
        """Cancel requests, and saves, for which nobody waits any more."""
        for task, attempts in (self._requests | self._saves).items():
            if all(attempt.over.done() for attempt in attempts):
                task.cancel()

    async def _work_off(self, items: list[Item]) -> None:
        """Send one request, in halves if it is refused; whatever else is raised ends its attempts.

        Depth first, so that n texts with one bad among them take about twice log2(n) requests.
        """
        parts = [items]
        try:
            while parts:
                refused = await self._refusal(parts[-1])
                part = parts.pop()
                if refused is None:
                    continue
                if len(part) == 1:
                    self._fail(part[0][0], named(refused, part[0][1]))
                    continue
                half = len(part) // 2
                parts += [part[half:], part[:half]]
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._fail_all(parts, error)  # the hook's own doing
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told to whoever waits
            self._fail_all(parts, error)

    async def _refusal(self, part: list[Item]) -> Reject | None:
        """Embed and save texts as one request; return why it was refused, if it was."""
        if not reduce(part):
            return None
        async with self._access.request(
            tokens=sum(text.tokens for _, text in part),
            is_late=lambda: any(attempt.limit.expired() for attempt, _ in part),
            rules=self._stage.failures,
        ) as request:
            # The budget may have kept it waiting.
            if not reduce(part):
                request.drop()
                return None
            used = self._queue.limits.used(len(part), sum(text.tokens for _, text in part))
            self._metrics.add(instruments.TEXTS, len(part), stage=self._trigger)
            self._metrics.observe(instruments.BATCH_FILL, used, stage=self._trigger)
            try:
                with being_asked(part, request, self._provider, self._stage):
                    values = await self._embedder.embed([text.text for _, text in part])
            except Reject as refused:
                return refused
        await self._keep(part, self._checked(values, len(part)))
        return None

    def _checked(self, values: Any, count: int) -> list[list[float]]:
        """Return vectors as lists of the right number and length; all else is the stage's fault."""
        dimensions = self._embedder.dimensions
        if len(values) != count:
            raise StageFault(f"the embedder returned {len(values)} vectors for {count} texts")
        try:
            plain = list(map(vectors.plain, values))
        except (TypeError, ValueError) as error:
            raise StageFault(f"the embedder returned what is no vector: {error}") from error
        for vector in plain:
            if len(vector) != dimensions:
                raise StageFault(
                    f"the embedder says {dimensions} dimensions and returned {len(vector)}"
                )
        return plain

    async def _keep(self, part: Sequence[Item], values: Sequence[list[float]]) -> None:
        """Save what a request brought; a vector that cannot be searched rejects its document."""
        good: dict[Attempt, list[tuple[Text, list[float]]]] = {}
        for (attempt, text), vector in zip(part, values, strict=True):
            if vectors.is_usable(vector):
                good.setdefault(attempt, []).append((text, vector))
            else:
                told = Reject("got a vector that is zero or not finite", "bad_vector")
                self._fail(attempt, named(told, text))
        saved = [attempt for attempt in good if not attempt.over.done()]
        finished = [(one.claim, self._vectors(one, good[one]), one.charged) for one in saved]
        late = [one for one in self._attempts.values() if one not in good and self._is_late(one)]
        finished += [(one.claim, self._vectors(one, []), one.charged) for one in late]
        if not finished:
            return
        several = len(finished) > 1
        deadline = self._stage.deadline
        written = await self._buffer.save(finished, deadline, skip_locked=several)
        for attempt, (claim, kept, _), is_written in zip(
            [*saved, *late], finished, written, strict=True
        ):
            if is_written:
                self._advance(attempt, len(kept.chunk_ids))
            elif several:
                # Gone, or locked by somebody else's transaction: its neighbours do not wait for it.
                self._save_apart(attempt, kept)
            else:
                self._fail(attempt, stale(claim))

    def _is_late(self, attempt: Attempt) -> bool:
        """Tell whether a document that only waits has half of its time behind it.

        Where others make progress, waiting for them is no reason to be timed out.
        """
        when = attempt.limit.when()
        half = self._stage.deadline.total_seconds() / 2
        waits = attempt.goes_on and not attempt.requests
        return waits and when is not None and when - asyncio.get_running_loop().time() < half

    def _vectors(self, attempt: Attempt, pairs: Iterable[tuple[Text, list[float]]]) -> Vectors:
        kept = list(pairs)
        return Vectors(
            embedder=attempt.claim.fingerprint,
            dimensions=self._embedder.dimensions,
            chunk_ids=tuple(text.chunk for text, _ in kept),
            values=tuple(vector for _, vector in kept),
        )

    def _save_apart(self, attempt: Attempt, kept: Vectors) -> None:
        attempt.requests += 1
        saving = self._saved_apart(attempt, kept)
        task = asyncio.create_task(saving, context=self._context.copy())
        self._saves[task] = frozenset({attempt})
        task.add_done_callback(self._saves.pop)

    async def _saved_apart(self, attempt: Attempt, kept: Vectors) -> None:
        finished = [(attempt.claim, kept, attempt.charged)]
        try:
            (written,) = await self._buffer.save(finished, self._stage.deadline)
            if written:
                self._advance(attempt, len(kept.chunk_ids))
            else:
                self._fail(attempt, stale(attempt.claim))
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            self._fail(attempt, error)
        finally:
            attempt.requests -= 1
            self._end_if_over(attempt)

    def _advance(self, attempt: Attempt, count: int) -> None:
        """Note what was saved. A stage that commits progress is not timed out."""
        attempt.left -= count
        if not attempt.over.done():
            deadline = self._stage.deadline.total_seconds()
            attempt.limit.reschedule(asyncio.get_running_loop().time() + deadline)
        self._end_if_over(attempt)

    def _fail(self, attempt: Attempt, error: BaseException) -> None:
        """End an attempt, once no request holds texts of it; nothing more of it is sent."""
        attempt.error = attempt.error or error
        self._queue.remove(attempt.line)
        self._end_if_over(attempt)

    def _fail_all(self, parts: Iterable[Iterable[Item]], error: BaseException) -> None:
        for attempt in {attempt for part in parts for attempt, _ in part}:
            self._fail(attempt, error)

    def _end_if_over(self, attempt: Attempt) -> None:
        if attempt.over.done():
            return
        if not attempt.left:
            attempt.over.set_result(None)
        elif attempt.error is not None and not attempt.requests:
            attempt.over.set_exception(attempt.error)
