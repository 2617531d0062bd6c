"""HTTP connections that live as long as somebody uses them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator


@dataclasses.dataclass(slots=True)
class _Lent:
    client: httpx.AsyncClient
    users: int = 0


class Connections:
    """One client per event loop, opened for its first user and closed after its last.

    A runner is a user for as long as it runs, so its requests share connections; a single question
    outside any runner opens and closes its own.

    Args:
        timeout: Of each request's parts.
    """

    def __init__(self, timeout: httpx.Timeout) -> None:
        self._timeout = timeout
        self._lent: dict[asyncio.AbstractEventLoop, _Lent] = {}
        self._tls: ssl.SSLContext | None = None

    def take(self) -> httpx.AsyncClient:
        """Become a user of this event loop's client; every ``take`` wants a ``give_back``."""
        loop = asyncio.get_running_loop()
        if loop not in self._lent:
            if self._tls is None:
                # Reads all root certificates, which takes 20 ms: once is enough.
                self._tls = httpx.create_ssl_context()
            self._lent[loop] = _Lent(httpx.AsyncClient(timeout=self._timeout, verify=self._tls))
        self._lent[loop].users += 1
        return self._lent[loop].client

    async def give_back(self) -> None:
        """Stop being a user; the last one closes the client."""
        loop = asyncio.get_running_loop()
        lent = self._lent[loop]
        lent.users -= 1
        if not lent.users:
            del self._lent[loop]
            await lent.client.aclose()

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[httpx.AsyncClient]:
        """Be a user for the length of a block."""
        client = self.take()
        try:
            yield client
        finally:
            await self.give_back()
