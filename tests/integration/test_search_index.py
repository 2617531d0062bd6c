"""Search among many passages: by the index, past its limits, and what its indexes cost a document.

One tenant has 5,000 passages that lie near the questions. Those of the others lie on the far side,
behind all of them: a small tenant of 20, and one of 1,200, which is too many to compare each time.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from fix_pipelines import Hooks, completed, pipeline_with, until
from fix_postgres import connect
from sqlalchemy.ext.asyncio import create_async_engine

from statemachine_pipeline.database.search import Passages
from statemachine_pipeline.database.statements import search as statements
from statemachine_pipeline.database.tables import tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Pipeline
    from statemachine_pipeline.records import Hit
    from statemachine_pipeline.testing import Databases

T = tables("smp")
QUESTION = "word7"
ALONE = """
    SELECT count(*) = 1 FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
"""

# Ten passages a document. Every passage has the word of its document, and "rare" in one of 500.
_LOAD = """
    SET session_replication_role = replica;
    CREATE TEMP TABLE own AS
    SELECT n, CASE WHEN n <= 500 THEN 'big' WHEN n <= 620 THEN 'middle' ELSE 'small' END AS tenant
    FROM generate_series(1, 622) AS n;
    INSERT INTO smp.document (id, tenant, source_uri, name, state, version, life, generation,
                              size_bytes, content_sha256, input_sha256, correlation_id, chunk_count,
                              vector_count, metadata)
    SELECT md5(n::text)::uuid, tenant, n::text, n::text, 'complete', 1, 1, 1, 1, 's', 's', 'c',
           10, 10, jsonb_build_object('number', n, 'groups', jsonb_build_array('g' || n % 50))
    FROM own;
    INSERT INTO smp.chunk (id, document_id, index, text, start, "end", headings, metadata)
    SELECT md5(n || ' ' || i)::uuid, md5(n::text)::uuid, i,
           'word' || n || CASE WHEN n % 50 = 0 AND i = 1 THEN ' rare' ELSE '' END,
           0, 1, '[]', jsonb_build_object('i', i)
    FROM own, generate_series(1, 10) AS i;
    INSERT INTO smp.embedder (fingerprint, dimensions) VALUES (%s, 4);
    SELECT setseed(0.5);
    INSERT INTO smp.chunk_vector (chunk_id, embedder_id, vector)
    SELECT md5(n || ' ' || i)::uuid, 1,
           array[side + random(), side + random(), side + random(), side + random()]::vector
    FROM own, generate_series(1, 10) AS i,
         LATERAL (SELECT CASE WHEN tenant = 'big' THEN 1 ELSE -2 END AS side) AS lying;
    SET session_replication_role = origin;
    ANALYZE;
"""


@pytest.fixture(scope="module")
def many(smp_databases: Databases) -> Iterator[str]:
    """The URL of a database with the passages of three tenants and an index on their vectors."""
    url = smp_databases.make()
    with connect(url) as psql:
        fingerprint = pipeline_with(create_async_engine(url))._searching._embedder.fingerprint
        psql.execute(_LOAD.replace("%s", f"'{fingerprint}'").encode())
        psql.execute(
            "CREATE INDEX chunk_vector_embedder_1_idx ON smp.chunk_vector USING hnsw "
            "((vector::vector(4)) vector_cosine_ops) WHERE embedder_id = 1"
        )
    yield url
    smp_databases.drop(url)


@contextlib.asynccontextmanager
async def opened(url: str, *settings: str) -> AsyncIterator[Pipeline]:
    """Open a pipeline whose one connection has these settings."""
    options = " ".join(f"-c {setting}" for setting in settings)
    engine = create_async_engine(
        url, pool_size=1, max_overflow=0, connect_args={"options": options}
    )
    yield pipeline_with(engine)
    await engine.dispose()


# Else the planner may sort what is in scope, and the index would not be put to the test.
BY_INDEX = ("enable_sort=off", "enable_bitmapscan=off")


async def found_by_the_index_alone(
    pipeline: Pipeline, tenant: str, limit: int, *settings: str
) -> int:
    """Return how many passages one reading of the index finds."""
    async with pipeline.engine.begin() as connection:
        for setting in settings:
            await connection.execute(sa.text(f"SET LOCAL {setting}"))
        values = {"tenant": tenant, "limit": limit, "question": [1.0, 1.0, 1.0, 1.0]}
        rows = await connection.execute(statements.nearest(T, 1, 4), values)
        return len(rows.all())


def readings(pipeline: Pipeline) -> list[str]:
    """Return a list that tells, from now on, how vectors were compared: exactly or by the index."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "chunk_vector" in statement:
            seen.append("exact" if ") + 0" in statement else "index")

    sa.event.listen(pipeline.engine.sync_engine, "before_cursor_execute", note)
    return seen


