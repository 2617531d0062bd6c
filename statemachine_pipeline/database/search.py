"""Nearest passages by cosine distance, and the index that makes it fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import exc

from statemachine_pipeline.database.mapping import answering, to_document
from statemachine_pipeline.database.statements import content
from statemachine_pipeline.database.statements.rows import INDEXABLE, compared_as
from statemachine_pipeline.errors import EmbedderMismatch
from statemachine_pipeline.records import Hit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.stages import Bound

WORTH_AN_INDEX = 1000
"""Vectors below which reading all of them is as fast as an index."""


_IS_VALID = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
_TRY_LOCK = sa.text("SELECT pg_try_advisory_lock(hashtext(:name))")
_UNLOCK = sa.text("SELECT pg_advisory_unlock(hashtext(:name))")


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

        Raises:
            EmbedderMismatch: The vectors of this embedder have another length.
        """
        with answering("searching"):
            async with self._engine.begin() as connection:
                found = await connection.execute(
                    content.embedder(self._t), {"fingerprint": embedder}
                )
                known = found.first()
                if known is None:
                    return []
                if known.dimensions != len(question):
                    raise EmbedderMismatch(embedder, known.dimensions, len(question))
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

    async def check(self, bound: Bound) -> None:
        """Compare an embedder with what the database knows of it.

        Raises:
            EmbedderMismatch: Its vectors there have other dimensions.
        """
        wanted = bound.stage.hook.dimensions
        with answering("reading embedders"):
            async with self._engine.connect() as connection:
                given = {"fingerprint": bound.fingerprint}
                known = (await connection.execute(content.embedder(self._t), given)).first()
        if known is not None and known.dimensions != wanted:
            raise EmbedderMismatch(bound.fingerprint, known.dimensions, wanted)

    async def build_index(self, embedder: str) -> bool:
        """Build the index of an embedder that has many vectors and none yet.

        Meant for after a bulk load: with the index there, loading is 17 to 27 times slower.
        A role that does not own the tables leaves it to one that does. Above 4,000 dimensions
        pgvector has no index, and a search reads every vector.

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
                if known is None or known.dimensions > INDEXABLE:
                    return False
                if not await self._is_wanted(connection, known.id):
                    return False
                # Two builders at once would wait for each other's snapshots for ever.
                name = {"name": f"{self._t.schema}.{_index(known.id)}"}
                locked = await connection.execute(_TRY_LOCK, name)
                if not locked.scalar():
                    return False
                try:
                    return await self._build(connection, known.id, known.dimensions)
                finally:
                    await connection.execute(_UNLOCK, name)

    async def _is_wanted(self, connection: AsyncConnection, embedder: int) -> bool:
        """Whether there are enough vectors, and no index that works."""
        name = {"name": f'"{self._t.schema}"."{_index(embedder)}"'}
        if (await connection.execute(_IS_VALID, name)).scalar():
            return False
        enough = {"embedder": embedder, "least": WORTH_AN_INDEX}
        found = await connection.execute(content.has_vectors(self._t), enough)
        return bool(found.scalar())

    async def _build(self, connection: AsyncConnection, embedder: int, dimensions: int) -> bool:
        schema, name = f'"{self._t.schema}"', _index(embedder)
        kind = compared_as(dimensions).get_col_spec()  # VECTOR(256) or HALFVEC(3072)
        operators = f"{kind.partition('(')[0]}_cosine_ops"
        try:
            # One that was left half built by a crash is in nobody's way, but does not work either.
            await connection.execute(sa.text(f"DROP INDEX IF EXISTS {schema}.{name}"))
            await connection.execute(
                sa.text(
                    f"CREATE INDEX CONCURRENTLY {name} ON {schema}.chunk_vector USING hnsw "
                    f"((vector::{kind}) {operators}) "
                    f"WHERE embedder_id = {embedder}"
                )
            )
        except exc.ProgrammingError:
            return False
        return True


def _index(embedder: int) -> str:
    return f"chunk_vector_embedder_{embedder}_idx"
