"""What people and webhooks do to documents: ``apply``, under locks, judged on real facts.

Whatever is moved gets a new fence, so that a worker that held the document can no longer write.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.keys import hand_on
from statemachine_pipeline.database.mapping import answering, to_document
from statemachine_pipeline.database.moves import Move, plan
from statemachine_pipeline.database.statements import content
from statemachine_pipeline.database.statements import documents as statements
from statemachine_pipeline.database.statements.rows import parameters
from statemachine_pipeline.errors import DocumentNotFound, TransitionRefused
from statemachine_pipeline.graph import CANCELLED, DELETED
from statemachine_pipeline.records import Applied, Facts, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.records import Document
    from statemachine_pipeline.stages import Stages

BATCH = 500


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A document whose rows this transaction has locked.

    Attributes:
        work: Its work row; None when it rests.
        seen: What the guards of its last stage saw.
    """

    document: Document
    work: Any
    seen: Facts = dataclasses.field(default_factory=Facts)

    @property
    def facts(self) -> Facts:
        """What guards read now."""
        return dataclasses.replace(
            self.seen,
            attempt=max(self.work.attempt, 1) if self.work else 1,
            crashes=self.work.crashes if self.work else 0,
            text_chars=self.document.text_chars,
        )


class Moving:
    """Locks documents and moves them outside any claim.

    Args:
        engine: An async engine.
        t: The pipeline's tables.
        stages: The lifecycle; with the hooks known, or from the stored graph alone.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, stages: Stages) -> None:
        self._engine, self._t, self._stages = engine, t, stages

    async def apply(
        self,
        trigger: str,
        documents: Sequence[UUID],
        *,
        state: str | None,
        tenant: str | None,
        by: str,
        reason: str,
        dry_run: bool,
    ) -> Applied:
        """Let people move documents; what is refused is told per document, never raised.

        With ``state`` all that stand there; those that no longer do once they are locked are
        refused.

        Raises:
            DocumentNotFound: One of ``documents`` is not there; nothing was written.
            ValueError: Neither ids nor a state, or both.
        """
        if bool(documents) == bool(state):
            raise ValueError("apply wants either document ids or a state")
        ids = documents if state is None else await self._matching(state, tenant)
        moved: list[UUID] = []
        refused: list[Refusal] = []
        ordered = sorted(set(ids))
        known = await self._known(ordered)
        for wanted in ordered:
            if wanted not in known:
                raise DocumentNotFound(wanted)
        for start in range(0, len(ordered), BATCH):
            with answering(f"applying {trigger}"):
                async with self._engine.begin() as connection:
                    held = await self._held(connection, trigger, ordered[start : start + BATCH])
                    moves, refusals = self._plan(held, trigger, state=state, by=by, reason=reason)
                    await self.move(connection, [] if dry_run else moves)
            moved += [move.id for move in moves]
            refused += refusals
        return Applied(matched=tuple(ordered), moved=tuple(moved), refused=tuple(refused))

    async def _matching(self, state: str, tenant: str | None) -> list[UUID]:
        given = {"state": state, "tenant": tenant}
        with answering("reading documents"):
            async with self._engine.connect() as connection:
                rows = await connection.execute(statements.matching(self._t), given)
                return [row.id for row in rows]

    async def _known(self, ids: Sequence[UUID]) -> set[UUID]:
        with answering("reading documents"):
            async with self._engine.connect() as connection:
                rows = await connection.execute(statements.several(self._t), {"ids": list(ids)})
                return {row.id for row in rows}

    def _plan(
        self, held: Sequence[Held], trigger: str, *, state: str | None, by: str, reason: str
    ) -> tuple[list[Move], list[Refusal]]:
        moves, refusals = [], []
        for one in held:
            stands = one.document.state
            if state is not None and stands != state:
                why = f"it stood in {state!r} when it was looked for, and in {stands!r} now"
                refusals.append(_refusal(one, why))
                continue
            try:
                moves.append(plan(self._stages, one, trigger, by=by, reason=reason))
            except TransitionRefused as error:
                refusals.append(_refusal(one, str(error)))
        return moves, refusals

    async def _held(
        self, connection: AsyncConnection, trigger: str, ids: Sequence[UUID]
    ) -> list[Held]:
        held = await self.lock(connection, ids)
        if trigger not in self._stages.graph.forward_triggers():
            return held
        seen = await self._seen(connection, ids)
        return [dataclasses.replace(one, seen=seen.get(one.document.id, Facts())) for one in held]

    async def lock(self, connection: AsyncConnection, ids: Sequence[UUID]) -> list[Held]:
        """Lock documents and their work for the rest of the transaction, in id order.

        Raises:
            DocumentNotFound: One of them is not there.
        """
        given = {"ids": sorted(ids)}
        work = {
            row.document_id: row
            for row in await connection.execute(statements.lock_work(self._t), given)
        }
        rows = (await connection.execute(statements.lock_documents(self._t), given)).all()
        known = {row.id for row in rows}
        for wanted in ids:
            if wanted not in known:
                raise DocumentNotFound(wanted)
        return [Held(document=to_document(row), work=work.get(row.id)) for row in rows]

    async def move(self, connection: AsyncConnection, moves: Sequence[Move]) -> None:
        """Write edges of locked documents, and what follows from where they lead."""
        if not moves:
            return
        given = parameters("given", (move.given for move in moves))
        steps = parameters("step", (s for move in moves for s in move.steps))
        await connection.execute(statements.move(self._t), given | steps)
        deleted = sorted(move.id for move in moves if move.state == DELETED)
        if deleted:
            for statement in statements.erase(self._t):
                await connection.execute(statement, {"ids": deleted})
        done = sorted(move.id for move in moves if move.state in self._stages.graph.ends)
        for statement in content.forget(self._t) if done else ():
            await connection.execute(statement, {"ids": done})
        ended = sorted(move.id for move in moves if move.state in {DELETED, CANCELLED})
        if ended:
            await hand_on(connection, self._t, self._stages.graph, ended)

    async def _seen(self, connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Facts]:
        """Return what the guards of a document's last stage saw, and all counts of this life."""
        given = {"ids": sorted(ids)}
        facts: dict[UUID, Facts] = {}
        for row in await connection.execute(content.earned_in_this_life(self._t), given):
            facts[row.id] = dataclasses.replace(
                facts.get(row.id, Facts()),
                **row.facts,
                reported=row.reported,
                duplicate_of=row.owner,
                duplicate_by=row.key_kind if row.owner else None,
            )
        return facts

    async def seen(self, document: UUID) -> Facts:
        """Return what guards know of a document where nobody is at work on it."""
        with answering("reading products"):
            async with self._engine.connect() as connection:
                return (await self._seen(connection, [document])).get(document, Facts())


def _refusal(held: Held, reason: str) -> Refusal:
    document = held.document
    return Refusal(document_id=document.id, state=document.state, reason=reason)
