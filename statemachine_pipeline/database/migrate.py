"""Create or bring up to date the tables of one schema, and register a lifecycle there.

``migrate`` may be run at any time, by several processes at once, and again. It never takes an edge
away: old histories stay legal. Nor does it leave documents in states that the lifecycle does not
know.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.base import PGDialect

from statemachine_pipeline.counting import counted
from statemachine_pipeline.database import revisions, roles
from statemachine_pipeline.database.checks import guard_edges
from statemachine_pipeline.database.lifecycles import Stored, closed, registered, retired
from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.migrated import Migrated
from statemachine_pipeline.database.restored import follow_own_numbers
from statemachine_pipeline.database.successors import (
    Successors,
    check_successors,
    refuse_unmapped,
)
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.database.timeouts import unbounded
from statemachine_pipeline.errors import (
    DefinitionError,
    LifecycleMismatch,
    LifecycleRetired,
    SchemaMissing,
)
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.noting import note

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from alembic.config import Config
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.stages import Stages

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


NO_STATES: Mapping[str, str] = MappingProxyType({})


def migrate(
    connection: Connection,
    schema: str,
    graph: Graph,
    by_hand: Collection[str] = (),
    earned: Sequence[str] = (),
    states: Mapping[str, str] = NO_STATES,
) -> Migrated:
    """Bring ``schema`` to the newest revision and make ``graph`` its current lifecycle.

    Documents that wait where people act now wait for them, and those that waited for people where
    workers act now for a worker. The moves that ``planned`` returns are legal once this committed,
    and every lifecycle that knows a state they leave is retired.

    Raises:
        DefinitionError: As ``planned`` says; nothing was changed, like with the others.
        StatesUnmapped: As there.
        RightsMissing: As ``roles.require_owner`` says.
        SchemaAhead: A newer version migrated it.
    """
    from alembic import command

    name = quoted(schema)
    # Two migrations at once would both find nothing there.
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": schema})
    if not roles.require_owner(connection, schema).has_schema:  # or CREATE on the database is asked
        connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {name}"))
    connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS vector"))
    before = revisions.current(connection, schema)
    command.upgrade(_config(connection, schema), "head")
    after = revisions.current(connection, schema)
    follow_own_numbers(connection, tables(schema), name)
    plan = planned(connection, schema, graph, by_hand, states)
    newest = plan.known[-1] if plan.known else None
    pairs = tuple(plan.states.items())
    is_current = newest is not None and newest.graph.fingerprint == graph.fingerprint
    if newest is None or not is_current or not set(pairs) <= set(newest.successors):
        _register(connection, schema, graph, plan)
    _keep_stages(connection, schema, graph, by_hand, earned)
    count = len(registered(connection, schema))
    schema_said = f"{before or 'nothing'} -> {after}" if before != after else f"at {after}"
    return Migrated(
        schema=schema,
        revision_before=before,
        revision=revisions.HEAD,
        lifecycle=graph.name,
        said=f"schema {schema}: {schema_said}; lifecycle {graph.name}, {counted(count, 'version')}",
    )


async def bring(
    engine: AsyncEngine,
    schema: str,
    stages: Stages,
    states: Mapping[str, str] = NO_STATES,
    app_role: str | None = None,
    *,
    dry_run: bool = False,
) -> Migrated:
    """Migrate, grant, and then move documents to the successors of their states.

    Takes as long as it needs, whatever the engine's timeouts say.

    Raises:
        DefinitionError: As ``planned`` says.
        StatesUnmapped: As there.
        SchemaAhead: A newer version migrated it; nothing was changed.
        RightsMissing: This role cannot migrate, not even for ``dry_run``; nothing was changed.
        RoleRefused: As ``roles.grant`` says; nothing was changed.
    """
    graph, by_hand = stages.graph, stages.kept_by_hand

    def begin(connection: Connection) -> tuple[Migrated, Successors]:
        if dry_run:
            return rehearse(connection, schema, stages, states, app_role)
        done = migrate(connection, schema, graph, by_hand, stages.earned, states)
        if app_role is not None:
            roles.grant(connection, schema, app_role)
            said = f"{done.said}; role {app_role} may work, and cannot change history"
            done = dataclasses.replace(done, app_role=app_role, said=said)
        return done, planned(connection, schema, graph, by_hand, states)

    engine = unbounded(engine)
    with answering("migrating"):
        async with engine.begin() as connection:
            done, plan = await connection.run_sync(begin)
    if dry_run:
        return done
    moved = await plan.move(engine)
    said = "; ".join(filter(None, (done.said, plan.said(moved))))
    note(log_events.MIGRATED, "{}", said, pipeline=schema)
    return dataclasses.replace(done, moved=moved, said=said)


def rehearse(
    connection: Connection,
    schema: str,
    stages: Stages,
    states: Mapping[str, str],
    app_role: str | None,
) -> tuple[Migrated, Successors]:
    """Return what ``bring`` would do, and refuse what it would refuse; changes nothing."""
    roles.require_owner(connection, schema)
    if app_role is not None:
        roles.check(connection, schema, app_role)
    plan = planned(connection, schema, stages.graph, stages.kept_by_hand, states)
    would_move = plan.counts(connection)
    would = Migrated(
        schema=schema,
        revision_before=revisions.current(connection, schema),
        revision=revisions.HEAD,
        lifecycle=stages.graph.name,
        app_role=app_role,
        moved=would_move,
        said=plan.said(would_move, dry_run=True),
    )
    return would, plan


def planned(
    connection: Connection,
    schema: str,
    graph: Graph,
    by_hand: Collection[str],
    states: Mapping[str, str],
) -> Successors:
    """Return which documents move to which state when ``graph`` becomes the lifecycle.

    What it was told before counts too, so that a migration which broke off is gone on with.

    Args:
        connection: To a database that may not have been migrated.
        schema: Whose.
        graph: The new lifecycle.
        by_hand: Triggers that only people take.
        states: Old states, each with its successor.

    Raises:
        DefinitionError: A move is not wanted or cannot be made.
        SchemaAhead: A newer version migrated it.
        StatesUnmapped: Documents stand in other states that ``graph`` does not know.
    """
    known = registered(connection, schema) if revisions.current(connection, schema) else []
    told = (one.successors for one in known if one.graph.fingerprint == graph.fingerprint)
    pairs = {old: new for before in told for old, new in before} | dict(states)
    check_successors(graph, known, pairs)
    refuse_unmapped(connection, tables(schema), graph, known, pairs)
    earlier = {state for one in known for state in one.graph.states}
    return Successors(
        t=tables(schema),
        graph=graph,
        held=_held(graph, by_hand),
        states={old: new for old, new in pairs.items() if old in earlier},
        known=known,
    )


def check(connection: Connection, schema: str, graph: Graph, by_hand: Collection[str] = ()) -> None:
    """Refuse to start on a schema that is missing, old, or made for another lifecycle.

    Raises:
        SchemaMissing: Run ``migrate`` first.
        SchemaAhead: A newer version migrated it.
        LifecycleMismatch: The difference is named.
        LifecycleRetired: Documents were moved out of states that it knows.
    """
    known = _known(connection, schema)
    stored = {one.graph.fingerprint: one for one in known}.get(graph.fingerprint)
    if stored is None:
        raise LifecycleMismatch(graph.name, graph.difference(known[-1].graph))
    if moves := retired(known).get(graph.fingerprint):
        raise LifecycleRetired(graph.name, known[-1].graph.name, moves)
    mine, theirs = set(by_hand), set(stored.by_hand)
    if mine != theirs:
        lines = [f"kept by hand only in the code: {one}" for one in sorted(mine - theirs)]
        lines += [f"kept by hand only in the database: {one}" for one in sorted(theirs - mine)]
        raise LifecycleMismatch(graph.name, lines)


def newest(connection: Connection, schema: str) -> Stored:
    """Return the newest lifecycle of ``schema``.

    Raises:
        SchemaMissing: There is none, or its tables are older than this version.
        SchemaAhead: A newer version migrated it.
    """
    return _known(connection, schema)[-1]


def _known(connection: Connection, schema: str) -> list[Stored]:
    """Return the lifecycles of ``schema``, whose tables are those of this version."""
    revisions.require(connection, schema)
    known = registered(connection, schema)
    if not known:
        raise SchemaMissing(schema, "no lifecycle is registered")
    return known


def _register(connection: Connection, schema: str, graph: Graph, plan: Successors) -> None:
    lifecycle = tables(schema).lifecycle
    returns = [one for one in plan.known if one.graph.fingerprint == graph.fingerprint]
    pairs = dict.fromkeys(pair for one in returns for pair in one.successors)
    for pair in plan.states.items():  # told again, or in another way: the last counts
        pairs.pop(pair, None)
        pairs[pair] = None
    # A graph that returns becomes the newest again.
    connection.execute(sa.delete(lifecycle).where(lifecycle.c.fingerprint == graph.fingerprint))
    connection.execute(
        sa.insert(lifecycle).values(
            name=graph.name,
            fingerprint=graph.fingerprint,
            graph=graph.to_json(),
            successors=[list(pair) for pair in pairs],
        )
    )
    known = registered(connection, schema)
    codes = {code for one in known for code in one.codes()}
    for ddl in guard_edges(quoted(schema), codes, closed(known)):
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
    states = sorted(_held(graph, by_hand))
    waits, is_there = t.work.c.lane, t.work.c.state == sa.any_(sa.literal(states, ARRAY(sa.Text)))
    waiting = sa.update(t.work).where(is_there, waits.in_(["ready", "deferred"]))
    freed = sa.update(t.work).where(sa.not_(is_there), waits == "held")
    connection.execute(waiting.values(lane="held"))
    connection.execute(freed.values(lane="ready"))


def _held(graph: Graph, by_hand: Collection[str]) -> frozenset[str]:
    return frozenset(state for trigger in by_hand for state in graph.sources(trigger))


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
