"""W3C trace context, and what goes to other services."""

from __future__ import annotations

import doctest
from typing import TYPE_CHECKING

import pytest

from statemachine_pipeline import correlation_headers, traces
from statemachine_pipeline.database.arrivals import prepare
from statemachine_pipeline.errors import SourceRefused
from statemachine_pipeline.observability import outbound
from statemachine_pipeline.observability.outbound import Carried, carried, joined, shared
from statemachine_pipeline.records import Incoming

if TYPE_CHECKING:
    from types import ModuleType

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD.upper(),
        GOOD[:-1],
        f"{GOOD}-more",
        f"ff{GOOD[2:]}",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{GOOD}\n",
        f"{GOOD}\r\nX-Evil: 1",
        f"01{GOOD[2:]}-{'a' * 600}",
    ],
)
def test_nonsense_is_refused_at_submit(text: str) -> None:
    """'Validated (clear SourceRefused error on nonsense)'."""
    with pytest.raises(SourceRefused, match=r"its traceparent is none: .*pass on the header"):
        prepare(Incoming(b"x", traceparent=text), "default")


def test_what_the_standard_allows_is_taken() -> None:
    """Versions to come may say more; flags are anybody's."""
    for text in (GOOD, f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01-what.the-future"):
        assert prepare(Incoming(b"x", traceparent=text), "default").traceparent == text
    assert (traces.trace_id(GOOD), traces.span_id(GOOD)) == (TRACE, SPAN)


def test_headers_are_none_outside_of_hooks_and_fit_in_a_header() -> None:
    """'The documents' ids of the request, joined, bounded'; a line end stays in its id."""
    assert correlation_headers() == {}
    ids = ("a\r\nX-Evil: 1", "é,", *(f"id-{number:04}" for number in range(1000)))
    token = carried.set(Carried(ids, GOOD))
    try:
        told = correlation_headers()
    finally:
        carried.reset(token)
    first = "a%0D%0AX-Evil:%201,%C3%A9%2C,id-0000,id-0001,"
    assert told["X-Correlation-ID"].startswith(first)
    assert len(told["X-Correlation-ID"]) <= 1_000
    assert told["X-Correlation-ID"].isascii()
    assert told["traceparent"] == GOOD
    assert len(joined(["x" * 5_000, "y"])) == 1_000


def test_a_trace_is_shared_or_none() -> None:
    """'Only if all texts of the request belong to one trace'."""
    sibling = f"00-{TRACE}-{SPAN[::-1]}-01"
    stranger = f"00-{TRACE[::-1]}-{SPAN}-01"
    assert shared([GOOD, sibling]) == GOOD
    assert shared([GOOD, stranger]) is None
    assert shared([GOOD, None]) is None


@pytest.mark.parametrize("module", [traces, outbound])
def test_the_examples_in_the_docstrings_are_true(module: ModuleType) -> None:
    """The doctests run, and there are some."""
    failures, tried = doctest.testmod(module)
    assert failures == 0
    assert tried > 0
