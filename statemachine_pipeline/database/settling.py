"""One settle: products, history, document and work of a batch of claims, in one transaction.

Every write carries the claims' fences. Lock order: work and document by id, then those of children
(``family.py``), then keys.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy import exc

from statemachine_pipeline.database import products
from statemachine_pipeline.database.documents import Documents
from statemachine_pipeline.database.family import Family
from statemachine_pipeline.database.keys import hand_on, lock_owners
from statemachine_pipeline.database.mapping import may_pass
from statemachine_pipeline.database.proposal import (
    Continuation,
    OwnerChanged,
    ProductFailed,
    Settled,
)
from statemachine_pipeline.database.settled import settled
from statemachine_pipeline.database.statements import claims, content, keys, placements
from statemachine_pipeline.database.statements.rows import milliseconds, parameters
from statemachine_pipeline.errors import StaleClaim
from statemachine_pipeline.graph import CANCELLED, DEAD_LETTER
from statemachine_pipeline.records import Accepted, Validated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.proposal import Proposal
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.decide import Decision
    from statemachine_pipeline.stages import Stages

Answer: TypeAlias = Settled | StaleClaim | OwnerChanged | ProductFailed | None
"""None: its document is locked by someone else; settle it alone."""

LOCK_TIMEOUT_SECONDS = 30
BATCH_LOCK_TIMEOUT_SECONDS = 0.5
"""How long a batch waits for keys and heirs, which cannot be skipped like its documents."""


class Settlement:
    """Writes batches of proposals.

    Args:
        engine: Where to.
        t: The tables.
        stages: For the restarts of heirs, and the first lane of documents found in others.
        patience: How long locks outlast a worker that was frozen in a transaction.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, stages: Stages, patience: timedelta) -> None:
        self._engine, self._t, self._graph = engine, t, stages.graph
        self._family = Family(Documents(engine, t, stages), t, stages)
        self._patience = {"patience": milliseconds(patience)}
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._settle = {skip: claims.settle(t, skip_locked=skip) for skip in (True, False)}
        self._hold = {skip: claims.hold(t, skip_locked=skip) for skip in (True, False)}

    async def write(
        self, proposals: Sequence[Proposal], worker: int, *, alone: bool = False
    ) -> list[Answer]:
        """Write the proposals, all in one transaction; an error undoes all of them.

        Args:
            proposals: At most one per document.
            worker: Who writes.
            alone: Wait for a document that someone else has locked, instead of answering None.

        Returns:
            One answer per proposal, in their order.
        """
        decisions = [None if _has_data(p) else p.decide(p.facts) for p in proposals]
        pairs = list(zip(proposals, decisions, strict=True))
        if all(d is not None and self._is_plain(p, d) for p, d in pairs):
            async with self._connection(one_statement=True, waits=alone) as connection:
                if alone:
                    await _limit_waiting(connection, LOCK_TIMEOUT_SECONDS)
                return await self._move(connection, proposals, decisions, worker, skip=not alone)
        async with self._connection(one_statement=False, waits=alone) as connection:
            return await self._write_with_products(connection, proposals, worker, alone=alone)

    def _connection(self, *, one_statement: bool, waits: bool) -> Any:
        # One statement is its own transaction: autocommit spares two round trips.
        if one_statement and not waits:
            return self._autocommit.connect()
        return self._engine.begin()

    async def write_in(
        self, connection: AsyncConnection, proposals: Sequence[Proposal], worker: int
    ) -> list[Answer]:
        """Write proposals whose rows ``connection`` has locked already."""
        decisions = [p.decide(p.facts) for p in proposals]
        answers = await self._move(connection, proposals, decisions, worker, skip=False)
        await self._after(connection, proposals, decisions)
        return answers

    async def rescue(
        self, connection: AsyncConnection, proposals: Sequence[Proposal], worker: int
    ) -> list[tuple[Proposal, Settled]]:
        """Write what becomes of locked claims that ended without a word; return those written.

        What parks a document hands its keys on. One whose heir somebody holds is left to the next
        rescue, so that nobody's open transaction keeps the others with a dead worker.
        """
        parked = [p for p in proposals if _concerns_keys(p, p.decide(p.facts))]
        others = [p for p in proposals if p not in parked]
        written: list[tuple[Proposal, Answer]] = []
        if others:
            answers = await self.write_in(connection, others, worker)
            written += zip(others, answers, strict=True)
        await _limit_waiting(connection, BATCH_LOCK_TIMEOUT_SECONDS)
        for one in parked:
            try:
                async with connection.begin_nested():
                    answers = await self.write_in(connection, [one], worker)
            except exc.DBAPIError as error:
                if not may_pass(error) or error.connection_invalidated:
                    raise
                continue
            written += zip([one], answers, strict=True)
        return [(proposal, one) for proposal, one in written if isinstance(one, Settled)]

    async def _write_with_products(
        self,
        connection: AsyncConnection,
        proposals: Sequence[Proposal],
        worker: int,
        *,
        alone: bool,
    ) -> list[Answer]:
        if alone:
            await _limit_waiting(connection, LOCK_TIMEOUT_SECONDS)
        held = await self._lock(connection, proposals, skip=not alone)
        mine = [p for p in proposals if p.claim.document.id in held]
        counted = await products.write(connection, self._t, mine)
        decisions = [p.decide(counted.get(p.claim.document.id, p.facts)) for p in mine]
        if not alone and any(map(_concerns_keys, mine, decisions)):
            await _limit_waiting(connection, BATCH_LOCK_TIMEOUT_SECONDS)
        families = {
            p.claim.document.id: await self._family.find(connection, p, d)
            for p, d in zip(mine, decisions, strict=True)
        }
        changed = await self._changed_owners(connection, mine, decisions)
        pairs = [(p, d) for p, d in zip(mine, decisions, strict=True) if p not in changed]
        lost = {id_ for id_, (_, held) in families.items() if held is not None}
        if any(_has_data(p) or p.claim.document.id in lost for p in changed):
            raise OwnerChanged(changed[0].claim)
        written = [p for p, _ in pairs]
        taken = [d for _, d in pairs]
        answers: dict[Any, Answer] = {p.claim.document.id: OwnerChanged(p.claim) for p in changed}
        if written:
            children = {id_: counts for id_, (counts, _) in families.items()}
            moved = await self._move(
                connection, written, taken, worker, skip=False, children=children
            )
            answers |= {p.claim.document.id: a for p, a in zip(written, moved, strict=True)}
            await self._after(connection, written, taken)
            await self._family.drop(connection, [held for _, held in families.values() if held])
        return [answers.get(p.claim.document.id, _stale(p) if alone else None) for p in proposals]

    async def _lock(
        self, connection: AsyncConnection, proposals: Sequence[Proposal], *, skip: bool
    ) -> set[Any]:
        records = [{"id": p.claim.document.id, "seq": p.claim.sequence} for p in proposals]
        found = await connection.execute(
            self._hold[skip], parameters("given", records) | self._patience
        )
        return set(found.scalars())

    async def _changed_owners(
        self, connection: AsyncConnection, mine: Sequence[Proposal], decisions: Sequence[Decision]
    ) -> list[Proposal]:
        """Lock the keys of twins; return those whose owner is another than was decided on."""
        resting = [
            (_key(p, d), p, d)
            for p, d in zip(mine, decisions, strict=True)
            if d.duplicate_of is not None
        ]
        if not resting:
            return []
        wanted = [(key, p.claim.document.id) for key, p, _ in resting]
        owners = await lock_owners(connection, self._t, wanted)
        return [p for key, p, d in resting if owners.get(key) != d.duplicate_of]

    def _is_plain(self, proposal: Proposal, decision: Decision) -> bool:
        """Whether the settle statement alone is enough."""
        ended = decision.state in {DEAD_LETTER, CANCELLED}
        hopped_out = self._hopped_out(proposal, decision)
        return decision.duplicate_of is None and not ended and not hopped_out

    def _hopped_out(self, proposal: Proposal, decision: Decision) -> bool:
        """Whether a document came to its end without running the stage that empties buffers."""
        return proposal.bound is None and decision.state in self._graph.ends

    async def _after(
        self, connection: AsyncConnection, written: Sequence[Proposal], taken: Sequence[Decision]
    ) -> None:
        pairs = list(zip(written, taken, strict=True))
        rests = [
            {
                "document_id": p.claim.document.id,
                "owner": d.duplicate_of,
                "kind": d.duplicate_by,
                "sha256": _key(p, d)[2],
            }
            for p, d in pairs
            if d.duplicate_of is not None
        ]
        if rests:
            await connection.execute(
                keys.rest_on(self._t),
                parameters("rest", rests),
            )
        others = [p.claim.document.id for p, d in pairs if _was_another(p, d)]
        for ids, statements in (
            (others, placements.leave),
            (others, content.withdraw),
            ([p.claim.document.id for p, d in pairs if self._hopped_out(p, d)], content.forget),
        ):
            for statement in statements(self._t) if ids else ():
                await connection.execute(statement, {"ids": sorted(ids)})
        losing = [p.claim.document.id for p, d in pairs if _may_lose_keys(p, d)]
        if losing:
            await hand_on(connection, self._t, self._graph, sorted(losing))

    async def _move(
        self,
        connection: AsyncConnection,
        proposals: Sequence[Proposal],
        decisions: Sequence[Any],
        worker: int,
        *,
        skip: bool,
        children: Mapping[UUID, Mapping[str, int] | None] = MappingProxyType({}),
    ) -> list[Answer]:
        pairs = list(zip(proposals, decisions, strict=True))
        records = (settled(p, d, children.get(p.claim.document.id)) for p, d in pairs)
        values = parameters("given", records) | {"worker": worker}
        found = {row.id: row for row in await connection.execute(self._settle[skip], values)}
        answers: list[Answer] = []
        for proposal, decision in pairs:
            row = found.get(proposal.claim.document.id)
            if row is None:
                answers.append(None if skip else _stale(proposal))
                continue
            following = Continuation(row.claim_seq, row.deadline_at, row.entered_at)
            found_in_it = children.get(row.id)
            answers.append(Settled(decision, following if decision.goes_on else None, found_in_it))
        return answers


