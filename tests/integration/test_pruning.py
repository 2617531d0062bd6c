"""Documents removed for good: what goes, what stays and why, and that no history goes in part."""

from __future__ import annotations

import asyncio
import random
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import BRIEFLY, Hooks, completed, path_of, pipeline_with
from fix_postgres import connect
from obstore.store import LocalStore
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from statemachine_pipeline import DocumentLifecycle
from statemachine_pipeline.adapters.blobs import ObjectBlobs
from statemachine_pipeline.database import pruning
from statemachine_pipeline.errors import DocumentNotFound, PruneRefused
from statemachine_pipeline.hooks import Done, Reject
from statemachine_pipeline.records import Child, ParsedText
from statemachine_pipeline.testing.replay import assert_database_replays

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Pipeline
    from statemachine_pipeline.hooks import Claim

    Psql = psycopg.Connection[Any]

AT_ONCE = timedelta(0)

KEPT = "it has the newest event of all, from which numbers go on after a restore"
LEFT_BEHIND = """
    SELECT count(*) FROM transition h LEFT JOIN document d ON d.id = h.document_id
    WHERE d.id IS NULL
"""


async def fussy(claim: Claim) -> Done:
    """Refuse what says that it is bad, and find documents in what holds some."""
    text = (await claim.source()).read().decode()
    if text.startswith("bad"):
        raise Reject("it says so itself")
    found = [
        Child(name, name[1:].encode(), {"place": name}) for name in text.split() if name[0] == "@"
    ]
    return Done(ParsedText(text), children=found)


def fussily() -> Hooks:
    """Return cheap hooks with that parser."""
    hooks = Hooks()
    hooks.finish_parse.does(fussy)
    return hooks


async def sent(pipeline: Pipeline, *texts: str, tenant: str = "default") -> list[UUID]:
    """Hand over a document of each text, which counts as another one each time."""
    return [
        (
            await pipeline.submit(text.encode(), source_uri=f"mem:{uuid.uuid4()}", tenant=tenant)
        ).document_id
        for text in texts
    ]


async def and_one_more(pipeline: Pipeline) -> UUID:
    """Let something happen after all the rest: who has the newest event of all stays."""
    (last,) = await sent(pipeline, f"the last one {uuid.uuid4()}")
    await completed(pipeline, last)
    return last


async def test_what_rests_and_is_not_complete_goes_with_its_whole_history(
    engine: AsyncEngine, psql: Psql
) -> None:
    """'resting documents that are NOT complete (duplicates, dead letters, cancelled, deleted)'."""
    pipeline = pipeline_with(engine, fussily())
    bad, first, twin, removed = await sent(pipeline, "bad one", "same", "same", "unwanted")
    await completed(pipeline)
    (stopped,) = await sent(pipeline, "not yet")
    await pipeline.apply("cancel", stopped, reason="a test")
    await pipeline.apply("delete", removed, reason="a test")
    last = await and_one_more(pipeline)
    duplicate, owner = (
        (twin, first) if path_of(psql, twin)[-1] == "mark_duplicate" else (first, twin)
    )

    would = await pipeline.operations.prune(older_than=AT_ONCE, dry_run=True)
    assert set(would.pruned) == {bad, duplicate, stopped, removed}
    assert len(await pipeline.documents()) == 6, "a dry run removes nothing"
    pruned = await pipeline.operations.prune(older_than=AT_ONCE)

    assert set(pruned.pruned) == set(would.pruned)
    assert pruned.left == ()
    assert {one.id for one in await pipeline.documents()} == {owner, last}
    for gone in pruned.pruned:
        with pytest.raises(DocumentNotFound):
            await pipeline.history(gone)
    assert psql.execute(LEFT_BEHIND).fetchone() == (0,)
    (again,) = [await pipeline.submit(b"bad one", source_uri="mem:again")]
    assert again.outcome == "new"


async def test_only_what_matches_goes(engine: AsyncEngine) -> None:
    """'--older-than 30d [--state ...] [--tenant] [--limit]'."""
    pipeline = pipeline_with(engine, fussily())
    (mine,) = await sent(pipeline, "bad", tenant="mine")
    theirs = await sent(pipeline, "bad 1", "bad 2", "bad 3", tenant="theirs")
    await completed(pipeline)
    await and_one_more(pipeline)
    prune = pipeline.operations.prune

    assert (await prune(older_than=timedelta(hours=1))).pruned == ()
    assert (await prune(older_than=AT_ONCE, states=["cancelled"])).pruned == ()
    assert (await prune(older_than=AT_ONCE, tenant="mine", states=["dead_letter"])).pruned == (
        mine,
    )
    few = await prune(older_than=AT_ONCE, limit=2)
    assert len(few.pruned) == 2
    assert set((await prune(older_than=AT_ONCE)).pruned) == set(theirs) - set(few.pruned)


