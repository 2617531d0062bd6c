"""Stages that people take: held until somebody applies, judged on facts, known to every tool."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import Hooks, completed, path_of, until_blocked
from statemachine import State

from statemachine_pipeline import (
    Done,
    Lifecycle,
    Pipeline,
    all_chunks_stored,
    all_embeddings_stored,
    by_hand,
    has_text,
    is_duplicate,
    is_unique,
)
from statemachine_pipeline.database import holding
from statemachine_pipeline.database.moves import plan
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.errors import LifecycleMismatch

if TYPE_CHECKING:
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Claim, Facts

    Psql = psycopg.Connection[Any]


class ApprovedLifecycle(Lifecycle):
    """The shipped main line, and somebody looks before readers do."""

    uploaded = State(initial=True)
    parse_queued, parse_complete, parse_validated, chunks_stored = (State() for _ in range(4))
    embedding_queued, embedding_in_progress, embeddings_stored = State(), State(), State()
    approved = State()
    complete, duplicate, rejected = State(final=True), State(final=True), State(final=True)

    queue_parse = uploaded.to(parse_queued)
    finish_parse = parse_queued.to(parse_complete)
    mark_duplicate = parse_complete.to(duplicate, cond=is_duplicate)
    accept_parse = parse_complete.to(parse_validated, cond=[has_text, is_unique])
    store_chunks = parse_validated.to(chunks_stored, cond=all_chunks_stored)
    queue_embedding = chunks_stored.to(embedding_queued)
    start_embedding = embedding_queued.to(embedding_in_progress)
    store_embeddings = embedding_in_progress.to(embeddings_stored, cond=all_embeddings_stored)
    approve = embeddings_stored.to(
        approved, cond=[has_text, is_unique, all_chunks_stored, all_embeddings_stored]
    )
    reject = embeddings_stored.to(rejected)
    finalize = approved.to(complete)


def approved(engine: AsyncEngine) -> Pipeline:
    """Return a pipeline of cheap hooks in which people approve."""
    return Pipeline(
        engine,
        lifecycle=ApprovedLifecycle,
        hooks=vars(Hooks()) | {"approve": by_hand, "reject": by_hand},
    )


@pytest.fixture
async def pipeline(engine: AsyncEngine) -> Pipeline:
    """The pipeline of ApprovedLifecycle, migrated."""
    made = approved(engine)
    await made.migrate()
    return made


async def test_nothing_is_published_before_somebody_approves(
    pipeline: Pipeline, psql: Psql
) -> None:
    """Held behind the embedder; guards read what its stages counted; then it goes on."""
    sent = await pipeline.submit(b"one\n\ntwo")
    assert await completed(pipeline, sent.document_id) == ["embeddings_stored"]
    assert await pipeline.search("one") == []
    explained = await pipeline.explain(sent.document_id)
    assert explained.sentence == (
        "embeddings_stored: waits until somebody applies approve or reject"
    )
    open_ones = {option.trigger for option in explained.options if option.is_open}
    assert {"approve", "reject", "cancel"} <= open_ones
    applied = await pipeline.apply("approve", sent.document_id, reason="fine", by="ann")
    assert applied.moved == (sent.document_id,)
    assert await completed(pipeline, sent.document_id) == ["complete"]
    assert [hit.text for hit in await pipeline.search("one", limit=1)] == ["one"]


async def test_a_guard_sees_what_is_missing(pipeline: Pipeline, psql: Psql) -> None:
    """'Guards judged on real facts': refused with the guard's name where they do not hold."""
    sent = await pipeline.submit(b"one\n\ntwo")
    await completed(pipeline)
    psql.execute(
        "UPDATE product SET facts = facts || '{\"vectors_stored\": 1}' "
        "WHERE stage = 'store_embeddings'"
    )
    applied = await pipeline.apply("approve", sent.document_id, reason="fine")
    assert "guard_refused:all_embeddings_stored" in applied.refused[0].reason
    options = {o.trigger: o for o in (await pipeline.explain(sent.document_id)).options}
    assert not options["approve"].is_open


