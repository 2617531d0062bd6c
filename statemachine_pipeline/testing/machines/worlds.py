"""One example's documents, the hands that work on them, and what each of them holds."""

from __future__ import annotations

import collections
import itertools
import secrets
from typing import TYPE_CHECKING

from statemachine_pipeline.graph import REVISE
from statemachine_pipeline.testing.machines import times

if TYPE_CHECKING:
    from uuid import UUID

    from statemachine_pipeline.database.proposal import Proposal
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.testing.machines.hands import Bench, Hand, Ticket


class World:
    """What happens to a few documents.

    Args:
        bench: Where.

    Attributes:
        documents: The documents submitted so far, in order.
        names: Their numbers, for people; twins of duplicates have none.
        hands: Two workers that live.
        held: Who holds a document, with the ticket.
        claims: Every claim that was ever handed out, by its document.
        sent: The bytes and the source of each document.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench, self.graph = bench, bench.stages.graph
        self.tenant = f"test-{secrets.token_hex(4)}"
        self.documents: list[UUID] = []
        self.names: collections.defaultdict[UUID, str] = collections.defaultdict(lambda: "(a twin)")
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
        self.held.clear()
        self._gone.clear()

    async def submit(self) -> UUID:
        """Hand over one more document."""
        name = f"test:{len(self.documents)}"
        content = f"{self.tenant} {name}".encode()
        sent = await self.bench.submit(content, name, self.tenant)
        self.names[sent.document_id] = str(len(self.documents))
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
                    await times.pass_waits(connection, self.bench.tables, self.bench.age)
                await self.bench.store.promote()
        raise AssertionError(
            f"document {self.names[document]} stands in {await self.state(document)!r}, nobody "
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
