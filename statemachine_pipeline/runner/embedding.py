"""Embeds the texts of all documents in hand together: one batcher for each runner and stage.

Attempts hand in what they miss and wait. Requests are formed of whatever waits, and each that is
answered is saved at once for all its documents.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from typing import TYPE_CHECKING, Any

from statemachine_pipeline import vectors
from statemachine_pipeline.batching import estimated_tokens
from statemachine_pipeline.errors import StaleClaim
from statemachine_pipeline.hooks import Done, Reject, StageFault
from statemachine_pipeline.records import Vectors
from statemachine_pipeline.resilience.batches import Line, Queue, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from statemachine_pipeline.database.vectors import VectorBuffer
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.resilience.access import Access, FreeAccess
    from statemachine_pipeline.stages import Bound

LAST_SHARED_ATTEMPT = 2
"""A document that failed more often shares no request: whatever it does is done to itself."""


@dataclasses.dataclass(slots=True, eq=False)
class _Attempt:
    """One document that waits for its vectors.

    Attributes:
        limit: Its deadline, which progress moves.
        over: Set when all is saved, or with what ends the attempt.
        left: Texts that are not saved yet.
        requests: How many hold texts of it now.
        error: What will end it, once none does: what is paid for is saved before.
    """

    claim: Claim
    line: Line
    limit: asyncio.Timeout
    over: asyncio.Future[None]
    left: int
    requests: int = 0
    error: BaseException | None = None

    @property
    def goes_on(self) -> bool:
        """Whether its texts are still wanted."""
        return self.error is None and not self.over.done()


_Item = tuple[_Attempt, Text]


class Batcher:
    """Forms, sends and saves the requests of one stage.

    Args:
        buffer: Where missing vectors are looked up and finished ones kept.
        bound: The stage.
        access: The way to its provider.
    """

    def __init__(self, buffer: VectorBuffer, bound: Bound, access: Access | FreeAccess) -> None:
        self._buffer, self._stage, self._access = buffer, bound.stage, access
        self._embedder = bound.stage.hook
        self._queue = Queue(bound.stage.request_limits)
        self._attempts: dict[Line, _Attempt] = {}
        self._requests: dict[asyncio.Task[None], frozenset[_Attempt]] = {}
        self._saves: dict[asyncio.Task[None], frozenset[_Attempt]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Send nothing more, and give up what is under way."""
        self._stop_timer()
        tasks = [*self._requests, *self._saves]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def embed(self, claim: Claim, limit: asyncio.Timeout) -> Done:
        """Embed what has no vector yet; return when all of it is saved.

        Args:
            claim: The document's.
            limit: The deadline of the attempt, which starts anew with each request that is saved.

        Raises:
            Reject: One of its texts is to blame, or its vector; the chunk is named.
            StaleClaim: The claim was lost meanwhile.
        """
        missing = await self._buffer.missing(claim, self._embedder.dimensions)
        texts = await self._counted(missing)
        if texts:
            await self._wait(claim, limit, texts)
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
                raise _named(refused, Text(chunk, index, text, 0)) from refused
            counted.append(Text(chunk, index, text, tokens))
        return counted

    async def _wait(self, claim: Claim, limit: asyncio.Timeout, texts: deque[Text]) -> None:
        loop = asyncio.get_running_loop()
        line = Line(
            claim.document.tenant,
            texts,
            since=loop.time(),
            alone=claim.attempt > LAST_SHARED_ATTEMPT or claim.crashes > 0,
        )
        attempt = _Attempt(claim, line, limit, loop.create_future(), left=len(texts))
        self._attempts[line] = attempt
        try:
            self._queue.add(line)
            self._send()
            await attempt.over
        finally:
            attempt.over.cancel()
            del self._attempts[line]
            self._queue.remove(line)
            self._drop_forsaken()

    def _send(self) -> None:
        """Send what is due, as far as requests may be under way; look again when more will be."""
        self._stop_timer()
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

    def _start(self, items: list[_Item]) -> None:
        attempts = frozenset(attempt for attempt, _ in items)
        for attempt in attempts:
            attempt.requests += 1
        task = asyncio.create_task(self._work_off(items))
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

    async def _work_off(self, items: list[_Item]) -> None:
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
                    self._fail(part[0][0], _named(refused, part[0][1]))
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

    async def _refusal(self, part: list[_Item]) -> Reject | None:
        """Embed and save texts as one request; return why it was refused, if it was."""
        if not _reduce(part):
            return None
        async with self._access.request(tokens=sum(text.tokens for _, text in part)):
            # The budget may have kept it waiting.
            if not _reduce(part):
                return None
            try:
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

    async def _keep(self, part: Sequence[_Item], values: Sequence[list[float]]) -> None:
        """Save what a request brought; a vector that cannot be searched rejects its document."""
        good: dict[_Attempt, list[tuple[Text, list[float]]]] = {}
        for (attempt, text), vector in zip(part, values, strict=True):
            if vectors.is_usable(vector):
                good.setdefault(attempt, []).append((text, vector))
            else:
                told = Reject("got a vector that is zero or not finite", "bad_vector")
                self._fail(attempt, _named(told, text))
        saved = [attempt for attempt in good if not attempt.over.done()]
        finished = [(one.claim, self._vectors(one, good[one])) for one in saved]
        late = [one for one in self._attempts.values() if one not in good and self._is_late(one)]
        finished += [(one.claim, self._vectors(one, [])) for one in late]
        if not finished:
            return
        several = len(finished) > 1
        deadline = self._stage.deadline
        written = await self._buffer.save(finished, deadline, skip_locked=several)
        for attempt, (claim, kept), is_written in zip(
            [*saved, *late], finished, written, strict=True
        ):
            if is_written:
                self._advance(attempt, len(kept.chunk_ids))
            elif several:
                # Gone, or locked by somebody else's transaction: its neighbours do not wait for it.
                self._save_apart(attempt, claim, kept)
            else:
                self._fail(attempt, _stale(claim))

    def _is_late(self, attempt: _Attempt) -> bool:
        """Tell whether a document that only waits has half of its time behind it.

        Where others make progress, waiting for them is no reason to be timed out.
        """
        when = attempt.limit.when()
        half = self._stage.deadline.total_seconds() / 2
        waits = attempt.goes_on and not attempt.requests
        return waits and when is not None and when - asyncio.get_running_loop().time() < half

    def _vectors(self, attempt: _Attempt, pairs: Iterable[tuple[Text, list[float]]]) -> Vectors:
        kept = list(pairs)
        return Vectors(
            embedder=attempt.claim.fingerprint,
            dimensions=self._embedder.dimensions,
            chunk_ids=tuple(text.chunk for text, _ in kept),
            values=tuple(vector for _, vector in kept),
        )

    def _save_apart(self, attempt: _Attempt, claim: Claim, kept: Vectors) -> None:
        attempt.requests += 1
        task = asyncio.create_task(self._saved_apart(attempt, claim, kept))
        self._saves[task] = frozenset({attempt})
        task.add_done_callback(self._saves.pop)

    async def _saved_apart(self, attempt: _Attempt, claim: Claim, kept: Vectors) -> None:
        try:
            (written,) = await self._buffer.save([(claim, kept)], self._stage.deadline)
            if written:
                self._advance(attempt, len(kept.chunk_ids))
            else:
                self._fail(attempt, _stale(claim))
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            self._fail(attempt, error)
        finally:
            attempt.requests -= 1
            self._end_if_over(attempt)

    def _advance(self, attempt: _Attempt, count: int) -> None:
        """Note what was saved. A stage that commits progress is not timed out."""
        attempt.left -= count
        if not attempt.over.done():
            deadline = self._stage.deadline.total_seconds()
            attempt.limit.reschedule(asyncio.get_running_loop().time() + deadline)
        self._end_if_over(attempt)

    def _fail(self, attempt: _Attempt, error: BaseException) -> None:
        """End an attempt, once no request holds texts of it; nothing more of it is sent."""
        attempt.error = attempt.error or error
        self._queue.remove(attempt.line)
        self._end_if_over(attempt)

    def _fail_all(self, parts: Iterable[Iterable[_Item]], error: BaseException) -> None:
        for attempt in {attempt for part in parts for attempt, _ in part}:
            self._fail(attempt, error)

    def _end_if_over(self, attempt: _Attempt) -> None:
        if attempt.over.done():
            return
        if not attempt.left:
            attempt.over.set_result(None)
        elif attempt.error is not None and not attempt.requests:
            attempt.over.set_exception(attempt.error)


def _reduce(part: list[_Item]) -> bool:
    """Drop texts that nobody wants any more; tell whether some are left."""
    part[:] = [item for item in part if item[0].goes_on]
    return bool(part)


def _named(refused: Reject, text: Text) -> Reject:
    """Return the same refusal with the chunk that it is about."""
    named = Reject(f"chunk {text.index} ({text.chunk}): {refused.reason}", refused.code)
    named.__cause__ = refused
    return named


def _stale(claim: Claim) -> StaleClaim:
    return StaleClaim(claim.document.id, claim.stage, claim.sequence)
