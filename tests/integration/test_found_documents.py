"""Documents found in documents: once, with their parent's transition or not at all.

The cheap parser here reads JSON: ``{"text": ..., "found": [[name, document], ...]}``.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import (
    BRIEFLY,
    Hooks,
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

from statemachine_pipeline import Child, Done, ParsedText, Reject
from statemachine_pipeline.database.proposal import OwnerChanged, Settled
from statemachine_pipeline.errors import SourceRefused, StaleClaim
from statemachine_pipeline.records import child_uri, document_id
from statemachine_pipeline.sources import BLOB_LIMIT_BYTES
from statemachine_pipeline.stages import ChildLimits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline import Claim, Pipeline
    from statemachine_pipeline.records import Document

    Psql = psycopg.Connection[Any]


@pytest.fixture
def onlooker(database_url: str) -> Iterator[Psql]:
    """Another connection: in a transaction, the list of connections is that of its first look."""
    with connect(database_url) as connection:
        yield connection


def nest(text: str, *found: tuple[str, Any]) -> dict[str, Any]:
    """Return a document that holds others."""
    return {"text": text, "found": [list(one) for one in found]}


LETTER = nest("a letter", ("bill", nest("a bill")), ("list", nest("a list")))


async def unpack(claim: Claim) -> Done:
    """Return the text and the documents found in it."""
    content = json.loads((await claim.source()).read())
    found = [
        Child(name, json.dumps(one).encode(), {"place": place})
        for place, (name, one) in enumerate(content["found"])
    ]
    return Done(ParsedText(content["text"]), children=found)


def unpacking() -> Hooks:
    """Return cheap hooks whose parser finds documents."""
    hooks = Hooks()
    hooks.finish_parse.does(unpack)
    return hooks


async def send(pipeline: Pipeline, content: object, name: str = "letter", **options: Any) -> UUID:
    """Submit a document that the parser understands."""
    given = json.dumps(content).encode()
    sent = await pipeline.submit(given, source_uri=f"mem:{name}", name=name, **options)
    return sent.document_id


async def children_of(pipeline: Pipeline, parent: UUID) -> dict[str, Document]:
    """Return the children of a document by their names."""
    return {one.name: one for one in await pipeline.documents(parent=parent)}


def born(psql: Psql) -> int:
    """How many documents another connection sees that were found in one."""
    row = psql.execute("SELECT count(*) FROM document WHERE parent_id IS NOT NULL").fetchone()
    assert row is not None
    return int(row[0])


async def test_children_are_documents_of_their_own(engine: AsyncEngine, psql: Psql) -> None:
    """Each has a life; tenant, correlation, metadata and priority come from its parent."""
    hooks = unpacking()
    pipeline = pipeline_with(engine, hooks)
    hooks.accept_parse.block()
    options = {"tenant": "ours", "correlation_id": "c1", "priority": 7}
    parent = await send(pipeline, LETTER, metadata={"box": "in", "place": None}, **options)
    async with running(pipeline):
        await until(psql, "SELECT count(*) = 3 FROM work WHERE state = 'parse_complete'")
        waiting = psql.execute("SELECT DISTINCT priority FROM work").fetchall()
        hooks.accept_parse.go_on()
        found = await children_of(pipeline, parent)
        await pipeline.wait(parent, *(one.id for one in found.values()), timeout=BRIEFLY)

    assert waiting == [(7,)]
    assert list(found) == ["bill", "list"]
    bill = await pipeline.get(found["bill"].id)
    assert (bill.state, bill.tenant, bill.correlation_id) == ("complete", "ours", "c1")
    assert (bill.parent_id, bill.depth, bill.children) == (parent, 1, {})
    origin = {"document_id": str(parent), "name": "letter"}
    assert bill.metadata == {"box": "in", "place": 0, "parent": origin}
    assert (await pipeline.get(parent)).children == {"finish_parse": 2}
    first = (await pipeline.history(bill.id))[0]
    assert (first.trigger, first.by, first.from_state) == ("submit", "pipeline", None)
    assert first.reason == f"found in document {parent}"
    assert [hit.text for hit in await pipeline.search("a bill", tenant="ours", limit=1)] == [
        "a bill"
    ]


async def test_what_describes_a_document_describes_what_was_found_in_it(
    engine: AsyncEngine,
) -> None:
    """Names reach all below it, where each keeps its origin and its other names."""
    pipeline = pipeline_with(engine, unpacking())
    nested = nest("a letter", ("box", nest("a box", ("bill", nest("a bill")))))
    parent = await send(pipeline, nested, metadata={"groups": ["all"], "kind": "mail"})
    await completed(pipeline, parent)

    await pipeline.operations.describe(parent, {"groups": ["board"], "parent": "mine"})

    assert (await pipeline.get(parent)).metadata == {
        "groups": ["board"],
        "kind": "mail",
        "parent": "mine",
    }
    box = (await children_of(pipeline, parent))["box"]
    bill = (await children_of(pipeline, box.id))["bill"]
    for one, name in ((box, "letter"), (bill, "box")):
        origin = {"document_id": str(one.parent_id), "name": name}
        expected = {"groups": ["board"], "kind": "mail", "place": 0, "parent": origin}
        assert one.metadata == expected


async def test_a_child_inherits_what_its_parent_is_described_by_when_it_is_found(
    engine: AsyncEngine,
) -> None:
    """An access list that was narrowed while the parser worked is the list of what it found."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)

    async def narrowed(claim: Claim) -> Done:
        if claim.document.parent_id is None:
            await pipeline.operations.describe(claim.document.id, {"groups": ["board"]})
        return await unpack(claim)

    hooks.finish_parse.does(narrowed)
    parent = await send(pipeline, LETTER, metadata={"groups": ["all"]})
    await completed(pipeline, parent)

    found = await children_of(pipeline, parent)
    assert [one.metadata["groups"] for one in found.values()] == [["board"], ["board"]]


