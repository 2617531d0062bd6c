"""Documents found in documents, before any of them is written: names, ids, limits."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine_pipeline.hooks import Done, Reject, StageFault
from statemachine_pipeline.records import Child, Document, ParsedText, child_uri, document_id
from statemachine_pipeline.runner.found import bounded
from statemachine_pipeline.stages import ChildLimits

if TYPE_CHECKING:
    from uuid import UUID

NOW = datetime(2025, 3, 1, tzinfo=UTC)
PARENT = Document(
    id=document_id("default", "mem:a"),
    tenant="default",
    source_uri="mem:a",
    name="a",
    state="parse_queued",
    version=2,
    generation=1,
    life=1,
    media_type=None,
    size_bytes=1,
    content_sha256="0",
    input_sha256="0",
    text_sha256=None,
    text_chars=0,
    chunk_count=0,
    vector_count=0,
    correlation_id="c",
    last_error=None,
    metadata={},
    created_at=NOW,
    updated_at=NOW,
)
NAMES = st.text(st.sampled_from("a/1 "), min_size=1, max_size=4)
PLACES = st.tuples(st.uuids(), st.sampled_from(["a", "a_b"]), NAMES, st.integers(1, 12))


@given(st.lists(PLACES, max_size=6, unique=True))
def test_no_two_children_come_from_the_same_place(places: list[tuple[UUID, str, str, int]]) -> None:
    """No two parents, stages or siblings share one; and each begins as all of its stage."""
    assert len({child_uri(*place) for place in places}) == len(places)
    for one, other in itertools.permutations(places, 2):
        begins = child_uri(*other).startswith(child_uri(one[0], one[1]))
        assert begins == (one[:2] == other[:2])


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x00", "\ud800", "a\u202eb", "x" * 1001])
def test_a_child_needs_a_name_that_can_be_shown(name: str) -> None:
    """It becomes part of an id and is shown to people."""
    with pytest.raises(ValueError, match="name"):
        Child(name, b"")


def test_a_child_is_bytes() -> None:
    """What is stored is what the hook found."""
    with pytest.raises(TypeError, match="found str"):
        Child("a", "text")  # type: ignore[arg-type]


def test_children_is_no_fact() -> None:
    """``children`` is a name of its own in ``Done``; every other is reported to guards."""
    done = Done(None, children=[Child("a", b"x")], pages=3)
    assert (done.children, dict(done.reported)) == ((Child("a", b"x"),), {"pages": 3})


@pytest.mark.parametrize(
    ("found", "named"),
    [(["a"], "a str among its children"), ([Child("a", b"", {"x": float("nan")})], "no JSON")],
)
def test_what_is_no_child_is_the_fault_of_the_stage(found: list[Any], named: str) -> None:
    """No document is charged for it."""
    with pytest.raises(StageFault, match=named):
        bounded(Done(children=found), PARENT, ChildLimits())


def test_limits_are_inclusive() -> None:
    """As many and as much as the limit pass; one more does not."""
    done = Done(children=[Child("a", b"12"), Child("b", b"34")])
    assert bounded(done, PARENT, ChildLimits(count=2, size_bytes=4)) is done
    for limits in (ChildLimits(count=1), ChildLimits(size_bytes=3)):
        with pytest.raises(Reject):
            bounded(done, PARENT, limits)


def test_children_that_lie_too_deep_are_left_out_and_told() -> None:
    """A warning with a text, else a fact; what the hook made and reported stays."""
    deep = dataclasses.replace(PARENT, parent_id=PARENT.id, depth=1)
    found = [Child("a", b""), Child("b", b"")]
    text = bounded(Done(ParsedText("t"), children=found, n=1), deep, ChildLimits(depth=1))
    assert isinstance(text.product, ParsedText)
    assert (text.product.text, text.children, dict(text.reported)) == ("t", (), {"n": 1})
    assert text.product.warnings == (
        "left out 2 documents found in it: it lies 1 deep in others itself, which is the limit",
    )
    other = bounded(Done(children=found), deep, ChildLimits(depth=1))
    assert (other.children, dict(other.reported)) == ((), {"children_left_out": 2})