async def test_complete_documents_cannot_be_asked_for(engine: AsyncEngine) -> None:
    """Nor those on their way, nor states that do not exist."""
    pipeline = pipeline_with(engine)
    for state in ("complete", "uploaded", "nowhere"):
        with pytest.raises(PruneRefused, match=f"'{state}'.*prune takes those in cancelled, dead"):
            await pipeline.operations.prune(older_than=AT_ONCE, states=[state])


async def left(pipeline: Pipeline, document: UUID) -> list[str]:
    """Tell why a document would be left."""
    would = await pipeline.operations.prune(older_than=AT_ONCE, dry_run=True)
    return [one.reason for one in would.left if one.document_id == document]


async def test_whom_others_rest_on_is_left(engine: AsyncEngine, psql: Psql) -> None:
    """'documents that others rest on (owners of duplicates)': with them their heirs would go."""
    pipeline = pipeline_with(engine)
    made = []
    # The second is a twin by its text, and the third is one of the second by its bytes.
    for content in ("text\n---\none", "text\n---\ntwo", "text\n---\ntwo"):
        made += await sent(pipeline, content)
        await completed(pipeline)
    first, second, third = made
    owners = dict(psql.execute("SELECT document_id, owner FROM duplicate_of").fetchall())
    assert owners == {second: first, third: second}
    await and_one_more(pipeline)

    assert await left(pipeline, second) == [
        "1 rest on it as duplicates; they take over when it is deleted"
    ]
    assert (await pipeline.operations.prune(older_than=AT_ONCE)).pruned == (third,)
    assert (await pipeline.operations.prune(older_than=AT_ONCE)).pruned == (second,)


