"""Which revisions of the tables this version knows, and at which one a schema is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from statemachine_pipeline.database.tables import VERSION_TABLE
from statemachine_pipeline.errors import SchemaAhead, SchemaMissing

if TYPE_CHECKING:
    from sqlalchemy import Connection

REVISIONS = ("0001",)
"""In their order; a test compares them with the scripts.

Read from there, every start would pay half a second for importing Alembic.
"""
HEAD = REVISIONS[-1]
"""The one that this version needs."""


def current(connection: Connection, schema: str) -> str | None:
    """Return at which revision the tables are; None where there are none.

    Raises:
        SchemaAhead: This version does not know it, so it must not touch them.
    """
    there = sa.func.to_regclass(f'"{schema}".{VERSION_TABLE}')
    if connection.scalar(sa.select(there)) is None:
        return None
    version = sa.table(VERSION_TABLE, sa.column("version_num", sa.Text), schema=schema)
    found = connection.scalar(sa.select(version.c.version_num))
    if found is not None and found not in REVISIONS:
        raise SchemaAhead(schema, found, HEAD)
    return None if found is None else str(found)


def require(connection: Connection, schema: str) -> None:
    """Refuse tables of any other revision than this version's.

    Raises:
        SchemaMissing: There are none, or they are older.
        SchemaAhead: They are newer.
    """
    found = current(connection, schema)
    if found != HEAD:
        raise SchemaMissing(schema, f"revision {found or 'none'}, this version needs {HEAD}")
