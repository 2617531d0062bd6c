"""What people and applications need of the database: submit, look, apply.

``submit`` works on the caller's own connection too, and then commits or vanishes with it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.counting import counted
from statemachine_pipeline.database import holding, telling
from statemachine_pipeline.database.letters import DeadLetters
from statemachine_pipeline.database.mapping import answering, page_limit, to_document, to_transition
from statemachine_pipeline.database.moves import plan
from statemachine_pipeline.database.moving import Moving
from statemachine_pipeline.database.objects import hold
from statemachine_pipeline.database.obstacles import look
from statemachine_pipeline.database.statements import arrivals, documents, family, listings, workers
from statemachine_pipeline.database.statements.rows import parameters
from statemachine_pipeline.errors import DocumentNotFound
from statemachine_pipeline.explain import explain
from statemachine_pipeline.graph import DEAD_LETTER, DELETED, REVISE
from statemachine_pipeline.records import Submitted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.holding import Held
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.records import Applied, Document, Explanation, Transition
    from statemachine_pipeline.stages import Stages

WAIT_POLL_SECONDS = 0.2
WAIT_SHARE = 4
"""Of the time spent waiting at most a fifth is spent looking, however many are waited for."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A document as it is handed over, its bytes read or its file hashed.

    Attributes:
        content: The bytes, or None when they are elsewhere.
        path: The file that is kept by its path.
        blob_key: The object that ``Objects.keep`` has stored.
        reason: Why, for history; made up for what is submitted again.
        parent_id: The document it was found in.
        depth: How many documents it lies in.
    """

    id: UUID
    tenant: str
    source_uri: str
    name: str
    size_bytes: int
    content_sha256: str
    correlation_id: str
    traceparent: str | None
    content: bytes | None
    path: str | None
    metadata: Mapping[str, Any]
    priority: int
    not_before: datetime | None
    by: str | None
    reason: str | None = None
    parent_id: UUID | None = None
    depth: int = 0
    blob_key: str | None = None


class Documents:
    """The documents of one schema.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
        stages: The lifecycle; with the hooks known, or from the stored graph alone.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, stages: Stages) -> None:
        self._engine, self._t, self._stages = engine, t, stages
        self._moving = Moving(engine, t, stages)

    async def submit(
        self, submission: Submission, connection: AsyncConnection | None = None
    ) -> Submitted:
        """Write a new document, or restart a known one whose bytes changed.

        Args:
            submission: The document.
            connection: Whose transaction it becomes part of; an own one when None.

        Raises:
            ObjectGivenUp: Its object was erased meanwhile; nothing was written.
        """
        with answering("submitting"):
            async with self._own_or(connection) as used:
                answer = await self._submit(used, submission)
        telling.submitted([(submission, answer)])
        return answer

    async def submit_many(
        self, submissions: Sequence[Submission], connection: AsyncConnection | None = None
    ) -> list[Submitted]:
        """Write a batch of documents in one transaction, as if submitted one after another.

        Args:
            submissions: The documents; of those with one id each sees what the one before it left.
            connection: Whose transaction they become part of; an own one when None.

        Returns:
            What became of each, in the order of ``submissions``.
        """
        with answering("submitting"):
            async with self._own_or(connection) as used:
                answers = await self._submit_many(used, submissions)
        telling.submitted(zip(submissions, answers, strict=True))
        return answers

    async def submit_new(
        self, submissions: Sequence[Submission], connection: AsyncConnection
    ) -> None:
        """Write documents of which the caller knows that there are none: in one round trip."""
        if submissions:
            values = [self._values(one) for one in submissions]
            await connection.execute(documents.submit(self._t), values)

    def _own_or(
        self, connection: AsyncConnection | None
    ) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        return self._engine.begin() if connection is None else contextlib.nullcontext(connection)

    async def _submit_many(
        self, connection: AsyncConnection, submissions: Sequence[Submission]
    ) -> list[Submitted]:
        first: dict[UUID, Submission] = {}
        for one in submissions:
            first.setdefault(one.id, one)
        born = await self._bear(connection, list(first.values()))
        known = [document for document in first if document not in born]
        held = {one.document.id: one for one in await holding.lock(connection, self._t, known)}
        answers = []
        for one in submissions:
            if first.get(one.id) is not one:  # a twin in this batch: its rows are there by now
                answers.append(await self._submit(connection, one))
            elif one.id in born:
                answers.append(self._said_new(one.id))
            else:
                answers.append(await self._submit_again(connection, one, held[one.id]))
        return answers

    async def _bear(
        self, connection: AsyncConnection, submissions: Sequence[Submission]
    ) -> set[UUID]:
        """Write those documents that are not there yet; return their ids."""
        records = [_without_content(self._values(one)) for one in submissions]
        found = await connection.execute(
            arrivals.submit_many(self._t), parameters("given", records)
        )
        born = set(found.scalars())
        kept = sorted(
            (one.id, one.content_sha256, one.content)
            for one in submissions
            if one.id in born and one.content is not None
        )
        if kept:
            ids, hashes, contents = (list(column) for column in zip(*kept, strict=True))
            given = {"ids": ids, "hashes": hashes, "contents": contents}
            await connection.execute(arrivals.keep_blobs(self._t), given)
        return born

    def _values(self, submission: Submission) -> dict[str, Any]:
        initial = self._stages.graph.initial
        lane = "held" if self._stages.is_by_hand(initial) else "ready"
        values = {field: getattr(submission, field) for field in submission.__slots__}
        values |= {"state": initial, "lane": lane, "run_at": values.pop("not_before")}
        return values | {"metadata": dict(submission.metadata)}

    def _said_new(self, document: UUID) -> Submitted:
        return Submitted(document_id=document, outcome="new", state=self._stages.graph.initial)

    async def _submit(self, connection: AsyncConnection, submission: Submission) -> Submitted:
        if submission.blob_key is not None:
            await hold(connection, self._t, submission.blob_key)
        born = await connection.execute(documents.submit(self._t), self._values(submission))
        if born.first() is not None:
            return self._said_new(submission.id)
        (held,) = await holding.lock(connection, self._t, [submission.id])
        return await self._submit_again(connection, submission, held)

    async def _submit_again(
        self, connection: AsyncConnection, submission: Submission, held: Held
    ) -> Submitted:
        """Restart a known document, whose rows are locked, if its bytes changed."""
        same = held.document.content_sha256 == submission.content_sha256
        if same and held.document.state != DELETED:
            return Submitted(
                document_id=submission.id, outcome="unchanged", state=held.document.state
            )
        reason = "the source changed" if not same else "submitted again after its deletion"
        if submission.reason is not None:
            reason = f"{reason}: {submission.reason}"
        move = plan(self._stages, held, REVISE, by=submission.by, reason=reason)
        values = self._values(submission) | {"document": submission.id}
        is_kept = submission.content is not None or submission.blob_key is not None
        keep = documents.replace_blob if is_kept else documents.forget_blob
        for statement in (documents.replace_content(self._t), keep(self._t)):
            await connection.execute(statement, _only(values, statement))
        await holding.hand_down(connection, self._t, held, submission.metadata)
        await holding.move(connection, self._t, self._stages.graph, [move])
        schedule = documents.reschedule(self._t)
        await connection.execute(schedule, _only(values, schedule))
        return Submitted(
            document_id=submission.id, outcome="changed", state=self._stages.graph.initial
        )

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
        """Let people move documents; see ``Moving.apply``."""
        return await self._moving.apply(
            trigger, documents, state=state, tenant=tenant, by=by, reason=reason, dry_run=dry_run
        )

    async def explain(self, document: UUID) -> Explanation:
        """Say why a document stands where it stands.

        Raises:
            DocumentNotFound: No such document.
        """
        row = await self._standing(document)
        found = to_document(row)
        is_dead = row.state == DEAD_LETTER
        letters = DeadLetters(self._engine, self._t, self._stages)
        life = {"document": document, "life": row.life}
        return explain(
            self._stages,
            found,
            lane=row.lane,
            attempt=row.attempt or 0,
            crashes=row.crashes or 0,
            worker=row.worker,
            until=row.deadline_at or row.run_at,
            owner=row.owner,
            warnings=tuple(row.warnings or ()),
            seen=await self._moving.seen(document),
            dead_letter=await letters.of(document) if is_dead else None,
            obstacles=await look(self._read, self._t, row, self._stages.awaited_at(found.state)),
            crash=next(map(to_transition, await self._read(workers.rescue(self._t), life)), None),
        )

    async def get(self, document: UUID) -> Document:
        """Return one document as it stands.

        Raises:
            DocumentNotFound: No such document.
        """
        return to_document(await self._standing(document))

    async def _standing(self, document: UUID) -> Any:
        """Return one document's row with its work row."""
        rows = await self._read(documents.one(self._t), {"document": document})
        if not rows:
            raise DocumentNotFound(document)
        return rows[0]

    async def wait(self, documents: Sequence[UUID], timeout: timedelta) -> list[Document]:  # noqa: ASYNC109
        """Return the documents once all of them rest; see ``Pipeline.wait``."""
        graph = self._stages.graph
        until = time.monotonic() + timeout.total_seconds()
        rested: dict[UUID, Document] = {}
        while True:
            began = time.monotonic()
            open_ones = [one for one in dict.fromkeys(documents) if one not in rested]
            found = await self._all(open_ones)
            rested |= {one.id: one for one in found if graph.is_resting(one.state)}
            left = collections.Counter(one.state for one in found if one.id not in rested)
            if not left:
                return [rested[document] for document in documents]
            now = time.monotonic()
            if now >= until:
                states = ", ".join(f"{count} {state}" for state, count in sorted(left.items()))
                asked = counted(len(rested) + left.total(), "document")
                rest = counted(left.total(), f"of {asked} does", f"of {asked} do")
                raise TimeoutError(f"{rest} not rest after {timeout.total_seconds():g} s: {states}")
            pause = max(WAIT_POLL_SECONDS, WAIT_SHARE * (now - began))
            await asyncio.sleep(min(pause, until - now))

    async def _all(self, wanted: Sequence[UUID]) -> list[Document]:
        found = {one.id: one for one in await self.several(wanted)} if wanted else {}
        for document in wanted:
            if document not in found:
                raise DocumentNotFound(document)
        return list(found.values())

    async def listing(
        self,
        *,
        state: str | None,
        tenant: str | None,
        parent: UUID | None,
        after: UUID | None,
        limit: int,
    ) -> list[Document]:
        """Return documents in the order they came, after a given one.

        Raises:
            DocumentNotFound: There is no document ``after``.
        """
        given = {"state": state, "tenant": tenant, "after": after, "limit": page_limit(limit)}
        if parent is None:
            rows = await self._read(documents.listing(self._t), given)
        else:
            rows = await self._read(family.listing(self._t), given | {"parent": parent})
        if not rows and after is not None and not await self.several([after]):
            raise DocumentNotFound(after)
        return [to_document(row) for row in rows]

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
        rows = await self._read(listings.counts(self._t), {"tenant": tenant})
        return {row.state: row._mapping["count"] for row in rows}

    async def _read(self, statement: Any, values: Mapping[str, Any]) -> Any:
        with answering("reading documents"):
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, values)).all()


def _without_content(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one record of a batch; the bytes of those that are new travel after it."""
    return {name: value for name, value in values.items() if name not in {"content", "by"}}


def _only(values: Mapping[str, Any], statement: Any) -> dict[str, Any]:
    """Return the values a statement names; SQLAlchemy sets every other that is a column too."""
    return {name: values[name] for name in statement.compile().params if name in values}
