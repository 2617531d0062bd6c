"""What a settle does about the documents found in one: new, changed, unchanged, gone.

Lock order: a document before what was found in it, those at one depth by id; keys after all of
them. The fence of the parent is locked, so nobody else makes, changes or drops its children, but
people may move each of them like any document.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database import holding
from statemachine_pipeline.database.documents import Submission
from statemachine_pipeline.database.statements import family
from statemachine_pipeline.database.statements.rows import parameters
from statemachine_pipeline.graph import DELETED
from statemachine_pipeline.records import child_uri, document_id, sha256_hex
from statemachine_pipeline.sources import display_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline.database.documents import Documents
    from statemachine_pipeline.database.holding import Held
    from statemachine_pipeline.database.proposal import Proposal
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.decide import Decision
    from statemachine_pipeline.records import Child, Document
    from statemachine_pipeline.stages import Stages

BY = "pipeline"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Documents that are no longer found in ``parent``, locked with all that was found in them."""

    parent: UUID
    held: Sequence[Held]


class Family:
    """Children, as settles see them.

    Args:
        documents: Submits them.
        t: The tables.
        stages: The lifecycle.
    """

    def __init__(self, documents: Documents, t: Tables, stages: Stages) -> None:
        self._documents, self._t, self._stages = documents, t, stages

    async def find(
        self, connection: AsyncConnection, proposal: Proposal, decision: Decision
    ) -> tuple[Mapping[str, int] | None, Lost | None]:
        """Submit the new and changed children of a locked claim, and lock the lost ones.

        Returns:
            How many children each stage has found, if that may have changed, and the lost.
        """
        parent, bound = proposal.claim.document, proposal.bound
        if decision.duplicate_by == "bytes" and parent.children:
            return {}, await self._disown(connection, parent)
        earned = bound is not None and decision.input_sha256 is not None
        is_twin = decision.duplicate_of is not None
        if bound is None or not earned or is_twin or not proposal.concerns_children:
            return None, None
        stage = bound.trigger
        found = list(_submissions(parent, stage, proposal.children))
        known = {
            row.id: row.content_sha256 if row.state != DELETED else None
            for row in await self._known(connection, parent)
            if row.source_uri.startswith(child_uri(parent.id, stage))
        }
        lost = {id_ for id_, sha256 in known.items() if sha256} - {one.id for one in found}
        changed = [one for one in found if known.get(one.id) != one.content_sha256]
        await holding.lock(connection, self._t, lost | {one.id for one in changed} & set(known))
        held = await self._lock_below(connection, parent, lost)
        await self._submit(connection, parent, changed, known)
        counts = {name: count for name, count in parent.children.items() if name != stage}
        return counts | ({stage: len(found)} if found else {}), held

    async def drop(self, connection: AsyncConnection, lost: Sequence[Lost]) -> None:
        """Delete what was lost, with everything found in it; its keys go to heirs."""
        for one in lost:
            reason = f"no longer found in document {one.parent}"
            await holding.remove(connection, self._t, self._stages, one.held, by=BY, reason=reason)

    async def _disown(self, connection: AsyncConnection, parent: Document) -> Lost:
        """Lose the children of the bytes that a document had before it became another's twin.

        The stages that found them have to run again, should it ever stand for itself again.
        """
        stages = ({"document_id": parent.id, "stage": stage} for stage in parent.children)
        await connection.execute(family.forget_products(self._t), parameters("stage", stages))
        rows = await self._known(connection, parent)
        lost = {row.id for row in rows if row.state != DELETED}
        return await self._lock_below(connection, parent, lost)

    async def _submit(
        self,
        connection: AsyncConnection,
        parent: Document,
        changed: Sequence[Submission],
        known: Collection[UUID],
    ) -> None:
        if not changed:
            return
        asked = await connection.execute(family.inherited(self._t), {"document": parent.id})
        # Its metadata may have been changed since the claim: an access list must not come back.
        row = asked.one()
        given = [
            dataclasses.replace(
                one, priority=row.priority, metadata={**row.metadata, **one.metadata}
            )
            for one in changed
        ]
        # Nobody else can make the new ones, so they may come in the order in which they were found.
        new = [one for one in given if one.id not in known]
        await self._documents.submit_new(new, connection)
        for one in given:
            if one.id in known:
                await self._documents.submit(one, connection)

    async def _lock_below(
        self, connection: AsyncConnection, parent: Document, lost: set[UUID]
    ) -> Lost:
        depths = dict.fromkeys(lost, parent.depth + 1)
        held = await holding.lock_family(connection, self._t, depths, with_found=True)
        return Lost(parent=parent.id, held=held)

    async def _known(self, connection: AsyncConnection, parent: Document) -> Sequence[Any]:
        return (await connection.execute(family.children(self._t), {"ids": [parent.id]})).all()


def _submissions(parent: Document, stage: str, children: Sequence[Child]) -> Iterator[Submission]:
    """Make submissions of children, still without what they inherit."""
    seen: collections.Counter[str] = collections.Counter()
    for child in children:
        seen[child.name] += 1
        uri = child_uri(parent.id, stage, child.name, seen[child.name])
        origin = {"parent": {"document_id": str(parent.id), "name": parent.name}}
        yield Submission(
            id=document_id(parent.tenant, uri),
            tenant=parent.tenant,
            source_uri=uri,
            name=display_name(child.name),
            size_bytes=len(child.data),
            content_sha256=sha256_hex(child.data),
            correlation_id=parent.correlation_id,
            traceparent=parent.traceparent,
            content=child.data,
            path=None,
            metadata={**child.metadata, **origin},
            priority=0,
            not_before=None,
            by=BY,
            reason=f"found in document {parent.id}",
            parent_id=parent.id,
            depth=parent.depth + 1,
        )
