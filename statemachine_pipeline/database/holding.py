"""Documents locked outside any claim, and the moves of those who locked them.

Lock order: a document before what was found in it, those at one depth by id, work before document;
keys after all of them. Only the heir of a key comes later, since none is known before: it is locked
before the row that says on whom it rests.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.keys import hand_on
from statemachine_pipeline.database.mapping import to_document
from statemachine_pipeline.database.moves import plan
from statemachine_pipeline.database.statements import content, documents, family, placements
from statemachine_pipeline.database.statements.rows import parameters
from statemachine_pipeline.errors import DocumentNotFound
from statemachine_pipeline.graph import CANCELLED, DELETE, DELETED
from statemachine_pipeline.records import Facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline.database.moves import Move
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.records import Document
    from statemachine_pipeline.stages import Stages


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

    @property
    def is_deleted(self) -> bool:
        """Whether nothing but its history is left."""
        return self.document.state == DELETED


async def lock(connection: AsyncConnection, t: Tables, ids: Iterable[UUID]) -> list[Held]:
    """Lock documents of one depth and their work until the transaction ends, in id order.

    Raises:
        DocumentNotFound: One of them is not there.
    """
    ordered = sorted(ids)
    given = {"ids": ordered}
    work = {row.document_id: row for row in await connection.execute(documents.lock_work(t), given)}
    rows = (await connection.execute(documents.lock_documents(t), given)).all()
    known = {row.id for row in rows}
    for wanted in ordered:
        if wanted not in known:
            raise DocumentNotFound(wanted)
    return [Held(document=to_document(row), work=work.get(row.id)) for row in rows]


async def lock_family(
    connection: AsyncConnection,
    t: Tables,
    depths: Mapping[UUID, int],
    *,
    with_found: bool,
) -> list[Held]:
    """Lock documents of several depths, parents before what was found in them.

    Args:
        connection: Whose transaction keeps the locks.
        t: The tables.
        depths: The documents, and how many others each lies in.
        with_found: Also all that was found in them and is not deleted.
    """
    held: list[Held] = []
    waiting: dict[int, set[UUID]] = {}
    for one, depth in depths.items():
        waiting.setdefault(depth, set()).add(one)
    while waiting:
        depth = min(waiting)
        ids = waiting.pop(depth)
        found = await lock(connection, t, ids)
        # Somebody may have deleted what was found, before it was locked.
        held += [one for one in found if one.document.id in depths or not one.is_deleted]
        if with_found:
            rows = await connection.execute(family.children(t), {"ids": list(ids)})
            below = {row.id for row in rows if row.state != DELETED}
            if below:
                waiting.setdefault(depth + 1, set()).update(below)
    return held


async def hand_down(
    connection: AsyncConnection, t: Tables, parent: Held, metadata: Mapping[str, Any]
) -> None:
    """Give what was found in a locked document the metadata that the document gets now.

    What is found again unchanged is never submitted, and would keep the access list of before. A
    name that went becomes null, which opens nothing.
    """
    if not parent.document.children:
        return
    own = {parent.document.id: parent.document.depth}
    below = [
        one.document.id
        for one in await lock_family(connection, t, own, with_found=True)
        if one.document.id not in own
    ]
    given = dict.fromkeys(parent.document.metadata) | dict(metadata)
    await connection.execute(family.describe(t), {"ids": below, "given": given})


async def move(connection: AsyncConnection, t: Tables, graph: Graph, moves: Sequence[Move]) -> None:
    """Write the moves of locked documents, and what ends with them."""
    if not moves:
        return
    given = parameters("given", (one.given for one in moves))
    steps = parameters("step", (step for one in moves for step in one.steps))
    await connection.execute(documents.move(t), given | steps)
    deleted = sorted(one.id for one in moves if one.state == DELETED)
    if deleted:
        for statement in (*placements.leave(t), *documents.erase(t)):
            await connection.execute(statement, {"ids": deleted})
    done = sorted(one.id for one in moves if one.state in graph.ends)
    for statement in content.forget(t) if done else ():
        await connection.execute(statement, {"ids": done})
    ended = sorted(one.id for one in moves if one.state in {DELETED, CANCELLED})
    if ended:
        await hand_on(connection, t, graph, ended)


async def remove(
    connection: AsyncConnection,
    t: Tables,
    stages: Stages,
    held: Sequence[Held],
    *,
    by: str,
    reason: str,
) -> None:
    """Delete locked documents with what was made of them; work on them is cancelled."""
    left = (one for one in held if not one.is_deleted)
    moves = [plan(stages, one, DELETE, by=by, reason=reason) for one in left]
    await move(connection, t, stages.graph, moves)
