"""The statements that every worker repeats read the queue by its partial indexes.

Plans are taken from PREPARE and EXECUTE, with the parameters typed as the library binds them:
custom plans, and the generic plan that PostgreSQL may settle on after five executions.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from fix_postgres import connect
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from statemachine_pipeline import DocumentLifecycle
from statemachine_pipeline.database.statements import claims, family
from statemachine_pipeline.database.statements.rows import leading, parameters
from statemachine_pipeline.database.tables import tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from statemachine_pipeline.testing import Databases

T = tables("smp")
ROWS = 20_000
CLAIMED = 50
SERVED = leading([("uploaded", "queue_parse"), ("parse_queued", "finish_parse")])
_numbers = itertools.count()

# Bulk load: keys and triggers are off, so that 40,000 histories need not be written.
_LOAD = f"""
    SET session_replication_role = replica;
    INSERT INTO smp.document (id, tenant, source_uri, name, state, version, life, generation,
                              size_bytes, content_sha256, input_sha256, correlation_id)
    SELECT md5(n::text)::uuid, 't', n::text, 'n', 'uploaded', 1, 1, 1, 1, 's', 's', 'c'
    FROM generate_series(1, {2 * ROWS + CLAIMED}) AS n;
    INSERT INTO smp.work (document_id, tenant, state, lane, run_at, worker, deadline_at, crashes)
    SELECT md5(n::text)::uuid, 't',
           (array['uploaded', 'parse_queued', 'embedding_queued'])[1 + n % 3],
           CASE WHEN n <= {ROWS} THEN 'ready'
                WHEN n <= {2 * ROWS} THEN 'deferred' ELSE 'claimed' END,
           now() + CASE WHEN n <= {ROWS} THEN -1 ELSE n - {ROWS} - 10 END * interval '1 second',
           CASE WHEN n > {2 * ROWS} THEN n % 2 + 1 END,
           CASE WHEN n > {2 * ROWS} THEN now() + interval '1 hour' END,
           CASE WHEN n IN (7, 8) THEN 1 ELSE 0 END
    FROM generate_series(1, {2 * ROWS + CLAIMED}) AS n;
    SET session_replication_role = origin;
    INSERT INTO smp.worker (host, pid, version) VALUES ('h', 1, '0'), ('h', 2, '0');
"""


@pytest.fixture(scope="module", params=["never analysed", "analysed", "analysed when empty"])
def queue(
    request: pytest.FixtureRequest, smp_databases: Databases
) -> Iterator[psycopg.Connection[Any]]:
    """A database with a long queue, in different states of the planner's knowledge."""
    url = smp_databases.make()
    with connect(url) as connection:
        for table in ("work", "document", "worker"):
            connection.execute(f"ALTER TABLE smp.{table} SET (autovacuum_enabled = false)")
        if request.param == "analysed when empty":
            connection.execute("ANALYZE")
        connection.execute(_LOAD)
        if request.param == "analysed":
            connection.execute("ANALYZE")
        yield connection
    smp_databases.drop(url)


@pytest.fixture(params=["custom", "generic"])
def psql(
    request: pytest.FixtureRequest, queue: psycopg.Connection[Any]
) -> Iterator[psycopg.Connection[Any]]:
    """The queue, under one way to plan."""
    queue.execute(f"SET plan_cache_mode = force_{request.param}_plan")
    yield queue
    queue.execute("RESET plan_cache_mode; DEALLOCATE ALL")


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _scans(psql: psycopg.Connection[Any], statement: Any, values: Mapping[str, Any]) -> set[str]:
    """Execute a prepared statement, undo it, and return how each table was read."""
    return {
        f"{node['Node Type']} on {node.get('Relation Name')}"
        + (f" by {node['Index Name']}" if "Index Name" in node else "")
        for node in _nodes(_plan(psql, statement, values))
        if "Scan" in node["Node Type"] and ("Relation Name" in node or "Index Name" in node)
    }


