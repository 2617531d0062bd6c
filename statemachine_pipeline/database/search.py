"""Nearest passages by cosine distance, and the index that makes it fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import exc

from statemachine_pipeline.database.mapping import answering, to_document
from statemachine_pipeline.database.statements import content
from statemachine_pipeline.records import Hit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables

WORTH_AN_INDEX = 1000
"""Vectors below which reading all of them is as fast as an index."""


class Passages:
    """The published chunks of one schema.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
    """

    def __init__(self, engine: AsyncEngine, t: Tables) -> None:
        self._engine, self._t = engine, t

    async def nearest(
        self, question: Sequence[float], *, embedder: str, tenant: str, limit: int
    ) -> list[Hit]:
        """Return the passages nearest to a vector of the same embedder, nearest first.

        Args:
            question: The vector.
            embedder: Fingerprint of the stage whose vectors are compared.
            tenant: Whose documents.
            limit: Most passages.
        """
        with answering("searching"):
            async with self._engine.begin() as connection:
                found = await connection.execute(
                    content.embedder(self._t), {"fingerprint": embedder}
                )
                known = found.first()
                if known is None:
                    return []
                # Goes on reading the index until enough passages of this tenant are found.
                await connection.execute(sa.text("SET LOCAL hnsw.iterative_scan = strict_order"))
                rows = await connection.execute(
                    content.search(self._t, known.id, known.dimensions),
                    {
                        "question": [float(number) for number in question],
                        "tenant": tenant,
                        "limit": limit,
                    },
                )
                return [
                    Hit(
                        score=row.score,
                        text=row.passage,
                        page=row.page,
                        headings=tuple(row.headings),
                        chunk_id=row.chunk_id,
                        document=to_document(row),
                    )
                    for row in rows
                ]

    async def build_index(self, embedder: str) -> bool:
        """Build the index of an embedder that has many vectors and none yet.

        Meant for after a bulk load: with the index there, loading is 17 to 27 times slower.
        A role that does not own the tables leaves it to one that does.

        Returns:
            Whether it was built now.
        """
        autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        with answering("building the index"):
            async with autocommit.connect() as connection:
                found = await connection.execute(
                    content.embedder(self._t), {"fingerprint": embedder}
                )
                known = found.first()
                if known is None:
                    return False
                name = f"chunk_vector_embedder_{known.id}_idx"
                present = {"name": f'"{self._t.schema}"."{name}"'}
                there = await connection.execute(sa.text("SELECT to_regclass(:name)"), present)
                few = await connection.execute(
                    content.has_vectors(self._t), {"embedder": known.id, "least": WORTH_AN_INDEX}
                )
                if there.scalar() is not None or not few.scalar():
                    return False
                vectors = f'"{self._t.schema}".chunk_vector'
                try:
                    await connection.execute(
                        sa.text(
                            f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {vectors} USING hnsw "
                            f"((vector::vector({known.dimensions})) vector_cosine_ops) "
                            f"WHERE embedder_id = {known.id}"
                        )
                    )
                except exc.ProgrammingError:
                    return False
        return True
