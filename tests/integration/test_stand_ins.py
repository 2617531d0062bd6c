"""A parser that is down: documents are read by another, and again by it when it is back."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import child_functions
import httpx
from fix_pipelines import BRIEFLY, Hooks, completed, pipeline_with

from statemachine_pipeline import ParsedText, Source, Stage, first_of
from statemachine_pipeline.adapters.parsers import DocumentParser

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

PRODUCTS = """
    SELECT d.name, split_part(p.fingerprint, '#', 1), t.text, jsonb_array_length(t.warnings)
    FROM smp.product p JOIN smp.document d ON d.id = p.document_id
    JOIN smp.parsed_document t ON t.document_id = d.id
    WHERE p.stage = 'finish_parse' ORDER BY d.name
"""


class Remote:
    """A parser behind HTTP, which answers in capitals."""

    fingerprint = "remote/1"

    def __init__(self, url: str) -> None:
        self.url = url

    def parse(self, source: Source) -> ParsedText:
        with httpx.Client(trust_env=False, timeout=BRIEFLY.total_seconds()) as client:
            answer = client.post(self.url, content=source.read())
        answer.raise_for_status()
        return ParsedText(answer.text)


class Server(ThreadingHTTPServer):
    """A provider whose answers have this status."""

    status = 503
    requests = 0


class Capitals(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"])).upper()
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, *_: object) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def provider() -> Iterator[tuple[Server, str]]:
    """Serve on a port of this machine."""
    with Server(("127.0.0.1", 0), Capitals) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def test_what_a_stand_in_read_is_read_again_and_nothing_else(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """The next ``reprocess`` reads such documents again and hops over all others."""
    with provider() as (server, url):
        hooks = Hooks()
        parser = first_of(Remote(url), DocumentParser())
        pipeline = pipeline_with(engine, hooks, finish_parse=Stage(parser))
        down = await pipeline.submit(b"during the outage", name="a.txt")
        assert await completed(pipeline, down.document_id) == ["complete"]
        server.status = 200
        up = await pipeline.submit(b"after the outage", name="b.txt")
        assert await completed(pipeline, up.document_id) == ["complete"]
        assert psql.execute(PRODUCTS).fetchall() == [
            ("a.txt", "document-parser/1", "during the outage", 1),
            ("b.txt", "remote/1", "AFTER THE OUTAGE", 0),
        ]
        hooks.forget()
        requests = server.requests

        ids = (down.document_id, up.document_id)
        await pipeline.apply("reprocess", *ids, reason="the provider is back")
        assert await completed(pipeline, *ids) == ["complete"] * 2

        assert server.requests == requests + 1
        assert hooks.told()["store_chunks"] == 1
        assert psql.execute(PRODUCTS).fetchall() == [
            ("a.txt", "remote/1", "DURING THE OUTAGE", 0),
            ("b.txt", "remote/1", "AFTER THE OUTAGE", 0),
        ]


async def test_it_runs_in_child_processes(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """It may be pickled if its parsers may; who answered is known outside."""
    parser = first_of(child_functions.Unreachable(), DocumentParser())
    pipeline = pipeline_with(engine, finish_parse=Stage(parser, run="process"))
    sent = await pipeline.submit(b"words", name="a.txt")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    assert psql.execute(PRODUCTS).fetchall() == [("a.txt", "document-parser/1", "words", 1)]
