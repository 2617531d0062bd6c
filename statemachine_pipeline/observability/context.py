"""Whose work is being done: on every line that is logged meanwhile, and on requests to others.

Kept in context variables, so that a hook's own lines have it too, in threads as on the loop.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from loguru import logger

from statemachine_pipeline.observability.outbound import Carried, carried, joined, shared
from statemachine_pipeline.traces import span_id, trace_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.records import Document


@contextlib.contextmanager
def working(pipeline: str, worker: int) -> Iterator[None]:
    """Say that what follows is done by one worker."""
    with logger.contextualize(pipeline=pipeline, worker_id=worker):
        yield


@contextlib.contextmanager
def walking(claim: Claim) -> Iterator[None]:
    """Say that what follows is done for one document by one worker."""
    document = claim.document
    with _carrying([document]), logger.contextualize(**of(document), worker_id=claim.worker):
        yield


@contextlib.contextmanager
def attempting(claim: Claim) -> Iterator[None]:
    """Say that what follows belongs to one attempt."""
    with logger.contextualize(stage=claim.stage, attempt=claim.attempt):
        yield


@contextlib.contextmanager
def asking(claims: Sequence[Claim]) -> Iterator[None]:
    """Say that what follows is one request for the attempts of several documents."""
    documents = [claim.document for claim in claims]
    first = claims[0]
    fields: dict[str, Any] = {"stage": first.stage, "worker_id": first.worker}
    fields |= of_all(documents)
    if len(claims) == 1:
        fields["attempt"] = first.attempt
    with _carrying(documents), logger.contextualize(**fields):
        yield


def of(document: Document) -> dict[str, Any]:
    """Return the fields of a line about one document."""
    fields = {
        "document_id": str(document.id),
        "tenant": document.tenant,
        "correlation_id": document.correlation_id,
    }
    return fields | of_trace(document.traceparent)


def of_all(documents: Sequence[Document]) -> dict[str, Any]:
    """Return the fields of a line about one or several documents."""
    if len(documents) == 1:
        return of(documents[0])
    fields: dict[str, Any] = {
        "documents": len(documents),
        "correlation_id": joined(one.correlation_id for one in documents),
    }
    tenants = {one.tenant for one in documents}
    if len(tenants) == 1:
        fields["tenant"] = tenants.pop()
    return fields | of_trace(shared(one.traceparent for one in documents))


def of_trace(traceparent: str | None) -> dict[str, Any]:
    """Return the fields of the trace that a document was submitted in, if it was in one."""
    if traceparent is None:
        return {}
    return {"trace_id": trace_id(traceparent), "span_id": span_id(traceparent)}


@contextlib.contextmanager
def _carrying(documents: Sequence[Document]) -> Iterator[None]:
    ids = tuple(dict.fromkeys(one.correlation_id for one in documents))
    token = carried.set(Carried(ids, shared(one.traceparent for one in documents)))
    try:
        yield
    finally:
        carried.reset(token)
