"""One document's part in the requests that embed many."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from typing import TYPE_CHECKING, Any, Protocol

from statemachine_pipeline.counting import counted
from statemachine_pipeline.errors import StaleClaim
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.context import asking
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.redaction import type_name
from statemachine_pipeline.resilience.batches import Text
from statemachine_pipeline.runner.calling import code_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator, Sequence

    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.resilience.batches import Line
    from statemachine_pipeline.stages import Stage


class Told(Protocol):
    """What the answers to a request said."""

    tokens: int | None


@dataclasses.dataclass(slots=True)
class Bill:
    """What one attempt owes.

    Attributes:
        tokens: What its requests were charged for so far.
    """

    tokens: int = 0


@dataclasses.dataclass(slots=True, eq=False)
class Attempt:
    """One document that waits for its vectors.

    Attributes:
        bill: What its requests are charged for.
        limit: Its deadline, which progress moves.
        over: Set when all is saved, or with what ends the attempt.
        left: Texts that are not saved yet.
        requests: How many hold texts of it now.
        asked: How many of these are with the embedder.
        error: What will end it, once none does: what is paid for is saved before.
    """

    claim: Claim
    bill: Bill
    line: Line
    limit: asyncio.Timeout
    over: asyncio.Future[None]
    left: int
    requests: int = 0
    asked: int = 0
    error: BaseException | None = None

    @property
    def charged(self) -> int:
        """What its document was charged for since its last transition, this attempt included."""
        return self.claim.tokens + self.bill.tokens

    @property
    def goes_on(self) -> bool:
        """Whether its texts are still wanted."""
        return self.error is None and not self.over.done()


Item = tuple[Attempt, Text]


@contextlib.contextmanager
def being_asked(
    part: Sequence[Item], told: Told, provider: str | None, stage: Stage
) -> Iterator[None]:
    """Note that an embedder is asked for these texts, and what their documents owe for it.

    What the provider counted is divided by the estimates, which stand for it where it does not say;
    a request that was not answered is charged for only if it says so. What is told meanwhile is
    told of these documents, and of no other.
    """
    weights = [text.tokens for _, text in part]
    try:
        with _being_asked(part, provider, stage):
            yield
    except BaseException:
        _charge(part, divided(told.tokens or 0, weights))
        raise
    _charge(part, weights if told.tokens is None else divided(told.tokens, weights))


def _charge(part: Iterable[Item], amounts: Iterable[int]) -> None:
    for (attempt, _), tokens in zip(part, amounts, strict=True):
        attempt.bill.tokens += tokens


@contextlib.contextmanager
def _being_asked(part: Sequence[Item], provider: str | None, stage: Stage) -> Iterator[None]:
    attempts = dict.fromkeys(attempt for attempt, _ in part)
    told = {"provider": provider, "texts": len(part)}
    for attempt in attempts:
        attempt.asked += 1
    try:
        with asking([attempt.claim for attempt in attempts]), _telling(told, stage):
            yield
    finally:
        for attempt in attempts:
            attempt.asked -= 1


@contextlib.contextmanager
def _telling(told: dict[str, Any], stage: Stage) -> Iterator[None]:
    began = time.monotonic()

    def took() -> dict[str, Any]:
        return told | {"duration_s": round(time.monotonic() - began, 6)}

    try:
        yield
    except Exception as error:
        # Not what it says: a service quotes what it was sent.
        name = type_name(type(error))
        why = took() | {"error_code": code_of(error, stage), "error_type": name}
        note(log_events.REQUEST_FAILED, "a request failed: {}", name, **why)
        raise
    embedded = counted(told["texts"], "text is", "texts are")
    note(log_events.REQUEST_ANSWERED, "{} embedded", embedded, **took())


def divided(total: int, weights: Sequence[int]) -> list[int]:
    """Divide a whole number in proportion to weights, so that the parts are whole and add up.

    >>> divided(10, [1, 1, 1]), divided(3, [0, 0]), divided(7, [5, 0])
    ([3, 4, 3], [2, 1], [7, 0])
    """
    known = weights if any(weights) else [1] * len(weights)
    ends = itertools.accumulate(known, initial=0)
    rounded = [(2 * total * end + sum(known)) // (2 * sum(known)) for end in ends]
    return [end - start for start, end in itertools.pairwise(rounded)]


def reduce(part: list[Item]) -> bool:
    """Drop texts that nobody wants any more; tell whether some are left."""
    part[:] = [item for item in part if item[0].goes_on]
    return bool(part)


def named(refused: Reject, text: Text) -> Reject:
    """Return the same refusal with the chunk that it is about."""
    told = Reject(f"chunk {text.index} ({text.chunk}): {refused.reason}", refused.code)
    told.__cause__ = refused
    return told


def stale(claim: Claim) -> StaleClaim:
    """Return what ends an attempt whose claim was lost."""
    return StaleClaim(claim.document.id, claim.stage, claim.sequence)
