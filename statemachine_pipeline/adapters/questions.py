"""Questions become vectors by the embedder whose vectors they are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline import vectors
from statemachine_pipeline.errors import QuestionNotEmbedded
from statemachine_pipeline.hooks import Signal

if TYPE_CHECKING:
    from statemachine_pipeline.stages import Bound


async def embed_question(bound: Bound, text: str) -> list[float]:
    """Embed a question with the embedder of a stage.

    Raises:
        QuestionNotEmbedded: The embedder gave a signal, or what it returned is no vector of its
            dimensions, finite and not zero.
    """
    embedder = bound.stage.hook
    try:
        returned = await embedder.embed_query(text)
    except Signal as signal:
        raise QuestionNotEmbedded(bound.fingerprint, str(signal)) from signal
    try:
        vector = vectors.plain(returned)
    except (TypeError, ValueError) as error:
        raise QuestionNotEmbedded(bound.fingerprint, f"it is no vector ({error})") from error
    if len(vector) != embedder.dimensions:
        found = f"it says {embedder.dimensions} dimensions and returned {len(vector)}"
        raise QuestionNotEmbedded(bound.fingerprint, found)
    if not vectors.is_usable(vector):
        raise QuestionNotEmbedded(bound.fingerprint, "its vector is zero or not finite")
    return vector
