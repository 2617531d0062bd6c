"""One document's part in the requests that embed many."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.errors import StaleClaim
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.context import asking
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.redaction import type_name
from statemachine_pipeline.resilience.batches import Text

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Sequence

    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.resilience.batches import Line


@dataclasses.dataclass(slots=True, eq=False)
class Attempt:
    """One document that waits for its vectors.

    Attributes:
        limit: Its deadline, which progress moves.
        over: Set when all is saved, or with what ends the attempt.
        left: Texts that are not saved yet.
        requests: How many hold texts of it now.
        asked: How many of these are with the embedder.
        error: What will end it, once none does: what is paid for is saved before.
    """

    claim: Claim
    line: Line
    limit: asyncio.Timeout
    over: asyncio.Future[None]
    left: int
    requests: int = 0
    asked: int = 0
    error: BaseException | None = None

    @property
    def goes_on(self) -> bool:
        """Whether its texts are still wanted."""
        return self.error is None and not self.over.done()


Item = tuple[Attempt, Text]


@contextlib.contextmanager
def being_asked(part: Sequence[Item], provider: str | None) -> Iterator[None]:
    """Note that an embedder is asked for these texts, in the name of their documents only."""
    attempts = dict.fromkeys(attempt for attempt, _ in part)
    told = {"provider": provider, "texts": len(part)}
    for attempt in attempts:
        attempt.asked += 1
    try:
        with asking([attempt.claim for attempt in attempts]), _telling(told):
            yield
    finally:
        for attempt in attempts:
            attempt.asked -= 1


@contextlib.contextmanager
def _telling(told: dict[str, Any]) -> Iterator[None]:
    began = time.monotonic()

    def took() -> dict[str, Any]:
        return told | {"duration_s": round(time.monotonic() - began, 6)}

    try:
        yield
    except Exception as error:
        # Not what it says: a service quotes what it was sent.
        name = type_name(type(error))
        note(log_events.REQUEST_FAILED, "a request failed: {}", name, error_type=name, **took())
        raise
    note(log_events.REQUEST_ANSWERED, "{} texts are embedded", told["texts"], **took())


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
