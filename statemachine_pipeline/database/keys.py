"""Ownership of bytes and texts: taken before a decision, handed on when an owner ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.database.statements import documents, keys
from statemachine_pipeline.database.statements.rows import parameters
from statemachine_pipeline.graph import CANCELLED, DEAD_LETTER, DELETED, REPROCESS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.graph import Graph

Key = tuple[str, str, str]
"""Tenant, kind, sha256."""


async def take_keys(
    connection: AsyncConnection, t: Tables, wanted: Sequence[tuple[Key, UUID]]
) -> dict[Key, UUID]:
    """Take the keys that are free, for the documents that want them; return each key's owner."""
    if not wanted:
        return {}
    given = _given(wanted)
    await connection.execute(keys.take(t), given)
    return await _owners(connection, t, given, lock=False)


async def lock_owners(
    connection: AsyncConnection, t: Tables, wanted: Iterable[tuple[Key, UUID]]
) -> dict[Key, UUID]:
    """Return each key's owner, who stays so until the transaction ends."""
    return await _owners(connection, t, _given(list(wanted)), lock=True)


async def _owners(
    connection: AsyncConnection, t: Tables, given: dict[str, str], *, lock: bool
) -> dict[Key, UUID]:
    found = await connection.execute(keys.owners(t, lock=lock), given)
    return {(row.tenant, row.kind, row.sha256): row.document_id for row in found}


def _given(wanted: Sequence[tuple[Key, UUID]]) -> dict[str, str]:
    records = [
        {"tenant": tenant, "kind": kind, "sha256": sha256, "document_id": document}
        for (tenant, kind, sha256), document in wanted
    ]
    return parameters("key", records)


async def hand_on(
    connection: AsyncConnection, t: Tables, graph: Graph, ids: Sequence[UUID]
) -> list[UUID]:
    """Pass on what the documents ``ids`` own and no longer stand for.

    The document that has rested longest on the key takes it and begins its next life by
    ``reprocess``, in this transaction; a key that nobody rests on becomes free.

    Returns:
        The heirs.
    """
    ended = [DEAD_LETTER, CANCELLED, DELETED]
    stale = (await connection.execute(keys.lock_stale(t), {"ids": ids, "ended": ended})).all()
    heirs = []
    for row in stale:
        given = {"key_tenant": row.tenant, "key_kind": row.kind, "key_sha256": row.sha256}
        wanted = {"owner": row.document_id, "kind": row.kind, "sha256": row.sha256}
        heir = (await connection.execute(keys.heir(t), wanted)).scalar()
        if heir is None:
            await connection.execute(keys.drop(t), given)
            continue
        for statement in keys.hand_over(t):
            await connection.execute(statement, given | {"heir": heir, "previous": row.document_id})
        reason = f"{row.document_id} no longer stands for these {row.kind}"
        if await _revive(connection, t, graph, heir, reason):
            heirs.append(heir)
    return heirs


async def _revive(
    connection: AsyncConnection, t: Tables, graph: Graph, heir: UUID, reason: str
) -> bool:
    row = (await connection.execute(documents.lock_documents(t), {"ids": [heir]})).one()
    edge = graph.restart(row.state, REPROCESS)
    given = {
        "id": heir,
        "base": row.version,
        "steps": 1,
        "state": edge.to_state,
        "lane": "ready",
        "lives": 1,
        "error": None,
    }
    step = {
        "id": heir,
        "offset": 1,
        "trigger": edge.trigger,
        "from_state": edge.from_state,
        "to_state": edge.to_state,
        "restarts": 1,
        "hop": False,
        "by": "pipeline",
        "reason": reason,
    }
    moved = await connection.execute(
        documents.move(t),
        parameters("given", [given]) | parameters("step", [step]),
    )
    return moved.first() is not None
