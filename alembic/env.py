"""Runs migrations on a given connection, or on the database named by SMP_DATABASE.

Migrations name no schema: the search path does, so one set of files serves any schema.
"""

import os

import sqlalchemy as sa

from alembic import context
from statemachine_pipeline.database.tables import VERSION_TABLE, tables

schema = context.config.attributes.get("schema") or os.environ.get("SMP_SCHEMA", "smp")


def _only_ours(obj: object, name: str | None, kind: str, *_: object) -> bool:
    return kind != "table" or name != VERSION_TABLE


def run(connection: sa.Connection) -> None:
    quoted = connection.dialect.identifier_preparer.quote(schema)
    connection.execute(sa.text(f"SET LOCAL search_path TO {quoted}, public"))
    context.configure(
        connection=connection,
        target_metadata=tables(schema).metadata,
        version_table=VERSION_TABLE,
        version_table_schema=schema,
        include_schemas=True,
        include_name=lambda name, kind, _: kind != "schema" or name == schema,
        include_object=_only_ours,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with sa.create_engine(os.environ["SMP_DATABASE"]).begin() as own:
        own.execute(sa.text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
        run(own)