async def test_an_unchanged_child_gets_the_access_list_of_its_revised_parent(
    engine: AsyncEngine,
) -> None:
    """A list that is narrowed with the parent's new bytes holds for what is found again."""
    pipeline = pipeline_with(engine, unpacking())
    parent = await send(pipeline, LETTER, metadata={"groups": ["all"], "year": 2024})
    await completed(pipeline, parent)
    before = await children_of(pipeline, parent)
    revised = nest("another letter", ("bill", nest("a bill")), ("list", nest("a list")))
    await send(pipeline, revised, metadata={"groups": ["board"]})
    await completed(pipeline, parent)

    found = await children_of(pipeline, parent)
    assert {name: one.version for name, one in found.items()} == {
        name: one.version for name, one in before.items()
    }
    assert [one.metadata["groups"] for one in found.values()] == [["board"], ["board"]]
    assert [one.metadata["year"] for one in found.values()] == [None, None]
    assert {one.metadata["parent"]["document_id"] for one in found.values()} == {str(parent)}


async def test_children_appear_with_the_transition_of_their_parent(
    engine: AsyncEngine, psql: Psql, onlooker: Psql
) -> None:
    """All in one commit: another connection sees neither before and both after."""
    pipeline = pipeline_with(engine, unpacking())
    parent = await send(pipeline, LETTER)
    worker = await hand(pipeline)
    await worker.settle(await worker.earn(*await worker.claim_one("queue_parse")))
    proposal = await worker.earn(*await worker.claim_one("finish_parse"))

    psql.autocommit = False
    psql.execute("LOCK TABLE product IN EXCLUSIVE MODE")  # the last that the settle writes
    settling = asyncio.create_task(worker.settle(proposal))
    await until_blocked(onlooker)
    before = (born(psql), (await pipeline.get(parent)).state)
    psql.commit()
    (answer,) = await settling
    psql.autocommit = True

    assert before == (0, "parse_queued")
    assert isinstance(answer, Settled)
    assert (born(psql), (await pipeline.get(parent)).state) == (2, "parse_complete")


async def test_a_settle_that_is_cut_off_is_repeated_whole(
    engine: AsyncEngine, psql: Psql, onlooker: Psql
) -> None:
    """The connection dies between children and transition: neither is kept, then both once."""
    hooks = unpacking()
    pipeline = pipeline_with(engine, hooks)
    parent = await send(pipeline, LETTER)
    psql.autocommit = False
    async with running(pipeline):
        hooks.finish_parse.block()
        await hooks.finish_parse.begun()
        psql.execute("LOCK TABLE product IN EXCLUSIVE MODE")
        hooks.finish_parse.go_on()
        await until_blocked(onlooker)
        assert born(psql) == 0
        psql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        psql.commit()
        psql.autocommit = True
        await until(psql, "SELECT count(*) = 3 FROM document WHERE state = 'complete'")
    assert born(psql) == 2
    found = await children_of(pipeline, parent)
    assert all(path_of(psql, one.id).count("finish_parse") == 1 for one in found.values())
    assert len(hooks.finish_parse.claims) == 3


