"""The page of tables, for those who read or join them with SQL of their own."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from generators.docstrings import tidy
from statemachine_pipeline.database.checks import EDGE_CHECK
from statemachine_pipeline.database.tables import tables

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def page(note: str) -> str:
    """Return the page."""
    return tidy(note, _page())


def _page() -> Iterator[str]:
    found = tables("smp")
    yield "# Tables\n"
    yield "One schema, `smp` unless you name another, is one pipeline with one lifecycle."
    yield "Read and join what you like; write through the library, which moves the fence of what"
    yield "it changes. PostgreSQL refuses histories that are no path of the graph, whoever writes."
    yield f"The edges are the CHECK constraint `{EDGE_CHECK}`, made by `migrate`.\n"
    yield "| table | holds |"
    yield "|---|---|"
    ordered = sorted(found.metadata.tables.values(), key=lambda table: table.name)
    for table in ordered:
        yield f"| [`{table.name}`](#{table.name}) | {_about(table)} |"
    for table in ordered:
        yield from _table(table)


def _about(table: sa.Table) -> str:
    if not table.comment:
        raise ValueError(f"table {table.name} has no comment in database/tables.py")
    return table.comment


def _table(table: sa.Table) -> Iterator[str]:
    yield f"\n## {table.name}\n"
    yield f"{_about(table)}.\n"
    yield "| column | type | null | default |"
    yield "|---|---|---|---|"
    for column in table.columns:
        kind = column.type.compile(DIALECT)
        null = "yes" if column.nullable else ""
        yield f"| `{column.name}` | {kind} | {null} | {_default(column)} |"
    rules = [*_keys(table), *_indexes(table)]
    if rules:
        yield ""
        yield from rules


def _default(column: sa.Column[object]) -> str:
    if column.computed is not None:
        return f"always `{column.computed.sqltext}`"
    if column.identity is not None:
        return "identity"
    default = column.server_default
    if isinstance(default, sa.DefaultClause):
        return f"`{getattr(default.arg, 'text', default.arg)}`"
    return ""


def _keys(table: sa.Table) -> Iterator[str]:
    for constraint in sorted(table.constraints, key=lambda one: str(one.name)):
        if isinstance(constraint, sa.PrimaryKeyConstraint):
            yield f"* key: {_names(constraint.columns)}"
        elif isinstance(constraint, sa.UniqueConstraint):
            yield f"* unique: {_names(constraint.columns)}"
        elif isinstance(constraint, sa.CheckConstraint):
            yield f"* check `{constraint.name}`: `{constraint.sqltext}`"
        elif isinstance(constraint, sa.ForeignKeyConstraint):
            target = constraint.elements[0].column.table.name
            own = _names(constraint.columns)
            yield f"* {own} refers to [`{target}`](#{target}){_on_delete(constraint)}"


def _on_delete(constraint: sa.ForeignKeyConstraint) -> str:
    return f", deleted with it ({constraint.ondelete})" if constraint.ondelete else ""


def _indexes(table: sa.Table) -> Iterator[str]:
    for index in sorted(table.indexes, key=lambda one: str(one.name)):
        where = index.dialect_options["postgresql"]["where"]
        only = f" where `{where.compile(dialect=DIALECT)}`" if where is not None else ""
        shown = ", ".join(f"`{getattr(e, 'name', e)}`" for e in index.expressions)
        yield f"* index `{index.name}`: {shown}{only}"


def _names(columns: object) -> str:
    return ", ".join(f"`{column.name}`" for column in columns)  # type: ignore[attr-defined]
