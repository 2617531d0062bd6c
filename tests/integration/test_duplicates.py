"""Documents with the same bytes or the same text: one is worked on, the others rest on it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import (
    BRIEFLY,
    Hooks,
    accept,
    completed,
    hand,
    path_of,
    pipeline_with,
    plain,
    running,
    until,
    until_blocked,
)
from fix_postgres import connect
from sqlalchemy.engine import make_url

from statemachine_pipeline.database.proposal import OwnerChanged, Settled
from statemachine_pipeline.hooks import Reject

if TYPE_CHECKING:
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Claim, Pipeline

    Psql = psycopg.Connection[Any]

SAME = b"the same text"


async def _send(pipeline: Pipeline, name: str, content: bytes = SAME, **options: Any) -> UUID:
    sent = await pipeline.submit(content, source_uri=f"mem:{name}", name=name, **options)
    return sent.document_id


def _rests_on(psql: Psql) -> dict[UUID, UUID]:
    return dict(psql.execute("SELECT document_id, owner FROM duplicate_of").fetchall())


def _owners(psql: Psql) -> set[UUID]:
    return {row[0] for row in psql.execute("SELECT document_id FROM text_owner")}


async def test_a_byte_twin_is_known_before_a_parse_is_paid_for(
    engine: AsyncEngine, psql: Psql
) -> None:
    """``mark_duplicate`` on same bytes comes before parsing."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    first = await _send(pipeline, "a")
    await completed(pipeline)
    second = await _send(pipeline, "b")
    assert await completed(pipeline, second) == ["duplicate"]
    assert path_of(psql, second) == ["submit", "mark_duplicate"]
    assert len(hooks.finish_parse.claims) == 1
    assert _rests_on(psql) == {second: first}
    sentence = (await pipeline.explain(second)).sentence
    assert str(first) in sentence