def _rows_read(
    psql: psycopg.Connection[Any], statement: Any, values: Mapping[str, Any]
) -> tuple[float, float]:
    """Execute a prepared statement, undo it; return rows read by its scans, and rows returned."""
    plan = _plan(psql, statement, values)
    read = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in _nodes(plan)
        if "Relation Name" in node and "Scan" in node["Node Type"]
    )
    return read, plan["Actual Rows"]


def _plan(
    psql: psycopg.Connection[Any], statement: Any, values: Mapping[str, Any]
) -> Mapping[str, Any]:
    dialect = PGDialect_psycopg(paramstyle="numeric_dollar")
    compiled = statement.compile(dialect=dialect)
    names = compiled.positiontup
    bound = compiled.construct_params(dict(values))
    types = [compiled.binds[name].type.compile(dialect) for name in names]
    name = f"planned_{next(_numbers)}"
    psql.execute(f"PREPARE {name} ({', '.join(types)}) AS {compiled.string}".encode())
    given = [_adapted(compiled, one, bound[one], dialect) for one in names]
    with psql.transaction(force_rollback=True), psycopg.ClientCursor(psql) as cursor:
        arguments = ", ".join(f"%s::{kind}" for kind in types)
        query = f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE {name} ({arguments})"
        ((answer,),) = cursor.execute(query, given).fetchall()
    plan: Mapping[str, Any] = answer[0]["Plan"]
    return plan


def _adapted(compiled: Any, name: str, value: Any, dialect: Any) -> Any:
    process = compiled.binds[name].type.bind_processor(dialect)
    return process(value) if process else value


def _indexes(scans: set[str]) -> set[str]:
    return {scan.split(" by ")[1] for scan in scans if " by " in scan}


def _reads_whole(scans: set[str], *tables: str) -> set[str]:
    return {scan for scan in scans if scan in {f"Seq Scan on {table}" for table in tables}}


@pytest.mark.parametrize("alone", [False, True], ids=["many", "alone"])
def test_a_claim_reads_the_ready_by_their_index(
    psql: psycopg.Connection[Any], *, alone: bool
) -> None:
    """Claim: one ordered probe of the ready per stage, whatever else is waiting."""
    places = [
        ("queue_parse", ["uploaded"]),
        ("finish_parse", ["parse_queued"]),
        ("store_embeddings", ["embedding_in_progress", "embedding_queued", "chunks_stored"]),
    ]
    values: dict[str, Any] = {"worker": 1, "documents": 20}
    for number in range(len(places)):
        values |= {f"free_{number}": 10, f"deadline_{number}": 60.0}
    scans = _scans(psql, claims.claim(T, places, alone=alone), values)
    assert "work_ready_idx" in _indexes(scans)
    assert not _reads_whole(scans, "work", "document")


CLAIM = claims.claim(T, [("queue_parse", ["uploaded"])], alone=False)
READY = "state = 'uploaded' AND lane = 'ready'"
LAST = f"(SELECT max(document_id::text)::uuid FROM smp.work WHERE {READY})"
TWO = f"CASE WHEN document_id = {LAST} THEN 'b' ELSE 'a' END"
MANY = "'t' || abs(hashtext(document_id::text)) % 1000"


@pytest.mark.parametrize(
    ("tenant", "paused", "claimed", "most"),
    [
        (TWO, None, 10, 100),
        (TWO, "'a'", 1, 100),
        (MANY, None, 10, 200),
        (MANY, "'t' || generate_series(0, 499)", 10, 2500),
    ],
    ids=["greedy", "paused", "1,000 tenants", "500 of 1,000 paused"],
)
def test_a_claim_reads_what_it_takes_and_a_step_for_each_tenant(
    psql: psycopg.Connection[Any], tenant: str, paused: str | None, claimed: int, most: int
) -> None:
    """A tenant with 6,600 ready documents in front costs the others one step of the index."""
    values = {"worker": 1, "documents": 10, "free_0": 10, "deadline_0": 60.0}
    with psql.transaction(force_rollback=True):
        psql.execute(f"UPDATE smp.work SET tenant = {tenant} WHERE {READY}".encode())
        if paused:
            insert = f"INSERT INTO smp.pause (tenant, reason, by) SELECT {paused}, 'late', 'ann'"
            psql.execute(insert.encode())
        read, found = _rows_read(psql, CLAIM, values)
    assert found == claimed
    assert read < most


