"""What people and applications need of the database: submit, look, apply.

``submit`` works on the caller's own connection too, and then commits or vanishes with it. ``apply``
moves the fence of whatever it moves, so that a worker that held the document can no longer write.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.keys import hand_on
from statemachine_pipeline.database.mapping import answering, to_document, to_transition
from statemachine_pipeline.database.moves import Move, plan
from statemachine_pipeline.database.statements import documents, placements
from statemachine_pipeline.database.statements.rows import parameters
from statemachine_pipeline.errors import DocumentNotFound, TransitionRefused
from statemachine_pipeline.graph import CANCELLED, DELETED, REVISE
from statemachine_pipeline.records import Refusal, Submitted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.records import Document, Transition
    from statemachine_pipeline.stages import Stages

BATCH = 500


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A document as it is handed over, its bytes read or its file hashed.

    Attributes:
        content: The bytes, or None when the file at ``path`` is kept by path.
    """

    id: UUID
    tenant: str
    source_uri: str
    name: str
    size_bytes: int
    content_sha256: str
    correlation_id: str
    content: bytes | None
    path: str | None
    metadata: Mapping[str, Any]
    priority: int
    not_before: datetime | None
    by: str | None


class Documents:
    """The documents of one schema.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
        stages: The lifecycle; with the hooks known, or from the stored graph alone.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, stages: Stages) -> None:
        self._engine, self._t, self._stages = engine, t, stages

    async def submit(
        self, submission: Submission, connection: AsyncConnection | None = None
    ) -> Submitted:
        """Write a new document, or restart a known one whose bytes changed.

        Args:
            submission: The document.
            connection: Whose transaction it becomes part of; an own one when None.
        """
        with answering("submitting"):
            if connection is not None:
                return await self._submit(connection, submission)
            async with self._engine.begin() as own:
                return await self._submit(own, submission)

    async def _submit(self, connection: AsyncConnection, submission: Submission) -> Submitted:
        initial = self._stages.graph.initial
        lane = "held" if self._stages.is_by_hand(initial) else "ready"
        values = {field: getattr(submission, field) for field in submission.__slots__}
        values |= {"state": initial, "lane": lane, "run_at": values.pop("not_before")}
        values["metadata"] = dict(submission.metadata)
        born = await connection.execute(documents.submit(self._t), values)
        if born.first() is not None:
            return Submitted(document_id=submission.id, outcome="new", state=initial)
        (held,) = await self._lock(connection, [submission.id])
        same = held.document.content_sha256 == submission.content_sha256
        if same and held.document.state != DELETED:
            return Submitted(
                document_id=submission.id, outcome="unchanged", state=held.document.state
            )
        reason = "the source changed" if not same else "submitted again after its deletion"
        move = plan(self._stages, held, REVISE, by=submission.by, reason=reason)
        values["document"] = submission.id
        keep = documents.forget_blob if submission.content is None else documents.replace_blob
        for statement in (documents.replace_content(self._t), keep(self._t)):
            await connection.execute(statement, _only(values, statement))
        await self._move(connection, [move])
        schedule = documents.reschedule(self._t)
        await connection.execute(schedule, _only(values, schedule))
        return Submitted(document_id=submission.id, outcome="changed", state=initial)

    async def apply(
        self,
        trigger: str,
        ids: Sequence[UUID],
        *,
        by: str,
        reason: str,
        dry_run: bool,
    ) -> tuple[list[UUID], list[UUID], list[Refusal]]:
        """Let people move documents; what is refused is told per document, never raised.

        Returns:
            Ids found, ids moved, refusals.

        Raises:
            DocumentNotFound: One of ``ids`` is not there; nothing was written.
        """
        found: list[UUID] = []
        moved: list[UUID] = []
        refused: list[Refusal] = []
        ordered = sorted(set(ids))
        known = {document.id for document in await self.several(ordered)}
        for wanted in ordered:
            if wanted not in known:
                raise DocumentNotFound(wanted)
        for start in range(0, len(ordered), BATCH):
            batch = ordered[start : start + BATCH]
            with answering(f"applying {trigger}"):
                async with self._engine.begin() as connection:
                    held = await self._lock(connection, batch)
                    found += [one.document.id for one in held]
                    moves, refusals = self._plan(held, trigger, by=by, reason=reason)
                    refused += refusals
                    moved += [move.id for move in moves]
                    if moves and not dry_run:
                        await self._move(connection, moves)
        return found, moved, refused

    def _plan(
        self, held: Sequence[Held], trigger: str, *, by: str, reason: str
    ) -> tuple[list[Move], list[Refusal]]:
        moves, refusals = [], []
        for one in held:
            try:
                moves.append(plan(self._stages, one, trigger, by=by, reason=reason))
            except TransitionRefused as error:
                document = one.document
                refusals.append(
                    Refusal(document_id=document.id, state=document.state, reason=str(error))
                )
        return moves, refusals

    async def _lock(self, connection: AsyncConnection, ids: Sequence[UUID]) -> list[Held]:
        given = {"ids": sorted(ids)}
        work = {
            row.document_id: row
            for row in await connection.execute(documents.lock_work(self._t), given)
        }
        rows = (await connection.execute(documents.lock_documents(self._t), given)).all()
        known = {row.id for row in rows}
        for wanted in ids:
            if wanted not in known:
                raise DocumentNotFound(wanted)
        return [Held(document=to_document(row), work=work.get(row.id)) for row in rows]

    async def _move(self, connection: AsyncConnection, moves: Sequence[Move]) -> None:
        given = parameters("given", (move.given for move in moves))
        steps = parameters("step", (s for move in moves for s in move.steps))
        await connection.execute(documents.move(self._t), given | steps)
        deleted = sorted(move.id for move in moves if move.state == DELETED)
        if deleted:
            for statement in (*placements.leave(self._t), *documents.erase(self._t)):
                await connection.execute(statement, {"ids": deleted})
        ended = sorted(move.id for move in moves if move.state in {DELETED, CANCELLED})
        if ended:
            await hand_on(connection, self._t, self._stages.graph, ended)

    async def matching(self, state: str, tenant: str | None) -> list[UUID]:
        """Return the ids of the documents in a state."""
        return [
            row.id
            for row in await self._read(
                documents.matching(self._t), {"state": state, "tenant": tenant}
            )
        ]

    async def standing(self, document: UUID) -> Any:
        """Return one document's row with its work row.

        Raises:
            DocumentNotFound: No such document.
        """
        rows = await self._read(documents.one(self._t), {"document": document})
        if not rows:
            raise DocumentNotFound(document)
        return rows[0]

    async def listing(
        self, *, state: str | None, tenant: str | None, after: UUID | None, limit: int
    ) -> list[Document]:
        """Return documents in the order they came, after a given one."""
        given = {"state": state, "tenant": tenant, "after": after, "limit": limit}
        return [to_document(row) for row in await self._read(documents.listing(self._t), given)]

    async def several(self, ids: Collection[UUID]) -> list[Document]:
        """Return those of the documents ``ids`` that exist."""
        rows = await self._read(documents.several(self._t), {"ids": list(ids)})
        return [to_document(row) for row in rows]

    async def history(self, document: UUID) -> list[Transition]:
        """Return the transitions of one document in order.

        Raises:
            DocumentNotFound: It has none, so it never was.
        """
        rows = await self._read(documents.history(self._t), {"document": document})
        if not rows:
            raise DocumentNotFound(document)
        return [to_transition(row) for row in rows]

    async def counts(self, tenant: str | None) -> dict[str, int]:
        """Return how many documents stand in each state that has any."""
        rows = await self._read(documents.counts(self._t), {"tenant": tenant})
        return {row.state: row._mapping["count"] for row in rows}

    async def _read(self, statement: Any, values: Mapping[str, Any]) -> Any:
        with answering("reading documents"):
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, values)).all()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A document whose rows this transaction has locked."""

    document: Document
    work: Any


def _only(values: Mapping[str, Any], statement: Any) -> dict[str, Any]:
    """Return the values a statement names; SQLAlchemy sets every other that is a column too."""
    return {name: values[name] for name in statement.compile().params if name in values}
