"""Metadata of documents that are there already: changed without new bytes, and without a move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database import holding
from statemachine_pipeline.database.arrivals import json_problem
from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.statements import family
from statemachine_pipeline.errors import SourceRefused

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.tables import Tables


class Describing:
    """Changes the metadata of one schema's documents.

    Args:
        engine: An async engine.
        t: The pipeline's tables.
    """

    def __init__(self, engine: AsyncEngine, t: Tables) -> None:
        self._engine, self._t = engine, t

    async def describe(
        self, document: UUID, metadata: Mapping[str, Any], connection: AsyncConnection | None
    ) -> None:
        """Set these names for a document and all that was found in it.

        A settle that makes children holds the work row of their parent, and reads its metadata
        under that lock: whichever comes second sees what the first wrote.

        Raises:
            DocumentNotFound: There is none.
            SourceRefused: The metadata cannot be stored, or the document is deleted.
        """
        problem = json_problem(metadata)
        if problem:
            found = f"its metadata is no JSON that can be stored: {problem}"
            raise SourceRefused(str(document), found, "use JSON values")
        with answering("describing a document"):
            if connection is not None:
                await self._describe(connection, document, metadata)
                return
            async with self._engine.begin() as own:
                await self._describe(own, document, metadata)

    async def _describe(
        self, connection: AsyncConnection, document: UUID, metadata: Mapping[str, Any]
    ) -> None:
        held = await holding.lock_family(connection, self._t, {document: 0}, with_found=True)
        if held[0].is_deleted:
            raise SourceRefused(str(document), "it is deleted", "submit it again")
        given = {"ids": [one.document.id for one in held], "given": dict(metadata)}
        await connection.execute(family.describe(self._t), given)
