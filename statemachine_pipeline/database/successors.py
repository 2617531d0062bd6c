"""Documents in states that a new lifecycle does not know: moved to the states that succeed them.

The lifecycle and the legality of the moves are registered before, in a transaction of ``migrate``;
here workers of the old lifecycle are ended first, then documents moved in batches that commit by
themselves. Whoever is killed in between runs ``migrate`` again, which goes on.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING
from uuid import UUID

from statemachine_pipeline.database.lifecycles import retired
from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.statements import documents
from statemachine_pipeline.database.statements import successors as statements
from statemachine_pipeline.database.statements.rows import parameters
from statemachine_pipeline.errors import DefinitionError, StatesUnmapped
from statemachine_pipeline.graph import CANCELLED, DEAD_LETTER, DELETED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.lifecycles import Stored
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.graph import Graph

BATCH = 500
BY = "migrate"
_FIRST = UUID(int=0)


def check_successors(graph: Graph, known: Iterable[Stored], states: Mapping[str, str]) -> None:
    """Refuse moves that the lifecycle does not want or cannot honour.

    A state that no lifecycle of the schema ever had is no error: one script serves many databases.

    Raises:
        DefinitionError: The old state is one of this lifecycle, the new one is none of those it
            declares, or a document would begin or cease to rest by the move.
    """
    own = [state for state in graph.states if state not in {DEAD_LETTER, CANCELLED, DELETED}]
    rested = {state: one.graph.is_resting(state) for one in known for state in one.graph.states}
    for old, new in states.items():
        asked = f"cannot move documents from {old!r} to {new!r}: "
        if old in graph.states:
            raise DefinitionError(
                f"{asked}{graph.name} knows {old!r} itself; leave it out, or take that state out "
                "of the class"
            )
        if new not in own:
            raise DefinitionError(
                f"{asked}{graph.name} declares no {new!r}; it declares {', '.join(own)}"
            )
        if old not in rested or rested[old] == graph.is_resting(new):
            continue
        if rested[old]:
            raise DefinitionError(
                f"{asked}what rests would begin to work within its life; move it to an end, and "
                "`reprocess` what should run again"
            )
        raise DefinitionError(
            f"{asked}what is at work would rest without having earned it; move it to a working "
            "state, where what is done already is hopped over, or cancel it before"
        )


def refuse_unmapped(
    connection: Connection,
    t: Tables,
    graph: Graph,
    known: Iterable[Stored],
    mapped: Collection[str],
) -> None:
    """Refuse to leave documents where no worker of this lifecycle looks.

    Raises:
        StatesUnmapped: There are some; each state is named with how many stand there.
    """
    earlier = {state for one in known for state in one.graph.states}
    states = sorted(earlier.difference(graph.states, mapped))
    if not states:
        return
    found = connection.execute(statements.counts(t), {"states": states})
    counts = {row.state: row._mapping["count"] for row in found}
    if counts:
        raise StatesUnmapped(graph.name, counts)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Successors:
    """The moves of one migration.

    Attributes:
        t: The tables.
        graph: The new lifecycle.
        held: Its states that people act in.
        states: Old states, each with its successor.
        known: Every lifecycle of the schema, the new one last.
    """

    t: Tables
    graph: Graph
    held: frozenset[str]
    states: Mapping[str, str]
    known: Sequence[Stored]

    def counts(self, connection: Connection) -> dict[str, int]:
        """Return how many documents stand in each state that is to be left."""
        if not self.states:
            return {}  # and perhaps no tables
        rows = connection.execute(statements.counts(self.t), {"states": sorted(self.states)})
        found = {row.state: row._mapping["count"] for row in rows}
        return {state: found.get(state, 0) for state in self.states}

    def said(self, counts: Mapping[str, int], *, dry_run: bool = False) -> str:
        """Return the moves with their counts as a sentence."""
        verb = "would move" if dry_run else "moved"
        lines = [f"{verb} {n:,} from {old} to {self.states[old]}" for old, n in counts.items()]
        return "; ".join(lines) or ("no documents would move" if dry_run else "")

    async def move(self, engine: AsyncEngine) -> dict[str, int]:
        """End workers of retired lifecycles, then move every document; return how many by state.

        Raises:
            StatesUnmapped: Meanwhile documents came to other states that the class does not know.
        """
        if not self.states:
            return {}
        with answering("ending workers of an earlier lifecycle"):
            async with engine.begin() as connection:
                await self._end_workers(connection)
        moved: collections.Counter[str] = collections.Counter(dict.fromkeys(self.states, 0))
        after: UUID | None = _FIRST
        while after is not None:
            with answering("moving documents to new states"):
                async with engine.begin() as connection:
                    after = await self._move_batch(connection, after, moved)
        with answering("looking for documents in unknown states"):
            async with engine.connect() as connection:
                await connection.run_sync(
                    refuse_unmapped, self.t, self.graph, self.known, self.states
                )
        return dict(moved)

    async def _end_workers(self, connection: AsyncConnection) -> None:
        """Take everything from them: they could bring documents back to states that are left."""
        given = {"lifecycles": sorted(retired(self.known))}
        ended = await connection.execute(statements.end_workers(self.t), given)
        workers = sorted(ended.scalars())
        await connection.execute(statements.give_back(self.t), {"workers": workers})

    async def _move_batch(
        self, connection: AsyncConnection, after: UUID, moved: collections.Counter[str]
    ) -> UUID | None:
        """Move the next documents by id; return the last one, or None when there are no more."""
        given = {"states": sorted(self.states), "after": after, "limit": BATCH}
        found = await connection.execute(statements.standing(self.t), given)
        ids: list[UUID] = list(found.scalars())
        if not ids:
            return None
        # Work before documents, by id: the order of everybody who takes both.
        await connection.execute(documents.lock_work(self.t), {"ids": ids})
        locked = await connection.execute(documents.lock_documents(self.t), {"ids": ids})
        moves = [
            {
                "id": row.id,
                "base": row.version,
                "from_state": row.state,
                "to_state": self.states[row.state],
                "lane": "held" if self.states[row.state] in self.held else "ready",
            }
            for row in locked
            if row.state in self.states
        ]
        told = {"by": BY, "reason": f"{self.graph.name} has no such state"}
        written = await connection.execute(
            statements.succeed(self.t), parameters("given", moves) | told
        )
        moved.update(row.from_state for row in written)
        return ids[-1]