@pytest.mark.parametrize("batch", [1, 500])
async def test_parents_go_after_what_was_found_in_them(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """'parents with living children' are left, and a whole family goes in one call."""
    monkeypatch.setattr(pruning, "BATCH", batch)
    pipeline = pipeline_with(engine, fussily())
    (parent,) = await sent(pipeline, "a letter with @one @two")
    assert await completed(pipeline, parent) == ["complete"]
    children = [one.id for one in await pipeline.documents(parent=parent)]
    assert len(children) == 2
    await pipeline.apply("delete", children[0], reason="a test")
    await and_one_more(pipeline)
    assert (await pipeline.operations.prune(older_than=AT_ONCE, dry_run=True)).pruned == (
        children[0],
    )
    await pipeline.apply("delete", parent, reason="a test")
    last = await and_one_more(pipeline)

    would = await pipeline.operations.prune(older_than=AT_ONCE, dry_run=True)
    pruned = await pipeline.operations.prune(older_than=AT_ONCE)
    assert would == pruned
    assert set(pruned.pruned) == {parent, *children}
    assert [one.id for one in await pipeline.documents()][-1] == last


async def test_a_parent_stays_while_a_child_lives(engine: AsyncEngine) -> None:
    """A parent that failed later has children with lives of their own."""
    hooks = fussily()
    hooks.accept_parse.raises(Reject("not this one"))
    pipeline = pipeline_with(engine, hooks)
    (parent,) = await sent(pipeline, "a letter with @one")
    assert await completed(pipeline, parent) == ["dead_letter"]
    await and_one_more(pipeline)
    assert await left(pipeline, parent) == ["1 that were found in it are still there"]


async def test_what_stands_in_another_store_is_left(engine: AsyncEngine, psql: Psql) -> None:
    """'documents still to be withdrawn from a publisher's own store'."""
    pipeline = pipeline_with(engine, fussily())
    (bad,) = await sent(pipeline, "bad")
    await completed(pipeline)
    await and_one_more(pipeline)
    psql.execute(
        "INSERT INTO placement (document_id, stage, writing_until) VALUES (%s, 'finalize', now())",
        [bad],
    )
    assert await left(pipeline, bad) == [
        "it is still in the store of the publisher of finalize; `delete` withdraws it"
    ]
    psql.execute("DELETE FROM placement")
    assert (await pipeline.operations.prune(older_than=AT_ONCE)).pruned == (bad,)


async def test_what_somebody_else_holds_is_passed_by(
    engine: AsyncEngine, database_url: str
) -> None:
    """An open transaction of somebody's keeps no prune waiting, nor is its document taken."""
    pipeline = pipeline_with(engine, fussily())
    held, free = await sent(pipeline, "bad 1", "bad 2")
    await completed(pipeline)
    await and_one_more(pipeline)
    with connect(database_url) as other, other.transaction():
        other.execute("SELECT FROM smp.document WHERE id = %s FOR UPDATE", [held])
        pruned = await asyncio.wait_for(
            pipeline.operations.prune(older_than=AT_ONCE), BRIEFLY.total_seconds()
        )
    assert pruned.pruned == (free,)
    assert (await pipeline.get(held)).state == "dead_letter"


async def test_what_has_bytes_in_the_object_store_is_left(
    engine: AsyncEngine, psql: Psql, tmp_path: Path
) -> None:
    """'whose bytes in the object store are not erased': afterwards nobody would know of them."""
    pipeline = pipeline_with(engine, fussily(), blobs=ObjectBlobs(LocalStore(str(tmp_path))))
    (bad,) = await sent(pipeline, "bad")
    await completed(pipeline)
    await and_one_more(pipeline)
    assert await left(pipeline, bad) == ["its bytes are in the object store; `delete` erases them"]

    await pipeline.apply("delete", bad, reason="a test")
    await and_one_more(pipeline)
    assert await left(pipeline, bad) == [
        "its bytes may still be in the object store; `sweep` erases them"
    ]
    await pipeline.operations.sweep(older_than=AT_ONCE)
    assert (await pipeline.operations.prune(older_than=AT_ONCE)).pruned == (bad,)


async def test_who_has_the_newest_event_of_all_is_left(engine: AsyncEngine) -> None:
    """Numbers of events go on after the newest when a dump is restored on another server."""
    pipeline = pipeline_with(engine, fussily())
    (bad,) = await sent(pipeline, "bad")
    await completed(pipeline)
    assert await left(pipeline, bad) == [KEPT]


async def test_a_consumers_cursor_still_works(engine: AsyncEngine) -> None:
    """'The feed of events must survive pruned histories': nothing is told twice or left out."""
    pipeline = pipeline_with(engine, fussily())
    bad = await sent(pipeline, "bad 1", "bad 2")
    await completed(pipeline)
    seen = await pipeline.operations.events()
    last = await and_one_more(pipeline)

    # The cursor is that of an event which goes, in the middle of those that do.
    cursor = next(one.cursor for one in reversed(seen) if one.transition.document_id in bad)
    expected = [one.cursor for one in await pipeline.operations.events(after=cursor)]
    pruned = await pipeline.operations.prune(older_than=AT_ONCE)
    assert set(pruned.pruned) == set(bad)
    after = await pipeline.operations.events(after=cursor)
    assert [one.cursor for one in after] == expected
    assert {one.transition.document_id for one in after} == {last}
    assert {one.transition.document_id for one in await pipeline.operations.events()} == {last}


async def test_only_the_owner_of_the_tables_prunes(
    engine: AsyncEngine, psql: Psql, database_url: str
) -> None:
    """'only the owner of the tables may prune': a worker's role may not remove history."""
    role = f"worker_{uuid.uuid4().hex[:12]}"
    (bad,) = await sent(pipeline_with(engine, fussily()), "bad")
    await completed(pipeline_with(engine, fussily()))
    await and_one_more(pipeline_with(engine, fussily()))
    psql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    url = make_url(database_url)
    theirs = create_async_engine(url.set(username=role, password="secret"))
    try:
        psql.execute(f"GRANT USAGE ON SCHEMA smp TO {role}")
        psql.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA smp TO {role}")
        prune = pipeline_with(theirs).operations.prune
        would = await prune(older_than=AT_ONCE, dry_run=True)
        assert (would.pruned, f"and this is '{role}'; connect as" in str(would.forbidden)) == (
            (bad,),
            True,
        )
        with pytest.raises(PruneRefused, match=f"and this is '{role}'; connect as the owner"):
            await prune(older_than=AT_ONCE)
    finally:
        await theirs.dispose()
        psql.execute(f"DROP OWNED BY {role}")
        psql.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("seed", range(2))
async def test_after_a_prune_each_history_is_a_whole_legal_path(
    engine: AsyncEngine, psql: Psql, seed: int
) -> None:
    """'after a prune each remaining history is a whole legal path'."""
    draw = random.Random(seed)
    pipeline = pipeline_with(engine, fussily())
    known: list[UUID] = []
    for _ in range(3):
        texts = [draw.choice(("bad", "same", "letter @one @two", "n")) for _ in range(6)]
        known += await sent(pipeline, *texts, tenant=draw.choice("ab"))
        await completed(pipeline)
        for trigger in ("requeue", "delete", "reprocess"):
            some = [one.id for one in await pipeline.documents() if draw.random() < 0.3]
            if some:
                await pipeline.apply(trigger, *some, reason="a test")
        if draw.random() < 0.5:
            await completed(pipeline)
        before = {one.id: one for one in await pipeline.documents()}
        pruned = await pipeline.operations.prune(
            older_than=AT_ONCE, limit=draw.choice((None, 1, 3)), tenant=draw.choice((None, "a"))
        )
        assert {one.id for one in await pipeline.documents()} == before.keys() - set(pruned.pruned)
    await assert_database_replays(pipeline, DocumentLifecycle)
    broken = """
        SELECT count(*) FROM document d FULL JOIN
            (SELECT document_id, count(*), max(version), min(version) FROM transition GROUP BY 1) h
            ON h.document_id = d.id
        WHERE d.version IS DISTINCT FROM h.count OR h.max IS DISTINCT FROM h.count OR h.min <> 1
    """
    assert psql.execute(broken).fetchone() == (0,)