async def test_a_document_that_was_rejected_rests(pipeline: Pipeline, psql: Psql) -> None:
    """An end that people take is an end: no work is left, and a new version is asked for anew."""
    sent = await pipeline.submit(b"one", source_uri="mem:a")
    await completed(pipeline)
    await pipeline.apply("reject", sent.document_id, reason="no", by="ann")
    assert psql.execute("SELECT count(*) FROM work").fetchone() == (0,)
    assert (await pipeline.get(sent.document_id)).state == "rejected"
    await pipeline.submit(b"better", source_uri="mem:a")
    assert await completed(pipeline, sent.document_id) == ["embeddings_stored"]


async def test_an_earlier_approval_is_not_one_for_the_next_life(pipeline: Pipeline) -> None:
    """A hop goes up to the person and not past, and facts are those of this life."""
    sent = await pipeline.submit(b"one\n\ntwo")
    await completed(pipeline)
    await pipeline.apply("approve", sent.document_id, reason="fine")
    await completed(pipeline)
    await pipeline.apply("reprocess", sent.document_id, reason="again")
    assert await completed(pipeline, sent.document_id) == ["embeddings_stored"]
    assert (await pipeline.apply("approve", sent.document_id, reason="still fine")).refused == ()
    assert await completed(pipeline, sent.document_id) == ["complete"]


@pytest.mark.parametrize("trigger", ["retry", "fail", "finalize", "queue_parse"])
async def test_people_take_no_edge_that_is_not_theirs(pipeline: Pipeline, trigger: str) -> None:
    """Retry and fail are a worker's verdict, other triggers are not possible there."""
    sent = await pipeline.submit(b"one")
    await completed(pipeline)
    applied = await pipeline.apply(trigger, sent.document_id, reason="test")
    assert applied.moved == ()
    (refused,) = applied.refused
    assert any(word in refused.reason for word in ("taken_by_workers", "wrong_state", "guard"))


def is_calm(facts: Facts) -> bool:
    """Open only when the last hook reported so."""
    return facts.reported.get("calm") is True


def is_filed(facts: Facts) -> bool:
    """Open only when the last hook reported a file."""
    return "file" in facts.reported


class FiledLifecycle(Lifecycle):
    """A check, a person, and nothing to earn behind."""

    uploaded = State(initial=True)
    checked, signed = State(), State()
    filed = State(final=True)

    check = uploaded.to(checked)
    sign = checked.to(signed, cond=is_calm)
    file = signed.to(filed, cond=is_filed)


async def _filing(engine: AsyncEngine, **reported: Any) -> tuple[Pipeline, UUID]:
    async def check(_: Claim) -> Done:
        return Done(**reported)

    pipeline = Pipeline(
        engine, lifecycle=FiledLifecycle, hooks={"check": check, "sign": by_hand, "file": None}
    )
    await pipeline.migrate()
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["checked"]
    return pipeline, sent.document_id


async def test_edges_with_nothing_to_earn_behind_a_person_are_walked(
    engine: AsyncEngine, psql: Psql
) -> None:
    """No worker would: there is no stage behind. What the last hook reported opens the guards."""
    pipeline, document = await _filing(engine, calm=True, file="A7")
    applied = await pipeline.apply("sign", document, reason="seen", by="ann")
    assert applied.moved == (document,)
    assert (await pipeline.get(document)).state == "filed"
    assert path_of(psql, document) == ["submit", "check", "sign", "file"]
    hops = psql.execute("SELECT hop, by FROM transition ORDER BY version").fetchall()
    assert hops[2:] == [(False, "ann"), (True, "ann")]
    assert psql.execute("SELECT count(*) FROM work").fetchone() == (0,)


@pytest.mark.parametrize(
    ("reported", "guard"), [({"file": "A7"}, "is_calm"), ({"calm": True}, "is_filed")]
)
async def test_a_guard_that_refuses_is_told_and_nothing_is_written(
    engine: AsyncEngine, psql: Psql, reported: dict[str, Any], guard: str
) -> None:
    """Also one further on: a person is told where a worker would have parked the document."""
    pipeline, document = await _filing(engine, **reported)
    applied = await pipeline.apply("sign", document, reason="seen")
    assert f"guard_refused:{guard}" in applied.refused[0].reason
    assert path_of(psql, document) == ["submit", "check"]
    assert (await pipeline.explain(document)).lane == "held"