async def test_a_stale_claim_submits_nothing(engine: AsyncEngine, psql: Psql) -> None:
    """A worker that lost its claim cannot write."""
    pipeline = pipeline_with(engine, unpacking())
    parent = await send(pipeline, LETTER)
    worker = await hand(pipeline)
    await worker.settle(await worker.earn(*await worker.claim_one("queue_parse")))
    proposal = await worker.earn(*await worker.claim_one("finish_parse"))
    await pipeline.apply("cancel", parent, reason="test")

    (answer,) = await worker.settle(proposal, alone=True)

    assert isinstance(answer, StaleClaim)
    assert born(psql) == 0


async def test_a_batch_of_parents_settles_together(engine: AsyncEngine, psql: Psql) -> None:
    """It may be merged with others; no two parents have one child."""
    pipeline = pipeline_with(engine, unpacking())
    parents = [await send(pipeline, nest(f"{n}", ("x", nest("x"))), str(n)) for n in range(3)]
    worker = await hand(pipeline)
    claims = await worker.claim("queue_parse")
    await worker.settle(*[await worker.earn(*one) for one in claims])
    claims = await worker.claim("finish_parse")
    answers = await worker.settle(*[await worker.earn(*one) for one in claims])

    assert all(isinstance(answer, Settled) for answer in answers)
    assert born(psql) == 3
    assert {(await children_of(pipeline, one))["x"].parent_id for one in parents} == set(parents)


class Refused:
    """A product that cannot be written."""

    async def write(self, connection: AsyncConnection, claim: Claim) -> None:
        """Fail."""
        raise RuntimeError("no")


@pytest.mark.parametrize("why", ["product", "guard", "database"])
async def test_what_is_not_earned_leaves_no_children(
    engine: AsyncEngine, psql: Psql, why: str
) -> None:
    """All or nothing: a product that fails, a guard that refuses, a row PostgreSQL refuses."""
    hooks = unpacking()

    async def validate(claim: Claim) -> Done:
        product = Refused() if why == "product" else None
        kept = {"why": "\x00"} if why == "database" else {}
        return Done(product, children=[Child("a", b"a"), Child("b", b"b", kept)])

    hooks.accept_parse.does(validate)
    pipeline = pipeline_with(engine, hooks, accept_parse=plain(hooks.accept_parse, attempts=1))
    # A text of nothing is what has_text refuses.
    parent = await send(pipeline, nest("" if why == "guard" else "text"))

    assert await completed(pipeline, parent) == ["dead_letter"]
    assert born(psql) == 0
    assert (await pipeline.get(parent)).children == {}


