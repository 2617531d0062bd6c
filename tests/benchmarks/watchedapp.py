"""The pipeline of ``watched.py``: shipped hooks, one document that kills, one that blurts out.

``SERVICE`` names the embedding service. A document that begins with ``POISON`` ends the process
that parses it; one that begins with ``REVEAL`` has a hook raise its text.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "chaos"))

import harm

from statemachine_pipeline import Pipeline, Stage
from statemachine_pipeline.adapters.chunkers import MarkdownChunker
from statemachine_pipeline.adapters.openai import OpenAIEmbedder, Timeouts
from statemachine_pipeline.adapters.parsers import DocumentParser
from statemachine_pipeline.providers import Breaker, Provider

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.records import Chunk, ParsedText, Source

DIMENSIONS = 8
POISON, REVEAL = "POISON", "REVEAL"
PROVIDER = "embeddings"


class Poisoned:
    """The shipped parser, and what one document does to it."""

    fingerprint = "poisoned/1"

    def parse(self, source: Source) -> ParsedText:
        """Return the text, unless the document kills."""
        if source.read().startswith(POISON.encode()):
            harm.fault()
        return DocumentParser().parse(source)


class Blurting:
    """The shipped chunker, which has no manners where it fails."""

    fingerprint = "blurting/1"

    def split(self, text: ParsedText) -> Sequence[Chunk]:
        """Return the chunks, or raise with all that there is."""
        if text.text.startswith(REVEAL):
            raise ValueError(text.text)
        return MarkdownChunker().split(text)


def hooks(service: str) -> dict[str, object]:
    """Return the hooks; the embedder asks the service at this address."""
    embedder = OpenAIEmbedder(
        "model-1",
        dimensions=DIMENSIONS,
        base_url=f"{service}/v1",
        timeouts=Timeouts(connect=1.0, read=5.0, total=10.0),
    )
    provider = Provider(PROVIDER, breaker=Breaker(failures=3, open_for=timedelta(seconds=5)))
    return {
        "finish_parse": Stage(Poisoned(), run="process", concurrency=2),
        "store_chunks": Stage(Blurting(), attempts=2),
        "store_embeddings": Stage(embedder, provider=provider, concurrency=8, attempts=10),
    }


pipeline = Pipeline(hooks=hooks(os.environ.get("SERVICE", "http://127.0.0.1:9")))
