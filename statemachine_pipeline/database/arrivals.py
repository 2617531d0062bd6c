"""What is handed over, made ready to be written: read, hashed and checked, off the event loop."""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING, Any

from statemachine_pipeline import sources
from statemachine_pipeline.database.documents import Submission
from statemachine_pipeline.errors import SourceRefused
from statemachine_pipeline.records import Incoming, Refused, document_id
from statemachine_pipeline.traces import traceparent_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

BATCH = 500
"""Most documents in one statement."""
BATCH_BYTES = 32 * 1024 * 1024
"""A batch is closed once it holds so much; the last document may add 25 MB."""

_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_PRIORITIES = range(-(2**15), 2**15)


def each(items: Iterable[Incoming | str | Path | bytes]) -> Iterator[Incoming]:
    """Return what was handed over, each with what was said of it.

    Raises:
        TypeError: It is one document, and not several.
    """
    if isinstance(items, str | bytes):
        raise TypeError("submit_many wants several documents; for one there is submit")
    return (one if isinstance(one, Incoming) else Incoming(one) for one in items)


def prepare(incoming: Incoming, tenant: str, store_limit_bytes: int | None = None) -> Submission:
    """Read a source and make a document of it. Blocks on the disk.

    Args:
        incoming: What was handed over.
        tenant: Whose it is.
        store_limit_bytes: What the object store takes; None where bytes go into the database.

    Raises:
        SourceRefused: It cannot be read, or PostgreSQL could not store what comes with it.
    """
    content = sources.read(incoming.source, incoming.source_uri, incoming.name, store_limit_bytes)
    for found, advice in _problems(incoming, tenant):
        raise SourceRefused(content.source_uri, found, advice)
    return Submission(
        id=document_id(tenant, content.source_uri),
        tenant=tenant,
        source_uri=content.source_uri,
        name=content.name,
        size_bytes=content.size_bytes,
        content_sha256=content.sha256,
        correlation_id=incoming.correlation_id or uuid.uuid4().hex,
        traceparent=incoming.traceparent,
        content=content.data,
        path=content.path,
        metadata=incoming.metadata or {},
        priority=incoming.priority,
        not_before=incoming.not_before,
        by=None,
    )


def _problems(incoming: Incoming, tenant: str) -> Iterator[tuple[str, str]]:
    """Name what PostgreSQL would refuse: in a batch it would refuse the neighbours too."""
    if incoming.priority not in _PRIORITIES:
        least, most = _PRIORITIES[0], _PRIORITIES[-1]
        yield f"its priority is {incoming.priority}", f"use a number from {least} to {most}"
    if incoming.not_before is not None and incoming.not_before.tzinfo is None:
        yield "its not_before has no time zone", "use a time with one, such as datetime.now(UTC)"
    refused = sources.tenant_problem(tenant)
    if refused:
        yield refused, "use a name of printable characters"
    if not _is_storable(incoming.correlation_id or ""):
        yield "its correlation_id holds characters that cannot be stored", "use printable ones"
    if incoming.traceparent is not None and (no := traceparent_problem(incoming.traceparent)):
        yield f"its traceparent is none: {no}", "pass on the header as it came, or None"
    problem = json_problem(incoming.metadata)
    if problem:
        yield f"its metadata is no JSON that can be stored: {problem}", "use JSON values"


def json_problem(metadata: Mapping[str, Any] | None) -> str | None:
    """Say why PostgreSQL could not store metadata; None if it can."""
    if not metadata:
        return None
    try:
        text = json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        return str(error)
    return "it holds NUL characters" if _NUL_IN_JSON.search(text) else None


def _is_storable(text: str) -> bool:
    try:
        return b"\x00" not in text.encode()
    except UnicodeEncodeError:
        return False


def next_batch(
    incoming: Iterator[Incoming], tenant: str, store_limit_bytes: int | None = None
) -> list[Submission | Refused]:
    """Take and prepare the next few documents, in order; an empty list says there are no more.

    Blocks: runs whatever makes the items, and reads their sources.
    """
    batch: list[Submission | Refused] = []
    size_bytes = 0
    while len(batch) < BATCH and size_bytes < BATCH_BYTES:
        one = next(incoming, None)
        if one is None:
            break
        prepared = _prepared(one, tenant, store_limit_bytes)
        batch.append(prepared)
        if isinstance(prepared, Submission):
            size_bytes += len(prepared.content or b"")
    return batch


def _prepared(
    incoming: Incoming, tenant: str, store_limit_bytes: int | None
) -> Submission | Refused:
    try:
        return prepare(incoming, tenant, store_limit_bytes)
    except SourceRefused as error:
        return Refused(source=error.source, reason=error.reason)
