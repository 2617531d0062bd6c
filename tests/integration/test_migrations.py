"""Migrations: complete, repeatable, side by side, and checked at the start."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fix_pipelines import Hooks, completed, pipeline_with
from fix_postgres import connect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from statemachine import State

from alembic import command
from statemachine_pipeline import DocumentLifecycle, Lifecycle, Pipeline
from statemachine_pipeline.database import migrate as migrations
from statemachine_pipeline.database import revisions
from statemachine_pipeline.database.tables import VERSION_TABLE, tables
from statemachine_pipeline.errors import DefinitionError, LifecycleMismatch, SchemaMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

# SQLAlchemy 2.1 reflects a CHECK that is NOT VALID with an argument it does not know itself.
pytestmark = pytest.mark.filterwarnings("ignore:Can't validate argument 'dialect_options'")

ROOT = Path(__file__).resolve().parents[2]


class TwoStepLifecycle(Lifecycle):
    """Another lifecycle: one stage of work."""

    uploaded = State(initial=True)
    looked_at = State(final=True)

    look = uploaded.to(looked_at)


async def look(claim: object) -> None:
    """Earn the only edge there is."""


@pytest.fixture
def connection(empty_url: str) -> Iterator[sa.Connection]:
    """One connection to an empty database, whose transaction the test ends."""
    engine = sa.create_engine(empty_url)
    with engine.connect() as made:
        yield made
    engine.dispose()


def _differences(connection: sa.Connection, schema: str) -> list[Any]:
    connection.execute(sa.text("SET search_path TO public"))
    context = MigrationContext.configure(
        connection,
        opts={
            "version_table": VERSION_TABLE,
            "version_table_schema": schema,
            "include_schemas": True,
            "include_name": lambda name, kind, _: kind != "schema" or name == schema,
            "include_object": lambda _, name, kind, *__: kind != "table" or name != VERSION_TABLE,
            "compare_type": True,
            "compare_server_default": True,
        },
    )
    return list(compare_metadata(context, tables(schema).metadata))


def test_the_migrations_make_exactly_the_declared_tables(connection: sa.Connection) -> None:
    """The metadata and a migrated schema do not differ."""
    migrations.migrate(connection, "smp", DocumentLifecycle.graph)
    assert _differences(connection, "smp") == []


def test_indexes_and_checks_are_those_declared(connection: sa.Connection) -> None:
    """What Alembic does not compare: partial indexes, checks and storage parameters."""
    migrations.migrate(connection, "smp", DocumentLifecycle.graph)
    connection.execute(sa.text("CREATE SCHEMA twin"))
    tables("twin").metadata.create_all(connection)

    def described(schema: str) -> set[str]:
        # The search path makes both schemas' definitions read without a schema.
        connection.execute(sa.text(f"SET LOCAL search_path TO {schema}, public"))
        queries = (
            f"""SELECT conname || ': ' || pg_get_constraintdef(oid) FROM pg_constraint
                WHERE connamespace = '{schema}'::regnamespace AND contype NOT IN ('n', 't')
                AND conname <> 'transition_edge_is_declared'""",
            f"""SELECT replace(pg_get_indexdef(indexrelid), :dotted, '') FROM pg_index
                JOIN pg_class c ON c.oid = indexrelid
                AND c.relnamespace = '{schema}'::regnamespace""",
            f"""SELECT relname || array_to_string(reloptions, ',') FROM pg_class
                WHERE relnamespace = '{schema}'::regnamespace AND reloptions IS NOT NULL""",
        )
        found: set[str] = set()
        for query in queries:
            text = sa.text(query)
            given = {"dotted": f"{schema}."} if ":dotted" in query else {}
            found |= set(connection.execute(text, given).scalars())
        return {line for line in found if VERSION_TABLE not in line}

    assert described("smp") == described("twin")


def test_migrating_again_changes_nothing(connection: sa.Connection) -> None:
    """``migrate`` may be run at any time, and again."""
    first = migrations.migrate(connection, "smp", DocumentLifecycle.graph)
    again = migrations.migrate(connection, "smp", DocumentLifecycle.graph)
    assert first.said == "schema smp: nothing -> 0001; lifecycle DocumentLifecycle, 1 version"
    assert again.said == "schema smp: at 0001; lifecycle DocumentLifecycle, 1 version"


def test_down_and_up_again_leaves_the_same_tables(connection: sa.Connection) -> None:
    """A downgrade removes all that the upgrade made."""
    migrations.migrate(connection, "smp", DocumentLifecycle.graph)
    command.downgrade(migrations._config(connection, "smp"), "base")
    left = connection.execute(
        sa.text("SELECT relname FROM pg_class WHERE relnamespace = 'smp'::regnamespace")
    )
    assert set(left.scalars()) <= {VERSION_TABLE, f"{VERSION_TABLE}_pkc"}
    routines = connection.execute(
        sa.text("SELECT proname FROM pg_proc WHERE pronamespace = 'smp'::regnamespace")
    )
    assert routines.all() == []
    configurations = connection.execute(
        sa.text("SELECT cfgname FROM pg_ts_config WHERE cfgnamespace = 'smp'::regnamespace")
    )
    assert configurations.all() == []
    migrations.migrate(connection, "smp", DocumentLifecycle.graph)
    assert _differences(connection, "smp") == []


async def test_two_migrations_at_once_both_succeed(empty_url: str) -> None:
    """Several processes may migrate at the same time."""

    async def migrate() -> str:
        async with Pipeline(empty_url) as pipeline:
            return str(await pipeline.migrate())

    said = sorted(await asyncio.gather(migrate(), migrate(), migrate()))
    assert sum("nothing -> 0001" in sentence for sentence in said) == 1
    assert all("1 version" in sentence for sentence in said)


async def test_a_missing_schema_is_named_at_the_start(empty_url: str) -> None:
    """Work on a database that was not migrated says what to do."""
    async with Pipeline(empty_url) as pipeline:
        with pytest.raises(SchemaMissing, match=r"'smp' is not ready: .*migrate`"):
            await pipeline.counts()
        with pytest.raises(SchemaMissing):
            await pipeline.submit(b"text")
        with pytest.raises(SchemaMissing):
            await pipeline.runner().run_until_idle()


async def test_a_lifecycle_the_database_does_not_know_is_refused(engine: AsyncEngine) -> None:
    """A class that is not among the migrated ones is refused with the difference named."""
    pipeline = Pipeline(engine, lifecycle=TwoStepLifecycle, hooks={"look": look})
    with pytest.raises(LifecycleMismatch) as refused:
        await pipeline.submit(b"text")
    assert "only in the code: uploaded>look>looked_at" in refused.value.difference
    assert any(
        line.startswith("only in the database: uploaded>queue_parse>parse_queued")
        for line in refused.value.difference
    )


async def test_a_second_lifecycle_widens_the_check_and_old_histories_stay_legal(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """``migrate`` never takes an edge away."""
    first = pipeline_with(engine)
    old = await first.submit(b"old")
    assert await completed(first, old.document_id) == ["complete"]
    await first.apply("delete", old.document_id, reason="every lifecycle knows this state")
    second = Pipeline(engine, lifecycle=TwoStepLifecycle, hooks={"look": look})
    assert "TwoStepLifecycle, 2 versions" in str(await second.migrate())
    new = await second.submit(b"new")
    assert await completed(second, new.document_id) == ["looked_at"]
    psql.execute("ALTER TABLE smp.transition VALIDATE CONSTRAINT transition_edge_is_declared")
    await first.submit(b"old")
    assert await completed(first, old.document_id) == ["complete"]


async def test_a_lifecycle_that_returns_is_the_newest_again(empty_url: str) -> None:
    """A pipeline without a class reads the graph that was migrated last."""
    async with Pipeline(empty_url) as first:
        await first.migrate()
        second = Pipeline(first.engine, lifecycle=TwoStepLifecycle, hooks={"look": look})
        await second.migrate()
        await first.migrate()
        async with Pipeline(first.engine, lifecycle=None) as stored:
            assert stored.graph.name == "DocumentLifecycle"
            assert stored.graph.codes() == DocumentLifecycle.graph.codes()


async def test_two_schemas_are_two_pipelines(empty_url: str) -> None:
    """Another schema name holds another pipeline, lifecycle and history."""
    engine = create_async_engine(empty_url)
    hooks = Hooks()
    one, other = pipeline_with(engine, schema="one"), pipeline_with(engine, hooks, schema="other")
    await one.migrate()
    await other.migrate()
    sent = await other.submit(b"text")
    assert await completed(other, sent.document_id) == ["complete"]
    assert await one.counts() == {}
    assert await other.counts() == {"complete": 1}
    hit = await other.search("text")
    assert [found.text for found in hit] == ["text"]
    await engine.dispose()


@pytest.mark.parametrize("name", ["Smp", "a b", 'x"; DROP SCHEMA smp; --', "1st", "", "x" * 52])
def test_a_schema_name_that_needs_care_is_refused(name: str) -> None:
    """Schema names stand in SQL, so only plain ones are taken."""
    with pytest.raises(DefinitionError, match="schema"):
        Pipeline("postgresql://nowhere", schema=name)


async def test_a_schema_may_be_called_like_a_keyword(empty_url: str) -> None:
    """Names are quoted wherever they stand."""
    engine = create_async_engine(empty_url)
    pipeline = pipeline_with(engine, schema="order")
    await pipeline.migrate()
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    await engine.dispose()


def test_alembic_by_hand_makes_the_same_tables(empty_url: str) -> None:
    """``alembic upgrade head`` with SMP_DATABASE needs nothing of the library's commands."""
    with connect(empty_url) as prepared:
        prepared.execute("CREATE EXTENSION IF NOT EXISTS vector")
    made = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env=os.environ | {"SMP_DATABASE": empty_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    engine = sa.create_engine(empty_url)
    with engine.connect() as connection:
        assert _differences(connection, "smp") == []
        said = migrations.migrate(connection, "smp", DocumentLifecycle.graph)
        assert str(said) == "schema smp: at 0001; lifecycle DocumentLifecycle, 1 version"
    engine.dispose()


def test_the_revision_that_a_start_asks_for_is_the_newest() -> None:
    """A version that was not migrated to is refused at start, without importing Alembic."""
    scripts = ScriptDirectory(str(Path(__file__).parents[2] / "alembic"))
    known = [script.revision for script in scripts.walk_revisions()]
    assert known == list(reversed(revisions.REVISIONS))
