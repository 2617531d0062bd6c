"""What goes wrong with workers, services, people and clocks, and what must come of it.

Each fault happens to one document that a worker can take. Whatever is refused must leave nothing
behind; that the rest holds is seen by the checks after the step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from datetime import timedelta
from typing import TYPE_CHECKING

from statemachine_pipeline import failpoints
from statemachine_pipeline.errors import DatabaseUnavailable, StaleClaim
from statemachine_pipeline.graph import CANCEL, DELETE, REPROCESS, REQUEUE, REVISE
from statemachine_pipeline.hooks import RateLimited, Reject, Retry, StageFault, Wait
from statemachine_pipeline.runner.children import ChildCrashed
from statemachine_pipeline.testing.machines import times, walks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline.database.proposal import Proposal
    from statemachine_pipeline.failpoints import Moment
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.testing.machines.hands import Hand, Ticket
    from statemachine_pipeline.testing.machines.worlds import World


class Fault(enum.StrEnum):
    """What can be made to go wrong; the value is its label everywhere."""

    CRASH_BEFORE = "crash before the settle"
    CRASH_AFTER = "crash after the settle"
    CRASH_CONTAINED = "crash of a child process"
    COMMIT_UNKNOWN = "commit with unknown outcome"
    NEVER_SENT = "settle that was never sent"
    EXPIRED_CLAIM = "expired claim"
    ZOMBIE = "zombie"
    DUPLICATE_DELIVERY = "duplicate delivery"
    SETTLED_TWICE = "settled twice"
    LATE_DELIVERY = "late delivery"
    PERMANENT = "permanent failure"
    TRANSIENT = "transient failure"
    RATE_LIMITED = "rate limited"
    WAIT = "wait"
    STAGE_FAULT = "stage fault"
    CANCEL = "cancel"
    REQUEUE = "requeue"
    REPROCESS = "reprocess"
    REVISE = "revise"
    DELETE = "delete"
    CLOCK_JUMP = "clock jump"


class _Lost(OSError):
    """The connection broke."""


@contextlib.contextmanager
def _broken(moment: Moment) -> Iterator[None]:
    """Lose the connection before or after what the block settles."""

    def lose(doing: str, now: Moment) -> None:
        if doing == "settling" and now == moment:
            raise _Lost("connection lost")

    token = failpoints.active.set(lose)
    try:
        yield
    finally:
        failpoints.active.reset(token)


async def strike(world: World, document: UUID, fault: Fault) -> bool:
    """Let a fault happen to a document; tell whether it could.

    Raises:
        AssertionError: What came of it is not what must.
    """
    if fault in _ASKED:
        await _ask(world, document, _ASKED[fault])
        return True
    if not await walks.wake(world, document):
        return False
    if fault in _RAISED:
        await _raise(world, document, _RAISED[fault]())
    else:
        await _HAPPENING[fault](world, document)
    return True


async def _raise(world: World, document: UUID, error: BaseException) -> None:
    """Let a hook raise; where that moves nothing, it was nobody's fault and costs no attempt."""
    hand, ticket = await world.take(document)
    before = await world.bench.documents.get(document)
    await world.settle(document, await hand.fail(ticket, error))
    if (await world.bench.documents.get(document)).version == before.version:
        _, again = await world.take(document)
        given, came = ticket.claim.attempt, again.claim.attempt
        _must(given == came, f"attempt {given} was given back, and attempt {came} came next")


async def _ask(world: World, document: UUID, trigger: str) -> None:
    """Ask for a trigger wherever the document stands: it moves just where the graph lets it."""
    state = await world.state(document)
    works = not world.graph.is_resting(state)
    possible = trigger in world.graph.possible(state) or (trigger == DELETE and works)
    before = await _trace(world, document)
    moved = await world.apply(trigger, document)
    word = "was refused" if possible else "went through"
    _must(moved is possible, f"{trigger!r} in state {state!r} {word}")
    if not moved:
        await _unchanged(world, document, before, f"the refused {trigger!r}")


async def _crash_before(world: World, document: UUID) -> None:
    hand, _ = await world.take(document)
    await _die(world, hand)


async def _crash_after(world: World, document: UUID) -> None:
    hand, _ = await world.take(document)
    await walks.onward(world, document, goes_on=True)
    await _die(world, hand)


async def _die(world: World, hand: Hand) -> None:
    """Let a worker end without a word; another one rescues all that it held."""
    async with world.bench.autocommit.connect() as connection:
        await times.silence(connection, world.bench.tables, hand.worker, world.bench.age)
    held = sum(holder is hand for holder, _ in world.held.values())
    rescued = await _other(world, hand).rescue()
    world.forget()
    _must(rescued == held, f"a dead worker held {held} documents, {rescued} were rescued")
    await world.replace(hand)


async def _commit_unknown(world: World, document: UUID) -> None:
    """The settle lands and its answer is lost: the fence tells, and nothing is written again."""
    hand, ticket = await world.take(document)
    proposal = await hand.perform(ticket, walks.home(world.bench, ticket), goes_on=True)
    with _broken("after"), contextlib.suppress(DatabaseUnavailable):
        await hand.settle(ticket, proposal)
    _must(not await world.bench.store.holds(ticket.claim), "a settle landed, its claim is held")
    world.held.pop(document)
    await _refused(world, hand, ticket, proposal)
    # Nobody drives what it may have gone on with, so it is given back.
    keep = [one for one, (holder, _) in world.held.items() if holder is hand]
    await world.bench.workers.release(hand.worker, keep=keep)


