"""Pages for machines, answered from threads of their own, so that a blocked event loop is seen."""

from __future__ import annotations

import dataclasses
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.redaction import type_name

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

REQUESTS: Final = 8
"""Most requests at the same time; one more is hung up on."""
PATIENCE_SECONDS: Final = 2.0
"""How long somebody who connects may take to say what for, and to read an answer."""
LOOK_SECONDS: Final = 0.05
JSON: Final = "application/json"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What is answered.

    Attributes:
        code: HTTP's status.
        body: What is sent.
        kind: Its media type.
    """

    code: int
    body: bytes
    kind: str = JSON


class Listening:
    """Answers GET and HEAD until it is stopped; logs no request.

    Args:
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        pages: What makes the answer, by path; called in a thread.

    Raises:
        OSError: The address cannot be used.
    """

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Answer]]) -> None:
        handler = type("Handler", (_Handler,), {"pages": dict(pages)})
        self._server = _Server((host, port), handler)
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(LOOK_SECONDS,), name="probes")
        self._thread.daemon = True
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens at."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Listen no more; blocks until what is being answered is answered."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # they are waited for at the end, and none takes long

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self._room = threading.BoundedSemaphore(REQUESTS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: socket.socket | Any, client_address: Any) -> None:
        """Say nothing of who hung up."""


def _made(page: Callable[[], Answer]) -> Answer:
    try:
        return page()
    except Exception as error:  # noqa: BLE001 - else who asks would be hung up on, without a word
        return Answer(500, json.dumps({"error": type_name(type(error))}).encode() + b"\n")


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE_SECONDS
    server_version, sys_version = "statemachine-pipeline", ""
    pages: Mapping[str, Callable[[], Answer]]

    def do_GET(self) -> None:
        self._answer(sends_body=True)

    def do_HEAD(self) -> None:
        self._answer(sends_body=False)

    def _answer(self, *, sends_body: bool) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        answer = _made(page) if page else Answer(404, b'{"error": "there is no such page"}\n')
        self.send_response(answer.code)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if sends_body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Log nothing: probes ask every few seconds."""