def _has_data(proposal: Proposal) -> bool:
    """Whether there are other rows to write than those of the document itself."""
    return proposal.kind != "none" or proposal.concerns_children


async def _limit_waiting(connection: AsyncConnection, seconds: float) -> None:
    limit = f"{round(seconds * 1000)}ms"
    await connection.execute(sa.select(sa.func.set_config("lock_timeout", limit, True)))


def _was_another(proposal: Proposal, decision: Decision) -> bool:
    """Whether a document became a twin that stood for a text of its own in an earlier life."""
    return decision.duplicate_of is not None and proposal.claim.document.life > 1


def _may_lose_keys(proposal: Proposal, decision: Decision) -> bool:
    ended = decision.state in {DEAD_LETTER, CANCELLED} or _was_another(proposal, decision)
    return ended or (proposal.kind == "publication" and proposal.claim.document.life > 1)


def _concerns_keys(proposal: Proposal, decision: Decision) -> bool:
    return decision.duplicate_of is not None or _may_lose_keys(proposal, decision)


def _stale(proposal: Proposal) -> StaleClaim:
    claim = proposal.claim
    return StaleClaim(claim.document.id, claim.stage, claim.sequence)


def _key(proposal: Proposal, decision: Decision) -> tuple[str, str, str]:
    product, document = proposal.product, proposal.claim.document
    if isinstance(product, Accepted | Validated):
        return document.tenant, *product.key
    own = document.content_sha256 if decision.duplicate_by == "bytes" else document.text_sha256
    return document.tenant, str(decision.duplicate_by), str(own)