async def test_a_small_tenant_is_not_starved_by_a_big_one(many: str) -> None:
    """20 passages behind 5,000 of somebody else are all found, however the index is read."""
    async with opened(many, *BY_INDEX) as pipeline:
        assert await found_by_the_index_alone(pipeline, "small", 20) == 0
        read = readings(pipeline)
        hits = await pipeline.search(QUESTION, tenant="small", limit=20, mode="vector")
    assert read == ["exact"]
    assert [hit.document.tenant for hit in hits] == ["small"] * 20
    assert _falls([hit.score for hit in hits])


async def test_the_index_is_read_on_until_enough_is_found(many: str) -> None:
    """A tenant too large to be compared whole gets its full limit from behind all others."""
    async with opened(many, *BY_INDEX) as pipeline:
        assert await found_by_the_index_alone(pipeline, "middle", 20) == 0
        on = "hnsw.iterative_scan = relaxed_order"
        assert await found_by_the_index_alone(pipeline, "middle", 20, on) == 20
        read = readings(pipeline)
        hits = await pipeline.search(QUESTION, tenant="middle", limit=20, mode="vector")
    assert read == ["index"]
    assert [hit.document.tenant for hit in hits] == ["middle"] * 20
    assert _falls([hit.score for hit in hits])


async def test_what_lies_behind_the_end_of_the_index_scan_is_compared_without_it(many: str) -> None:
    """Beyond ``hnsw.max_scan_tuples`` nothing is lost: too few hits are looked for again."""
    async with opened(many, *BY_INDEX, "hnsw.max_scan_tuples=1000") as pipeline:
        on = "hnsw.iterative_scan = relaxed_order"
        assert await found_by_the_index_alone(pipeline, "middle", 20, on) < 20
        read = readings(pipeline)
        hits = await pipeline.search(QUESTION, tenant="middle", limit=20, mode="vector")
    assert read == ["index", "exact"]
    assert [hit.document.tenant for hit in hits] == ["middle"] * 20


@pytest.mark.parametrize("settings", [(), BY_INDEX, (*BY_INDEX, "hnsw.max_scan_tuples=1000")])
@pytest.mark.parametrize(
    ("narrow", "expected"),
    [
        ({"where": {"number": 7}}, 10),
        ({"where": {"number": {"$lte": 3}}}, 30),
        ({"where": {"chunk.i": 4}}, 40),
        ({"groups": ["g7"]}, 40),
        ({"groups": ["g7"], "where": {"chunk.i": {"$in": [1, 2]}}}, 20),
    ],
)
async def test_filters_do_not_starve_either(
    many: str, narrow: dict[str, Any], expected: int, settings: Sequence[str]
) -> None:
    """A search returns its limit, or all there is, however far the passages lie."""
    async with opened(many, *settings) as pipeline:
        hits = await pipeline.search(QUESTION, tenant="big", limit=40, mode="vector", **narrow)
        everything = await pipeline.search(
            QUESTION, tenant="big", limit=1000, mode="vector", **narrow
        )
    assert len(hits) == expected
    assert _ids(hits) == _ids(everything)[:expected]


