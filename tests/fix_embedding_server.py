"""The embedding server of the tests, which comes with the package.

``python tests/fix_embedding_server.py --port 8901`` runs one by hand, with WordLlama's vectors, for
a folder of documents to be embedded through it:

    OpenAIEmbedder("wordllama", dimensions=256, base_url="http://127.0.0.1:8901/v1")
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest

from statemachine_pipeline.testing import EmbeddingServer, Said

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from statemachine_pipeline.testing.services import Vectorise


def wordllama() -> Vectorise:
    """Return WordLlama's vectors: 256 dimensions that mean something."""
    from statemachine_pipeline.adapters.embedders import WordLlamaEmbedder

    embedder = WordLlamaEmbedder()
    return lambda texts: asyncio.run(embedder.embed(texts))


@pytest.fixture
def service() -> Iterator[EmbeddingServer]:
    """A service whose vectors have 8 dimensions and no meaning."""
    with EmbeddingServer() as running:
        yield running


def main() -> None:
    """Serve until interrupted; say what was asked for in the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8901)
    parser.add_argument("--fail-every", type=int, metavar="N", help="429 and 500 in turn")
    given = parser.parse_args()
    with EmbeddingServer(wordllama(), given.port) as server:
        if given.fail_every:
            fail_sometimes(server, given.fail_every)
        print(f"{server.address}/v1/embeddings, /api/embed, /embed", flush=True)  # noqa: T201
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{len(server.asked)} requests, {len(server.texts)} texts")  # noqa: T201


def fail_sometimes(server: EmbeddingServer, every: int) -> None:
    """Let every so many requests be refused, with 429 and 500 in turn."""
    answers = itertools.cycle([Said(429, headers={"Retry-After": "0.2"}), Said(500)])
    plain, count = server.answer, itertools.count(1)

    def answer(path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Said:
        if next(count) % every == 0:
            server.says(next(answers))
        return plain(path, body, headers)

    server.answer = answer  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
