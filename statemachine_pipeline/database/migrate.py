"""Create or bring up to date the tables of one schema, and register a lifecycle there.

``migrate`` may be run at any time, by several processes at once, and again. It never takes an edge
away: old histories stay legal.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.base import PGDialect

from statemachine_pipeline.database.checks import guard_edges
from statemachine_pipeline.database.statements import feed
from statemachine_pipeline.database.tables import VERSION_TABLE, tables
from statemachine_pipeline.errors import DefinitionError, LifecycleMismatch, SchemaMissing
from statemachine_pipeline.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from alembic.config import Config
    from sqlalchemy import Connection

HEAD = "0001"
"""The revision this version needs; a test compares it with the scripts.

Read from here, every start would pay half a second for importing Alembic.
"""

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,50}")


def quoted(schema: str) -> str:
    """Return ``schema`` as SQL.

    Raises:
        DefinitionError: It is not lower case letters, digits and underscores.
    """
    if not _SCHEMA.fullmatch(schema):
        raise DefinitionError(
            f"schema {schema!r}: use at most 51 lower case letters, digits and underscores"
        )
    return PGDialect().identifier_preparer.quote(schema)  # type: ignore[no-untyped-call]


class Stored(NamedTuple):
    """A lifecycle as it was registered, its guards known by name only.

    Attributes:
        by_hand: Triggers that only people take.
        earned: Triggers that hooks earn, as the code that migrated said.
    """

    graph: Graph
    by_hand: tuple[str, ...]
    earned: tuple[str, ...]


def migrate(
    connection: Connection,
    schema: str,
    graph: Graph,
    by_hand: Collection[str] = (),
    earned: Sequence[str] = (),
) -> str:
    """Bring ``schema`` to the newest revision and make ``graph`` its current lifecycle.

    Documents that wait where people act now wait for them, and those that waited for people where
    workers act now for a worker.

    Returns:
        A sentence that says what was done.
    """
    from alembic import command

    name = quoted(schema)
    # Two migrations at once would both find nothing there.
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": schema})
    connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {name}"))
    connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS vector"))
    before = _revision(connection, schema)
    command.upgrade(_config(connection, schema), "head")
    after = _revision(connection, schema)
    _follow_own_numbers(connection, schema)
    known = [stored.graph for stored in _registered(connection, schema)]
    if not known or known[-1].fingerprint != graph.fingerprint:
        _register(connection, schema, graph, known)
        known.append(graph)
    _keep_stages(connection, schema, graph, by_hand, earned)
    schema_said = f"{before or 'nothing'} -> {after}" if before != after else f"at {after}"
    return f"schema {schema}: {schema_said}; lifecycle {graph.name}, {len(known)} version(s)"


def check(connection: Connection, schema: str, graph: Graph, by_hand: Collection[str] = ()) -> None:
    """Refuse to start on a schema that is missing, old, or made for another lifecycle.

    Raises:
        SchemaMissing: Run ``migrate`` first.
        LifecycleMismatch: The difference is named.
    """
    found = _revision(connection, schema)
    if found != HEAD:
        raise SchemaMissing(schema, f"revision {found or 'none'}, this version needs {HEAD}")
    known = {one.graph.fingerprint: one for one in _registered(connection, schema)}
    if not known:
        raise SchemaMissing(schema, "no lifecycle is registered")
    stored = known.get(graph.fingerprint)
    if stored is None:
        raise LifecycleMismatch(graph.name, graph.difference(list(known.values())[-1].graph))
    mine, theirs = set(by_hand), set(stored.by_hand)
    if mine != theirs:
        lines = [f"kept by hand only in the code: {one}" for one in sorted(mine - theirs)]
        lines += [f"kept by hand only in the database: {one}" for one in sorted(theirs - mine)]
        raise LifecycleMismatch(graph.name, lines)


def newest(connection: Connection, schema: str) -> Stored:
    """Return the newest lifecycle of ``schema``.

    Raises:
        SchemaMissing: There is none.
    """
    known = _registered(connection, schema) if _revision(connection, schema) else []
    if not known:
        raise SchemaMissing(schema, "no tables, or no lifecycle in them")
    return known[-1]


def _follow_own_numbers(connection: Connection, schema: str) -> None:
    """After a restore from another server, number history on from where that one ended.

    Transactions count from another number here, and events would be sorted before old ones.
    """
    t = tables(schema)
    if not connection.execute(feed.horizon(t)).one().is_ahead:
        return
    name = quoted(schema)
    # What writers in between were given is beyond reach; who holds the table is waited for.
    connection.execute(sa.text(f"LOCK TABLE {name}.transition IN ACCESS EXCLUSIVE MODE"))
    newest = connection.execute(sa.select(sa.func.max(t.transition.c.xact))).scalar_one()
    running = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
    first = connection.execute(sa.text(f"SELECT {running}")).scalar_one()
    offset = newest + 1 - first
    connection.execute(sa.insert(t.restore).values(offset=offset))
    connection.execute(
        sa.text(
            f"ALTER TABLE {name}.transition ALTER COLUMN xact "
            f"SET DEFAULT pg_current_xact_id()::text::bigint + {offset:d}"
        )
    )


def _register(connection: Connection, schema: str, graph: Graph, known: list[Graph]) -> None:
    lifecycle = tables(schema).lifecycle
    # A graph that returns becomes the newest again.
    connection.execute(sa.delete(lifecycle).where(lifecycle.c.fingerprint == graph.fingerprint))
    connection.execute(
        sa.insert(lifecycle).values(
            name=graph.name, fingerprint=graph.fingerprint, graph=graph.to_json()
        )
    )
    codes = {code for stored in (*known, graph) for code in stored.codes()}
    for ddl in guard_edges(quoted(schema), codes):
        connection.execute(sa.text(ddl))


def _keep_stages(
    connection: Connection,
    schema: str,
    graph: Graph,
    by_hand: Collection[str],
    earned: Sequence[str],
) -> None:
    t = tables(schema)
    connection.execute(
        sa.update(t.lifecycle)
        .where(t.lifecycle.c.fingerprint == graph.fingerprint)
        .values(by_hand=sorted(by_hand), earned=list(earned))
    )
    states = sorted({state for trigger in by_hand for state in graph.sources(trigger)})
    waits, is_there = t.work.c.lane, t.work.c.state == sa.any_(sa.literal(states, ARRAY(sa.Text)))
    waiting = sa.update(t.work).where(is_there, waits.in_(["ready", "deferred"]))
    freed = sa.update(t.work).where(sa.not_(is_there), waits == "held")
    connection.execute(waiting.values(lane="held"))
    connection.execute(freed.values(lane="ready"))


def _registered(connection: Connection, schema: str) -> list[Stored]:
    lifecycle = tables(schema).lifecycle
    columns = (lifecycle.c.graph, lifecycle.c.by_hand, lifecycle.c.earned)
    rows = connection.execute(sa.select(*columns).order_by(lifecycle.c.version))
    return [
        Stored(Graph.from_json(row.graph), tuple(row.by_hand), tuple(row.earned)) for row in rows
    ]


def _revision(connection: Connection, schema: str) -> str | None:
    table = f"{quoted(schema)}.{VERSION_TABLE}"
    there = connection.scalar(sa.text("SELECT to_regclass(:table)"), {"table": table})
    if there is None:
        return None
    found = connection.scalar(sa.text(f"SELECT version_num FROM {table}"))  # noqa: S608 - quoted
    return None if found is None else str(found)


def _config(connection: Connection, schema: str) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes.update(connection=connection, schema=schema)
    return config


def _scripts() -> Path:
    """Find the migrations: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "alembic"
