"""What a migration found and what it makes, in words for people and scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from statemachine_pipeline.counting import counted
from statemachine_pipeline.database.roles import GRANTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from statemachine_pipeline.database.lifecycles import Stored
    from statemachine_pipeline.graph import Graph


def absent(standing: Any, schema: str, graph: Graph, known: Iterable[Stored]) -> tuple[str, ...]:
    """Name what is not there of a schema, the extension, tables and a lifecycle, in this order.

    Args:
        standing: The row of ``inspection.standing``, as it was before.
        schema: Whose.
        graph: The lifecycle.
        known: Those that were registered before.
    """
    parts = {
        f"schema {schema}": standing.has_schema,
        "extension vector": standing.has_extension,
        counted(len(GRANTS), "table"): standing.has_tables,
        f"lifecycle {graph.name}": any(one.graph.fingerprint == graph.fingerprint for one in known),
    }
    return tuple(name for name, is_there in parts.items() if not is_there)


def step(schema: str, before: str | None, after: str) -> str:
    """Tell from which revision to which a schema comes."""
    return f"schema {schema}: " + (
        f"at {after}" if before == after else f"{before or 'nothing'} -> {after}"
    )
