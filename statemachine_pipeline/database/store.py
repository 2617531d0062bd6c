"""What a runner needs of the database: claim, settle, save, release, rescue, promote.

Settle, save and ``Documents.apply`` are the only write paths of a document; the first two take a
claim and are refused with ``StaleClaim`` once it is gone.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from statemachine_pipeline.database import telling
from statemachine_pipeline.database.blocked import waiting_for_locks, was_blocked
from statemachine_pipeline.database.keys import take_keys
from statemachine_pipeline.database.mapping import answering, to_document, took_too_long
from statemachine_pipeline.database.proposal import ProductFailed, Proposal
from statemachine_pipeline.database.settling import Answer, Settlement
from statemachine_pipeline.database.standing import chain, present, to_earned
from statemachine_pipeline.database.statements import claims, content, pauses, workers
from statemachine_pipeline.database.statements.rows import leading, milliseconds, parameters
from statemachine_pipeline.database.vectors import VectorBuffer
from statemachine_pipeline.decide import (
    Crashed,
    Decision,
    Outcome,
    Postponed,
    Standing,
    decide,
)
from statemachine_pipeline.errors import DatabaseUnavailable, StaleClaim
from statemachine_pipeline.hooks import Claim
from statemachine_pipeline.records import Facts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.keys import Key
    from statemachine_pipeline.database.proposal import Settled
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.hooks import Reader
    from statemachine_pipeline.records import KeyKind
    from statemachine_pipeline.stages import Bound, Stages


class Store:
    """The database as one runner sees it.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
        stages: The lifecycle and its hooks.
        reader: Put into claims, so that hooks can read.
        patience: How long locks outlast a worker that was frozen in a transaction.

    Attributes:
        schema: The PostgreSQL schema.
        vectors: What embedders read and save.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        t: Tables,
        stages: Stages,
        reader: Reader,
        *,
        patience: timedelta,
    ) -> None:
        self._engine, self._t, self._stages, self._reader = engine, t, stages, reader
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._settlement = Settlement(engine, t, stages, patience)
        self._patience = {"patience": milliseconds(patience)}
        self.schema = t.schema
        self.vectors = VectorBuffer(engine, t, patience)
        self._claims: dict[tuple[tuple[str, ...], bool, bool], Any] = {}
        self._round = -1

    async def claim(
        self,
        worker: int,
        free: Mapping[str, int],
        served: Sequence[Bound],
        after: Mapping[str, str],
        *,
        documents: int,
        alone: bool = False,
        probing: bool = False,
    ) -> list[tuple[Claim, Bound]]:
        """Take ready documents, at most ``free[state]`` for the stage that leaves ``state``.

        Args:
            worker: Who takes; a worker that was declared dead gets nothing.
            free: Free slots of each served stage, by the state it leaves.
            served: The stages, always in the same order.
            after: By the state that a stage leaves, the tenant behind whom its round begins.
            documents: Most documents in all; those nearest to their end come first.
            alone: Take documents that took a worker down, instead.
            probing: This worker holds the probe of the provider that ``served`` asks.
        """
        key = (tuple(bound.state for bound in served), alone, probing)
        if key not in self._claims:
            places = [(b.trigger, self._stages.leading_to(b)) for b in served]
            providers = {b.trigger: b.stage.provider.name for b in served if b.stage.provider}
            self._claims[key] = claims.claim(
                self._t, places, alone=alone, providers=providers, probing=probing
            )
        values: dict[str, Any] = {"worker": worker, "documents": documents}
        self._round += 1
        for number, bound in enumerate(served):
            # States take turns too, or the backlog of one would hold up tenants at another.
            states = self._stages.leading_to(bound)
            first = self._round % len(states)
            values[f"states_{number}"] = [*states[first:], *states[:first]]
            # No more than may be taken at all: of that each tenant gets its share.
            values[f"free_{number}"] = min(free[bound.state], documents)
            values[f"after_{number}"] = after.get(bound.state, "")
            values[f"deadline_{number}"] = bound.stage.deadline.total_seconds()
        with answering("claiming"):
            async with self._autocommit.connect() as connection:
                found = (await connection.execute(self._claims[key], values)).all()
        by_state = {state: b for b in served for state in self._stages.leading_to(b)}
        return [
            (self._to_claim(row, bound.trigger, bound.fingerprint), bound)
            for row in found
            for bound in [by_state[row.state]]
        ]

    async def holds(self, claim: Claim) -> bool:
        """Tell whether a claim is still held, after the answer to its settle was lost."""
        given = {"id": claim.document.id, "seq": claim.sequence}
        with answering("reading a claim"):
            async with self._autocommit.connect() as connection:
                found = await connection.execute(claims.is_held(self._t), given)
                return bool(found.scalar_one())

    def _to_claim(self, row: Any, stage: str, fingerprint: str) -> Claim:
        document = to_document(row)
        return Claim(
            document=document,
            stage=stage,
            sequence=row.claim_seq,
            attempt=row.attempt,
            crashes=row.crashes,
            worker=row.worker,
            due_at=row.run_at,
            deadline_at=row.deadline_at,
            entered_at=row.entered_at,
            fingerprint=fingerprint,
            reader=self._reader,
            tokens=row.tokens,
        )

    async def settle(
        self, proposals: Sequence[Proposal], worker: int, *, alone: bool = False
    ) -> list[Answer]:
        """Write what attempts came to, in one transaction; see ``Settlement.write``.

        A batch that others' locks are in the way of is answered by None for each of it.

        Raises:
            ProductFailed: PostgreSQL refused the only proposal.
            DatabaseUnavailable: Whether anything was written is unknown.
        """
        try:
            with answering("settling"):
                return await self._settlement.write(proposals, worker, alone=alone)
        except DatabaseUnavailable as error:
            cause = error.__cause__
            if took_too_long(cause) and any(p.kind != "none" for p in proposals):
                # Nothing was written. It would take as long again, so it does not wait for ever.
                if len(proposals) > 1:
                    return [None] * len(proposals)
                raise ProductFailed(proposals[0].claim, getattr(cause, "orig", error)) from error
            if alone or not was_blocked(cause):
                raise
            return [None] * len(proposals)
        except exc.DBAPIError as error:
            if len(proposals) > 1:
                raise
            raise ProductFailed(proposals[0].claim, error.orig or error) from error

    @waiting_for_locks
    async def standing(self, claim: Claim) -> Standing:
        """Return what earlier lives left, and take the keys the document needs to go on.

        Raises:
            StaleClaim: The claim is no longer held.
        """
        document = claim.document
        with answering("reading products"):
            async with self._engine.begin() as connection:
                await self._require(connection, claim)
                found = await connection.execute(content.products(self._t), {"ids": [document.id]})
                earned = {row.stage: to_earned(row) for row in found}
                row = (
                    await connection.execute(content.standing(self._t), {"ids": [document.id]})
                ).one()
                wanted = [
                    ((document.tenant, *e.key), document.id)
                    for e in earned.values()
                    if e.key is not None
                    and e.input_sha256 in chain(document.content_sha256, earned)
                ]
                owners = await take_keys(connection, self._t, sorted(wanted))
        return Standing(
            earned=earned,
            present=present(row, earned),
            owners={key[1:]: owner for key, owner in owners.items() if owner != document.id},  # type: ignore[misc]
        )

    @waiting_for_locks
    async def take_key(self, claim: Claim, key: tuple[KeyKind, str]) -> UUID:
        """Take bytes or text for a document unless another has them; return the owner.

        Raises:
            StaleClaim: The claim is no longer held.
        """
        document = claim.document
        whole: Key = (document.tenant, *key)
        with answering("taking a key"):
            async with self._engine.begin() as connection:
                await self._require(connection, claim)
                owners = await take_keys(connection, self._t, [(whole, document.id)])
        return owners[whole]

    @waiting_for_locks
    async def refill(self, claim: Claim) -> None:
        """Buffer a document's published chunks and vectors again, for a stage that reads them.

        Raises:
            StaleClaim: The claim is no longer held.
        """
        with answering("buffering chunks"):
            async with self._engine.begin() as connection:
                await self._require(connection, claim)
                for statement in content.refill(self._t):
                    await connection.execute(statement, {"document": claim.document.id})

    async def promote(self) -> int:
        """Make ready what was deferred and is due; any worker may, at any time."""
        with answering("promoting"):
            async with self._autocommit.connect() as connection:
                found = await connection.execute(claims.promote(self._t))
                return int(found.one()._mapping["count"])

    async def rescue(self, worker: int, *, grace: timedelta) -> list[tuple[Proposal, Settled]]:
        """Take claims from dead workers and from those far past their deadline.

        Any worker may, at any time: rows that another one is rescuing are skipped. Who is dead is
        judged by what each said of itself.

        Args:
            worker: Who does it.
            grace: A claim so far past its deadline is taken away.

        Returns:
            Of each document that was rescued, what its claim came to.
        """
        with answering("rescuing"):
            async with self._autocommit.connect() as connection:
                await connection.execute(workers.declare_dead(self._t))
            rescued = await self._rescue(worker, grace)
            telling.rescued(rescued)
            async with self._autocommit.connect() as connection:
                await connection.execute(workers.bury(self._t))
        return rescued

    async def _rescue(self, worker: int, grace: timedelta) -> list[tuple[Proposal, Settled]]:
        async with self._engine.begin() as connection:
            given = {"grace": grace.total_seconds(), "states": list(self._stages.graph.states)}
            found = await connection.execute(claims.overdue(self._t), given | self._patience)
            proposals = [self._rescue_proposal(row) for row in found]
            if not proposals:
                return []
            return await self._settlement.rescue(connection, proposals, worker)

    def _rescue_proposal(self, row: Any) -> Proposal:
        document = to_document(row)
        policy = self._stages.policy_at(document.state)
        lost = row.known is None or row.dead_at is not None
        outcome: Outcome = Crashed(
            reason=f"worker {row.worker} "
            + ("was taken for dead" if lost else "did not stop at the deadline")
        )
        if lost and row.unheard:
            # An outage longer than the dead limit would cost every document in hand a crash.
            reason = f"the database server restarted, and worker {row.worker} was not heard since"
            outcome = Postponed(code="waiting", reason=reason, after=timedelta(0))

        def decision(facts: Facts) -> Decision:
            return decide(
                self._stages,
                document.state,
                outcome,
                facts,
                policy=policy,
                draw=random.random(),  # noqa: S311 - jitter, not a secret
            )

        bound = self._stages.at(document.state)
        trigger = bound.trigger if bound else self._stages.graph.forward(document.state)[0]
        return Proposal(
            claim=self._to_claim(row, trigger, bound.fingerprint if bound else ""),
            bound=bound,
            decide=decision,
            facts=Facts(attempt=row.attempt, crashes=row.crashes),
            outcome=outcome,
        )

    async def outstanding(self, served: Sequence[Bound]) -> int:
        """Count documents at served stages that wait for a worker or are with one.

        Those behind a pause without an end wait for a person.
        """
        return int(await self._ask(pauses.outstanding(self._t), served))

    async def has_suspects(self, served: Sequence[Bound]) -> bool:
        """Tell whether documents wait at served stages that took a worker down."""
        return bool(await self._ask(claims.suspects(self._t), served))

    async def _ask(self, statement: Any, served: Sequence[Bound]) -> Any:
        given = leading((state, b.trigger) for b in served for state in self._stages.leading_to(b))
        with answering("looking at the queue"):
            async with self._autocommit.connect() as connection:
                return (await connection.execute(statement, given)).scalar_one()

    async def _require(self, connection: AsyncConnection, claim: Claim) -> None:
        """Lock a claim for the rest of the transaction, or refuse."""
        given = {"id": claim.document.id, "seq": claim.sequence}
        held = await connection.execute(
            claims.hold(self._t, skip_locked=False),
            parameters("given", [given]) | self._patience,
        )
        if held.first() is None:
            raise StaleClaim(claim.document.id, claim.stage, claim.sequence)
