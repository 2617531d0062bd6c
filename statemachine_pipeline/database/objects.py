"""Bytes in an object store, and the rows that say which of them are in use.

No transaction spans the store and PostgreSQL, so the order of writes carries the promise that a
document never stands without its bytes, and that no object is forgotten:

1. ``keep`` announces the key in a committed row, then stores the object under it.
2. ``hold``, in the transaction that makes a document refer to the key, locks that row (FOR KEY
   SHARE) until the transaction ends, and fails when the key was given up; then ``keep`` again.
3. ``sweep`` and ``erase`` lock rows that nobody refers to (FOR UPDATE, skipping held ones), look
   again with a new snapshot, and give the keys up. Only after that commit they delete objects.

Between 1 and 2 the key may be given up: 2 sees it. After 2 it cannot be: 3 skips the row while it
is locked and sees the reference afterwards. A key that was given up is never used again, so a
delete that arrives late, even from a process that was frozen, can only hit an object that is lost
anyway; and its row stays for a while, so that an upload that ended after the delete is swept too.
The age asked of ``sweep`` spares uploads that nobody refers to yet; no document's bytes depend on
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.blobs import PIECE_BYTES, content_id, new_key
from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.statements import objects
from statemachine_pipeline.errors import (
    BlobsRefused,
    BlobsUnavailable,
    PipelineError,
    SourceRefused,
)
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.sources import Content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from datetime import timedelta
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.blobs import Blobs
    from statemachine_pipeline.database.documents import Documents, Submission
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.records import Submitted

KEEP_TRIES = 5
"""How often bytes are stored that deletions of their last other document erase meanwhile."""


class ObjectGivenUp(PipelineError):
    """Stored bytes were erased before a document could refer to them; they are stored again."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"object {key} was erased before a document referred to it; submit again")


