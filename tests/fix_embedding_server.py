"""An embedding service on loopback, in the shapes of OpenAI, Ollama and TEI, that fails as told.

``python tests/fix_embedding_server.py --port 8901`` runs one by hand, with WordLlama's vectors, for
a folder of documents to be embedded through it:

    OpenAIEmbedder("wordllama", dimensions=256, base_url="http://127.0.0.1:8901/v1")
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import dataclasses
import itertools
import json
import random
import struct
import threading
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Vectorise = Callable[[Sequence[str]], Sequence[Sequence[float]]]

PATIENCE_SECONDS = 20


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request: where, which texts, and everything else it said."""

    path: str
    texts: list[str]
    body: dict[str, Any]
    headers: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Said:
    """One answer; a body that is no text becomes JSON.

    Attributes:
        breaks_off: Half of the body is sent, then the connection ends.
    """

    status: int
    body: Any = ""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    breaks_off: bool = False


class Trouble:
    """What is wrong with a service: every request is treated so, until it ``passes``.

    Args:
        said: The answer of everyone who asks.
        late: Nobody gets it before the trouble has passed.
    """

    def __init__(self, said: Said, *, late: bool = False) -> None:
        self._said = said
        self._passed = threading.Event()
        if not late:
            self._passed.set()

    def passes(self) -> None:
        """Let those go who still wait for an answer."""
        self._passed.set()

    def answer(self) -> Said:
        """Return what is said to one request."""
        self._passed.wait(PATIENCE_SECONDS)
        return self._said


def drawn(dimensions: int) -> Vectorise:
    """Return a function that makes the same vectors of the same texts, without any meaning."""

    def vectorise(texts: Sequence[str]) -> list[list[float]]:
        return [
            [draw.uniform(-1, 1) for _ in range(dimensions)]
            for draw in (random.Random(text) for text in texts)
        ]

    return vectorise


def wordllama() -> Vectorise:
    """Return WordLlama's vectors: 256 dimensions that mean something."""
    from statemachine_pipeline.adapters.embedders import WordLlamaEmbedder

    embedder = WordLlamaEmbedder()
    return lambda texts: asyncio.run(embedder.embed(texts))


class EmbeddingServer:
    """A server in threads of its own, from entering to leaving.

    Attributes:
        asked: Every request, in order of arrival.
        connections: How many connections were opened.
        key: What ``Authorization: Bearer`` must hold; None lets everyone in.
        most_inputs: What TEI calls the client batch size; more are refused with 413.
        bad: Texts that contain this are refused with 400, and their whole request.
        embedded: How often each text was answered by a vector.
    """

    def __init__(self, vectorise: Vectorise | None = None, port: int = 0) -> None:
        self._vectorise = vectorise or drawn(8)
        self.asked: list[Asked] = []
        self.connections = 0
        self.key: str | None = None
        self.most_inputs = 2_048
        self.bad: str | None = None
        self.embedded: Counter[str] = Counter()
        self._trouble: Trouble | None = None
        self._is_up = True
        self._next: deque[Said] = deque()
        self._mangle: Callable[[Any], Any] = lambda answer: answer
        self._open = threading.Event()
        self._open.set()
        self._begun = threading.Event()
        self._listen(port)

    def _listen(self, port: int) -> None:
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def address(self) -> str:
        """Where it listens, without any path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def texts(self) -> list[str]:
        """Every text it was asked for, in order."""
        return [text for asked in self.asked for text in asked.texts]

    def says(self, *answers: Said) -> None:
        """Answer the next requests so, one each."""
        self._next.extend(answers)

    def mangles(self, change: Callable[[Any], Any]) -> None:
        """Change every good answer before it is sent."""
        self._mangle = change

    def block(self) -> None:
        """Take requests and do not answer until ``go_on``."""
        self._begun.clear()
        self._open.clear()

    def go_on(self) -> None:
        """Answer again, what waits included."""
        self._open.set()

    async def begun(self) -> None:
        """Return once a request waits since ``block``."""
        assert await asyncio.to_thread(self._begun.wait, PATIENCE_SECONDS)

    def ails(self, trouble: Trouble) -> None:
        """Treat every request so, until ``recovers``."""
        self._trouble = trouble

    def recovers(self) -> None:
        """Answer as before any trouble."""
        if self._trouble is not None:
            self._trouble.passes()
        self._trouble = None

    def goes_down(self) -> None:
        """Refuse connections, and break those that are kept, until ``comes_up``."""
        self._is_up = False
        self._close()

    def comes_up(self) -> None:
        """Listen again, at the same address."""
        self._listen(self._server.server_port)
        self._is_up = True
        self._thread.start()

    @property
    def is_up(self) -> bool:
        """Whether it answers at all."""
        return self._is_up

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()
        self.recovers()
        if self._is_up:
            self._close()

    def _close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def treat(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Said:
        """Answer one request, unless there is trouble."""
        trouble = self._trouble
        return self.answer(path, body, headers) if trouble is None else trouble.answer()

    def answer(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Said:
        """Return what is said to one request."""
        texts = body.get("inputs") or body.get("input") or []
        self.asked.append(Asked(path, texts, body, headers))
        if not self._open.is_set():
            self._begun.set()
            self._open.wait(PATIENCE_SECONDS)
        if self._next:
            return self._next.popleft()
        if self.key is not None and headers.get("Authorization") != f"Bearer {self.key}":
            sent = headers.get("Authorization", "nothing")
            return Said(401, {"error": {"message": f"wrong key: {sent}", "code": "invalid_key"}})
        shape = {"/v1/embeddings": _openai, "/api/embed": _ollama, "/embed": _tei}.get(path)
        if shape is None:
            return Said(404, {"error": {"message": f"no {path} here"}})
        if len(texts) > self.most_inputs:
            found = f"batch size {len(texts)} > maximum allowed batch size {self.most_inputs}"
            return Said(413, {"error": found, "error_type": "Validation"})
        if self.bad is not None and any(self.bad in text for text in texts):
            return Said(400, {"error": {"message": "bad input", "param": "input"}})
        self.embedded.update(texts)
        return Said(200, self._mangle(shape(body, self._vectorise(texts))))


def _openai(body: dict[str, Any], vectors: Sequence[Sequence[float]]) -> Any:
    entries = [
        {"object": "embedding", "index": index, "embedding": _encoded(body, vector)}
        for index, vector in enumerate(vectors)
    ]
    return {"object": "list", "data": entries, "model": body["model"], "usage": {}}


def _encoded(body: dict[str, Any], vector: Sequence[float]) -> Any:
    if body.get("encoding_format") != "base64":
        return list(vector)
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _ollama(body: dict[str, Any], vectors: Sequence[Sequence[float]]) -> Any:
    return {"model": body["model"], "embeddings": vectors}


def _tei(_: dict[str, Any], vectors: Sequence[Sequence[float]]) -> Any:
    return vectors


class _Handler(BaseHTTPRequestHandler):
    service: EmbeddingServer
    # Connections are kept, as those of real services are.
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.service.connections += 1

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.service.is_up:
            self.close_connection = True
            return
        said = self.service.treat(self.path, body, self.headers)  # type: ignore[arg-type]
        text = said.body if isinstance(said.body, str) else json.dumps(said.body)
        self.send_response(said.status)
        for name, value in {**said.headers, "Content-Length": len(text.encode())}.items():
            self.send_header(name, str(value))
        self.end_headers()
        sent = text.encode()
        self.wfile.write(sent[: len(sent) // 2] if said.breaks_off else sent)
        self.close_connection |= said.breaks_off

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the client gave up waiting
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


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
