"""Claims: one worker at a time, fenced, and taken from the dead."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from fix_lifecycles import FORK_HOOKS, ForkLifecycle
from fix_pipelines import (
    BRIEFLY,
    Hooks,
    Told,
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
from statemachine import State

from statemachine_pipeline import DocumentLifecycle, Lifecycle, Pipeline
from statemachine_pipeline.database.proposal import Settled
from statemachine_pipeline.database.statements import claims
from statemachine_pipeline.decide import Crashed, Failed
from statemachine_pipeline.errors import StaleClaim
from statemachine_pipeline.records import Vectors

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    Psql = psycopg.Connection[Any]

QUEUED = "SELECT lane, worker, attempt, crashes FROM work WHERE document_id = %s"


async def _submit(pipeline: Pipeline, count: int) -> list[Any]:
    sent = [await pipeline.submit(b"document %d" % n) for n in range(count)]
    return [one.document_id for one in sent]


async def test_two_workers_never_claim_the_same_document(engine: AsyncEngine) -> None:
    """Claims made at the same time are disjoint, and nothing is left out."""
    pipeline = pipeline_with(engine)
    ids = await _submit(pipeline, 60)
    workers = [await hand(pipeline) for _ in range(4)]
    rounds = [
        await asyncio.gather(*(worker.claim("queue_parse", slots=5) for worker in workers))
        for _ in range(3)
    ]
    taken = [claim.document.id for round_ in rounds for found in round_ for claim, _ in found]
    assert len(taken) == 60
    assert set(taken) == set(ids)


async def test_a_claim_waits_for_nobody(engine: AsyncEngine, psql: Psql) -> None:
    """Rows that another transaction has locked are skipped."""
    pipeline = pipeline_with(engine)
    ids = await _submit(pipeline, 3)
    worker = await hand(pipeline)
    with psql.transaction():
        psql.execute("SELECT FROM work WHERE document_id = %s FOR UPDATE", [ids[0]])
        found = await worker.claim()
    assert {claim.document.id for claim, _ in found} == set(ids[1:])


async def test_free_slots_bound_a_claim(engine: AsyncEngine) -> None:
    """At most as many as asked for, per stage; none where there is no slot."""
    pipeline = pipeline_with(engine)
    await _submit(pipeline, 10)
    worker = await hand(pipeline)
    assert len(await worker.claim("queue_parse", slots=3)) == 3
    assert len(await worker.claim("queue_parse", slots=0)) == 0
    assert len(await worker.claim("finish_parse", slots=3)) == 0
    assert len(await worker.claim(slots=100)) == 7


async def test_a_claim_counts_the_attempt_and_draws_a_new_fence(engine: AsyncEngine) -> None:
    """The fence is never reused and grows with every claim."""
    pipeline = pipeline_with(engine)
    await _submit(pipeline, 2)
    worker = await hand(pipeline)
    (first, bound), (second, _) = await worker.claim()
    assert first.sequence != second.sequence
    assert (first.attempt, first.crashes, first.worker) == (1, 0, worker.worker)
    assert first.deadline_at > first.entered_at
    await worker.settle(worker.propose(first, bound, Failed(code="e", reason="r")))
    await worker.store.promote()
    ((again, _),) = await worker.claim()
    assert again.attempt == 2
    assert again.sequence > max(first.sequence, second.sequence)
    assert again.idempotency_key == first.idempotency_key


async def test_a_dead_worker_claims_nothing(engine: AsyncEngine, psql: Psql) -> None:
    """A worker that was declared dead, or is not known, gets no work."""
    pipeline = pipeline_with(engine)
    await _submit(pipeline, 1)
    worker = await hand(pipeline)
    psql.execute("UPDATE worker SET dead_at = now()")
    assert await worker.claim() == []
    psql.execute("DELETE FROM worker")
    assert await worker.claim() == []
    assert len(await (await hand(pipeline)).claim()) == 1


@pytest.mark.parametrize("place", ["stage, tenant", "tenant", "stage"])
async def test_nobody_puts_all_down_for_a_suspect_that_is_paused(
    engine: AsyncEngine, psql: Psql, place: str
) -> None:
    """A worker that looked for it would take nothing else until it had, again each second."""
    pipeline = pipeline_with(engine)
    await _submit(pipeline, 1)
    psql.execute("UPDATE work SET crashes = 1, alone = true")
    values = {"stage, tenant": "'queue_parse', 'default'", "tenant": "'default'"}
    named = values.get(place, "'queue_parse'")
    psql.execute(
        f"INSERT INTO pause ({place}, reason, by) VALUES ({named}, 'late', 'ann')".encode()
    )
    served = pipeline.stages.served(None)
    assert not await (await hand(pipeline)).store.has_suspects(served)


async def test_a_document_that_took_a_worker_down_is_claimed_alone(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Its next worker holds nothing else, so that it takes no bystanders with it."""
    pipeline = pipeline_with(engine)
    ids = await _submit(pipeline, 3)
    psql.execute("UPDATE work SET crashes = 1, alone = true WHERE document_id = %s", [ids[1]])
    worker = await hand(pipeline)
    assert await worker.store.has_suspects(pipeline.stages.served(None))
    assert ids[1] not in {claim.document.id for claim, _ in await worker.claim()}
    ((claim, _),) = await worker.claim(alone=True, slots=1)
    assert claim.document.id == ids[1]
    assert not await worker.store.has_suspects(pipeline.stages.served(None))


