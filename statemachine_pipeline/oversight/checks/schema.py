"""The tables: of this version, complete, and guarded by what refuses illegal histories."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from statemachine_pipeline.database import checks
from statemachine_pipeline.database.feed import Feed
from statemachine_pipeline.database.migrate import quoted
from statemachine_pipeline.database.search import Passages
from statemachine_pipeline.database.statements import inspection
from statemachine_pipeline.errors import HistoryAhead, LifecycleMismatch
from statemachine_pipeline.oversight.checks.verdicts import (
    Subject,
    Verdict,
    fail,
    named,
    ok,
    skip,
    warn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

MIGRATE = "statemachine-pipeline migrate"
_STRANGE = "restore the schema from a backup, or compare it with one that was just migrated"


async def schema(subject: Subject) -> Verdict:
    """Whether the tables are those of this version.

    Fails when they are missing, of another revision, or cannot be read by this role.
    """
    with contextlib.suppress(LifecycleMismatch):  # another check tells of it
        await subject.inspection.check_schema(subject.stages)
    return ok(f"schema {subject.t.schema} is at the revision of this version")


async def lifecycle(subject: Subject) -> Verdict:
    """Whether the database was migrated to this lifecycle.

    Fails when the one in the code differs, or was retired by a newer one.
    """
    try:
        await subject.inspection.check_schema(subject.stages)
    except LifecycleMismatch as error:
        return fail(str(error), f"{MIGRATE}, or run the code whose lifecycle is there")
    return ok(f"lifecycle {subject.stages.graph.name} is registered")


async def guards(subject: Subject) -> Verdict:
    """Whether PostgreSQL still refuses illegal histories, whatever client writes.

    Fails when a constraint, trigger or function of ours is missing, changed or switched off, when
    the edges that are legal are not those of the registered lifecycles, or when this role skips
    triggers (``session_replication_role``).
    """
    role = (await subject.inspection.settings("session_replication_role")).values()
    if "replica" in role:
        return fail(
            "session_replication_role is replica: no trigger or foreign key is asked",
            "ALTER ROLE ... RESET session_replication_role",
        )
    found = await subject.inspection.rows(inspection.objects)
    problems = [*_gone(subject, found), *_off(found), *_changed(subject, found)]
    legal = {code for one in await subject.inspection.lifecycles() for code in one.codes()}
    problems += _edges(found, legal)
    if problems:
        return fail(f"histories are guarded no more: {named(problems)}", _STRANGE)
    return ok("every constraint and trigger that guards histories is there and in force")


def _gone(subject: Subject, found: Sequence[Any]) -> Iterator[str]:
    there = {(row.kind, row.relation, row.name) for row in found}
    wanted = [
        ("constraint", table.name, str(constraint.name))
        for table in subject.t.metadata.sorted_tables
        for constraint in sorted(table.constraints, key=lambda one: str(one.name))
    ]
    wanted += [("trigger", relation, name) for relation, name in checks.triggers()]
    wanted.append(("constraint", subject.t.transition.name, checks.EDGE_CHECK))
    for kind, relation, name in wanted:
        if (kind, relation, name) not in there:
            yield f"{kind} {name} on {relation} is missing"


def _off(found: Sequence[Any]) -> Iterator[str]:
    off = {(r.kind, r.relation, r.name) for r in found if not r.in_force and r.kind != "index"}
    for kind, relation, name in sorted(off):
        yield f"{kind} {name} on {relation} is switched off"


def _changed(subject: Subject, found: Sequence[Any]) -> Iterator[str]:
    bodies = {row.name: row.definition for row in found if row.kind == "function"}
    for name, body in checks.functions(quoted(subject.t.schema)).items():
        if name not in bodies:
            yield f"function {name} is missing"
        elif bodies[name] != body:
            yield f"function {name} is another one"


def _edges(found: Sequence[Any], legal: set[str]) -> Iterator[str]:
    for row in found:
        if row.name == checks.EDGE_CHECK:
            held = checks.edges(row.definition)
            yield from (
                f"edge {code} is legal and in no lifecycle" for code in sorted(held - legal)
            )
            yield from (f"edge {code} is refused" for code in sorted(legal - held))


async def indexes(subject: Subject) -> Verdict:
    """Whether every index and column is there.

    Fails when a column is missing, warns of an index that is missing or was left half built:
    nothing is wrong then but the time that queries take.
    """
    found = await subject.inspection.rows(inspection.objects)
    there = {(row.kind, row.relation, row.name) for row in found if row.in_force}
    tables = subject.t.metadata.sorted_tables
    columns = [("column", table.name, column.name) for table in tables for column in table.c]
    gone = [f"{table}.{name}" for kind, table, name in columns if (kind, table, name) not in there]
    if gone:
        return fail(f"columns are missing: {named(gone)}", _STRANGE)
    wanted = [("index", table.name, str(one.name)) for table in tables for one in table.indexes]
    slow = sorted(name for kind, table, name in wanted if (kind, table, name) not in there)
    slow += sorted(
        r.name for r in found if r.kind == "index" and not r.in_force and r.name not in slow
    )
    if slow:
        return warn(
            f"indexes are missing or not valid: {named(slow)}",
            f"create them as docs/reference/tables.md lists them; REINDEX INDEX CONCURRENTLY "
            f"{subject.t.schema}.{slow[0]} mends one that is there",
        )
    return ok("every column and index is there")


async def vector_indexes(subject: Subject) -> Verdict:
    """Whether searches by vector have an index where it is worth one.

    Warns when an embedder has 1,000 vectors or more and no index, so that each search reads all of
    them. Workers make it after a load if their role owns the tables; else ``migrate`` does.
    """
    embedders = [bound for bound in subject.stages if bound.stage.kind == "embedder"]
    passages = Passages(subject.engine, subject.t)
    slow = [b.trigger for b in embedders if await passages.wants_index(b.fingerprint)]
    if slow:
        return warn(f"no index on the vectors of {named(slow)}", f"{MIGRATE}, as the owner")
    return ok("no vectors wait for an index") if embedders else skip("no stage is known to embed")


async def event_order(subject: Subject) -> Verdict:
    """Whether events of all documents have one order.

    Fails when history was restored from another server and ``migrate`` did not run since.
    """
    try:
        await Feed(subject.engine, subject.t, subject.stages.graph).horizon()
    except HistoryAhead as error:
        return fail(str(error), MIGRATE)
    return ok("events can be followed")


async def unknown_states(subject: Subject) -> Verdict:
    """Whether documents stand in states that the code does not know.

    Fails when they do: a newer lifecycle brought them there, and this code leaves them alone. Only
    states of registered lifecycles are looked for; the database refuses any other.
    """
    known = set(subject.stages.graph.states)
    registered = await subject.inspection.lifecycles()
    strange = sorted({state for one in registered for state in one.graph.states} - known)
    # Looking for none of them would read all documents too.
    rows = subject.inspection.rows
    if strange and (found := await rows(inspection.unknown_states, states=strange)):
        counts = named([f"{row.count:,} in {row.state!r}" for row in found])
        return fail(
            f"the code does not know the states of documents: {counts}",
            "run the newer code, or `statemachine-pipeline migrate --map OLD=NEW`",
        )
    return ok("every document stands in a state that the code knows")
