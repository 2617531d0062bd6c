"""Whose work is being done now, for requests to other services: ``correlation_headers``.

Kept in a context variable, so that hooks have it in threads as on the loop; a child process is told
with its call. Light to import, because children do.
"""

from __future__ import annotations

import dataclasses
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from statemachine_pipeline.traces import trace_id

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_CHARS: Final = 1_000
"""Of joined correlation ids: servers take headers of 8,000 characters together, some less."""
_HARMLESS: Final = "!#$&'*+-.^_`|~:/@="
"""Stand for themselves in a header; a comma parts ids."""


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


def correlation_headers() -> dict[str, str]:
    """Return the headers that tell another service for which documents it is asked.

    For hooks that make requests of their own: ``headers=correlation_headers()``. The shipped
    embedder sends them by itself.

    Returns:
        ``X-Correlation-ID``, with the ids of all documents that the request is for, separated by
        commas, as many as fit in 1,000 characters; what may not stand in a header is
        percent-encoded. And ``traceparent``, if one was given when they were submitted and all of
        them belong to the same trace. Empty outside of hooks.
    """
    now = carried.get()
    if now is None:
        return {}
    headers = {"X-Correlation-ID": joined(quote(one, _HARMLESS) for one in now.correlation_ids)}
    if now.traceparent is not None:
        headers["traceparent"] = now.traceparent
    return headers


def joined(ids: Iterable[str]) -> str:
    """Return as many whole ids as fit, each once, separated by commas; of a long first one a part.

    >>> joined(["a", "b", "a"])
    'a,b'
    """
    first, *others = dict.fromkeys(ids)
    text = first[:MOST_CHARS]
    for one in others:
        if len(text) + len(one) + 1 > MOST_CHARS:
            break
        text = f"{text},{one}"
    return text


def shared(traceparents: Iterable[str | None]) -> str | None:
    """Return what stands for all of them: the first, if every one is of the same trace.

    >>> shared([None]), shared([])
    (None, None)
    """
    found = list(traceparents)
    if not found or any(one is None for one in found):
        return None
    if len({trace_id(one) for one in found if one is not None}) > 1:
        return None
    return found[0]
