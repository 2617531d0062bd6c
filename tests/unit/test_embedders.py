"""The embedder whose weights come in a wheel: the same vector for the same text, offline."""

from __future__ import annotations

import asyncio
import logging
import math
import socket

import pytest

from statemachine_pipeline.adapters.embedders import WordLlamaEmbedder
from statemachine_pipeline.hooks import Embedder, Reject

LONG = "a library of many words é " * 4_000


@pytest.fixture(scope="module")
def embedder() -> WordLlamaEmbedder:
    """Load the weights once for this module."""
    return WordLlamaEmbedder()


def similarity(one: list[float], other: list[float]) -> float:
    """Return the cosine of two vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_vectors_have_the_promised_shape(embedder: WordLlamaEmbedder) -> None:
    """One vector of 256 floats and length 1 for each text, in their order."""
    assert isinstance(embedder, Embedder)
    vectors = await embedder.embed(["one", "two", LONG, "—", "🦆", "\u200b", " "])
    assert [len(vector) for vector in vectors] == [embedder.dimensions] * 7
    for vector in vectors:
        assert math.isclose(math.hypot(*vector), 1.0, rel_tol=1e-5)


async def test_a_vector_does_not_depend_on_its_neighbours(embedder: WordLlamaEmbedder) -> None:
    """One text always gives the same vector, whatever else is in the batch."""
    alone = await embedder.embed(["the budget"])
    batch = await embedder.embed([LONG, "the budget", *["x"] * 62])
    assert batch[1] == alone[0]
    assert await embedder.embed_query("the budget") == alone[0]


async def test_related_texts_are_nearer(embedder: WordLlamaEmbedder) -> None:
    """Search ranks by cosine."""
    question = await embedder.embed_query("Who approved the budget?")
    near, far = await embedder.embed(
        ["The budget was approved by the town council.", "Dogs may wait in the entrance hall."]
    )
    assert similarity(question, near) > 0.4 > similarity(question, far) + 0.2


async def test_an_empty_text_is_refused(embedder: WordLlamaEmbedder) -> None:
    """Finite and not all zero: an empty text has no vector."""
    with pytest.raises(Reject, match="an empty text has no vector"):
        await embedder.embed(["words", ""])
    with pytest.raises(ValueError, match="an empty question"):
        await embedder.embed_query("")
    assert await embedder.embed([]) == []


async def test_it_is_loaded_once_without_network_or_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded, and the program's logging is left alone."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the embedder opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    embedder = WordLlamaEmbedder()
    vectors = await asyncio.gather(*(embedder.embed(["same words"]) for _ in range(4)))
    assert all(vector == vectors[0] for vector in vectors)
    assert (list(root.handlers), root.level) == before
