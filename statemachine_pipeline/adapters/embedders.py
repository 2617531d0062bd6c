"""Embedders that run here; those that call a provider have their own module."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.errors import MissingExtra
from statemachine_pipeline.hooks import Reject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The tokenizer needs about 100 bytes for each character that it holds at once, so long texts go in
# pieces: a million characters took 96 MB in one.
_PIECE_CHARS: Final = 8_192
_PIECES_AT_ONCE: Final = 64


class WordLlamaEmbedder:
    """Static vectors of WordLlama, whose weights come in the wheel: nothing is downloaded.

    A vector is the mean of its tokens' vectors, scaled to length 1. It knows no word order and
    little but English; it is for development, tests, demonstrations and machines without network.

    One text always gives the same vector, whatever else is in the batch.

    Source: https://github.com/dleemiller/WordLlama
    """

    dimensions = 256
    batch_size = 64
    fingerprint = "wordllama/1:l2_supercat,256"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: Any = None

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Embed texts in a thread.

        Returns:
            One vector of 256 floats and length 1 for each text, in their order.

        Raises:
            Reject: A text is empty.
        """
        return await asyncio.to_thread(self._embed, texts)

    async def embed_query(self, text: str) -> list[float]:
        """Embed one question; questions and passages are treated alike."""
        if not text:
            raise ValueError("an empty question cannot be embedded")
        return (await self.embed([text]))[0]

    def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        import numpy as np

        model = self._load()
        # Not model.embed(): it pads every text to the longest of its batch (64 texts of which one
        # has 100,000 tokens take 13 GB), and its rounding depends on the neighbours.
        totals = np.zeros((len(texts), self.dimensions), dtype=np.float64)
        pieces = _pieces(texts)
        while batch := list(itertools.islice(pieces, _PIECES_AT_ONCE)):
            encodings = model.tokenizer.encode_batch_fast(
                [piece for _, piece in batch], add_special_tokens=False
            )
            for (index, _), encoding in zip(batch, encodings, strict=True):
                totals[index] += model.embedding[encoding.ids].sum(axis=0, dtype=np.float64)
        lengths = np.linalg.norm(totals, axis=1, keepdims=True)
        # Every character has a token (bytes stand in for rare ones) and no token's vector is zero
        # (the shortest is 0.38 long): a dash or an emoji has a vector, only an empty text has none.
        if not lengths.all():
            raise Reject("an empty text has no vector", "empty_text")
        vectors: list[list[float]] = (totals / lengths).astype(np.float32).tolist()
        return vectors

    def _load(self) -> Any:
        with self._lock:
            if self._model is None:
                self._model = _load_model()
            return self._model


def _load_model() -> Any:
    # Importing wordllama calls logging.basicConfig(), which would take over the root logger of the
    # program it runs in; with a handler there, that call does nothing.
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        import wordllama
    except ImportError as error:
        raise MissingExtra("wordllama", "embedded") from error
    finally:
        root.removeHandler(handler)
    # Without its own directory as cache, it looks for the tokenizer under a wrong name and asks
    # the network.
    home = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=home, disable_download=True)
    model.tokenizer.no_padding()
    return model


def _pieces(texts: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the texts in pieces, each with the index of its text."""
    for index, text in enumerate(texts):
        for start in range(0, len(text), _PIECE_CHARS):
            yield index, text[start : start + _PIECE_CHARS]
