"""Removes documents that rest and are not complete, each with its whole history.

The checks in ``checks.py`` let a history go only whole, after its document and in the transaction
that removes that. A worker's role need not be able to: only the owner of the tables prunes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from statemachine_pipeline.blobs import content_id
from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.statements import pruning
from statemachine_pipeline.database.statements.rows import parameters
from statemachine_pipeline.errors import PruneRefused
from statemachine_pipeline.pruning import Left, Pruned, Ties, prunable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import timedelta
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.graph import Graph

AS_OWNER = "connect as the owner, as for `migrate`: workers may not remove history"
BATCH = 500
"""Documents that are removed in one transaction."""


class Pruning:
    """Removes documents of one schema.

    Args:
        engine: An async engine.
        t: The pipeline's tables.
        graph: Tells in which states documents rest.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, graph: Graph) -> None:
        # What ties a locked document is looked up with a new snapshot, whatever the default is.
        self._engine = engine.execution_options(isolation_level="READ COMMITTED")
        self._t, self._graph = t, graph

    async def prune(
        self,
        older_than: timedelta,
        states: Collection[str],
        tenant: str | None,
        limit: int | None,
        *,
        dry_run: bool,
    ) -> Pruned:
        """Remove those that match in batches that commit by themselves; see ``Operations.prune``.

        Raises:
            PruneRefused: A state is none in which documents rest without being complete, or the
                tables are another role's.
        """
        given = {
            "older_than": older_than.total_seconds(),
            "states": sorted(self._asked(states)),
        }
        with answering("pruning"):
            forbidden = await self._forbidden()
            if forbidden and not dry_run:
                raise PruneRefused(forbidden, AS_OWNER)
            waiting = await self._resting(given | {"tenant": tenant})
            gone: dict[UUID, None] = {}
            left: list[Left] = []
            while waiting and (limit is None or len(gone) < limit):
                most = BATCH if limit is None else min(BATCH, limit - len(gone))
                batch, waiting = waiting[:most], waiting[most:]
                await self._batch(given | {"ids": batch}, gone, left, dry_run=dry_run)
        forbidden = f"{forbidden}; {AS_OWNER}" if forbidden else None
        return Pruned(pruned=tuple(gone), left=tuple(left), forbidden=forbidden)

    def _asked(self, states: Collection[str]) -> frozenset[str]:
        allowed = prunable(self._graph)
        for state in sorted(set(states) - allowed):
            is_known = state in self._graph.states
            found = f"documents in {state!r} are complete or on their way"
            found = found if is_known else f"there is no state {state!r}"
            raise PruneRefused(found, f"prune takes those in {', '.join(sorted(allowed))}")
        return frozenset(states) or allowed

    async def _forbidden(self) -> str | None:
        async with self._engine.connect() as connection:
            found = (await connection.execute(pruning.owner(self._t))).one()
        if found.is_owner:
            return None
        return f"history belongs to the role {found.owner!r}, and this is {found.role!r}"

    async def _resting(self, given: dict[str, Any]) -> list[UUID]:
        async with self._engine.connect() as connection:
            return list((await connection.execute(pruning.resting(self._t), given)).scalars())

    async def _batch(
        self, given: dict[str, Any], gone: dict[UUID, None], left: list[Left], *, dry_run: bool
    ) -> None:
        async with self._engine.begin() as connection:
            free = await self._decide(connection, given, gone, left)
            for statement in () if dry_run else pruning.remove(self._t):
                await connection.execute(statement, {"ids": free})

    async def _decide(
        self,
        connection: AsyncConnection,
        given: dict[str, Any],
        gone: dict[UUID, None],
        left: list[Left],
    ) -> list[UUID]:
        """Lock documents and what ties them; return those that may go, and tell of all."""
        held = {row.id: row for row in await connection.execute(pruning.lock(self._t), given)}
        ids: Sequence[UUID] = list(held)
        await connection.execute(pruning.lock_keys(self._t), {"ids": ids})
        contents = (
            {"id": row.id, "content": content_id(self._t.schema, row.tenant, row.content_sha256)}
            for row in held.values()
        )
        free: list[UUID] = []
        for row in await connection.execute(pruning.ties(self._t), parameters("given", contents)):
            ties = Ties(
                children=tuple(row.children or ()),
                resting=row.resting,
                placed=tuple(sorted(row.placed or ())),
                bytes_in_use=row.bytes_in_use,
                bytes_left=row.bytes_left,
                newest=row.newest,
            )
            reason = ties.reason(gone)
            if reason is None:
                gone[row.id] = None
                free.append(row.id)
            else:
                left.append(Left(document_id=row.id, state=held[row.id].state, reason=reason))
        return free
