"""A TCP proxy before PostgreSQL that reads its messages, and breaks where a test says.

It runs on a loop and a thread of its own, so that neither blocking drivers nor a busy test hold it
up. Protocol: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from typing import TYPE_CHECKING, Self

import pytest
from sqlalchemy.engine import URL, make_url

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any


class Proxy:
    """Forwards connections to one server until told otherwise.

    Args:
        target: Whose server is behind it.

    Attributes:
        url: The same database, through the proxy.
        cuts: How many connections were cut at a statement.
        opened: How many connections were made.
        refused: How many were not.
    """

    def __init__(self, target: URL) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._lines: set[_Line] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._before: list[str] = []
        self._after: list[str] = []
        self._refuses = self._freezes = False
        self.cuts = self.opened = self.refused = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0))
        port = self._server.sockets[0].getsockname()[1]
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        self.url = self._target.set(host="127.0.0.1", port=port, query=plain).render_as_string(
            hide_password=False
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut_before(self, text: str, times: int = 1) -> None:
        """Cut the next connections that send a statement like ``text``; it is never executed."""
        self._before += [text] * times

    def cut_after(self, text: str, times: int = 1) -> None:
        """Cut them once it has been executed, so that its answer is lost."""
        self._after += [text] * times

    def freeze(self, *, new: bool = False) -> None:
        """Forward nothing more on the connections there are, nor on ``new`` ones."""
        self._freezes = new
        self._call(lambda: [line.flows.clear() for line in self._lines])

    def cut(self) -> None:
        """Cut every connection."""
        self._call(lambda: [line.close() for line in self._lines])

    def refuse(self, *, refuses: bool = True) -> None:
        """Cut every connection and take no new one."""
        self._refuses = refuses
        if refuses:
            self.cut()

    @property
    def freezes(self) -> bool:
        """Whether new connections are frozen from their beginning."""
        return self._freezes

    async def _end(self) -> None:
        """End what serves connections before its loop does."""
        self._server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        # A closed transport ends in a later round of the loop, and not before its peer has read.
        for writer in self._writers:
            writer.transport.abort()
        ends = (writer.wait_closed() for writer in self._writers)
        await asyncio.gather(*ends, return_exceptions=True)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def _call(self, function: Callable[[], object]) -> None:
        async def call() -> None:
            function()

        self._do(call())

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if self._refuses:
            self.refused += 1
            writer.close()
            return
        host = self._target.query.get("host") or self._target.host or "localhost"
        port = self._target.query.get("port") or self._target.port or 5432
        if str(host).startswith("/"):
            back = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            back = await asyncio.open_connection(str(host), int(str(port)))
        self._writers.append(back[1])
        if self._refuses:  # since it was let in: it is on no list yet of those that are cut
            self.refused += 1
            writer.close()
            back[1].close()
            return
        self.opened += 1
        line = _Line(self, (reader, writer), back)
        self._lines.add(line)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await line.run()
        finally:
            line.close()
            self._lines.discard(line)

    def taken(self, wanted: str, sql: str) -> bool:
        """Tell whether a statement is one to cut at, and if so, forget that."""
        texts = self._before if wanted == "before" else self._after
        for text in texts:
            if re.search(text, sql):
                texts.remove(text)
                self.cuts += 1
                return True
        return False


class _Line:
    """One client's connection and the one to the server."""

    def __init__(self, proxy: Proxy, front: Any, back: Any) -> None:
        self._proxy, self._front, self._back = proxy, front, back
        self.flows = asyncio.Event()
        self.flows.set()
        self._prepared: dict[bytes, str] = {}
        self._is_doomed = False

    async def run(self) -> None:
        reader, _ = self._front
        if self._proxy.freezes:
            self.flows.clear()
        await self.flows.wait()
        length = await reader.readexactly(4)
        self._back[1].write(length + await reader.readexactly(int.from_bytes(length) - 4))
        ways = [asyncio.create_task(way) for way in (self._requests(), self._answers())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.close()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def close(self) -> None:
        for _, writer in (self._front, self._back):
            writer.close()

    async def _requests(self) -> None:
        while True:
            kind, body = await _message(self._front[0])
            await self.flows.wait()
            sql = self._statement(kind, body[4:])
            if sql is not None and self._proxy.taken("before", sql):
                return
            if sql is not None and self._proxy.taken("after", sql):
                self._is_doomed = True
            self._back[1].write(kind + body)

    async def _answers(self) -> None:
        while True:
            kind, body = await _message(self._back[0])
            await self.flows.wait()
            if not self._is_doomed:
                self._front[1].write(kind + body)
            elif kind == b"Z":  # the server is through with it, whatever it was
                return

    def _statement(self, kind: bytes, body: bytes) -> str | None:
        """Return the text of the statement that a message runs, if it runs one."""
        if kind == b"Q":
            return body.split(b"\0")[0].decode()
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._prepared[name] = text.decode()
        if kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            return self._prepared.get(name)
        return None


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one message: its type, and its length with what follows."""
    kind = await reader.readexactly(1)
    length = await reader.readexactly(4)
    return kind, length + await reader.readexactly(int.from_bytes(length) - 4)


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    """A proxy before this test's database."""
    with Proxy(make_url(database_url)) as one:
        yield one