async def test_a_repeated_search_is_planned_with_its_values(many: str) -> None:
    """A plan made without knowing the values takes any filter for a narrow one."""
    async with opened(many) as pipeline:
        for number in range(12):
            await pipeline.search("word1", tenant="big", groups=[f"g{number}"])
        async with pipeline.engine.connect() as connection:
            prepared = await connection.execute(
                sa.text(
                    "SELECT sum(generic_plans), sum(custom_plans) FROM pg_prepared_statements "
                    "WHERE statement ~ 'chunk_vector|ts_rank'"
                )
            )
            generic, custom = prepared.one()
    assert generic == 0
    assert custom > 0


def test_words_are_found_by_their_index(many: str) -> None:
    """Matching reads the passages that have a word, not all of them."""
    plan = _plan(many, statements.matching(T), {"tenant": "big", "limit": 5, "text": "rare"})
    assert "Bitmap Index Scan on chunk_words_idx" in plan
    assert "Seq Scan on chunk" not in plan


@pytest.mark.parametrize(
    "given",
    [
        {"contains": '{"number": 7}'},
        {"matches": '$."number" == 7'},
        {"groups": 'strict ($.groups[*] == "nobody")'},
    ],
    ids=lambda given: next(iter(given)),
)
def test_filters_on_documents_are_found_by_their_index(many: str, given: dict[str, str]) -> None:
    """Containment, equality and groups are read from the index on ``document.metadata``."""
    plan = _plan(many, statements.size(T, given), {"tenant": "big", "most": 1000, **given})
    assert "Bitmap Index Scan on document_metadata_idx" in plan


def test_a_tenant_is_found_by_its_index(many: str) -> None:
    """A small tenant's documents are found without reading those of the others."""
    plan = _plan(many, statements.size(T), {"tenant": "small", "most": 1000})
    assert "document_tenant_idx" in plan


async def test_transitions_leave_the_indexes_of_documents_alone(
    engine: AsyncEngine, psql: psycopg.Connection[Any]
) -> None:
    """No index covers a column that a transition changes: every update of a document is heap-only.

    But for pages that are full; 20 documents of a fill factor of 70 have room enough.
    """
    pipeline = pipeline_with(engine, Hooks())
    psql.execute("ALTER TABLE smp.document SET (autovacuum_enabled = false, fillfactor = 10)")
    sent = [
        await pipeline.submit(
            f"text {number}".encode(), metadata={"number": number, "groups": ["a"]}
        )
        for number in range(20)
    ]
    assert set(await completed(pipeline, *(one.document_id for one in sent))) == {"complete"}
    await engine.dispose()
    # What connections did is told as they end, which is after whoever closed them goes on.
    await until(psql, ALONE)

    psql.execute("SELECT pg_stat_force_next_flush()")
    updates, heap_only = psql.execute(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'document'"
    ).fetchone() or (0, 0)
    assert updates >= 100
    assert heap_only == updates


async def test_an_index_of_the_right_name_is_built_after_a_load(many: str) -> None:
    """What this module makes by hand is the index that a runner would have made."""
    async with opened(many) as pipeline:
        built = await Passages(pipeline.engine, T).build_index(
            pipeline._searching._embedder.fingerprint
        )
    assert built is False


def _falls(scores: Sequence[float]) -> bool:
    return list(scores) == sorted(scores, reverse=True)


def _ids(hits: Sequence[Hit]) -> list[Any]:
    return [hit.chunk_id for hit in hits]


def _plan(url: str, statement: Any, values: dict[str, Any]) -> str:
    """Return how the planner would read, were these rows too many for other scans."""
    compiled = statement.compile(dialect=sa.dialects.postgresql.psycopg.dialect())
    with connect(url) as psql:
        psql.execute("SET enable_seqscan = off; SET enable_indexscan = off")
        rows = psql.execute(
            f"EXPLAIN {compiled}".encode(), compiled.construct_params(values)
        ).fetchall()
    return "\n".join(row[0] for row in rows)
