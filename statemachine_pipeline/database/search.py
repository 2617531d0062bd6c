"""The published passages of a schema: finding them, and the index that makes it fast."""

from __future__ import annotations

import contextlib
import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import exc

from statemachine_pipeline.database.cures import first_line
from statemachine_pipeline.database.mapping import answering, to_document
from statemachine_pipeline.database.ranking import fuse
from statemachine_pipeline.database.statements import content
from statemachine_pipeline.database.statements import search as statements
from statemachine_pipeline.database.statements.rows import INDEXABLE, compared_as
from statemachine_pipeline.database.timeouts import unbounded
from statemachine_pipeline.errors import EmbedderMismatch, SearchRefused
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.records import Hit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.filters import Scope
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.stages import Bound

CANDIDATES: Final = 50
"""Passages of each ranking that are fused, and that a reranker is given; ``limit`` if that is more.

A passage on place 51 by words and by vector scores 0.55, less than one that is first by either and
on place 60 by the other.
"""

WORDS_ASKED_CHARS: Final = 10_000
"""Characters of a question whose words are looked for."""

WORTH_AN_INDEX = 1000
"""Vectors below which reading all of them is as fast as an index."""


# For this transaction. A plan made without knowing the values takes any filter for a narrow one
# and compares every vector it lets through: 196 ms where 15 ms are enough.
# Vector indexes are read until enough rows satisfy what else is asked. Measured on 96,000 vectors:
# `strict_order` leaves out what it meets too late, and found 69 % of a small tenant's nearest 50
# where `relaxed_order` found 91 %; 200 candidates in place of 40 found 91 % instead of 79 % when
# nothing else was asked, in the same time.
_SETTINGS = sa.text(
    "SELECT set_config('plan_cache_mode', 'force_custom_plan', true), "
    "set_config('hnsw.iterative_scan', 'relaxed_order', true), "
    "set_config('hnsw.ef_search', '200', true)"
)
_IS_VALID = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
_TRY_LOCK = sa.text("SELECT pg_try_advisory_lock(hashtext(:name))")
_UNLOCK = sa.text("SELECT pg_advisory_unlock(hashtext(:name))")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """A question as a vector.

    Attributes:
        vector: Made by the same embedder as the vectors it is compared with.
        embedder: Fingerprint of the stage that made those.
    """

    vector: Sequence[float]
    embedder: str