async def _never_sent(world: World, document: UUID) -> None:
    """The settle is lost on its way: the claim is still held, and settles after all."""
    hand, ticket = await world.take(document)
    proposal = await hand.perform(ticket, walks.home(world.bench, ticket))
    with _broken("before"), contextlib.suppress(DatabaseUnavailable):
        await hand.settle(ticket, proposal)
    _must(await world.bench.store.holds(ticket.claim), "nothing was sent, its claim is gone")
    await world.settle(document, proposal)


async def _expired_claim(world: World, document: UUID) -> None:
    hand, _ = await world.take(document)
    await _expire(world, document, hand)


async def _expire(world: World, document: UUID, hand: Hand) -> None:
    async with world.bench.autocommit.connect() as connection:
        await times.expire(connection, world.bench.tables, document, world.bench.age)
    rescued = await _other(world, hand).rescue()
    world.forget()
    _must(rescued == 1, f"one claim is past its deadline, {rescued} were rescued")
    world.held.pop(document)


async def _zombie(world: World, document: UUID) -> None:
    """A worker that was taken for dead settles while another one has the document."""
    hand, ticket = await world.take(document)
    proposal = await hand.perform(ticket, walks.home(world.bench, ticket))
    await _expire(world, document, hand)
    await _refused(world, hand, ticket, proposal)
    if await walks.wake(world, document):
        await world.take(document, _other(world, hand))
        await _refused(world, hand, ticket, proposal)


async def _duplicate_delivery(world: World, document: UUID) -> None:
    before = await _trace(world, document)
    sent = await world.bench.submit(*world.sent[document], world.tenant)
    _must(sent.outcome == "unchanged", f"the same bytes again were {sent.outcome!r}")
    await _unchanged(world, document, before, "the same bytes again")


async def _settled_twice(world: World, document: UUID) -> None:
    hand, ticket = await world.take(document)
    proposal = await hand.perform(ticket, walks.home(world.bench, ticket))
    await world.settle(document, proposal)
    await _refused(world, hand, ticket, proposal)


async def _late_delivery(world: World, document: UUID) -> None:
    """Somebody moved the document by hand before the worker settles."""
    hand, ticket = await world.take(document)
    proposal = await hand.perform(ticket, walks.home(world.bench, ticket))
    await world.apply(CANCEL, document)
    await _refused(world, hand, ticket, proposal)


async def _clock_jump(world: World, document: UUID) -> None:
    """Ages pass at once: whoever holds something is far past its deadline, and lives."""
    await world.take(document)
    alive = [hand.worker for hand in world.hands]
    async with world.bench.autocommit.connect() as connection:
        await times.jump(connection, world.bench.tables, world.bench.age, alive=alive)
    await world.hands[-1].rescue()
    world.held.clear()


def _other(world: World, hand: Hand) -> Hand:
    return next(one for one in world.hands if one is not hand)


class _Noticed:
    """A product that notices when it is written."""

    was_written = False

    async def write(self, connection: AsyncConnection, claim: Claim) -> None:
        self.was_written = True


async def _refused(world: World, hand: Hand, ticket: Ticket, proposal: Proposal) -> None:
    """See that a settle whose claim is gone is refused, and writes nothing, its product neither."""
    document = ticket.claim.document.id
    before = await _trace(world, document)
    product = _Noticed()
    for one in (proposal, dataclasses.replace(proposal, product=product)):
        with contextlib.suppress(StaleClaim):
            await hand.settle(ticket, one)
            raise AssertionError(
                f"worker {hand.worker} no longer held document {world.names[document]}, "
                f"and its settle of {ticket.claim.stage!r} was written"
            )
    _must(
        not product.was_written,
        f"the settle of {ticket.claim.stage!r} was refused, and its product was written",
    )
    await _unchanged(world, document, before, "a refused settle")


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


async def _trace(world: World, document: UUID) -> object:
    found = await world.bench.documents.get(document)
    return found, len(await world.bench.documents.history(document))


async def _unchanged(world: World, document: UUID, before: object, what: str) -> None:
    after = await _trace(world, document)
    _must(after == before, f"{what} changed the document: {before} became {after}")


_ASKED: Mapping[Fault, str] = {
    Fault.CANCEL: CANCEL,
    Fault.REQUEUE: REQUEUE,
    Fault.REPROCESS: REPROCESS,
    Fault.REVISE: REVISE,
    Fault.DELETE: DELETE,
}
_RAISED: Mapping[Fault, Callable[[], BaseException]] = {
    Fault.CRASH_CONTAINED: lambda: ChildCrashed("died of signal 9"),
    Fault.PERMANENT: lambda: Reject("this can never be read"),
    Fault.TRANSIENT: lambda: Retry("not now"),
    Fault.RATE_LIMITED: lambda: RateLimited(timedelta(minutes=1)),
    Fault.WAIT: Wait,
    Fault.STAGE_FAULT: lambda: StageFault("the key is wrong"),
}
_HAPPENING: Mapping[Fault, Callable[[World, UUID], Awaitable[None]]] = {
    Fault.CRASH_BEFORE: _crash_before,
    Fault.CRASH_AFTER: _crash_after,
    Fault.COMMIT_UNKNOWN: _commit_unknown,
    Fault.NEVER_SENT: _never_sent,
    Fault.EXPIRED_CLAIM: _expired_claim,
    Fault.ZOMBIE: _zombie,
    Fault.DUPLICATE_DELIVERY: _duplicate_delivery,
    Fault.SETTLED_TWICE: _settled_twice,
    Fault.LATE_DELIVERY: _late_delivery,
    Fault.CLOCK_JUMP: _clock_jump,
}
