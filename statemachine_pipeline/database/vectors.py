"""Vectors on their way, where no reader looks: which are missing, and those that are finished.

Finished ones commit at once, without a transition; each write carries the fences of its claims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.database.blocked import waiting_for_locks
from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.reals import Reals, take_reals
from statemachine_pipeline.database.statements import claims, content
from statemachine_pipeline.database.statements.rows import milliseconds, parameters
from statemachine_pipeline.errors import StaleClaim

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.records import Vectors


class VectorBuffer:
    """Reads and writes the vectors of claimed documents.

    Args:
        engine: Where to.
        t: The tables.
        patience: How long locks outlast a worker that was frozen in a transaction.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, patience: timedelta) -> None:
        self._engine, self._t = engine, t
        self._patience = {"patience": milliseconds(patience)}
        self._numbers: dict[str, int] = {}

    @waiting_for_locks
    async def missing(self, claim: Claim, dimensions: int) -> list[tuple[UUID, int, str]]:
        """Return id, index and text of the chunks that still need a vector, in reading order.

        Vectors that readers see already are reused where the text did not change.

        Raises:
            StaleClaim: The claim is no longer held.
        """
        given = {"fingerprint": claim.fingerprint, "dimensions": dimensions}
        with answering("reading chunks"):
            async with self._engine.begin() as connection:
                held = await connection.execute(
                    claims.hold(self._t, skip_locked=False),
                    _given([claim], [claim.tokens]) | self._patience,
                )
                if held.first() is None:
                    raise StaleClaim(claim.document.id, claim.stage, claim.sequence)
                if claim.fingerprint not in self._numbers:
                    await connection.execute(content.know_embedder(self._t), given)
                number = await self._number(connection, claim.fingerprint)
                ids = {"document": claim.document.id, "embedder": number}
                await connection.execute(content.reuse_vectors(self._t), ids)
                found = await connection.execute(content.chunks_without_vector(self._t), ids)
                missing = [(chunk, index, text) for chunk, index, text in found]
        self._numbers[claim.fingerprint] = number  # not before the commit that gave it
        return missing

    @waiting_for_locks
    async def save(
        self,
        finished: Sequence[tuple[Claim, Vectors, int]],
        deadline: timedelta,
        *,
        skip_locked: bool = False,
    ) -> list[bool]:
        """Keep finished vectors of documents, once, and move the deadlines of their claims.

        All in one transaction, which locks claims in id order. One that is gone is left out, and so
        are its vectors: it takes no neighbour with it. With its vectors it is noted what a document
        was charged for, so that this counts whatever becomes of the attempt.

        Args:
            finished: At most one for each document, all of one embedder, with all the tokens that
                it was charged for since its last transition. Without vectors only the deadline is
                moved.
            deadline: From now on.
            skip_locked: Leave those out too that someone else has locked, instead of waiting.

        Returns:
            For each, in their order, whether it was written.
        """
        charged = [tokens for _, _, tokens in finished]
        given = _given([claim for claim, _, _ in finished], charged) | self._patience
        statement = claims.extend(self._t, skip_locked=skip_locked)
        with answering("saving vectors"):
            async with self._engine.begin() as connection:
                found = await connection.execute(
                    statement, given | {"deadline": deadline.total_seconds()}
                )
                held = set(found.scalars())
                written = [one for one in finished if one[0].document.id in held]
                await self._put(connection, written)
        return [claim.document.id in held for claim, _, _ in finished]

    async def _put(
        self, connection: AsyncConnection, finished: Sequence[tuple[Claim, Vectors, int]]
    ) -> None:
        chunks = [
            {"document_id": claim.document.id, "chunk_id": chunk}
            for claim, vectors, _ in finished
            for chunk in vectors.chunk_ids
        ]
        if not chunks:
            return
        places = ({**chunk, "place": place} for place, chunk in enumerate(chunks, start=1))
        claim, first, _ = finished[0]
        await take_reals(connection)
        await connection.execute(
            content.put_vectors(self._t),
            {
                "embedder": await self._number(connection, claim.fingerprint),
                "dimensions": first.dimensions,
                "flat": Reals(value for _, vectors, _ in finished for value in vectors.values),
            }
            | parameters("vector", places),
        )

    async def _number(self, connection: AsyncConnection, fingerprint: str) -> int:
        if fingerprint in self._numbers:
            return self._numbers[fingerprint]
        found = await connection.execute(content.embedder(self._t), {"fingerprint": fingerprint})
        return int(found.one().id)


def _given(held: Sequence[Claim], charged: Sequence[int]) -> dict[str, str]:
    pairs = zip(held, charged, strict=True)
    return parameters(
        "given",
        ({"id": one.document.id, "seq": one.sequence, "tokens": tokens} for one, tokens in pairs),
    )
