"""Tenants take turns: no backlog of one keeps another's documents waiting."""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING, Any

from fix_pipelines import Hooks, hand, pipeline_with, running, until

from statemachine_pipeline.database.turns import Turns
from statemachine_pipeline.records import Incoming

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Pipeline

    Psql = psycopg.Connection[Any]


async def _queue(pipeline: Pipeline, **counts: int) -> None:
    """Hand over documents, those of the first tenant first."""
    for tenant, count in counts.items():
        items = [Incoming(b"%d" % n, source_uri=f"mem:{n}") for n in range(count)]
        await pipeline.operations.submit_many(items, tenant=tenant)


def _tenants(found: Any) -> dict[str, int]:
    return dict(collections.Counter(claim.document.tenant for claim, _ in found))


async def test_a_few_documents_do_not_wait_for_the_thousands_before_them(
    engine: AsyncEngine, psql: Psql
) -> None:
    """5 documents that came after another tenant's 2,000 are done long before those."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    await _queue(pipeline, greedy=2000, small=5)
    moved = """
        SELECT count(*) FROM transition JOIN document d ON d.id = document_id
        WHERE trigger = 'queue_parse' AND tenant = %s
    """
    async with running(pipeline, triggers=["queue_parse"]):
        await until(psql, f"SELECT ({moved}) = 5", "small")
    # In the order in which they were begun: how long each takes to be written is not the claim's.
    tenants = [claim.document.tenant for claim in hooks.queue_parse.claims]
    last = max(place for place, tenant in enumerate(tenants) if tenant == "small")
    assert tenants[:last].count("greedy") < 200


async def test_every_tenant_gets_its_share_and_no_slot_stays_idle(engine: AsyncEngine) -> None:
    """What one tenant cannot use goes to the others."""
    pipeline = pipeline_with(engine)
    await _queue(pipeline, a=20, b=2, c=20)
    worker, turns = await hand(pipeline), Turns()
    first = _tenants(await worker.claim("queue_parse", slots=12, turns=turns))
    assert first["b"] == 2
    assert sum(first.values()) == 12
    assert min(first["a"], first["c"]) >= 4
    second = _tenants(await worker.claim("queue_parse", slots=12, turns=turns))
    assert second == {"a": 6, "c": 6}
    rest = _tenants(await worker.claim("queue_parse", slots=100, turns=turns))
    assert rest == {"a": 20 - first["a"] - 6, "c": 20 - first["c"] - 6}


async def test_with_one_slot_tenants_take_turns(engine: AsyncEngine) -> None:
    """Round and round, until one has nothing more."""
    pipeline = pipeline_with(engine)
    await _queue(pipeline, a=4, b=2, c=1)
    worker, turns = await hand(pipeline), Turns()
    order = ""
    while found := await worker.claim("queue_parse", slots=1, turns=turns):
        order += "".join(_tenants(found))
    assert order == "abcabaa"


async def test_a_backlog_at_one_state_holds_nobody_up_at_another_of_its_stage(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Documents that were requeued stand elsewhere than those that come to the stage."""
    pipeline = pipeline_with(engine)
    await _queue(pipeline, requeued=20, new=20)
    psql.execute(
        "SET session_replication_role = replica;"
        "UPDATE work SET state = CASE tenant WHEN 'new' THEN 'embedding_queued'"
        " ELSE 'embedding_in_progress' END;"
        "UPDATE document d SET state = w.state FROM work w WHERE w.document_id = d.id;"
        "SET session_replication_role = origin"
    )
    worker, turns = await hand(pipeline), Turns()
    rounds = [
        _tenants(await worker.claim("store_embeddings", slots=4, turns=turns)) for _ in range(3)
    ]
    assert {tenant for one in rounds for tenant in one} == {"requeued", "new"}


async def test_who_is_not_asked_by_one_claim_is_asked_by_the_next(engine: AsyncEngine) -> None:
    """A claim asks 32 tenants at most; the next one begins behind them."""
    pipeline = pipeline_with(engine)
    await _queue(pipeline, **{f"t{number:02}": 3 for number in range(40)})
    worker, turns = await hand(pipeline), Turns()
    rounds = [_tenants(await worker.claim("queue_parse", slots=40, turns=turns)) for _ in range(3)]
    assert set().union(*rounds[:2]) == {f"t{number:02}" for number in range(40)}
    assert [sum(one.values()) for one in rounds] == [40, 40, 40]


async def test_tenants_are_ordered_as_the_runner_orders_them(
    engine: AsyncEngine, psql: Psql
) -> None:
    """By code points, whatever the database's language says of case and accents."""
    ordered_by = psql.execute(
        "SELECT table_name, collation_name FROM information_schema.columns "
        "WHERE table_schema = 'smp' AND column_name = 'tenant' AND collation_name IS NOT NULL"
    )
    assert sorted(ordered_by) == [("pause", "C"), ("work", "C")]
    pipeline = pipeline_with(engine)
    names = ["b", "A", "a", "Ä", "Z", "_", "ä", "0"]
    for name in names:
        await pipeline.submit(b"x", tenant=name)
    worker, turns = await hand(pipeline), Turns()
    order = [next(iter(_tenants(await worker.claim(slots=1, turns=turns)))) for _ in names]
    assert order == sorted(names)


async def test_claims_of_many_workers_and_tenants_are_disjoint(engine: AsyncEngine) -> None:
    """Locks of others are skipped in both rounds, and nothing is left out."""
    pipeline = pipeline_with(engine)
    await _queue(pipeline, a=40, b=7, c=23)
    workers = [await hand(pipeline) for _ in range(4)]
    taken: list[Any] = []
    while len(taken) < 70:
        found = await asyncio.gather(*(one.claim("queue_parse", slots=5) for one in workers))
        ids = [claim.document.id for claims in found for claim, _ in claims]
        assert ids
        taken += ids
    assert len(set(taken)) == 70


async def test_no_number_of_paused_tenants_hides_one_that_is_not(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Paused tenants are stepped over, and do not count among the 32 that are asked."""
    pipeline = pipeline_with(engine)
    await _queue(pipeline, **{f"t{number:02}": 2 for number in range(40)}, z=1)
    psql.execute(
        "INSERT INTO pause (tenant, reason, by) SELECT DISTINCT tenant, 'late', 'ann' FROM work "
        "WHERE tenant <> 'z'"
    )
    worker = await hand(pipeline)
    assert _tenants(await worker.claim(slots=5)) == {"z": 1}
    assert await worker.claim(slots=5) == []
