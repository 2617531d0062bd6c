"""Dead letters of one schema: looked at, and taken up again."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database import holding, telling
from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.moves import plan
from statemachine_pipeline.database.statements import letters as statements
from statemachine_pipeline.graph import REQUEUE
from statemachine_pipeline.letters import DeadLetter, DeadLetterGroup
from statemachine_pipeline.records import Applied, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.moves import Move
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.letters import Matching
    from statemachine_pipeline.records import Document
    from statemachine_pipeline.stages import Stages

BATCH = 500
"""Documents that are requeued in one transaction."""


class DeadLetters:
    """Dead letters.

    Args:
        engine: An async engine.
        t: The pipeline's tables.
        stages: The lifecycle.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, stages: Stages) -> None:
        self._engine, self._t, self._stages = engine, t, stages

    async def of(self, document: UUID) -> DeadLetter | None:
        """Return the dead letter of one document, if it has one."""
        rows = await self._read(statements.one(self._t), {"document": document})
        return _letter(rows[0]) if rows else None

    async def listing(
        self, which: Matching, after: DeadLetter | None, limit: int
    ) -> list[DeadLetter]:
        """Return a page of those that match, newest first."""
        page = {
            "after_at": after.at if after else None,
            "after_id": after.document_id if after else None,
            "limit": limit,
        }
        rows = await self._read(statements.listing(self._t), which.parameters() | page)
        return [_letter(row) for row in rows]

    async def groups(self, which: Matching) -> list[DeadLetterGroup]:
        """Return those that match by stage and code, the largest group first."""
        rows = await self._read(statements.groups(self._t), which.parameters())
        return [DeadLetterGroup(**row._mapping) for row in rows]

    async def requeue(self, which: Matching, *, by: str, reason: str, dry_run: bool) -> Applied:
        """Requeue all that match, in batches that commit by themselves.

        Each document is taken up once, even if it fails again before the last batch.
        """
        matched: list[UUID] = []
        moved: list[UUID] = []
        refused: list[Refusal] = []
        given = which.parameters() | {"after_id": None, "limit": BATCH}
        while rows := await self._read(statements.matching(self._t), given):
            depths = {row.id: row.depth for row in rows}
            matched += depths
            given |= {"after_id": rows[-1].id}
            if dry_run:
                moved += depths
                continue
            with answering("requeuing dead letters"):
                async with self._engine.begin() as connection:
                    moves, refusals = await self._plan(connection, depths, which, by, reason)
                    written = [move for _, move in moves]
                    await holding.move(connection, self._t, self._stages.graph, written)
            telling.moved(REQUEUE, [document for document, _ in moves], by=by, reason=reason)
            moved += [document.id for document, _ in moves]
            refused += refusals
        return Applied(matched=tuple(matched), moved=tuple(moved), refused=tuple(refused))

    async def _plan(
        self,
        connection: AsyncConnection,
        depths: Mapping[UUID, int],
        which: Matching,
        by: str,
        reason: str,
    ) -> tuple[list[tuple[Document, Move]], list[Refusal]]:
        """Lock documents and look again: somebody may have moved them since they were found."""
        held = await holding.lock_family(connection, self._t, depths, with_found=False)
        given = which.parameters() | {"ids": list(depths)}
        still = set((await connection.execute(statements.still(self._t), given)).scalars())
        moves, refusals = [], []
        for one in held:
            document = one.document
            if document.id in still:
                move = plan(self._stages, one, REQUEUE, by=by, reason=reason)
                moves.append((document, move))
                continue
            why = f"it is no such dead letter any more, and stands in {document.state!r}"
            refusals.append(Refusal(document_id=document.id, state=document.state, reason=why))
        return moves, refusals

    async def _read(self, statement: Any, values: Mapping[str, Any]) -> Any:
        with answering("reading dead letters"):
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, values)).all()


_FIELDS = tuple(field.name for field in dataclasses.fields(DeadLetter))


def _letter(row: Any) -> DeadLetter:
    return DeadLetter(**{name: row._mapping[name] for name in _FIELDS})