class Objects:
    """The objects of one pipeline.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
        blobs: Where the bytes are.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, blobs: Blobs) -> None:
        self._t, self._blobs = t, blobs
        # The second look at what is locked needs a new snapshot, whatever the engine's default is.
        self._committed = engine.execution_options(isolation_level="READ COMMITTED")
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def keep(self, tenant: str, content: Content) -> str:
        """Store content unless it is there already; return its key.

        Takes a connection of the engine for a moment, and none while bytes travel.

        Raises:
            SourceRefused: A file changed while it was read; nothing was stored.
            BlobsUnavailable: The store did not answer.
            BlobsRefused: The store cannot be used as it is set up.
        """
        wanted = content_id(self._t.schema, tenant, content.sha256)
        with answering("announcing bytes"):
            async with self._autocommit.connect() as connection:
                given = {"content": wanted, "key": new_key(wanted)}
                found = await connection.execute(objects.announce(self._t), given)
                key = str(found.scalar_one())
        with _storing("to store bytes"):
            await self._blobs.put_if_absent(key, _pieces(content), size_bytes=content.size_bytes)
        return key

    async def submit(
        self,
        documents: Documents,
        submission: Submission,
        connection: AsyncConnection | None,
    ) -> Submitted:
        """Store the bytes, then write the document that refers to them.

        Raises:
            BlobsUnavailable: The store did not answer.
        """
        content = Content(
            submission.source_uri,
            submission.name,
            submission.size_bytes,
            submission.content_sha256,
            submission.content,
            submission.path,
        )
        for _ in range(KEEP_TRIES):
            key = await self.keep(submission.tenant, content)
            stored = dataclasses.replace(submission, content=None, path=None, blob_key=key)
            try:
                return await documents.submit(stored, connection)
            except ObjectGivenUp:
                await self._require_lost(key)
        raise BlobsUnavailable("storing bytes", "others erase the same bytes again and again")

    async def _require_lost(self, key: str) -> None:
        if await self._ask(objects.is_live(self._t), {"key": key}):
            raise PipelineError(
                "the transaction of `session` sees the database as it was before the bytes were "
                "stored; submit before anything else in it, or use READ COMMITTED"
            )

    async def sweep(self, older_than: timedelta, *, dry_run: bool = False) -> int:
        """Erase objects that no document refers to; return how many were found.

        Args:
            older_than: Spares bytes that were submitted since; longer than an upload takes.
            dry_run: Only count them.
        """
        age = {"older_than": older_than.total_seconds()}
        if dry_run:
            (loose,) = await self._ask(objects.count_old(self._t), age)
            return int(loose)
        count, after = 0, ""
        while keys := await self._give_up(objects.lock_old(self._t), age):
            count += len(keys)
        while keys := await self._ask(objects.to_erase(self._t), {"after": after}):
            await self._delete(keys)
            await self._forget(keys, age)
            after = keys[-1]
        return count

    async def of_documents(self, ids: Sequence[UUID]) -> list[str]:
        """Return the keys that documents refer to."""
        return await self._ask(objects.of_documents(self._t), {"ids": list(ids)})

    async def erase(self, keys: Sequence[str]) -> None:
        """Erase those of the objects that no document refers to, and none is about to.

        What the store refuses now is left to ``sweep``: the documents are deleted already.
        """
        if not keys:
            return
        given_up = await self._give_up(objects.lock_named(self._t), {"keys": list(keys)})
        try:
            await self._delete(given_up)
        except (BlobsUnavailable, BlobsRefused) as error:
            note(log_events.ERASURE_WAITS, "bytes of deleted documents wait for `sweep`: {}", error)

    async def _give_up(self, lock: Any, given: dict[str, Any]) -> list[str]:
        with answering("giving up objects"):
            async with self._committed.begin() as connection:
                locked = list((await connection.execute(lock, given)).scalars())
                found = await connection.execute(objects.give_up(self._t), {"keys": locked})
                return list(found.scalars())

    async def _delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), objects.BATCH):
            with _storing("to delete bytes"):
                await self._blobs.delete(keys[start : start + objects.BATCH])

    async def _forget(self, keys: Sequence[str], age: dict[str, float]) -> None:
        with answering("forgetting objects"):
            async with self._autocommit.connect() as connection:
                await connection.execute(objects.forget(self._t), age | {"keys": list(keys)})

    async def _ask(self, statement: Any, given: dict[str, Any]) -> list[str]:
        with answering("looking at objects"):
            async with self._autocommit.connect() as connection:
                return list((await connection.execute(statement, given)).scalars())


async def hold(connection: AsyncConnection, t: Tables, key: str) -> None:
    """Keep an object from being erased until the transaction of ``connection`` ends.

    Raises:
        ObjectGivenUp: It is too late; the transaction can go on without it.
    """
    if (await connection.execute(objects.hold(t), {"key": key})).first() is None:
        raise ObjectGivenUp(key)


@contextlib.contextmanager
def _storing(asked: str) -> Iterator[None]:
    try:
        yield
    except PipelineError:
        raise
    except PermissionError as error:
        raise BlobsRefused(asked, str(error)) from error
    except OSError as error:
        raise BlobsUnavailable(f"asked {asked}", str(error)) from error


async def _pieces(content: Content) -> AsyncIterator[bytes]:
    """Yield what was read, or read the file again; raise at the end if it is another one now."""
    if content.data is not None:
        for start in range(0, content.size_bytes, PIECE_BYTES):
            yield content.data[start : start + PIECE_BYTES]
        return
    digest, left = hashlib.sha256(), content.size_bytes
    async for piece in _of_file(content):
        left -= len(piece)
        if left < 0:
            break
        digest.update(piece)
        yield piece
    if left or digest.hexdigest() != content.sha256:
        raise SourceRefused(str(content.path), "it changed while it was read", "submit it again")


async def _of_file(content: Content) -> AsyncIterator[bytes]:
    try:
        with await asyncio.to_thread(Path(str(content.path)).open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise SourceRefused(str(content.path), found, "submit it again") from error
