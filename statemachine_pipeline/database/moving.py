"""What people and webhooks do to documents: ``apply``, under locks, judged on real facts.

Whatever is moved gets a new fence, so that a worker that held the document can no longer write.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncEngine

from statemachine_pipeline.database import holding, telling
from statemachine_pipeline.database.mapping import answering, was_deadlock
from statemachine_pipeline.database.moves import plan
from statemachine_pipeline.database.statements import content
from statemachine_pipeline.database.statements import documents as statements
from statemachine_pipeline.errors import DocumentNotFound, TransitionRefused
from statemachine_pipeline.graph import DELETE
from statemachine_pipeline.records import Applied, Facts, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline.database.holding import Held
    from statemachine_pipeline.database.moves import Move
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.records import Document
    from statemachine_pipeline.stages import Stages

BATCH = 500
DEADLOCK_TRIES = 3

T = TypeVar("T")
Moved: TypeAlias = "tuple[Document, Move]"


class Moving:
    """Moves documents outside any claim.

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

        ``delete`` takes along what was found in a document; no other trigger does.
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
        known = await self._depths(ids)
        for wanted in sorted(set(ids) - set(known)):
            raise DocumentNotFound(wanted)
        # The deepest first: one that was named itself is not found gone with its parent.
        ordered = sorted(known, key=lambda one: (-known[one], one))
        for start in range(0, len(ordered), BATCH):
            batch = {one: known[one] for one in ordered[start : start + BATCH]}

            async def once(batch: Mapping[UUID, int] = batch) -> tuple[list[Moved], list[Refusal]]:
                async with self._engine.begin() as connection:
                    held = await self._held(connection, trigger, batch)
                    asked: Any = {"state": state, "by": by, "reason": reason}
                    moves, refusals = self._plan(held, batch, trigger, **asked)
                    written = [] if dry_run else moves
                    await holding.move(connection, self._t, self._stages.graph, written)
                documents = {one.document.id: one.document for one in held}
                return [(documents[move.id], move) for move in moves], refusals

            with answering(f"applying {trigger}"):
                # In a transaction that somebody lent, there is no second try.
                is_own = isinstance(self._engine, AsyncEngine)
                moves, refusals = await _tried(once, DEADLOCK_TRIES if is_own else 1)
            told = [] if dry_run else [document for document, _ in moves]
            telling.moved(trigger, told, by=by, reason=reason)
            moved += [move.id for _, move in moves]
            refused += refusals
        return Applied(
            matched=tuple(sorted(known)), moved=tuple(dict.fromkeys(moved)), refused=tuple(refused)
        )

    async def _matching(self, state: str, tenant: str | None) -> list[UUID]:
        given = {"state": state, "tenant": tenant}
        with answering("reading documents"):
            async with self._engine.connect() as connection:
                rows = await connection.execute(statements.matching(self._t), given)
                return [row.id for row in rows]

    async def _depths(self, ids: Sequence[UUID]) -> dict[UUID, int]:
        """Return those that exist, each with how many documents it lies in."""
        with answering("reading documents"):
            async with self._engine.connect() as connection:
                rows = await connection.execute(statements.several(self._t), {"ids": list(ids)})
                return {row.id: row.depth for row in rows}

    def _plan(
        self,
        held: Sequence[Held],
        named: Collection[UUID],
        trigger: str,
        *,
        state: str | None,
        by: str,
        reason: str,
    ) -> tuple[list[Move], list[Refusal]]:
        moves, refusals = [], []
        for one in held:
            document, why = one.document, reason
            if document.id not in named:
                why = f"{reason} (of {document.parent_id})"
            elif state is not None and document.state != state:
                stood = f"it stood in {state!r} when it was looked for"
                refusals.append(_refusal(one, f"{stood}, and in {document.state!r} now"))
                continue
            try:
                moves.append(plan(self._stages, one, trigger, by=by, reason=why))
            except TransitionRefused as error:
                refusals.append(_refusal(one, str(error)))
        return moves, refusals

    async def _held(
        self, connection: AsyncConnection, trigger: str, depths: Mapping[UUID, int]
    ) -> list[Held]:
        with_found = trigger == DELETE
        held = await holding.lock_family(connection, self._t, depths, with_found=with_found)
        if trigger not in self._stages.graph.forward_triggers():
            return held
        seen = await self._seen(connection, list(depths))
        return [dataclasses.replace(one, seen=seen.get(one.document.id, Facts())) for one in held]

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


async def _tried(write: Callable[[], Awaitable[T]], tries: int) -> T:
    """Write in a transaction; again when it and another one waited for each other.

    An heir is known only once its owner's rows are locked, so that no order excludes it.
    """
    for _ in range(tries - 1):
        try:
            return await write()
        except exc.DBAPIError as error:
            if not was_deadlock(error):
                raise
    return await write()


def _refusal(held: Held, reason: str) -> Refusal:
    document = held.document
    return Refusal(document_id=document.id, state=document.state, reason=reason)