async def test_a_runner_takes_suspects_when_it_holds_nothing_else(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Suspects are run too, one at a time, and come to an end."""
    together: set[frozenset[Any]] = set()
    now: set[Any] = set()

    async def look(claim: Any) -> Any:
        now.add(claim.document.id)
        together.add(frozenset(now))
        await asyncio.sleep(0)
        now.discard(claim.document.id)
        return await accept(claim)

    pipeline = pipeline_with(engine, queue_parse=look)
    ids = await _submit(pipeline, 6)
    psql.execute("UPDATE work SET crashes = 1, alone = true WHERE document_id = ANY(%s)", [ids[:2]])
    assert await completed(pipeline, *ids) == ["complete"] * 6
    assert {group for group in together if group & set(ids[:2])} == {
        frozenset({suspect}) for suspect in ids[:2]
    }


async def test_suspects_behind_a_pause_keep_nobody_from_other_work(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Nobody empties its hands for what it could not claim."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text", tenant="ann")
    psql.execute("UPDATE work SET crashes = 1, alone = true")
    worker, served = await hand(pipeline), pipeline.stages.served(None)
    for place in ({"tenant": "ann"}, {"tenant": "ann", "stage": "queue_parse"}):
        await pipeline.operations.pause(**place, reason="a bill is open", by="bob")
        assert not await worker.store.has_suspects(served)
        await pipeline.operations.resume(**place)
        assert await worker.store.has_suspects(served)
    await pipeline.operations.pause(tenant="ann", stage="finish_parse", reason="no", by="bob")
    await pipeline.operations.pause(tenant="zoe", reason="no", by="bob")
    assert await worker.store.has_suspects(served)


async def test_once_somebody_has_the_suspects_the_others_claim_again(
    engine: AsyncEngine, psql: Psql
) -> None:
    """One long hook in hand does not keep a worker from new work after that."""
    hooks = Hooks()
    hooks.queue_parse.block()
    pipeline = pipeline_with(engine, hooks)
    first, suspect = await _submit(pipeline, 2)
    psql.execute("UPDATE work SET crashes = 1, alone = true WHERE document_id = %s", [suspect])
    other, runner = await hand(pipeline), pipeline.runner()
    async with runner:
        assert (await hooks.queue_parse.begun()).document.id == first
        async with asyncio.timeout(BRIEFLY.total_seconds()):
            while not runner._suspects:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        assert len(await other.claim(alone=True, slots=1)) == 1
        sent = await pipeline.submit(b"new")
        claimed = "SELECT lane = 'claimed' FROM work WHERE document_id = %s"
        await until(psql, claimed, sent.document_id)
        hooks.queue_parse.go_on()


async def test_a_paused_stage_is_not_claimed(engine: AsyncEngine, psql: Psql) -> None:
    """Only that stage, and only until its time."""
    pipeline = pipeline_with(engine)
    ids = await _submit(pipeline, 2)
    worker = await hand(pipeline)
    claim, bound = (await worker.claim(slots=1))[0]
    await worker.settle(await worker.earn(claim, bound))
    await pipeline.operations.pause(stage="finish_parse", reason="no key", for_=timedelta(hours=1))
    found = await worker.claim()
    assert [one.stage for one, _ in found] == ["queue_parse"]
    psql.execute("UPDATE pause SET until = now()")
    ((resumed, _),) = await worker.claim()
    assert (resumed.stage, resumed.document.id) == ("finish_parse", claim.document.id)
    assert claim.document.id in ids


async def _stale(worker: Any, claim: Any, bound: Any) -> None:
    """Assert that neither settle nor save can write under this claim."""
    proposal = worker.propose(claim, bound, Failed(code="e", reason="r"))
    (batched,) = await worker.settle(proposal)
    (alone,) = await worker.settle(proposal, alone=True)
    assert batched is None
    assert isinstance(alone, StaleClaim)
    with pytest.raises(StaleClaim):
        await worker.store.take_key(claim, ("bytes", "0" * 64))
    with pytest.raises(StaleClaim):
        await worker.store.vectors.missing(claim, 4)
    with pytest.raises(StaleClaim):
        await worker.store.standing(claim)
    assert not await worker.store.holds(claim)


@pytest.mark.parametrize("trigger", ["cancel", "delete", "revise"])
async def test_what_people_do_moves_the_fence(
    engine: AsyncEngine, psql: Psql, trigger: str
) -> None:
    """A worker whose document was moved by hand can no longer write anything."""
    pipeline = pipeline_with(engine)
    worker = await hand(pipeline)
    sent = await pipeline.submit(b"text", source_uri="mem:a")
    claim, bound = await worker.claim_one()
    if trigger == "revise":
        await pipeline.submit(b"other", source_uri="mem:a")
    else:
        await pipeline.apply(trigger, sent.document_id, reason="test")
    before = (await pipeline.get(sent.document_id), path_of(psql, sent.document_id))
    await _stale(worker, claim, bound)
    assert (await pipeline.get(sent.document_id), path_of(psql, sent.document_id)) == before


async def test_requeueing_does_not_revive_an_old_claim(engine: AsyncEngine) -> None:
    """The claim of an earlier life stays stale when the document is at the same stage again."""
    pipeline = pipeline_with(engine)
    worker = await hand(pipeline)
    (document,) = await _submit(pipeline, 1)
    claim, bound = await worker.claim_one()
    await pipeline.apply("cancel", document, reason="test")
    await pipeline.apply("requeue", document, reason="test")
    await _stale(worker, claim, bound)
    again, bound = await worker.claim_one()
    await _stale(worker, claim, bound)
    (answer,) = await worker.settle(await worker.earn(again, bound))
    assert isinstance(answer, Settled)


async def test_a_stale_claim_in_a_batch_harms_nobody(engine: AsyncEngine) -> None:
    """Neighbours in the same batch are settled."""
    pipeline = pipeline_with(engine)
    worker = await hand(pipeline)
    await _submit(pipeline, 3)
    claimed = await worker.claim()
    await pipeline.apply("cancel", claimed[1][0].document.id, reason="test")
    answers = await worker.settle(
        *[worker.propose(*pair, Failed(code="e", reason="r")) for pair in claimed]
    )
    assert [isinstance(answer, Settled) for answer in answers] == [True, False, True]


async def test_settling_twice_changes_nothing_the_second_time(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A settle whose answer was lost can be repeated."""
    pipeline = pipeline_with(engine)
    worker = await hand(pipeline)
    (document,) = await _submit(pipeline, 1)
    proposal = await worker.earn(*await worker.claim_one())
    (first,) = await worker.settle(proposal)
    assert isinstance(first, Settled)
    history = path_of(psql, document)
    assert await worker.settle(proposal) == [None]
    (second,) = await worker.settle(proposal, alone=True)
    assert isinstance(second, StaleClaim)
    assert path_of(psql, document) == history


async def test_the_claims_of_a_dead_worker_are_rescued(engine: AsyncEngine, psql: Psql) -> None:
    """Its silence counts as a crash, and who died is in history."""
    pipeline = pipeline_with(engine)
    dead, living = await hand(pipeline), await hand(pipeline)
    (document,) = await _submit(pipeline, 1)
    claim, bound = await dead.claim_one()
    assert await living.rescue() == 0
    psql.execute(
        "UPDATE worker SET beat_at = now() - interval '20 minutes' WHERE id = %s", [dead.worker]
    )
    assert await living.rescue() == 1
    assert await living.rescue() == 0
    assert psql.execute(QUEUED, [document]).fetchone() == ("deferred", None, 1, 1)
    *_, last = await pipeline.history(document)
    assert (last.trigger, last.error, last.worker) == ("retry", "crashed", living.worker)
    assert last.reason == f"worker {dead.worker} was taken for dead"
    await _stale(dead, claim, bound)
    assert psql.execute("SELECT id FROM worker WHERE dead_at IS NULL").fetchall() == [
        (living.worker,)
    ]


async def test_a_dead_worker_is_known_for_an_hour(engine: AsyncEngine, psql: Psql) -> None:
    """'Recently dead': a person who comes late finds its host and process; then it is forgotten."""
    pipeline = pipeline_with(engine)
    dead, living = await hand(pipeline), await hand(pipeline)
    known = "SELECT id FROM worker ORDER BY id"
    for ago, left in (
        ("59 minutes", [(dead.worker,), (living.worker,)]),
        ("1 hour", [(living.worker,)]),
    ):
        psql.execute(
            "UPDATE worker SET dead_at = now() - %s::interval WHERE id = %s", [ago, dead.worker]
        )
        await living.rescue()
        assert psql.execute(known).fetchall() == left


async def test_a_claim_past_deadline_and_grace_is_rescued(engine: AsyncEngine, psql: Psql) -> None:
    """Age alone means nothing; past deadline plus grace its worker has lost it."""
    pipeline = pipeline_with(engine)
    worker, other = await hand(pipeline), await hand(pipeline)
    (document,) = await _submit(pipeline, 1)
    claim, bound = await worker.claim_one()
    psql.execute("UPDATE work SET entered_at = now() - interval '10 days'")
    assert await other.rescue(grace=30) == 0
    psql.execute("UPDATE work SET deadline_at = now() - interval '58 minutes'")
    assert await other.rescue(grace=3600) == 0
    psql.execute("UPDATE work SET deadline_at = now() - interval '61 minutes'")
    assert await other.rescue(grace=3600) == 1
    assert psql.execute(QUEUED, [document]).fetchone() == ("deferred", None, 1, 1)
    *_, last = await pipeline.history(document)
    assert last.reason == f"worker {worker.worker} did not stop at the deadline"
    await _stale(worker, claim, bound)


async def test_saving_moves_the_deadline(engine: AsyncEngine, psql: Psql) -> None:
    """A stage that commits progress is not rescued."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    worker = await hand(pipeline)
    (document,) = await _submit(pipeline, 1)
    triggers = ("queue_parse", "finish_parse", "accept_parse", "store_chunks")
    for trigger in triggers:
        await worker.settle(await worker.earn(*await worker.claim_one(trigger)))
    claim, _ = await worker.claim_one("store_embeddings")
    assert claim.document.id == document
    psql.execute("UPDATE work SET deadline_at = now() - interval '1 hour'")
    ((chunk, _, _),) = await worker.store.vectors.missing(claim, 4)
    vectors = Vectors(
        embedder=claim.fingerprint, dimensions=4, chunk_ids=(chunk,), values=((1.0, 2.0, 3.0, 4.0),)
    )
    for _ in range(2):  # the answer to the first may have been lost
        saved = await worker.store.vectors.save([(claim, vectors, 7)], timedelta(minutes=5))
        assert saved == [True]
    assert psql.execute("SELECT tokens FROM work").fetchone() == (7,)
    assert await worker.rescue(grace=0) == 0
    assert await worker.store.holds(claim)


async def test_a_document_that_kills_its_workers_is_parked(engine: AsyncEngine, psql: Psql) -> None:
    """After a bounded number of crashes at one stage, with the reason."""
    pipeline = pipeline_with(engine, queue_parse=plain(Told(accept), crashes=3, attempts=9))
    (document,) = await _submit(pipeline, 1)
    for crash in range(1, 4):
        dead = await hand(pipeline)
        found = await dead.claim(alone=crash > 1, slots=1)
        assert len(found) == 1
        psql.execute("UPDATE worker SET beat_at = now() - interval '1 day'")
        living = await hand(pipeline)
        assert await living.rescue() == 1
        psql.execute("UPDATE work SET run_at = now()")
        await living.store.promote()
    parked = await pipeline.get(document)
    assert parked.state == "dead_letter"
    assert parked.last_error == f"worker {dead.worker} was taken for dead"
    assert psql.execute("SELECT state, code, attempts FROM dead_letter").fetchall() == [
        ("uploaded", "crashed", 3)
    ]
    assert path_of(psql, document) == ["submit", "retry", "retry", "fail"]
    await pipeline.apply("requeue", document, reason="fixed")
    assert psql.execute(QUEUED, [document]).fetchone() == ("ready", None, 0, 0)


async def test_what_passes_the_stage_where_it_was_lost_is_no_suspect_any_more(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Crashes are counted at one stage: bystanders of many crashes are not parked in the end."""
    pipeline = pipeline_with(engine)
    (document,) = await _submit(pipeline, 1)
    lost, living = await hand(pipeline), await hand(pipeline)
    assert len(await lost.claim(slots=1)) == 1
    psql.execute(
        "UPDATE worker SET beat_at = beat_at - interval '1 day' WHERE id = %s", [lost.worker]
    )
    assert await living.rescue() == 1
    standing = "SELECT state, crashes, alone FROM work WHERE document_id = %s"
    assert psql.execute(standing, [document]).fetchone() == ("uploaded", 1, True)
    psql.execute("UPDATE work SET run_at = now()")
    await living.store.promote()
    ((claim, bound),) = await living.claim(alone=True)
    await living.settle(living.propose(claim, bound, Failed(code="slow", reason="it was slow")))
    assert psql.execute(standing, [document]).fetchone() == ("uploaded", 1, True)
    await living.store.promote()
    ((claim, bound),) = await living.claim(alone=True)
    await living.settle(await living.earn(claim, bound))
    assert psql.execute(standing, [document]).fetchone() == ("parse_queued", 0, False)


async def test_a_dead_child_is_a_crash_that_others_need_not_be_kept_from(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Only what took its worker down is claimed alone: a child protects its neighbours."""
    pipeline = pipeline_with(engine)
    (document,) = await _submit(pipeline, 1)
    worker = await hand(pipeline)
    claim, bound = await worker.claim_one()
    crashed = Crashed(reason="the child process died of SIGSEGV", is_contained=True)
    await worker.settle(worker.propose(claim, bound, crashed))
    await worker.store.promote()
    ((again, _),) = await worker.claim()
    assert (again.document.id, again.crashes, again.attempt) == (document, 1, 2)


async def test_nobody_is_to_be_claimed_alone_who_did_not_crash(
    engine: AsyncEngine, psql: Psql
) -> None:
    """What must hold is enforced in the database."""
    await _submit(pipeline_with(engine), 1)
    with pytest.raises(psycopg.errors.CheckViolation, match="work_alone_after_a_crash"):
        psql.execute("UPDATE work SET alone = true")


async def test_a_heir_that_somebody_holds_keeps_nobody_else_with_a_dead_worker(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A rescue that would park a document waits for nobody's open transaction."""
    pipeline = pipeline_with(engine, queue_parse=plain(Told(accept), crashes=1, attempts=9))
    owner = (await pipeline.submit(b"one", source_uri="owner")).document_id
    await completed(pipeline, owner)
    twin = (await pipeline.submit(b"one", source_uri="twin")).document_id
    await pipeline.runner().run_until_idle()
    await pipeline.submit(b"two", source_uri="owner")
    dead, living = await hand(pipeline), await hand(pipeline)
    assert len(await dead.claim(slots=1)) == 1
    psql.execute(
        "UPDATE worker SET beat_at = now() - interval '1 day' WHERE id = %s", [dead.worker]
    )
    with psql.transaction():
        psql.execute("SELECT FROM document WHERE id = %s FOR UPDATE", [twin])
        assert await living.rescue() == 0
    assert await living.rescue() == 1
    assert (await pipeline.get(owner)).state == "dead_letter"
    assert (await pipeline.get(twin)).state == "uploaded"


async def test_a_rescue_leaves_a_claim_that_is_being_settled(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Settle first: rescue skips the locked row and finds nothing afterwards."""
    pipeline = pipeline_with(engine)
    slow, other = await hand(pipeline), await hand(pipeline)
    (document,) = await _submit(pipeline, 1)
    proposal = await slow.earn(*await slow.claim_one())
    psql.execute("UPDATE work SET deadline_at = now() - interval '1 hour'")
    async with engine.begin() as settling:
        (answer,) = await slow.store._settlement.write_in(settling, [proposal], slow.worker)
        assert isinstance(answer, Settled)
        assert await other.rescue(grace=0) == 0
    assert await other.rescue(grace=0) == 0
    assert path_of(psql, document) == ["submit", "queue_parse"]


OVERDUE = {"grace": 0.0, "patience": "30s", "states": list(DocumentLifecycle.graph.states)}


async def test_a_settle_that_waits_for_a_rescue_is_refused(engine: AsyncEngine, psql: Psql) -> None:
    """Rescue first: the settle waits for it, and then writes nothing."""
    pipeline = pipeline_with(engine)
    slow, other = await hand(pipeline), await hand(pipeline)
    (document,) = await _submit(pipeline, 1)
    proposal = await slow.earn(*await slow.claim_one())
    psql.execute("UPDATE work SET deadline_at = now() - interval '1 hour'")
    t = other.store._t
    async with engine.begin() as rescuing:
        rows = await rescuing.execute(claims.overdue(t), OVERDUE)
        rescued = [other.store._rescue_proposal(row) for row in rows]
        await other.store._settlement.write_in(rescuing, rescued, other.worker)
        assert await slow.settle(proposal) == [None]
        late = asyncio.create_task(slow.settle(proposal, alone=True))
        await until_blocked(psql)
    (answer,) = await late
    assert isinstance(answer, StaleClaim)
    assert path_of(psql, document) == ["submit", "retry"]


async def test_a_rescue_does_not_take_what_was_claimed_anew_meanwhile(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Between finding and locking, an overdue claim may have ended and a new one begun."""
    pipeline = pipeline_with(engine)
    first, second, other = [await hand(pipeline) for _ in range(3)]
    ids = await _submit(pipeline, 2)
    await first.claim()
    psql.execute("UPDATE work SET deadline_at = now() - interval '1 hour'")
    psql.execute(
        """CREATE FUNCTION public.meanwhile() RETURNS boolean LANGUAGE plpgsql VOLATILE AS
           $$ BEGIN PERFORM pg_advisory_lock(7); RETURN true; END $$"""
    )
    statement = claims.overdue(other.store._t)
    # Stops between the two halves: the lock is asked for once the overdue have been found.
    late = next(cte for cte in _ctes(statement) if cte.name == "late")
    slowed = statement.where(
        sa.select(sa.func.count()).select_from(late).scalar_subquery() > 0,
        sa.text("public.meanwhile()"),
    )
    psql.execute("SELECT pg_advisory_lock(7)")

    async def rescue() -> list[Any]:
        async with engine.begin() as connection:
            return list(await connection.execute(slowed, OVERDUE))

    found = asyncio.create_task(rescue())
    await until_blocked(psql)
    await first.workers.leave(first.worker)
    assert len(await second.claim()) == 2
    psql.execute("SELECT pg_advisory_unlock(7)")
    assert await found == []
    assert psql.execute("SELECT DISTINCT worker FROM work").fetchall() == [(second.worker,)]
    assert len(ids) == 2


class ReadLifecycle(Lifecycle):
    """Has a state that the shipped one has not."""

    uploaded = State(initial=True)
    opened = State()
    seen = State(final=True)

    open_it = uploaded.to(opened)
    read = opened.to(seen)


async def look(claim: object) -> None:
    """Earn the edge."""


async def test_a_rescue_leaves_what_only_another_lifecycle_knows(
    engine: AsyncEngine, psql: Psql
) -> None:
    """In a rolling deploy an old worker must not stumble over what the new ones hold."""
    older = pipeline_with(engine)
    newer = Pipeline(engine, lifecycle=ReadLifecycle, hooks={"open_it": look, "read": look})
    await newer.migrate()
    old, new = await hand(older), await hand(newer)
    (unknown,) = await _submit(newer, 1)
    await new.settle(await new.earn(*await new.claim_one()))
    await new.claim_one()
    known = (await older.submit(b"another")).document_id
    await old.claim_one()
    psql.execute("UPDATE work SET deadline_at = now() - interval '1 hour'")
    assert (await old.rescue(grace=0), await new.rescue(grace=0)) == (1, 1)
    assert path_of(psql, known) == ["submit", "retry"]
    assert path_of(psql, unknown) == ["submit", "open_it", "retry"]


def _ctes(statement: Any) -> list[Any]:
    return [found for found in sa.sql.visitors.iterate(statement) if isinstance(found, sa.CTE)]


async def test_leaving_gives_claims_back_unspent(engine: AsyncEngine, psql: Psql) -> None:
    """Release returns the attempt, moves the fence and writes no history."""
    pipeline = pipeline_with(engine)
    worker = await hand(pipeline)
    (document,) = await _submit(pipeline, 1)
    claim, bound = await worker.claim_one()
    assert await worker.workers.leave(worker.worker) == 1
    assert psql.execute(QUEUED, [document]).fetchone() == ("ready", None, 0, 0)
    assert path_of(psql, document) == ["submit"]
    await _stale(worker, claim, bound)
    other = await hand(pipeline)
    again, _ = await other.claim_one()
    assert again.attempt == 1


async def test_a_release_keeps_what_it_is_told_to_keep(engine: AsyncEngine) -> None:
    """Only claims that nobody drives are given back."""
    pipeline = pipeline_with(engine)
    worker, other = await hand(pipeline), await hand(pipeline)
    await _submit(pipeline, 3)
    kept, *lost = [claim for claim, _ in await worker.claim(slots=2)]
    mine, _ = await other.claim_one()
    assert await worker.workers.release(worker.worker, keep=[kept.document.id]) == 1
    assert await worker.store.holds(kept)
    assert await other.store.holds(mine)
    assert not await worker.store.holds(lost[0])


async def test_two_stages_behind_one_waiting_state_claim_it_once(empty_url: str) -> None:
    """A fork where nothing is to be earned leads to two stages; a claim is for one of them."""
    async with Pipeline(empty_url, lifecycle=ForkLifecycle, hooks=FORK_HOOKS) as pipeline:
        await pipeline.migrate()
        sent = await pipeline.submit(b"text")
        worker = await hand(pipeline)
        await worker.settle(await worker.earn(*await worker.claim_one("look")))
        assert (await pipeline.get(sent.document_id)).state == "waiting"
        assert len(await worker.claim()) == 1
        await worker.workers.leave(worker.worker)
        assert await completed(pipeline, sent.document_id) == ["ended"]


@pytest.mark.parametrize("table", ["document", "work"])
async def test_a_users_open_transaction_delays_only_its_document(
    engine: AsyncEngine, psql: Psql, table: str
) -> None:
    """Others settle meanwhile, though they would have shared a batch with it."""
    hooks = Hooks()
    hooks.queue_parse.block()
    pipeline = pipeline_with(engine, hooks, queue_parse=plain(hooks.queue_parse, concurrency=50))
    ids = await _submit(pipeline, 20)
    key = "id" if table == "document" else "document_id"
    async with running(pipeline):
        await until(psql, "SELECT count(*) = 20 FROM work WHERE lane = 'claimed'")
        with psql.transaction():
            psql.execute(f"SELECT FROM {table} WHERE {key} = %s FOR UPDATE", [ids[4]])
            hooks.queue_parse.go_on()
            others = [document for document in ids if document != ids[4]]
            await pipeline.wait(*others, timeout=BRIEFLY)
            assert (await pipeline.get(ids[4])).state == "uploaded"
        (last,) = await pipeline.wait(ids[4], timeout=BRIEFLY)
    assert last.state == "complete"
    assert {one.attempt for one in await pipeline.history(ids[4])} <= {None, 1}