async def test_a_revised_parent_keeps_changes_adds_and_drops_children(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Children of the same name are the same document; what is no longer there is deleted."""
    hooks = unpacking()
    pipeline = pipeline_with(engine, hooks)
    deep = nest("deep", ("deeper", nest("deeper")))
    given = [("same", nest("same")), ("other", nest("old")), ("gone", deep)]
    parent = await send(pipeline, nest("first", *given))
    await completed(pipeline)
    before = await children_of(pipeline, parent)
    (deeper,) = await pipeline.documents(parent=before["gone"].id)
    hooks.forget()

    given = [("same", nest("same")), ("other", nest("new")), ("more", nest("more"))]
    await send(pipeline, nest("second", *given))
    await completed(pipeline)

    after = await children_of(pipeline, parent)
    assert {name: one.state for name, one in after.items()} == {
        "same": "complete",
        "other": "complete",
        "gone": "deleted",
        "more": "complete",
    }
    assert {name: after[name].id for name in before} == {n: one.id for n, one in before.items()}
    assert after["same"] == before["same"]
    assert after["other"].generation == 2
    assert (await pipeline.get(deeper.id)).state == "deleted"
    assert path_of(psql, before["gone"].id)[-1] == "delete"
    assert (await pipeline.history(deeper.id))[-1].reason == f"no longer found in document {parent}"
    assert (await pipeline.get(parent)).children == {"finish_parse": 3}
    assert len(hooks.finish_parse.claims) == 3  # the parent, other and more
    texts = {row[0] for row in psql.execute("SELECT text FROM chunk")}
    assert texts == {"second", "same", "new", "more"}


async def test_a_child_that_comes_back_begins_a_new_life(engine: AsyncEngine) -> None:
    """It was deleted with the revision that lost it, and is found again by the next."""
    pipeline = pipeline_with(engine, unpacking())
    parent = await send(pipeline, LETTER)
    await completed(pipeline)
    bill = (await children_of(pipeline, parent))["bill"]
    await send(pipeline, nest("without"))
    assert await completed(pipeline, bill.id) == ["deleted"]
    assert (await pipeline.get(parent)).children == {}

    await send(pipeline, LETTER)
    assert await completed(pipeline, bill.id) == ["complete"]
    restart = next(s for s in await pipeline.history(bill.id) if s.trigger == "revise")
    assert restart.reason is not None
    assert restart.reason.endswith(f"found in document {parent}")


async def test_a_revision_takes_a_child_from_who_works_on_it(
    engine: AsyncEngine, psql: Psql
) -> None:
    """The fence moves: what a worker made of the old bytes is not written."""
    hooks = unpacking()
    pipeline = pipeline_with(engine, hooks)
    parent = await send(pipeline, nest("first", ("gone", nest("g")), ("other", nest("old"))))
    worker = await hand(pipeline)
    for trigger in ("queue_parse", "finish_parse", "queue_parse", "finish_parse"):
        claims = await worker.claim(trigger)
        made = [await worker.earn(*one) for one in claims]
        if trigger == "finish_parse" and len(made) == 2:
            break
        await worker.settle(*made)
    await send(pipeline, nest("second", ("other", nest("new"))))
    reviser = await hand(pipeline)
    for trigger in ("queue_parse", "finish_parse"):
        (claim,) = await reviser.claim(trigger)
        await reviser.settle(await reviser.earn(*claim))

    answers = [(await worker.settle(one, alone=True))[0] for one in made]

    assert [type(answer) for answer in answers] == [StaleClaim, StaleClaim]
    found = await children_of(pipeline, parent)
    assert (found["gone"].state, found["other"].state) == ("deleted", "uploaded")
    assert path_of(psql, found["gone"].id)[-2:] == ["cancel", "delete"]


async def test_deleting_a_document_deletes_what_was_found_in_it(
    engine: AsyncEngine, psql: Psql
) -> None:
    """All the way down, in the same transaction, whatever each is doing."""
    hooks = unpacking()
    pipeline = pipeline_with(engine, hooks)
    parent = await send(pipeline, nest("a", ("b", nest("b", ("c", nest("c"))))))
    await completed(pipeline)
    (child,) = await pipeline.documents(parent=parent)
    (grandchild,) = await pipeline.documents(parent=child.id)
    await pipeline.apply("reprocess", grandchild.id, reason="test")  # it works again

    tried = await pipeline.apply("delete", parent, reason="test", dry_run=True)
    applied = await pipeline.apply("delete", parent, child.id, reason="test")

    assert set(tried.moved) == set(applied.moved) == {parent, child.id, grandchild.id}
    assert set(applied.matched) == {parent, child.id}
    assert applied.refused == ()
    assert await pipeline.counts() == {"deleted": 3}
    assert path_of(psql, grandchild.id)[-2:] == ["cancel", "delete"]
    last = (await pipeline.history(grandchild.id))[-1]
    assert last.reason == f"test (of {child.id})"
    kept = "SELECT (SELECT count(*) FROM blob) + (SELECT count(*) FROM chunk)"
    assert psql.execute(kept).fetchone() == (0,)


async def test_a_lost_child_that_a_person_just_deleted_is_gone_already(
    engine: AsyncEngine, psql: Psql, onlooker: Psql
) -> None:
    """Whoever comes second finds nothing left to do, and the settle stands."""
    pipeline = pipeline_with(engine, unpacking())
    parent = await send(pipeline, nest("first", ("x", nest("x"))))
    await completed(pipeline)
    (child,) = await pipeline.documents(parent=parent)
    await send(pipeline, nest("second"))
    worker = await hand(pipeline)
    await worker.settle(await worker.earn(*await worker.claim_one("queue_parse")))
    proposal = await worker.earn(*await worker.claim_one("finish_parse"))

    psql.autocommit = False
    psql.execute("SELECT FROM document WHERE id = %s FOR UPDATE", [child.id])
    deleting = asyncio.create_task(pipeline.apply("delete", child.id, reason="test"))
    await until_blocked(onlooker)
    settling = asyncio.create_task(worker.settle(proposal, alone=True))
    await until_blocked(onlooker, 2)
    psql.commit()
    psql.autocommit = True

    assert (await deleting).moved == (child.id,)
    assert [type(answer) for answer in await settling] == [Settled]
    assert path_of(psql, child.id).count("delete") == 1


async def test_people_who_move_a_family_and_a_settle_do_not_block_each_other(
    engine: AsyncEngine, psql: Psql, onlooker: Psql
) -> None:
    """Everyone locks a parent before its children, whatever their ids."""
    pipeline = pipeline_with(engine, unpacking())
    # A child whose id comes first: in id order the two below would wait for each other.
    name = next(
        name
        for name in map(str, range(100))
        for parent in [document_id("default", f"mem:{name}")]
        if document_id("default", child_uri(parent, "finish_parse", "x", 1)) < parent
    )
    parent = await send(pipeline, nest("first", ("x", nest("1"))), name)
    await completed(pipeline)
    (child,) = await pipeline.documents(parent=parent)
    assert child.id < parent
    await send(pipeline, nest("second", ("x", nest("2"))), name)
    worker = await hand(pipeline)
    await worker.settle(await worker.earn(*await worker.claim_one("queue_parse")))
    proposal = await worker.earn(*await worker.claim_one("finish_parse"))

    psql.autocommit = False
    psql.execute("LOCK TABLE parsed_document IN EXCLUSIVE MODE")  # written before the children
    settling = asyncio.create_task(worker.settle(proposal, alone=True))
    await until_blocked(onlooker)
    deleting = asyncio.create_task(pipeline.apply("delete", parent, child.id, reason="test"))
    await until_blocked(onlooker, 2)
    psql.commit()
    psql.autocommit = True

    assert [type(answer) for answer in await settling] == [Settled]
    assert (await deleting).refused == ()
    assert await pipeline.counts() == {"deleted": 2}


@pytest.mark.parametrize("trigger", ["cancel", "reprocess"])
async def test_only_deletion_takes_children_along(engine: AsyncEngine, trigger: str) -> None:
    """They have lives of their own; and a hop over the stage that found them finds none anew."""
    hooks = unpacking()
    pipeline = pipeline_with(engine, hooks)
    parent = await send(pipeline, LETTER)
    await completed(pipeline)
    before = await children_of(pipeline, parent)
    hooks.forget()
    await pipeline.apply("reprocess", parent, reason="test")
    if trigger == "cancel":
        await pipeline.apply("cancel", parent, reason="test")
    await completed(pipeline)

    assert await children_of(pipeline, parent) == before
    assert len(hooks.finish_parse.claims) == 0
    assert (await pipeline.get(parent)).children == {"finish_parse": 2}


async def test_a_stage_that_runs_again_leaves_equal_children_alone(engine: AsyncEngine) -> None:
    """Exactly once over attempts and lives; one that a person deleted is found again."""
    hooks = unpacking()
    pipeline = pipeline_with(engine, hooks)
    parent = await send(pipeline, LETTER)
    await completed(pipeline)
    before = await children_of(pipeline, parent)
    await pipeline.apply("delete", before["bill"].id, reason="test")
    hooks.finish_parse.fingerprint = "another"
    pipeline = pipeline_with(engine, hooks)
    await pipeline.apply("reprocess", parent, reason="test")
    await completed(pipeline)

    after = await children_of(pipeline, parent)
    assert after["list"] == before["list"]
    assert (after["bill"].state, after["bill"].generation) == ("complete", 2)


async def test_siblings_of_one_name_are_told_apart_by_their_order(engine: AsyncEngine) -> None:
    """By name and order a child is the same document when its parent comes again."""
    pipeline = pipeline_with(engine, unpacking())
    parent = await send(pipeline, nest("a", ("x", nest("1")), ("x", nest("2")), ("1/x", nest("3"))))
    await completed(pipeline)
    found = await pipeline.documents(parent=parent)
    assert len({one.id for one in found}) == 3
    assert {one.source_uri for one in found} == {
        f"child:{parent}/finish_parse/{rest}" for rest in ("1/x", "2/x", "1/1/x")
    }


async def test_stages_do_not_drop_each_others_children(engine: AsyncEngine) -> None:
    """What one stage found is not gone because another found other things, or nothing."""
    hooks = unpacking()

    async def validate(claim: Claim) -> Done:
        found = [Child("note", b'{"text": "a note", "found": []}')] * (claim.document.depth == 0)
        return Done(children=found)

    hooks.accept_parse.does(validate)
    pipeline = pipeline_with(engine, hooks)
    parent = await send(pipeline, LETTER)
    await completed(pipeline)
    assert (await pipeline.get(parent)).children == {"finish_parse": 2, "accept_parse": 1}

    hooks.accept_parse.fingerprint = "another"
    hooks.accept_parse.does(lambda claim: asyncio.sleep(0, Done()))
    pipeline = pipeline_with(engine, hooks)
    await pipeline.apply("reprocess", parent, reason="test")
    await completed(pipeline)
    states = {name: one.state for name, one in (await children_of(pipeline, parent)).items()}
    assert states == {"bill": "complete", "list": "complete", "note": "deleted"}


async def test_what_lies_too_deep_is_left_out_with_a_warning(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A parent does not die because an attachment is too deep."""
    pipeline = pipeline_with(engine, unpacking())
    deep = nest("0", ("1", nest("1", ("2", nest("2", ("3", nest("3", ("4", nest("4")))))))))
    await send(pipeline, deep)
    await completed(pipeline)
    depths = psql.execute("SELECT depth, state FROM document ORDER BY depth").fetchall()
    assert depths == [(depth, "complete") for depth in range(4)]
    (warned,) = psql.execute("SELECT warnings FROM parsed_document WHERE warnings <> '[]'")
    assert warned[0] == [
        "left out 1 document found in it: it lies 3 deep in others itself, which is the limit"
    ]


@pytest.mark.parametrize(
    ("limits", "size", "code", "named"),
    [
        (ChildLimits(count=1), 1, "too_many_children", "2 documents in it are more than"),
        (ChildLimits(size_bytes=9), 5, "child_too_large", "10 bytes together"),
        (ChildLimits(), BLOB_LIMIT_BYTES + 1, "child_too_large", "26,214,401 bytes"),
    ],
)
async def test_too_many_or_too_large_children_fail_their_parent(
    engine: AsyncEngine, psql: Psql, limits: ChildLimits, size: int, code: str, named: str
) -> None:
    """A part of them would look like all of them."""

    async def many(claim: Claim) -> Done:
        return Done(ParsedText("text"), children=[Child("a", bytes(size)), Child("b", bytes(size))])

    pipeline = pipeline_with(engine, finish_parse=plain(many, children=limits))
    parent = await send(pipeline, nest("text"))
    assert await completed(pipeline, parent) == ["dead_letter"]
    assert psql.execute("SELECT code FROM dead_letter").fetchall() == [(code,)]
    assert named in str((await pipeline.get(parent)).last_error)


async def test_equal_documents_in_two_parents_are_ordinary_twins(engine: AsyncEngine) -> None:
    """One of them is worked on; the other takes over when the first goes with its parent."""
    pipeline = pipeline_with(engine, unpacking())
    first = await send(pipeline, nest("first", ("x", nest("shared"))), "first")
    await completed(pipeline)
    second = await send(pipeline, nest("second", ("y", nest("shared"))), "second")
    await completed(pipeline)
    twin = (await children_of(pipeline, second))["y"]
    assert twin.state == "duplicate"

    await pipeline.apply("delete", first, reason="test")
    assert await completed(pipeline, twin.id) == ["complete"]


async def test_a_twin_of_the_same_bytes_has_no_children_until_it_takes_over(
    engine: AsyncEngine, psql: Psql
) -> None:
    """What it found in other bytes before is no longer in it."""
    pipeline = pipeline_with(engine, unpacking())
    owner = await send(pipeline, LETTER, "owner")
    await completed(pipeline)
    twin = await send(pipeline, nest("mine", ("own", nest("own"))), "twin")
    await completed(pipeline)
    await send(pipeline, LETTER, "twin")
    assert await completed(pipeline, twin) == ["duplicate"]
    assert (await children_of(pipeline, twin))["own"].state == "deleted"
    assert (await pipeline.get(twin)).children == {}

    # Its old bytes again: the text is still stored, but who was found in it is not.
    await send(pipeline, nest("mine", ("own", nest("own"))), "twin")
    assert await completed(pipeline, twin) == ["complete"]
    assert (await children_of(pipeline, twin))["own"].state == "complete"

    await send(pipeline, LETTER, "twin")
    await completed(pipeline)
    await pipeline.apply("delete", owner, reason="test")
    await completed(pipeline)
    states = {name: one.state for name, one in (await children_of(pipeline, twin)).items()}
    assert states == {"own": "deleted", "bill": "complete", "list": "complete"}
    assert psql.execute("SELECT count(*) FROM duplicate_of").fetchone() == (0,)


async def test_a_twin_whose_owner_changed_meanwhile_loses_nothing(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Nothing is written, its children neither, and the document is decided again."""
    pipeline = pipeline_with(engine, unpacking())
    owner = await send(pipeline, LETTER, "owner")
    twin = await send(pipeline, nest("mine", ("own", nest("own"))), "twin")
    await completed(pipeline)
    await send(pipeline, LETTER, "twin")
    worker = await hand(pipeline)
    proposal = await worker.earn(*await worker.claim_one("queue_parse"))
    await pipeline.apply("delete", owner, reason="test")
    earned = "SELECT count(*) FROM product WHERE document_id = %s AND stage = 'finish_parse'"

    with pytest.raises(OwnerChanged):
        await worker.settle(proposal)

    assert (await children_of(pipeline, twin))["own"].state == "complete"
    assert psql.execute(earned, [twin]).fetchone() == (1,)


async def test_texts_that_are_equal_may_hold_different_documents(engine: AsyncEngine) -> None:
    """A twin by text keeps its children: nothing that was in it is lost."""
    pipeline = pipeline_with(engine, unpacking())
    await send(pipeline, nest("same", ("x", nest("x"))), "first")
    await completed(pipeline)
    second = await send(pipeline, nest("same", ("y", nest("y"))), "second")
    assert await completed(pipeline, second) == ["duplicate"]
    assert (await children_of(pipeline, second))["y"].state == "complete"


async def test_nobody_submits_under_the_name_of_a_child(engine: AsyncEngine) -> None:
    """``child:`` is for documents found in documents: no two ways lead to one of them."""
    with pytest.raises(SourceRefused, match="for documents found in documents"):
        await pipeline_with(engine).submit(b"text", source_uri="child:1/finish_parse/1/x")


async def test_children_vanish_with_the_transaction_that_was_to_submit_their_parent(
    engine: AsyncEngine, psql: Psql
) -> None:
    """The caller's own transaction holds the parent; without it there is nothing to find."""
    pipeline = pipeline_with(engine, unpacking())
    async with engine.connect() as connection:
        await send(pipeline, LETTER, session=connection)
        await connection.rollback()
    await completed(pipeline)
    assert await pipeline.counts() == {}
    assert born(psql) == 0


async def test_no_child_goes_on_without_its_parents_row(engine: AsyncEngine, psql: Psql) -> None:
    """A document's row goes after the rows of those found in it."""
    pipeline = pipeline_with(engine, unpacking())
    parent = await send(pipeline, LETTER)
    await completed(pipeline)
    with pytest.raises(Exception, match="document_document_fkey"):
        psql.execute("DELETE FROM document WHERE id = %s", [parent])


async def test_a_parent_that_fails_later_keeps_its_children(engine: AsyncEngine) -> None:
    """They are documents of their own."""
    hooks = unpacking()
    hooks.accept_parse.raises(Reject("not this one"))
    pipeline = pipeline_with(engine, hooks)
    parent = await send(pipeline, LETTER)
    assert await completed(pipeline, parent) == ["dead_letter"]
    assert [one.state for one in (await children_of(pipeline, parent)).values()] == [
        "complete",
        "complete",
    ]
