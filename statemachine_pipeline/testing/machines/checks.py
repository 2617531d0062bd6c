"""What must hold of a few documents after every step, whatever happened to them."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from statemachine_pipeline.database.mapping import to_document, to_transition
from statemachine_pipeline.graph import DELETED, FAILURE_TRIGGERS, RESTARTS, RETRY, SUBMIT
from statemachine_pipeline.testing import histories

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.records import Document, Transition
    from statemachine_pipeline.stages import Stages


_WORK = ("state", "lane", "attempt", "crashes", "worker", "claim_seq", "run_at")


class Work(NamedTuple):
    """Who may take a document."""

    state: str
    lane: str
    attempt: int
    crashes: int
    worker: int | None
    claim_seq: int
    run_at: datetime | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that the database says at one moment.

    Attributes:
        documents: By id.
        histories: Transitions of each, oldest first.
        work: The work row of each that does not rest.
        workers: Ids of those that are registered.
        products: Stages that have a product, by document.
    """

    documents: Mapping[UUID, Document]
    histories: Mapping[UUID, Sequence[Transition]]
    work: Mapping[UUID, Work]
    workers: frozenset[int]
    products: Mapping[UUID, frozenset[str]]


async def look(connection: AsyncConnection, t: Tables) -> Snapshot:
    """Read everything there is; meant for a schema that holds a few documents."""
    rows = (await connection.execute(_documents(t))).all()
    order = (t.transition.c.document_id, t.transition.c.version)
    histories: collections.defaultdict[UUID, list[Transition]] = collections.defaultdict(list)
    for row in await connection.execute(sa.select(t.transition).order_by(*order)):
        histories[row.document_id].append(to_transition(row))
    return Snapshot(
        documents={row.id: to_document(row) for row in rows},
        histories=histories,
        work={row.id: Work(*row[-len(_WORK) :]) for row in rows if row.lane is not None},
        workers=frozenset(worker for row in rows for worker in row.known_workers),
        products={row.id: frozenset(row.products) for row in rows},
    )


@functools.cache
def _documents(t: Tables) -> Any:
    """Read documents with their work; one statement, since it is run after every step."""
    made = sa.select(t.product.c.stage).where(t.product.c.document_id == t.document.c.id)
    queued = [t.work.c.state.label("queued"), *(t.work.c[name] for name in _WORK[1:])]
    return sa.select(
        t.document,
        sa.func.array(made.scalar_subquery()).label("products"),
        sa.func.array(sa.select(t.worker.c.id).scalar_subquery()).label("known_workers"),
        *queued,
    ).outerjoin(t.work, t.work.c.document_id == t.document.c.id)


def broken(
    seen: Snapshot, stages: Stages, claims: Mapping[UUID, Sequence[Claim]]
) -> Iterator[tuple[UUID, str]]:
    """Yield what does not hold, by document.

    Args:
        seen: What the database says.
        stages: The lifecycle and its hooks.
        claims: Every claim that was handed out.
    """
    for document in seen.documents.values():
        history, work = seen.histories.get(document.id, ()), seen.work.get(document.id)
        problems = itertools.chain(
            histories.broken(history, stages.graph, state=document.state, version=document.version),
            _once(history),
            _work(document, work, seen.workers, stages),
            _tries(work, history),
            _holders(work, claims.get(document.id, ())),
        )
        yield from ((document.id, problem) for problem in problems)


def _once(history: Sequence[Transition]) -> Iterator[str]:
    """Every claim earned one attempt's edges at most, in one go."""
    settled: collections.defaultdict[int, list[Transition]] = collections.defaultdict(list)
    for one in history:
        if one.claim_seq is not None:
            settled[one.claim_seq].append(one)
    for sequence, rows in settled.items():
        versions = [one.version for one in rows]
        is_one_go = versions == list(range(versions[0], versions[0] + len(versions)))
        if not is_one_go or sum(one.attempt is not None for one in rows) > 1:
            yield f"claim {sequence} wrote twice: steps {versions}"


def _work(
    document: Document, work: Work | None, workers: frozenset[int], stages: Stages
) -> Iterator[str]:
    state = document.state
    if stages.graph.is_resting(state):
        if work is not None:
            yield f"it rests in {state!r}, and is in the queue ({work.lane})"
        return
    if work is None:
        yield f"it stands in {state!r} and is not in the queue: nobody will ever take it"
        return
    if work.state != state:
        yield f"it stands in {state!r}, and is in the queue for {work.state!r}"
    policy = stages.policy_at(state)
    if work.attempt > policy.attempts or work.crashes >= policy.crashes:
        yield (
            f"attempt {work.attempt} of {policy.attempts} and crash {work.crashes} of "
            f"{policy.crashes} at {state!r}"
        )
    if work.lane == "held" and not stages.is_by_hand(state):
        yield f"it is held for a person at {state!r}, where no person is asked"
    if work.lane == "deferred" and work.run_at is None:
        yield "it is deferred without a time"
    if work.lane == "claimed" and work.worker not in workers:
        yield f"worker {work.worker} holds it, whom nobody knows: nobody would rescue it"


def _tries(work: Work | None, history: Sequence[Transition]) -> Iterator[str]:
    """Each attempt that failed since it came to stand here is a row of history; no other counts."""
    if work is None:
        return
    here = itertools.takewhile(lambda one: one.trigger == RETRY, reversed(history))
    failed = sum(1 for _ in here)
    attempts = failed + (work.lane == "claimed")
    if work.attempt != attempts or work.crashes > failed:
        yield (
            f"attempt {work.attempt} and crash {work.crashes} are counted ({work.lane}), and "
            f"{failed} attempts failed since it came to {work.state!r}"
        )


def _holders(work: Work | None, claims: Sequence[Claim]) -> Iterator[str]:
    sequences = [claim.sequence for claim in claims]
    if len(set(sequences)) != len(sequences):
        yield f"two claims with one fence: {sequences}"
    if work is None:
        return
    if work.lane != "claimed":
        if work.claim_seq in sequences:
            yield f"it is {work.lane}, and still has the fence of claim {work.claim_seq}"
        return
    holding = [c.worker for c in claims if c.sequence == work.claim_seq]
    if claims and not holding and work.claim_seq <= max(sequences):
        yield f"claim {work.claim_seq} is held, which is older than claim {max(sequences)}"


def lost_products(seen: Snapshot, stages: Stages) -> Iterator[tuple[UUID, str]]:
    """Yield stages that were earned in the last life and left no product, by document."""
    for document in seen.documents.values():
        kept = seen.products.get(document.id, frozenset())
        if document.state == DELETED:
            if kept:
                yield document.id, f"it is deleted and still has products of {sorted(kept)}"
            continue
        for one in seen.histories[document.id]:
            bound = stages.at(one.from_state or "")
            moved = one.trigger not in FAILURE_TRIGGERS | RESTARTS | {SUBMIT}
            if one.life == document.life and moved and bound and bound.trigger not in kept:
                yield (
                    document.id,
                    f"step {one.version} earned {bound.trigger!r}; its product is lost",
                )
