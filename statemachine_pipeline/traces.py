"""W3C trace context: what a ``traceparent`` must look like. Pure.

Source: Trace Context, https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import re
from typing import Final

_SHAPE: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-.*)?"
)
_LONGEST: Final = 512


def traceparent_problem(text: str) -> str | None:
    """Say why a text is no ``traceparent``; None if it is one.

    >>> traceparent_problem("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    >>> traceparent_problem("00-00000000000000000000000000000000-b7ad6b7169203331-01")
    'its trace id is all zeros'
    """
    found = _SHAPE.fullmatch(text) if len(text) <= _LONGEST and text.isprintable() else None
    if found is None:
        return "it is not version-trace-span-flags in lower-case hexadecimal digits"
    if found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return f"version {found['version']} has no such value"
    if not int(found["trace"], 16):
        return "its trace id is all zeros"
    if not int(found["span"], 16):
        return "its span id is all zeros"
    return None


def trace_id(traceparent: str) -> str:
    """Return the trace that a valid ``traceparent`` belongs to."""
    return traceparent.split("-")[1]


def span_id(traceparent: str) -> str:
    """Return the span that a valid ``traceparent`` was sent from."""
    return traceparent.split("-")[2]
