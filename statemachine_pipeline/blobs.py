"""Where bytes are kept when not in the database: the protocol of a store, and its keys.

Keys are made here and nowhere else, of hashes and a random number: no name, tenant or path that a
caller chose is ever part of one, so none can lead out of the store.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from statemachine_pipeline.records import chain_sha256

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

PIECE_BYTES = 8 * 1024 * 1024
"""Longest piece that is read or written at a time; what is no longer stays in memory."""

TENANT_DIGITS = 32


@runtime_checkable
class Blobs(Protocol):
    """Keeps bytes under keys; each key is written once and never with other bytes.

    The three methods may raise ``PermissionError`` where the store cannot be used as it is set up
    (no rights, no such bucket): stages that read are paused, no document is charged. Any other
    error but those named says that the store did not answer: it is tried again.

    Attributes:
        limit_bytes: Longer content is refused by ``submit``.
    """

    limit_bytes: int

    async def put_if_absent(
        self, key: str, pieces: AsyncIterator[bytes], *, size_bytes: int
    ) -> None:
        """Store content whole, or leave what is there already under its key.

        Args:
            key: Relative, of lower-case hexadecimal digits and ``/``.
            pieces: The content, in pieces of at most ``PIECE_BYTES``. It raises at its end where
                the bytes are not those that were announced: nothing may be stored then.
            size_bytes: Length of the content.
        """

    def open(self, key: str, *, size_bytes: int) -> AsyncIterator[bytes]:
        """Return the content in pieces of at most ``PIECE_BYTES``.

        Args:
            key: As it was stored.
            size_bytes: Length of the content, at least 1.

        Raises:
            FileNotFoundError: The store works, and has nothing under this key.
        """

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete at most 500 objects; those that are not there are no error."""


async def begin_to_read(blobs: Blobs, key: str, *, size_bytes: int) -> None:
    """Read the first piece of an object and leave the rest; raises what the store does."""
    reading = blobs.open(key, size_bytes=size_bytes)
    try:
        await anext(reading, None)
    finally:
        if isinstance(reading, AsyncGenerator):
            await reading.aclose()


def content_id(schema: str, tenant: str, sha256: str) -> str:
    """Name content of one tenant of one pipeline; no other tenant's has the same name."""
    return f"{chain_sha256(schema, tenant)[:TENANT_DIGITS]}/{sha256}"


def new_key(content: str) -> str:
    """Return a key under which nothing was ever stored, so that a late delete hits nobody."""
    return f"{content}/{uuid.uuid4().hex}"
