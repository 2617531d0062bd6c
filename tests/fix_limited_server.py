"""An embedding service on loopback that enforces limits as OpenAI does, and keeps books.

Requests and tokens a minute, refilled continuously; 429 with Retry-After for what comes too early;
``x-ratelimit-limit-*``, ``-remaining-*`` and ``-reset-*`` on every answer. A token is a word.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

KINDS = ("requests", "tokens")
LAST = 5
LITTLE = 0.15
"""Of a limit; a careful client never takes the last tenth."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One request in the books.

    Attributes:
        at: When it came, in seconds of the monotonic clock.
        tokens: How many it was.
        status: What was answered.
    """

    at: float
    tokens: int
    status: int


class LimitedServer:
    """A server in threads of its own, from entering to leaving.

    Args:
        requests: Most in a minute.
        tokens: Most in a minute.
        minute: How many seconds a minute has.
        latency: Seconds that an answer takes.

    Attributes:
        books: Every request, in order.
    """

    def __init__(
        self, *, requests: float, tokens: float, minute: float = 60.0, latency: float = 0.02
    ) -> None:
        self.limits = {"requests": requests, "tokens": tokens}
        self.minute, self.latency = minute, latency
        self.books: list[Entry] = []
        self._levels = dict(self.limits)
        self._at = time.monotonic()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def address(self) -> str:
        """Where it listens, without any path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def use(self, **amounts: float) -> None:
        """Let somebody else use the same key."""
        with self._lock:
            self._refill()
            for kind, amount in amounts.items():
                self._levels[kind] -= amount

    @property
    def is_in_demand(self) -> bool:
        """Whether little more is left of a limit than flows in."""
        with self._lock:
            self._refill()
            return any(self._levels[kind] < limit * LITTLE for kind, limit in self.limits.items())

    def rate(self, since: float) -> float:
        """Return the tokens a second that were let through since a time of the monotonic clock.

        Each request stands for the time before it, in which its tokens flowed in. The last one may
        have come late from a busy machine, so one of the last few is taken that did not.
        """
        first, *let = [e for e in self.books if e.at >= since and e.status == 200]
        sums = list(itertools.accumulate(e.tokens for e in let))
        ends = list(zip(sums, let, strict=True))[-LAST:]
        return max(tokens / (entry.at - first.at) for tokens, entry in ends)

    def refused(self, since: float = 0.0) -> list[Entry]:
        """Return what was answered with 429."""
        return [e for e in self.books if e.at >= since and e.status == 429]

    def _refill(self) -> None:
        now = time.monotonic()
        for kind, limit in self.limits.items():
            flowed = limit / self.minute * (now - self._at)
            self._levels[kind] = min(limit, self._levels[kind] + flowed)
        self._at = now

    def enter(self, tokens: int) -> tuple[int, dict[str, str]]:
        """Let a request in or refuse it; return status and headers."""
        asked = {"requests": 1, "tokens": tokens}
        with self._lock:
            self._refill()
            lacking = {
                kind: (amount - self._levels[kind]) / self.limits[kind] * self.minute
                for kind, amount in asked.items()
            }
            wait = max(0.0, *lacking.values())
            if not wait:
                for kind, amount in asked.items():
                    self._levels[kind] -= amount
            status = 429 if wait else 200
            self.books.append(Entry(time.monotonic(), tokens, status))
            headers = {"Retry-After": f"{wait:.3f}"} if wait else {}
            for kind in KINDS:
                limit, level = self.limits[kind], self._levels[kind]
                headers[f"x-ratelimit-limit-{kind}"] = f"{limit:.0f}"
                headers[f"x-ratelimit-remaining-{kind}"] = f"{max(level, 0):.0f}"
                reset = (limit - level) / limit * self.minute
                headers[f"x-ratelimit-reset-{kind}"] = f"{reset * 1000:.0f}ms"
        return status, headers


class _Handler(BaseHTTPRequestHandler):
    service: LimitedServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        given = body.get("input") or []
        texts = [given] if isinstance(given, str) else given
        tokens = sum(len(text.split()) for text in texts)
        status, headers = self.service.enter(tokens)
        if status == 200:
            time.sleep(self.service.latency)
        answer: Any = {"error": {"message": "too many", "code": "rate_limit_exceeded"}}
        if status == 200:
            entries = [{"index": n, "embedding": [1.0, float(n)]} for n in range(len(texts))]
            usage = {"prompt_tokens": tokens, "total_tokens": tokens}
            answer = {"object": "list", "data": entries, "model": body["model"], "usage": usage}
        text = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the client gave up waiting
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""