def test_promoting_reads_the_due_by_their_index(psql: psycopg.Connection[Any]) -> None:
    """Promote: only what is due is read, not what is deferred for later."""
    scans = _scans(psql, claims.promote(T), {})
    assert "work_deferred_idx" in _indexes(scans)
    assert not _reads_whole(scans, "work")


def test_rescue_reads_the_claimed_by_their_index(psql: psycopg.Connection[Any]) -> None:
    """Rescue: only claims are read, however long the queue is."""
    states = list(DocumentLifecycle.graph.states)
    given = {"grace": 30.0, "patience": "30s", "states": states}
    scans = _scans(psql, claims.overdue(T), given)
    assert "work_claimed_idx" in _indexes(scans)
    assert not _reads_whole(scans, "work", "document")


def test_releasing_reads_the_claimed_by_their_index(psql: psycopg.Connection[Any]) -> None:
    """Release: a worker finds what it holds without reading the queue."""
    scans = _scans(psql, claims.release(T), {"me": 1, "keep": []})
    assert "work_claimed_idx" in _indexes(scans)
    assert not _reads_whole(scans, "work")


def test_suspects_are_found_by_the_index_of_the_ready(psql: psycopg.Connection[Any]) -> None:
    """Suspects: the question asked every second does not read the queue."""
    scans = _scans(psql, claims.suspects(T), SERVED)
    assert "work_ready_idx" in _indexes(scans)
    assert not _reads_whole(scans, "work")


@pytest.mark.parametrize("skip_locked", [False, True])
def test_a_settle_reads_nothing_but_its_batch(
    psql: psycopg.Connection[Any], *, skip_locked: bool
) -> None:
    """Settle: work, documents and history are looked up by key."""
    seqs = psql.execute(
        "SELECT document_id, claim_seq FROM smp.work WHERE lane = 'claimed' LIMIT 20"
    ).fetchall()
    # As ``Settlement`` writes it: a release, which takes no step.
    given = [
        {"id": document, "seq": seq, "state": "uploaded", "lane": "deferred", "after": 1.0}
        | {"steps": [], "step_count": 0, "give_back": 1, "crashed": 0, "deadline": 0.0}
        for document, seq in seqs
    ]
    values = parameters("given", given) | {"worker": 1}
    scans = _scans(psql, claims.settle(T, skip_locked=skip_locked), values)
    assert not _reads_whole(scans, "work", "document", "transition")


def test_children_are_found_by_the_index_of_parents(psql: psycopg.Connection[Any]) -> None:
    """Family: what was found in a document is read without reading the others."""
    (parent,) = psql.execute("SELECT id FROM smp.document LIMIT 1").fetchone() or (None,)
    listed = {"state": None, "tenant": None, "after": None, "limit": 100, "parent": parent}
    for statement, values in ((family.children(T), {"ids": [parent]}), (family.listing(T), listed)):
        scans = _scans(psql, statement, values)
        assert "document_parent_idx" in _indexes(scans)
        assert not _reads_whole(scans, "document")


def test_the_plans_are_of_the_tables_that_migrations_make() -> None:
    """The partial indexes named here exist under these names in the metadata."""
    names = {index.name for index in T.work.indexes}
    assert names == {"work_ready_idx", "work_deferred_idx", "work_claimed_idx"}
