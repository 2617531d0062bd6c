"""One example's documents, the hands that work on them, and what each of them holds."""

from __future__ import annotations

import collections
import itertools
import secrets
from typing import TYPE_CHECKING

from statemachine_pipeline.graph import CANCEL, FAILURE_TRIGGERS, RESTARTS, REVISE
from statemachine_pipeline.testing import clock
from statemachine_pipeline.testing.charts import Aim
from statemachine_pipeline.testing.stand_ins import is_stand_in

if TYPE_CHECKING:
    from uuid import UUID

    from statemachine_pipeline.database.proposal import Proposal
    from statemachine_pipeline.graph import Edge
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.testing.hands import Bench, Hand, Ticket

ROUNDS = 200
"""Claims until everything rests; a walk that needs more does not end."""


class World:
    """What happens to a few documents.

    Args:
        bench: Where.

    Attributes:
        documents: The documents submitted so far, in order.
        hands: Two workers that live.
        held: Who holds a document, with the ticket.
        claims: Every claim that was ever handed out, by its document.
        sent: The bytes and the source of each document.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench, self.graph = bench, bench.stages.graph
        self.tenant = f"test-{secrets.token_hex(4)}"
        self.documents: list[UUID] = []
        self.hands: list[Hand] = []
        self.held: dict[UUID, tuple[Hand, Ticket]] = {}
        self.claims: collections.defaultdict[UUID, list[Claim]] = collections.defaultdict(list)
        self.sent: dict[UUID, tuple[bytes, str]] = {}
        self._states: dict[UUID, str] = {}
        self._gone: list[Hand] = []
        self._revisions = itertools.count(1)

    async def begin(self, workers: int = 2) -> None:
        """Register the hands."""
        self.hands = [await self.bench.hand() for _ in range(workers)]

    async def end(self) -> None:
        """End the hands; what they hold stays claimed."""
        for hand in (*self.hands, *self._gone):
            await hand.end()

    async def leave(self) -> None:
        """Give back what the hands hold, and end them."""
        for hand in self.hands:
            await self.bench.workers.leave(hand.worker)
        await self.end()

    async def submit(self) -> UUID:
        """Hand over one more document."""
        name = f"test:{len(self.documents)}"
        content = f"{self.tenant} {name}".encode()
        sent = await self.bench.submit(content, name, self.tenant)
        self.documents.append(sent.document_id)
        self.sent[sent.document_id] = content, name
        return sent.document_id

    async def state(self, document: UUID) -> str:
        """Say where a document stands."""
        if document in self.held:
            return self.held[document][1].claim.document.state
        if document not in self._states:
            self._states[document] = (await self.bench.documents.get(document)).state
        return self._states[document]

    def forget(self) -> None:
        """Look anew where documents stand."""
        self._states.clear()

    async def walk(self, document: UUID, aim: Aim, *, steps: int, goes_on: bool) -> bool:
        """Go towards an aim, at most some edges far; tell whether it was reached."""
        for _ in range(steps):
            way = self.bench.chart.way(await self.state(document), aim.edge)
            moved = await self._step(document, way, aim, goes_on=goes_on)
            if len(way) == 1 or not moved:
                return moved
        return False

    async def onward(self, document: UUID, *, goes_on: bool) -> None:
        """Earn the next edge of the main way, for a document that a worker may take."""
        hand, ticket = await self.take(document)
        proposal = await hand.perform(ticket, self.home(ticket), goes_on=goes_on)
        await self.settle(document, proposal)

    async def _step(
        self, document: UUID, way: tuple[Edge, ...], aim: Aim, *, goes_on: bool
    ) -> bool:
        edge = way[0]
        if edge.trigger in RESTARTS | {CANCEL}:
            return await self.apply(edge.trigger, document)
        if self.bench.stages.is_by_hand(str(edge.from_state)):
            is_refusal = len(way) == 1 and aim.label != edge.code
            if is_refusal:  # people try one trigger after the other
                return await self.apply_onward(document)
            return await self.apply(edge.trigger, document)
        hand, ticket = await self.take(document)
        if len(way) > 1:
            aim = self._on_the_way(way, aim.label)
        await self.settle(document, await hand.perform(ticket, aim, goes_on=goes_on))
        return True

    async def take(self, document: UUID, hand: Hand | None = None) -> tuple[Hand, Ticket]:
        """Claim until somebody holds a document, letting waits and pauses pass.

        Args:
            document: Which one; it stands where a worker may take it.
            hand: Who claims; the first by default.

        Raises:
            AssertionError: Nobody gets it, though nobody holds it.
        """
        for _ in range(3):
            if document in self.held:
                return self.held[document]
            await self._claim(hand or self.hands[0], document)
            if document not in self.held:
                async with self.bench.autocommit.connect() as connection:
                    await clock.pass_waits(connection, self.bench.tables, self.bench.age)
                await self.bench.store.promote()
        raise AssertionError(
            f"document {self.name(document)} stands in {await self.state(document)!r}, nobody "
            "holds it, and nobody can claim it, however long one waits"
        )

    async def settle(self, document: UUID, proposal: Proposal) -> None:
        """Settle for the hand that holds a document."""
        hand, ticket = self.held.pop(document)
        settled, following = await hand.settle(ticket, proposal)
        self._states[document] = settled.decision.state
        if following is not None:
            self._hold(hand, following)

    async def apply(self, trigger: str, document: UUID) -> bool:
        """Ask for what people ask for, new bytes included; tell whether the document moved."""
        if trigger == REVISE:
            before, name = self.sent[document]
            content = before + f" revision {next(self._revisions)}".encode()
            self.sent[document] = content, name
            moved = (await self.bench.submit(content, name, self.tenant)).outcome == "changed"
        else:
            moved = await self.bench.apply(trigger, document)
        if moved:
            self.forget()  # an heir may have moved with it
            self.held.pop(document, None)
        return moved

    async def apply_onward(self, document: UUID) -> bool:
        """Ask for each forward trigger in turn, as a person would, until one moves it."""
        for trigger in self.graph.forward(await self.state(document)):
            if await self.apply(trigger, document):
                return True
        return False

    async def wake(self, document: UUID) -> bool:
        """Bring a document to where a worker takes it; tell whether there is such a place."""
        for _ in self.graph.states:
            state = await self.state(document)
            if self.graph.is_resting(state):
                await self.apply(REVISE, document)
            elif not self.bench.stages.is_by_hand(state):
                return True
            elif not await self.apply_onward(document):
                return False
        return False

    def name(self, document: UUID) -> int:
        """Say which of its documents that is."""
        return self.documents.index(document) if document in self.documents else -1

    async def replace(self, hand: Hand) -> None:
        """Count a hand among the dead; its tickets are worth nothing to the living."""
        self.held = {one: held for one, held in self.held.items() if held[0] is not hand}
        self._gone.append(hand)
        self.hands[self.hands.index(hand)] = await self.bench.hand()

    def _hold(self, hand: Hand, ticket: Ticket) -> None:
        document = ticket.claim.document.id
        self.claims[document].append(ticket.claim)
        self.held[document] = hand, ticket

    async def _claim(self, hand: Hand, document: UUID) -> None:
        state = await self.state(document)
        for ticket in await hand.claim(self.tenant, state):
            self._hold(hand, ticket)
        while document not in self.held:  # it may be a suspect, one of several
            tickets = await hand.claim(self.tenant, state, alone=True)
            if not tickets:
                return
            self._hold(hand, tickets[0])

    def _on_the_way(self, way: tuple[Edge, ...], label: str | None = None) -> Aim:
        """Aim at the first edge of a way, on facts that also open those that nobody earns."""
        edge = way[0]
        together = (edge, *itertools.takewhile(self._is_passed, way[1:]))
        facts = self.bench.chart.facts_along(together, label if together == way else None)
        forward = edge.trigger not in FAILURE_TRIGGERS
        return Aim(label=edge.code, edge=edge, facts=facts, succeeds=forward)

    def _is_passed(self, edge: Edge) -> bool:
        return self.bench.stages.at(str(edge.from_state)) is None

    def home(self, ticket: Ticket) -> Aim | None:
        """Aim at the main way, where no real hook says what comes."""
        if not is_stand_in(ticket.bound.stage.hook):
            return None
        return self._on_the_way(self.bench.chart.home(ticket.claim.document.state))

    async def drain(self) -> None:
        """Give everything back, then go on without any fault until all rests, or waits for people.

        Raises:
            AssertionError: It never does.
        """
        await self.leave()
        self.held.clear()
        hand = await self.bench.hand()
        self.hands, self._gone = [hand], []
        for _ in range(ROUNDS):
            async with self.bench.autocommit.connect() as connection:
                await clock.pass_waits(connection, self.bench.tables, self.bench.age)
            await self.bench.store.promote()
            tickets = await hand.claim(self.tenant) or await hand.claim(self.tenant, alone=True)
            if not tickets:
                return
            for ticket in tickets:
                await self._drive(hand, ticket)
        raise AssertionError(f"after {ROUNDS} claims without a fault documents still go round")

    async def _drive(self, hand: Hand, ticket: Ticket) -> None:
        following: Ticket | None = ticket
        while following is not None:
            self.claims[following.claim.document.id].append(following.claim)
            proposal = await hand.perform(following, self.home(following), goes_on=True)
            _, following = await hand.settle(following, proposal)
