"""What one request is charged, divided among the documents in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from statemachine_pipeline.runner.shares import divided


@given(
    st.integers(0, 10**9),
    st.lists(st.integers(0, 10_000), min_size=1, max_size=50),
)
def test_the_parts_are_whole_and_add_up(total: int, weights: list[int]) -> None:
    """Totals of usage are those that providers counted, to the last token."""
    parts = divided(total, weights)
    assert sum(parts) == total
    assert len(parts) == len(weights)
    assert min(parts) >= 0


@given(st.integers(0, 10**6), st.lists(st.integers(0, 100), min_size=1, max_size=20))
def test_each_part_is_as_large_as_its_weight_says(total: int, weights: list[int]) -> None:
    """At most one off what a fraction would be; where nothing is known all are alike."""
    known = weights if any(weights) else [1] * len(weights)
    for part, weight in zip(divided(total, weights), known, strict=True):
        assert abs(part - total * weight / sum(known)) <= 1


def test_a_large_text_bears_the_large_share() -> None:
    """'split over its documents by their estimated tokens'."""
    assert divided(1000, [1, 98, 1]) == [10, 980, 10]
    assert divided(9, [0, 0, 0]) == [3, 3, 3]
