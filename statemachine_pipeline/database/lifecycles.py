"""The lifecycles of one schema as they were registered, and which of them were retired.

A lifecycle is retired when a later one moved documents out of a state of it: whoever still runs it
would bring documents back to where nobody looks after them. Reads only; ``migrate`` writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.graph import MIGRATE, Edge, Graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


class Stored(NamedTuple):
    """A lifecycle as it was registered, its guards known by name only.

    Attributes:
        by_hand: Triggers that only people take.
        earned: Triggers that hooks earn, as the code that migrated said.
        successors: States of earlier lifecycles, each with the one that its documents were moved to
            for this lifecycle. Of a state named twice the last counts; both are legal in history.
    """

    graph: Graph
    by_hand: tuple[str, ...]
    earned: tuple[str, ...]
    successors: tuple[tuple[str, str], ...]

    def codes(self) -> set[str]:
        """Every step that this lifecycle makes legal: the database's CHECK."""
        moved = {Edge(MIGRATE, old, new).code for old, new in self.successors}
        return moved.union(self.graph.codes())


def registered(connection: Connection, schema: str) -> list[Stored]:
    """Return every lifecycle of a migrated schema, the newest last."""
    lifecycle = tables(schema).lifecycle
    columns = (lifecycle.c.graph, lifecycle.c.by_hand, lifecycle.c.earned, lifecycle.c.successors)
    rows = connection.execute(sa.select(*columns).order_by(lifecycle.c.version))
    return [
        Stored(
            Graph.from_json(row.graph),
            tuple(row.by_hand),
            tuple(row.earned),
            tuple((old, new) for old, new in row.successors),
        )
        for row in rows
    ]


def retired(known: Sequence[Stored]) -> dict[str, dict[str, str]]:
    """Return by fingerprint which lifecycles were retired, each with the moves that did it.

    Args:
        known: The newest last.
    """
    found: dict[str, dict[str, str]] = {}
    for number, one in enumerate(known):
        later = (pair for newer in known[number + 1 :] for pair in newer.successors)
        moves = {old: new for old, new in later if old in one.graph.states}
        if moves:
            found[one.graph.fingerprint] = moves
    return found


def closed(known: Sequence[Stored]) -> set[str]:
    """Return the states that no document may come to any more: those of retired lifecycles only."""
    gone = retired(known)
    current = (one.graph for one in known if one.graph.fingerprint not in gone)
    left = {old for one in known for old, _ in one.successors}
    return left - {state for graph in current for state in graph.states}
