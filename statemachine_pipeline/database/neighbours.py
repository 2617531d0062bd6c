"""For applications whose own tables and migrations live beside the pipeline's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def leave_out(*schemas: str) -> dict[str, Any]:
    """Return what keeps ``alembic revision --autogenerate`` from touching a pipeline's tables.

    In your ``env.py``: ``context.configure(..., **leave_out("smp"))``. The pipeline's tables are
    then neither dropped, since your metadata lacks them, nor created, if it has them. Foreign keys
    from your tables to them are kept.

    Args:
        *schemas: The schemas of your pipelines; ``smp`` if none is named.

    Returns:
        ``include_name`` and ``include_object``; call them from yours if you have some already.
    """
    ours = frozenset(schemas or ("smp",))

    def include_name(name: str | None, kind: str, _: Mapping[str, Any]) -> bool:
        return kind != "schema" or name not in ours

    def include_object(thing: Any, _: str | None, kind: str, *__: Any) -> bool:
        return kind != "table" or thing.schema not in ours

    return {"include_name": include_name, "include_object": include_object}