class Passages:
    """The published chunks of one schema.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
    """

    def __init__(self, engine: AsyncEngine, t: Tables) -> None:
        self._engine, self._t = engine, t

    async def search(
        self, scope: Scope, *, limit: int, near: Near | None = None, text: str | None = None
    ) -> list[Hit]:
        """Return the best passages in ``scope``, best first.

        All statements see one snapshot, so never two versions of a document.

        Args:
            scope: What may be seen.
            limit: Most passages.
            near: Search by this vector.
            text: Search by these words. Given both, the two rankings are fused.

        Raises:
            SearchRefused: A filter cannot be read, or PostgreSQL cannot take a value.
            EmbedderMismatch: The vectors of this embedder have another length.
        """
        fused = near is not None and text is not None
        values = scope.parameters() | {"tenant": scope.tenant}
        values["limit"] = max(limit, CANDIDATES) if fused else limit
        snapshot = self._engine.execution_options(isolation_level="REPEATABLE READ")
        with answering("searching"), _refusing_values():
            async with snapshot.begin() as connection:
                await connection.execute(_SETTINGS)
                by_vector = {} if near is None else await self._nearest(connection, near, values)
                by_words = {} if text is None else await self._matching(connection, text, values)
                best = fuse(list(by_vector), list(by_words)) if fused else by_vector or by_words
                chosen = list(best)[:limit]
                read = await connection.execute(statements.passages(self._t), {"ids": chosen})
                rows = {row.chunk_id: row for row in read}
        vector_ranks, text_ranks = _ranks(by_vector), _ranks(by_words)
        return [
            Hit(
                score=best[one],
                vector_rank=vector_ranks.get(one),
                vector_score=by_vector.get(one),
                text_rank=text_ranks.get(one),
                text_score=by_words.get(one),
                **_passage(rows[one]),
            )
            for one in chosen
        ]

    async def _nearest(
        self, connection: AsyncConnection, near: Near, values: Mapping[str, Any]
    ) -> dict[UUID, float]:
        """Return cosine similarities, best first."""
        known = await self._embedder(connection, near.embedder)
        if known is None:
            return {}
        if known.dimensions != len(near.vector):
            raise EmbedderMismatch(near.embedder, known.dimensions, len(near.vector))
        values = {**values, "question": [float(number) for number in near.vector]}
        if not await self._is_small(connection, values):
            found = await self._compared(connection, known, values, exact=False)
            # The index is read for hnsw.max_scan_tuples (20,000) at most, and what is in scope may
            # lie behind all of them.
            if len(found) == values["limit"]:
                return found
        return await self._compared(connection, known, values, exact=True)

    async def _is_small(self, connection: AsyncConnection, values: Mapping[str, Any]) -> bool:
        """Whether all vectors in scope are read as fast as an index that misses some of them."""
        size = await connection.execute(
            statements.size(self._t, values), {**values, "most": WORTH_AN_INDEX}
        )
        return bool(size.scalar_one() < WORTH_AN_INDEX)

    async def _compared(
        self, connection: AsyncConnection, known: Any, values: Mapping[str, Any], *, exact: bool
    ) -> dict[UUID, float]:
        asked = statements.nearest(self._t, known.id, known.dimensions, values, exact=exact)
        rows = await connection.execute(asked, values)
        return {row.chunk_id: row.score for row in rows}

    async def _matching(
        self, connection: AsyncConnection, text: str, values: Mapping[str, Any]
    ) -> dict[UUID, float]:
        """Return ranks by words, best first."""
        words = text[:WORDS_ASKED_CHARS].replace("\0", " ").encode("utf-8", "replace").decode()
        asked = statements.matching(self._t, values)
        rows = await connection.execute(asked, {**values, "text": words})
        return {row.chunk_id: row.score for row in rows}

    async def _embedder(self, connection: AsyncConnection, fingerprint: str) -> Any:
        """Return the number and dimensions of an embedder, or None before its first vector."""
        found = await connection.execute(content.embedder(self._t), {"fingerprint": fingerprint})
        return found.first()

    async def check(self, bounds: Iterable[Bound]) -> None:
        """Compare embedders with what the database knows of them.

        Raises:
            EmbedderMismatch: The vectors of one there have other dimensions.
        """
        for bound in bounds:
            wanted = bound.stage.hook.dimensions
            with answering("reading embedders"):
                async with self._engine.connect() as connection:
                    known = await self._embedder(connection, bound.fingerprint)
            if known is not None and known.dimensions != wanted:
                raise EmbedderMismatch(bound.fingerprint, known.dimensions, wanted)

    async def wants_index(self, embedder: str) -> bool:
        """Whether an embedder has many vectors and no index that works, and could have one."""
        with answering("reading embedders"):
            async with self._engine.connect() as connection:
                known = await self._embedder(connection, embedder)
                if known is None or known.dimensions > INDEXABLE:
                    return False
                return await self._is_wanted(connection, known.id)

    async def build_indexes(self, bounds: Iterable[Bound]) -> None:
        """Build those indexes of embedders that are worth it and not there."""
        for bound in bounds:
            await self.build_index(bound.fingerprint)

    async def build_index(self, embedder: str) -> bool:
        """Build the index of an embedder that has many vectors and none yet.

        Meant for after a bulk load: with the index there, loading is 17 to 27 times slower.
        A role that does not own the tables leaves it to ``migrate``, and says so. Above 4,000
        dimensions pgvector has no index, and a search reads every vector.

        Returns:
            Whether it was built now.
        """
        autocommit = unbounded(self._engine, "AUTOCOMMIT")
        with answering("building the index"):
            async with autocommit.connect() as connection:
                known = await self._embedder(connection, embedder)
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
        except exc.ProgrammingError as error:
            told = (
                "searches read every vector: this role may not make the index {} ({}); run migrate"
            )
            note(log_events.INDEX_MISSING, told, name, first_line(error.orig))
            return False
        return True


def _ranks(found: Iterable[UUID]) -> dict[UUID, int]:
    return {one: rank for rank, one in enumerate(found, start=1)}


def _passage(row: Any) -> dict[str, Any]:
    return {
        "text": row.passage,
        "page": row.page,
        "headings": tuple(row.headings),
        "index": row._mapping["index"],
        "start": row.start,
        "end": row.end,
        "metadata": MappingProxyType(row.chunk_metadata),
        "chunk_id": row.chunk_id,
        "document": to_document(row),
    }


@contextlib.contextmanager
def _refusing_values() -> Iterator[None]:
    """Blame the caller for a value that PostgreSQL has no place for, such as a NUL in a filter."""
    try:
        yield
    except exc.DataError as error:
        raise SearchRefused("a value", first_line(error.orig), "PostgreSQL refused it") from error


def _index(embedder: int) -> str:
    return f"chunk_vector_embedder_{embedder}_idx"
