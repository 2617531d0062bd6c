"""Whose work is being done: on every line that is logged meanwhile, and on requests to others.

Kept in context variables, so that a hook's own lines have it too, in threads as on the loop.
"""

from __future__ import annotations

import contextlib
import dataclasses
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from loguru import logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.hooks import Claim


@dataclasses.dataclass(frozen=True, slots=True)
class Carried:
    """What goes with a request to another service.

    Attributes:
        correlation_ids: Of the documents that it is for.
        traceparent: Of the trace in which they were submitted; None for none, or several.
    """

    correlation_ids: tuple[str, ...]
    traceparent: str | None


carried: Final[ContextVar[Carried | None]] = ContextVar("carried", default=None)
"""Of the work that is being done now; None outside of it."""


@contextlib.contextmanager
def walking(claim: Claim) -> Iterator[None]:
    """Say that what follows is done for one document by one worker."""
    document = claim.document
    token = carried.set(Carried((document.correlation_id,), None))
    try:
        with logger.contextualize(
            document_id=str(document.id),
            tenant=document.tenant,
            correlation_id=document.correlation_id,
            worker_id=claim.worker,
        ):
            yield
    finally:
        carried.reset(token)


@contextlib.contextmanager
def attempting(claim: Claim) -> Iterator[None]:
    """Say that what follows belongs to one attempt."""
    with logger.contextualize(stage=claim.stage, attempt=claim.attempt):
        yield
