"""Reads what a claim's hook may ask for: the bytes, the text, the chunks. Never writes."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.blobs import PIECE_BYTES
from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.statements import content, documents
from statemachine_pipeline.errors import BlobsUnavailable
from statemachine_pipeline.hooks import Reject, Retry, StageFault
from statemachine_pipeline.records import Chunk, ParsedText, Source, Span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.blobs import Blobs
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.hooks import Claim

STORE_PAUSE = timedelta(seconds=30)
"""How long an attempt that could not reach the object store waits at least."""


class ContentReader:
    """Implements ``hooks.Reader`` on the pipeline's tables and its object store, if it has one."""

    def __init__(self, engine: AsyncEngine, t: Tables, blobs: Blobs | None = None) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._t, self._blobs = t, blobs
        self._files: dict[int, list[Path]] = {}

    async def read_source(self, claim: Claim) -> Source:
        """Return the bytes as they were submitted, or refuse.

        Raises:
            Reject: The bytes are gone, or others than were submitted.
            Retry: The object store that holds them did not answer.
            StageFault: This pipeline has no such store, or may not read it.
        """
        document = claim.document
        rows = await self._read(documents.source(self._t), document.id)
        row = rows[0]
        if row.content is not None and row.sha256 == document.content_sha256:
            return Source(
                name=document.name,
                media_type=document.media_type,
                size_bytes=document.size_bytes,
                data=bytes(row.content),
            )
        if row.key is not None:
            return await self._read_object(claim, row.key)
        if row.path is None:
            raise Reject("its bytes are no longer stored; submit it again", code="bytes_gone")
        path = Path(row.path)
        await asyncio.to_thread(_require_unchanged, path, document.content_sha256)
        return Source(
            name=document.name,
            media_type=document.media_type,
            size_bytes=document.size_bytes,
            path=path,
        )

    async def _read_object(self, claim: Claim, key: str) -> Source:
        document, blobs = claim.document, self._blobs
        if blobs is None:
            raise StageFault("its bytes are in an object store, and this pipeline has no `blobs=`")
        stored = blobs.open(key, size_bytes=document.size_bytes)
        pieces = _checked(_told(stored), document.content_sha256)
        source = Source(
            name=document.name, media_type=document.media_type, size_bytes=document.size_bytes
        )
        if document.size_bytes <= PIECE_BYTES:
            return dataclasses.replace(source, data=b"".join([piece async for piece in pieces]))
        return dataclasses.replace(source, path=await self._copied(claim, pieces))

    async def _copied(self, claim: Claim, pieces: AsyncIterator[bytes]) -> Path:
        """Write content to a file that is there until ``forget``."""
        with tempfile.NamedTemporaryFile(prefix="smp-", delete=False) as file:
            path = Path(file.name)
            self._files.setdefault(claim.sequence, []).append(path)
            async for piece in pieces:
                await asyncio.to_thread(file.write, piece)
        return path

    async def forget(self, claim: Claim) -> None:
        """Remove the files that were made for one attempt."""
        for path in self._files.pop(claim.sequence, ()):
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def read_text(self, claim: Claim) -> ParsedText:
        """Return the stored text.

        Raises:
            Reject: No stage has stored any.
        """
        rows = await self._read(content.text(self._t), claim.document.id)
        if not rows:
            raise Reject("no parsed text is stored for it; reprocess it", code="text_gone")
        row = rows[0]
        spans = tuple(Span(page=page, start=start, end=end) for page, start, end in row.spans)
        return ParsedText(row.text, spans, tuple(row.warnings))

    async def read_chunks(self, claim: Claim) -> Sequence[Chunk]:
        """Return the buffered chunks in reading order."""
        rows = await self._read(content.chunks(self._t), claim.document.id)
        return [
            Chunk(
                id=row.id,
                index=row._mapping["index"],
                text=row.text,
                start=row.start,
                end=row.end,
                headings=tuple(row.headings),
                page=row.page,
                metadata=row.metadata,
            )
            for row in rows
        ]

    async def read_vectors(self, claim: Claim) -> Sequence[Sequence[float]]:
        """Return the buffered vectors in the order of their chunks."""
        rows = await self._read(content.vectors(self._t), claim.document.id)
        return [[float(number) for number in row.vector] for row in rows]

    async def _read(self, statement: Any, document: UUID) -> Sequence[Any]:
        with answering("reading a document"):
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, {"document": document})).all()


async def _told(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Turn what the store raises, and nothing else, into what hooks raise."""
    try:
        async for piece in pieces:
            yield piece
    except FileNotFoundError as error:
        gone = "its bytes are no longer in the object store; submit it again"
        raise Reject(gone, code="bytes_gone") from error
    except PermissionError as error:
        raise StageFault(f"the object store cannot be read: {error}") from error
    except (BlobsUnavailable, OSError) as error:
        raise Retry("the object store did not answer", after=STORE_PAUSE) from error


async def _checked(pieces: AsyncIterator[bytes], sha256: str) -> AsyncIterator[bytes]:
    digest = hashlib.sha256()
    async for piece in pieces:
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise Reject(
            "the object store holds other bytes than were submitted; submit it again",
            code="bytes_changed",
        )


def _require_unchanged(path: Path, sha256: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        message = f"its file cannot be read any more: {error.strerror}"
        raise Reject(message, code="file_gone") from error
    if found != sha256:
        raise Reject(
            "its file changed since it was submitted; submit it again", code="file_changed"
        )