async def test_a_text_twin_is_known_after_its_text_was_read(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Other bytes, same text: nothing is chunked or embedded twice."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    first = await _send(pipeline, "a", b"text\n---\nmade in May")
    await completed(pipeline)
    second = await _send(pipeline, "b", b"text\n---\nmade in June")
    assert await completed(pipeline, second) == ["duplicate"]
    assert path_of(psql, second) == ["submit", "queue_parse", "finish_parse", "mark_duplicate"]
    assert _rests_on(psql) == {second: first}
    assert len(hooks.store_chunks.claims) == 1
    assert len(await pipeline.search("text")) == 1


async def test_tenants_do_not_learn_of_each_others_documents(engine: AsyncEngine) -> None:
    """The same bytes of another tenant are no twin."""
    pipeline = pipeline_with(engine)
    ours = await _send(pipeline, "a", tenant="ours")
    theirs = await _send(pipeline, "a", tenant="theirs")
    again = await _send(pipeline, "b", tenant="theirs")
    assert sorted(await completed(pipeline, theirs, again)) == ["complete", "duplicate"]
    assert await completed(pipeline, ours) == ["complete"]


@pytest.mark.parametrize("kind", ["bytes", "text"])
async def test_twins_worked_on_at_the_same_time_have_one_owner(
    engine: AsyncEngine, psql: Psql, kind: str
) -> None:
    """Ten twins, two runners: exactly one is completed, and nine rest on it."""
    pipeline = pipeline_with(engine)
    tail = [b"" if kind == "bytes" else b"\n---\n%d" % n for n in range(10)]
    ids = [await _send(pipeline, str(n), SAME + tail[n]) for n in range(10)]
    async with running(pipeline), running(pipeline):
        done = await pipeline.wait(*ids, timeout=BRIEFLY)
    (owner,) = [one.id for one in done if one.state == "complete"]
    assert sum(one.state == "duplicate" for one in done) == 9
    assert set(_rests_on(psql).values()) == {owner}
    assert _owners(psql) >= {owner}
    assert psql.execute("SELECT DISTINCT document_id FROM chunk").fetchall() == [(owner,)]


@pytest.mark.parametrize("end", ["dead_letter", "cancelled", "deleted"])
async def test_the_oldest_twin_takes_over_from_an_owner_that_ended(
    engine: AsyncEngine, psql: Psql, end: str
) -> None:
    """It starts by ``reprocess`` and completes; the others rest on it from then on."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    hooks.store_chunks.block()
    owner = await _send(pipeline, "owner")
    async with running(pipeline):
        await hooks.store_chunks.begun()
        heir = await _send(pipeline, "heir")
        await pipeline.wait(heir, timeout=BRIEFLY)
        other = await _send(pipeline, "other")
        await pipeline.wait(other, timeout=BRIEFLY)
        assert _rests_on(psql) == {heir: owner, other: owner}
        if end == "dead_letter":
            hooks.store_chunks.raises(Reject("not this one"))
        else:
            trigger = {"cancelled": "cancel", "deleted": "delete"}[end]
            await pipeline.apply(trigger, owner, reason="test")
        hooks.store_chunks.go_on()
        await until(psql, "SELECT state = 'complete' FROM document WHERE id = %s", heir)
    assert (await pipeline.get(owner)).state == end
    assert (await pipeline.get(other)).state == "duplicate"
    assert _rests_on(psql) == {other: heir}
    assert _owners(psql) == {heir}
    path = path_of(psql, heir)
    assert path[:3] == ["submit", "mark_duplicate", "reprocess"]
    assert path[-1] == "finalize"
    reprocess = (await pipeline.history(heir))[2]
    assert (reprocess.by, reprocess.life) == ("pipeline", 2)
    assert str(owner) in str(reprocess.reason)


async def test_a_twin_takes_over_in_the_transaction_that_ends_the_owner(
    engine: AsyncEngine, psql: Psql
) -> None:
    """No moment is seen in which nobody stands for the text."""
    pipeline = pipeline_with(engine)
    owner = await _send(pipeline, "owner")
    await completed(pipeline)
    heir = await _send(pipeline, "heir")
    await completed(pipeline)
    await pipeline.apply("delete", owner, reason="test")
    ended, began = (
        psql.execute(
            "SELECT xmin FROM transition WHERE document_id = %s ORDER BY version DESC LIMIT 1",
            [document],
        ).fetchone()
        for document in (owner, heir)
    )
    assert ended == began
    assert await completed(pipeline, heir) == ["complete"]
    (hit,) = await pipeline.search("text")
    assert hit.document.id == heir


async def test_an_owner_that_publishes_another_text_hands_the_old_one_on(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Bytes and text go to those who rested on them, once the new text is published."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    owner = await _send(pipeline, "owner", b"text\n---\n1")
    await completed(pipeline)
    byte_twin = await _send(pipeline, "byte twin", b"text\n---\n1")
    text_twin = await _send(pipeline, "text twin", b"text\n---\n2")
    assert await completed(pipeline, byte_twin, text_twin) == ["duplicate", "duplicate"]
    await _send(pipeline, "owner", b"another text")
    assert _rests_on(psql) == {byte_twin: owner, text_twin: owner}
    states = await completed(pipeline, owner, byte_twin, text_twin)
    assert states[0] == "complete"
    assert sorted(states[1:]) == ["complete", "duplicate"]
    assert sorted(psql.execute("SELECT text FROM chunk").fetchall()) == [
        ("another text",),
        ("text",),
    ]


async def test_an_owner_revised_with_the_same_text_keeps_its_text(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Only the bytes are handed on; text twins go on resting."""
    pipeline = pipeline_with(engine)
    owner = await _send(pipeline, "owner", b"text\n---\n1")
    await completed(pipeline)
    text_twin = await _send(pipeline, "text twin", b"text\n---\n2")
    await completed(pipeline)
    await _send(pipeline, "owner", b"text\n---\n3")
    assert await completed(pipeline, owner, text_twin) == ["complete", "duplicate"]
    assert _rests_on(psql) == {text_twin: owner}
    later = await _send(pipeline, "later", b"text\n---\n1")
    assert await completed(pipeline, later) == ["duplicate"]


async def test_a_twin_that_was_revised_or_deleted_inherits_nothing(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Only who still rests on the owner may take over."""
    pipeline = pipeline_with(engine)
    owner = await _send(pipeline, "owner")
    await completed(pipeline)
    revised, deleted, heir = [
        await _send(pipeline, name) for name in ("revised", "deleted", "heir")
    ]
    await completed(pipeline)
    await _send(pipeline, "revised", b"something else")
    await pipeline.apply("delete", deleted, reason="test")
    await completed(pipeline)
    await pipeline.apply("delete", owner, reason="test")
    states = await completed(pipeline, owner, revised, deleted, heir)
    assert states == ["deleted", "complete", "deleted", "complete"]
    assert _rests_on(psql) == {}


async def test_a_key_nobody_rests_on_becomes_free(engine: AsyncEngine, psql: Psql) -> None:
    """The next document with these bytes is worked on."""
    pipeline = pipeline_with(engine)
    owner = await _send(pipeline, "owner")
    await completed(pipeline)
    await pipeline.apply("delete", owner, reason="test")
    assert _owners(psql) == set()
    later = await _send(pipeline, "later")
    assert await completed(pipeline, later) == ["complete"]


async def test_a_reprocessed_duplicate_rests_again(engine: AsyncEngine, psql: Psql) -> None:
    """While its owner stands, looking again comes to the same end."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    owner = await _send(pipeline, "owner", b"text\n---\n1")
    await completed(pipeline)
    twins = [
        await _send(pipeline, "bytes", b"text\n---\n1"),
        await _send(pipeline, "text", b"text\n---\n2"),
    ]
    await completed(pipeline)
    hooks.forget()
    await pipeline.apply("reprocess", *twins, reason="test")
    assert await completed(pipeline, *twins) == ["duplicate", "duplicate"]
    assert _rests_on(psql) == dict.fromkeys(twins, owner)
    assert set(hooks.told().values()) == {0}


async def test_an_owner_that_ends_between_decision_and_settle_changes_the_decision(
    engine: AsyncEngine, psql: Psql
) -> None:
    """If the owner changed, nothing is written and the document is decided again."""
    pipeline = pipeline_with(engine)
    worker = await hand(pipeline)
    owner = await _send(pipeline, "owner")
    claim, bound = await worker.claim_one()
    await worker.settle(await worker.earn(claim, bound))
    twin = await _send(pipeline, "twin")
    ((claim, bound),) = await worker.claim("queue_parse")
    decided = await worker.earn(claim, bound)
    await pipeline.apply("cancel", owner, reason="test")
    (answer,) = await worker.settle(decided)
    assert isinstance(answer, OwnerChanged)
    assert path_of(psql, twin) == ["submit"]
    (answer,) = await worker.settle(await worker.earn(claim, bound))
    assert isinstance(answer, Settled)
    assert path_of(psql, twin) == ["submit", "queue_parse"]
    assert _owners(psql) == {twin}


async def test_an_owner_that_ends_while_a_twin_comes_to_rest_wakes_it(
    engine: AsyncEngine, psql: Psql
) -> None:
    """The owner's end waits for the twin's settle, and then finds the twin resting."""
    pipeline = pipeline_with(engine)
    worker = await hand(pipeline)
    owner = await _send(pipeline, "owner")
    await worker.settle(await worker.earn(*await worker.claim_one()))
    twin = await _send(pipeline, "twin")
    ((claim, bound),) = await worker.claim("queue_parse")
    decided = await worker.earn(claim, bound)
    async with engine.begin() as settling:
        await worker.store._settlement._write_with_products(
            settling, [decided], worker.worker, alone=False
        )
        ending = asyncio.create_task(pipeline.apply("cancel", owner, reason="test"))
        await until_blocked(psql)
    await ending
    assert path_of(psql, twin) == ["submit", "mark_duplicate", "reprocess"]
    assert await completed(pipeline, twin) == ["complete"]


async def test_a_document_that_becomes_a_twin_withdraws_its_old_text(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Readers no longer find it, and who rested on its old text takes over."""
    pipeline = pipeline_with(engine)
    other = await _send(pipeline, "other", b"another text\n---\n1")
    changed = await _send(pipeline, "changed", b"text\n---\n1")
    assert await completed(pipeline, other, changed) == ["complete", "complete"]
    heir = await _send(pipeline, "heir", b"text\n---\n2")
    assert await completed(pipeline, heir) == ["duplicate"]
    await _send(pipeline, "changed", b"another text\n---\n2")
    states = await completed(pipeline, other, changed, heir)
    assert states == ["complete", "duplicate", "complete"]
    assert _rests_on(psql) == {changed: other}
    shown = psql.execute("SELECT document_id FROM chunk").fetchall()
    assert {row[0] for row in shown} == {other, heir}
    assert (await pipeline.get(changed)).chunk_count == 0


async def test_a_twin_may_be_moved_while_its_owner_ends(
    engine: AsyncEngine, psql: Psql, database_url: str
) -> None:
    """Both lock the twin before they touch on whom it rests, so neither waits for the other."""
    pipeline = pipeline_with(engine)
    owner = await _send(pipeline, "owner")
    await completed(pipeline)
    twin = await _send(pipeline, "twin")
    await completed(pipeline)
    with connect(database_url) as other:
        with psql.transaction():
            psql.execute("SELECT FROM document WHERE id = %s FOR NO KEY UPDATE", [twin])
            deleting = asyncio.create_task(pipeline.apply("delete", owner, reason="test"))
            await until_blocked(other)
            # What every move of the twin writes, once it has locked it.
            psql.execute("DELETE FROM duplicate_of WHERE document_id = %s", [twin])
        assert (await deleting).moved == (owner,)
    assert _owners(psql) == set()


async def test_a_twin_that_somebody_holds_delays_only_the_end_of_its_owner(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Those that would have shared a batch with the owner settle meanwhile."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks, queue_parse=plain(hooks.queue_parse, concurrency=20))
    owner = await _send(pipeline, "owner")
    await completed(pipeline)
    twin = await _send(pipeline, "twin")
    await completed(pipeline)

    async def reject(claim: Claim) -> Any:
        if claim.document.id == owner:
            raise Reject("no longer wanted")
        return await accept(claim)

    hooks.queue_parse.does(reject)
    hooks.queue_parse.block()
    await _send(pipeline, "owner", b"other bytes")
    others = [await _send(pipeline, f"other {n}", b"%d" % n) for n in range(10)]
    async with running(pipeline):
        await until(psql, "SELECT count(*) = 11 FROM work WHERE lane = 'claimed'")
        with psql.transaction():
            psql.execute("SELECT FROM document WHERE id = %s FOR UPDATE", [twin])
            hooks.queue_parse.go_on()
            await pipeline.wait(*others, timeout=BRIEFLY)
            assert (await pipeline.get(owner)).state == "uploaded"
        (ended,) = await pipeline.wait(owner, timeout=BRIEFLY)
        (inherited,) = await pipeline.wait(twin, timeout=BRIEFLY)
    assert (ended.state, inherited.state) == ("dead_letter", "complete")


async def test_an_apply_that_waited_in_a_circle_is_written_again(
    engine: AsyncEngine, psql: Psql, database_url: str
) -> None:
    """Who holds an heir and then asks for its owner makes nobody's apply fail."""
    # PostgreSQL looks for a circle once in each wait: it has to be closed by then.
    name = make_url(database_url).database
    psql.execute(f"ALTER DATABASE \"{name}\" SET deadlock_timeout = '3s'")
    pipeline = pipeline_with(engine)
    owner = await _send(pipeline, "owner")
    await completed(pipeline)
    twin = await _send(pipeline, "twin")
    await completed(pipeline)
    lock = "SELECT FROM smp.document WHERE id = %s FOR NO KEY UPDATE"
    with connect(database_url) as other:
        with psql.transaction():
            psql.execute("SET LOCAL deadlock_timeout = '60s'")  # so that the apply is the one to go
            psql.execute(lock, [twin])
            deleting = asyncio.create_task(pipeline.apply("delete", owner, reason="test"))
            await until_blocked(other)
            await asyncio.to_thread(psql.execute, lock, [owner])
        assert (await deleting).moved == (owner,)
    assert await completed(pipeline, twin) == ["complete"]
