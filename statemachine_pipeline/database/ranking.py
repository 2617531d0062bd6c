"""Several orders of the same passages made into one. Pure: no I/O."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.counting import counted
from statemachine_pipeline.errors import SearchRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from statemachine_pipeline.records import Hit

SMOOTHING: Final = 60
"""How little the first places differ; the paper's constant, which it found to matter little."""


def fuse(*rankings: Sequence[UUID]) -> dict[UUID, float]:
    """Merge rankings by the reciprocals of their ranks, best first.

    Ranks are compared, never scores, whose scales have nothing in common. What stands first in
    every ranking scores 1; what stands first in one of two and not in the other, 0.5. Of equal
    scores, the one of the earlier ranking comes first.

    Returns:
        Each id with its score, above 0 and at most 1, in the order of the scores.

    Source: Cormack, Clarke, Büttcher: Reciprocal Rank Fusion outperforms Condorcet and individual
        Rank Learning Methods, SIGIR 2009.
    """
    scores: dict[UUID, float] = {}
    for ranking in rankings:
        for rank, one in enumerate(ranking, start=1):
            scores[one] = scores.get(one, 0.0) + 1 / (SMOOTHING + rank)
    best = len(rankings) / (SMOOTHING + 1)
    order = sorted(scores, key=lambda one: -scores[one])
    return {one: scores[one] / best for one in order}


def reordered(hits: Sequence[Hit], scores: Sequence[float]) -> list[Hit]:
    """Return hits by the scores a reranker gave them, best first.

    Raises:
        SearchRefused: There is not one finite score for each hit.
    """
    given = [float(score) for score in scores]
    if len(given) != len(hits) or not all(map(math.isfinite, given)):
        advice = (
            f"rerank has to return one finite number for each of {counted(len(hits), 'passage')}"
        )
        raise SearchRefused("the scores of rerank", given, advice)
    scored = zip(hits, given, strict=True)
    rescored = [dataclasses.replace(hit, score=score) for hit, score in scored]
    return sorted(rescored, key=lambda hit: -hit.score)
