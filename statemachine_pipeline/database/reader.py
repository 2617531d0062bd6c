"""Reads what a claim's hook may ask for: the bytes, the text, the chunks. Never writes."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.statements import content, documents
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import Chunk, ParsedText, Source, Span

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.hooks import Claim


class ContentReader:
    """Implements ``hooks.Reader`` on the pipeline's tables."""

    def __init__(self, engine: AsyncEngine, t: Tables) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._t = t

    async def read_source(self, claim: Claim) -> Source:
        """Return the bytes as they were submitted, or refuse.

        Raises:
            Reject: A file that was kept by its path has gone, or holds other bytes now.
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
