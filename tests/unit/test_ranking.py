"""Several rankings made into one, and hits in the order a reranker wants."""

from __future__ import annotations

import math
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine_pipeline.database.ranking import fuse, reordered
from statemachine_pipeline.errors import SearchRefused

if TYPE_CHECKING:
    from uuid import UUID

A, B, C, D = (uuid.UUID(int=number) for number in range(4))
rankings = st.lists(st.sampled_from([A, B, C, D]), unique=True)


def test_what_both_rankings_have_comes_before_what_one_has() -> None:
    """Ranks are compared: second place in both beats first place in one."""
    assert list(fuse([A, B], [C, B])) == [B, A, C]


def test_scores_say_where_something_stood() -> None:
    """First in every ranking scores 1; first in one of two and not in the other, 0.5."""
    assert fuse([A], [A]) == {A: 1.0}
    assert fuse([A], [B]) == {A: 0.5, B: 0.5}
    assert fuse([A, B], []) == {A: 0.5, B: pytest.approx(0.5 * 61 / 62)}


def test_of_equal_scores_the_earlier_ranking_comes_first() -> None:
    """The order is one and the same each time."""
    assert list(fuse([B, C], [A, D])) == [B, A, C, D]


@given(rankings, rankings)
def test_fusing_keeps_everything_once_and_falls(first: list[UUID], second: list[UUID]) -> None:
    """Each id once, scores above 0 and at most 1, highest first."""
    fused = fuse(first, second)
    assert set(fused) == {*first, *second}
    assert list(fused.values()) == sorted(fused.values(), reverse=True)
    assert all(0 < score <= 1 for score in fused.values())


@given(rankings)
def test_fusing_agrees_with_rankings_that_agree(ranking: list[UUID]) -> None:
    """Two rankings that say the same are the answer."""
    assert list(fuse(ranking, ranking)) == ranking == list(fuse(ranking, []))


@pytest.mark.parametrize("scores", [[1.0], [1.0, 2.0, 3.0], [1.0, math.nan], [math.inf, 0.0]])
def test_a_reranker_has_to_score_each_hit(scores: list[float]) -> None:
    """One finite score for each hit, in their order."""
    hits: Any = [SimpleNamespace(), SimpleNamespace()]
    with pytest.raises(SearchRefused, match="one finite number for each of 2 passages"):
        reordered(hits, scores)