async def test_a_document_that_moved_on_meanwhile_is_refused(
    pipeline: Pipeline, engine: AsyncEngine, psql: Psql
) -> None:
    """``apply(state=...)`` looks again once it has the lock."""
    sent = await pipeline.submit(b"one")
    async with engine.begin() as other:
        (held,) = await holding.lock(other, tables("smp"), [sent.document_id])
        asked = asyncio.create_task(pipeline.apply("revise", state="uploaded", reason="all"))
        await until_blocked(psql)
        cancel = plan(pipeline.stages, held, "cancel", by="bob", reason="no")
        await holding.move(other, tables("smp"), pipeline.graph, [cancel])
    applied = await asked
    assert applied.moved == ()
    assert applied.matched == (sent.document_id,)
    assert applied.refused[0].reason == (
        "it stood in 'uploaded' when it was looked for, and in 'cancelled' now"
    )
    assert path_of(psql, sent.document_id) == ["submit", "cancel"]


class SortedLifecycle(Lifecycle):
    """Somebody says whether a document is kept."""

    uploaded = State(initial=True)
    kept, duplicate = State(final=True), State(final=True)

    mark_duplicate = uploaded.to(duplicate)
    keep = uploaded.to(kept)


async def test_nobody_says_by_hand_whose_twin_a_document_is(engine: AsyncEngine) -> None:
    """Who rests on whom is written under the lock of what they share, which people do not hold."""
    hooks = {"mark_duplicate": by_hand, "keep": by_hand}
    pipeline = Pipeline(engine, lifecycle=SortedLifecycle, hooks=hooks)
    await pipeline.migrate()
    sent = await pipeline.submit(b"one")
    applied = await pipeline.apply("mark_duplicate", sent.document_id, reason="test")
    assert "taken_by_workers" in applied.refused[0].reason
    applied = await pipeline.apply("keep", sent.document_id, reason="test")
    assert applied.moved == (sent.document_id,)


class Approval(Lifecycle):
    """A person first."""

    uploaded, complete = State(initial=True), State(final=True)
    approve = uploaded.to(complete)


async def test_a_pipeline_without_the_class_keeps_what_is_by_hand(
    engine: AsyncEngine, psql: Psql
) -> None:
    """``requeue`` on the command line needs no ``--app`` to know that a person is first."""
    pipeline = Pipeline(engine, lifecycle=Approval, hooks={"approve": by_hand})
    await pipeline.migrate()
    sent = await pipeline.submit(b"text")
    async with Pipeline(engine, lifecycle=None) as stored:
        await stored.apply("cancel", sent.document_id, reason="test")
        await stored.apply("requeue", sent.document_id, reason="test")
        explained = await stored.explain(sent.document_id)
        assert explained.sentence == "uploaded: waits until somebody applies approve"
        assert (await stored.submit(b"other")).outcome == "new"
    assert psql.execute("SELECT lane FROM work").fetchall() == [("held",), ("held",)]


async def _nothing(_: Claim) -> None:
    """Earn the edge."""


async def test_who_takes_an_edge_is_changed_by_migrate(engine: AsyncEngine, psql: Psql) -> None:
    """Until then the other code is refused; then what waits there waits for the new one."""
    people = Pipeline(engine, lifecycle=Approval, hooks={"approve": by_hand})
    workers = Pipeline(engine, lifecycle=Approval, hooks={"approve": _nothing})
    await people.migrate()
    sent = await people.submit(b"text")
    with pytest.raises(LifecycleMismatch, match="kept by hand only in the database: approve"):
        await workers.counts()
    await workers.migrate()
    assert psql.execute("SELECT lane FROM work").fetchall() == [("ready",)]
    late = Pipeline(engine, lifecycle=Approval, hooks={"approve": by_hand})
    with pytest.raises(LifecycleMismatch, match="kept by hand only in the code: approve"):
        await late.counts()
    await late.migrate()
    assert psql.execute("SELECT lane FROM work").fetchall() == [("held",)]
    await workers.migrate()
    assert await completed(workers, sent.document_id) == ["complete"]
