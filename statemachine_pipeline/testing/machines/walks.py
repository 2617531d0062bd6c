"""How documents go on in a world: towards an aim, on the main way, and home in the end."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from statemachine_pipeline.graph import CANCEL, RESTARTS, REVISE
from statemachine_pipeline.testing.machines import times
from statemachine_pipeline.testing.machines.charts import Aim
from statemachine_pipeline.testing.stand_ins import is_stand_in

if TYPE_CHECKING:
    from uuid import UUID

    from statemachine_pipeline.graph import Edge
    from statemachine_pipeline.testing.machines.hands import Bench, Hand, Ticket
    from statemachine_pipeline.testing.machines.worlds import World

ROUNDS = 200
"""Claims until everything rests; a walk that needs more does not end."""


async def walk(world: World, document: UUID, aim: Aim, *, goes_on: bool) -> bool | None:
    """Go one edge of the shortest way to an aim.

    Returns:
        Whether it was reached, if that was the last edge or none could be taken; else None.
    """
    way = world.bench.chart.way(await world.state(document), aim.edge)
    moved = await _step(world, document, way, aim, goes_on=goes_on)
    return moved if len(way) == 1 or not moved else None


async def onward(world: World, document: UUID, *, goes_on: bool) -> None:
    """Earn the next edge of the main way, for a document that a worker may take."""
    hand, ticket = await world.take(document)
    proposal = await hand.perform(ticket, home(world.bench, ticket), goes_on=goes_on)
    await world.settle(document, proposal)


async def wake(world: World, document: UUID) -> bool:
    """Bring a document to where a worker takes it; tell whether there is such a place."""
    for _ in world.graph.states:
        state = await world.state(document)
        if world.graph.is_resting(state):
            await world.apply(REVISE, document)
        elif not world.bench.stages.is_by_hand(state):
            return True
        elif not await _apply_onward(world, document):
            return False
    return False


async def drain(world: World) -> None:
    """Give everything back, then go on without any fault until all rests, or waits for people.

    Raises:
        AssertionError: It never does.
    """
    await world.leave()
    await world.begin(workers=1)
    bench, (hand,) = world.bench, world.hands
    for _ in range(ROUNDS):
        async with bench.autocommit.connect() as connection:
            await times.pass_waits(connection, bench.tables, bench.age)
        await bench.store.promote()
        tickets = await hand.claim(world.tenant) or await hand.claim(world.tenant, alone=True)
        if not tickets:
            return
        for ticket in tickets:
            await _drive(world, hand, ticket)
    raise AssertionError(f"after {ROUNDS} claims without a fault documents still go round")


def home(bench: Bench, ticket: Ticket) -> Aim | None:
    """Aim at the main way, where no real hook says what comes."""
    if not is_stand_in(ticket.bound.stage.hook):
        return None
    return _on_the_way(bench, bench.chart.home(ticket.claim.document.state))


async def _step(
    world: World, document: UUID, way: tuple[Edge, ...], aim: Aim, *, goes_on: bool
) -> bool:
    edge, bench = way[0], world.bench
    if edge.trigger in RESTARTS | {CANCEL}:
        return await world.apply(edge.trigger, document)
    if bench.stages.is_by_hand(str(edge.from_state)):
        if len(way) == 1 and aim.label != edge.code:  # a refusal: people try one after the other
            return await _apply_onward(world, document)
        return await world.apply(edge.trigger, document)
    hand, ticket = await world.take(document)
    if len(way) > 1:
        aim = _on_the_way(bench, way, aim.label)
    await world.settle(document, await hand.perform(ticket, aim, goes_on=goes_on))
    return True


async def _apply_onward(world: World, document: UUID) -> bool:
    """Ask for each forward trigger in turn, as a person would, until one moves it."""
    for trigger in world.graph.forward(await world.state(document)):
        if await world.apply(trigger, document):
            return True
    return False


def _on_the_way(bench: Bench, way: tuple[Edge, ...], label: str | None = None) -> Aim:
    """Aim at the first edge of a way, on facts that also open those that nobody earns."""
    edge = way[0]
    passed = itertools.takewhile(lambda one: bench.stages.at(str(one.from_state)) is None, way[1:])
    together = (edge, *passed)
    facts = bench.chart.facts_along(together, label if together == way else None)
    return Aim.at(edge, facts)


async def _drive(world: World, hand: Hand, ticket: Ticket) -> None:
    following: Ticket | None = ticket
    while following is not None:
        world.claims[following.claim.document.id].append(following.claim)
        aim = home(world.bench, following)
        proposal = await hand.perform(following, aim, goes_on=True)
        _, following = await hand.settle(following, proposal)
