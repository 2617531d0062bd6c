"""A provider of embeddings on loopback, shaped as OpenAI, Ollama and TEI, that fails as told.

Real HTTP over real sockets: what is tried is the client, its timeouts and connections included. Its
vectors mean nothing and are the same for the same text.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import random
import socket
import struct
import threading
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Vectorise: TypeAlias = Callable[[Sequence[str]], Sequence[Sequence[float]]]

PATIENCE_SECONDS = 60
"""The longest that a request is kept waiting; then it is answered, so that no test hangs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One request: where, which texts, and everything else it said."""

    path: str
    texts: list[str]
    body: dict[str, Any]
    headers: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """One answer.

    Attributes:
        status: Of HTTP.
        body: What is no text becomes JSON.
        headers: Beside the length, ``Retry-After`` for example.
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
            for draw in (random.Random(text) for text in texts)  # noqa: S311 - no secrets
        ]

    return vectorise


SAYS_429 = Said(
    429,
    {"error": {"message": "Rate limit reached", "type": "requests"}},
    {
        "Retry-After": "1",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
    },
)
"""Too many requests, with what OpenAI's headers say of it."""
SAYS_500 = Said(500, {"error": {"message": "The server had an error", "type": "server_error"}})
TALKS_NONSENSE = Said(200, "<html>not what was asked for")
BREAKS_OFF = Said(200, {"object": "list", "data": [], "padding": "x" * 9_000}, breaks_off=True)


class EmbeddingServer:
    """A server in threads of its own, from entering to leaving; may be told things meanwhile.

    Args:
        vectorise: Makes the vectors; by default of 8 dimensions.
        port: Where it listens on loopback; a free one by default.

    Attributes:
        vectorise: Makes the vectors; another one may make some of wrong dimensions.
        latency_seconds: How long each answer takes.
        asked: Every request, in order of arrival.
        connections: How many connections were opened.
        key: What ``Authorization: Bearer`` must hold; None lets everyone in.
        most_inputs: What TEI calls the client batch size; more are refused with 413.
        bad: Texts that contain this are refused with 400, and their whole request.
        embedded: How often each text was answered by a vector.
    """

    def __init__(self, vectorise: Vectorise | None = None, port: int = 0) -> None:
        self.vectorise = vectorise or drawn(8)
        self.latency_seconds = 0.0
        self.asked: list[Asked] = []
        self.connections = 0
        self.key: str | None = None
        self.most_inputs = 2_048
        self.bad: str | None = None
        self.embedded: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._trouble: Trouble | None = None
        self._is_up = True
        self._kept: socket.socket | None = None
        self._next: deque[Said] = deque()
        self._mangle: Callable[[Any], Any] = lambda answer: answer
        self._open, self._begun, self._left = (threading.Event() for _ in range(3))
        self._open.set()
        self._listen(port)

    @property
    def address(self) -> str:
        """Where it listens, without any path; OpenAI's begin with ``/v1``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def texts(self) -> list[str]:
        """Every text it was asked for, in order."""
        return [text for asked in self.asked for text in asked.texts]

    @property
    def is_up(self) -> bool:
        """Whether it answers at all."""
        return self._is_up

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
        """Return once a request waits since ``block``.

        Raises:
            TimeoutError: None came.
        """
        if not await asyncio.to_thread(self._begun.wait, PATIENCE_SECONDS):
            raise TimeoutError(f"no request came within {PATIENCE_SECONDS} s")

    def ails(self, trouble: Trouble | Said) -> None:
        """Treat every request so, until ``recovers``."""
        self._trouble = Trouble(trouble) if isinstance(trouble, Said) else trouble

    def recovers(self) -> None:
        """Answer as before any trouble."""
        if self._trouble is not None:
            self._trouble.passes()
        self._trouble = None

    def goes_down(self) -> None:
        """Refuse connections, and break those that are kept, until ``comes_up``."""
        self._is_up = False
        self._close()
        if self._kept is None:
            # Nobody listens at it, and nobody else can take the port meanwhile.
            self._kept = socket.socket()
            self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._kept.bind(("127.0.0.1", self._server.server_port))

    def comes_up(self) -> None:
        """Listen again, at the same address."""
        self._let_go()
        self._listen(self._server.server_port)
        self._is_up = True
        self._thread.start()

    def answer(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Said:
        """Return what is said to one request; called in a thread for each connection."""
        texts = body.get("inputs") or body.get("input") or []
        self.asked.append(Asked(path, texts, body, headers))
        self._left.wait(self.latency_seconds)
        trouble = self._trouble
        if trouble is not None:
            return trouble.answer()
        if not self._open.is_set():
            self._begun.set()
            self._open.wait(PATIENCE_SECONDS)
        with self._lock:
            if self._next:
                return self._next.popleft()
        return self._refusal(path, texts, headers) or self._vectors(path, body, texts)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self.go_on()
        self.recovers()
        if self._is_up:
            self._close()
        self._let_go()

    def _let_go(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = None

    def _listen(self, port: int) -> None:
        handler = type("Handler", (_Handler,), {"provider": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def _close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _refusal(self, path: str, texts: list[str], headers: Mapping[str, str]) -> Said | None:
        if self.key is not None and headers.get("Authorization") != f"Bearer {self.key}":
            sent = headers.get("Authorization", "nothing")
            return Said(401, {"error": {"message": f"wrong key: {sent}", "code": "invalid_key"}})
        if path not in _SHAPES:
            return Said(404, {"error": {"message": f"no {path} here"}})
        if len(texts) > self.most_inputs:
            found = f"batch size {len(texts)} > maximum allowed batch size {self.most_inputs}"
            return Said(413, {"error": found, "error_type": "Validation"})
        if self.bad is not None and any(self.bad in text for text in texts):
            return Said(400, {"error": {"message": "bad input", "param": "input"}})
        return None

    def _vectors(self, path: str, body: dict[str, Any], texts: list[str]) -> Said:
        with self._lock:
            self.embedded.update(texts)
        return Said(200, self._mangle(_SHAPES[path](body, self.vectorise(texts))))


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


_SHAPES: Mapping[str, Callable[[dict[str, Any], Sequence[Sequence[float]]], Any]] = {
    "/v1/embeddings": _openai,
    "/api/embed": _ollama,
    "/embed": _tei,
}


class _Handler(BaseHTTPRequestHandler):
    provider: ClassVar[EmbeddingServer]
    # Connections are kept, as those of real services are.
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Count the connection."""
        super().setup()
        self.provider.connections += 1

    def do_POST(self) -> None:
        """Answer one request."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.provider.is_up:
            self.close_connection = True
            return
        said = self.provider.answer(self.path, body, self.headers)  # type: ignore[arg-type]
        text = said.body if isinstance(said.body, str) else json.dumps(said.body)
        self.send_response(said.status)
        for name, value in {**said.headers, "Content-Length": len(text.encode())}.items():
            self.send_header(name, str(value))
        self.end_headers()
        sent = text.encode()
        self.wfile.write(sent[: len(sent) // 2] if said.breaks_off else sent)
        self.close_connection |= said.breaks_off

    def handle(self) -> None:
        """Answer whatever comes over one connection."""
        try:
            super().handle()
        except OSError:  # the client gave up waiting
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""
