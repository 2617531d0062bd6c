"""Workers taken apart: register, claim, perform, settle, one step at a time on the real store.

A hand is a worker whose every step is made when somebody says so. What it proposes is what the
runner proposes; only what came of a hook may be chosen, and the facts on which is decided.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.arrivals import prepare
from statemachine_pipeline.database.documents import Documents
from statemachine_pipeline.database.keys import take_keys
from statemachine_pipeline.database.pauses import Pauses
from statemachine_pipeline.database.proposal import Proposal, Settled
from statemachine_pipeline.database.providers import Providers
from statemachine_pipeline.database.reader import ContentReader
from statemachine_pipeline.database.store import Store
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.database.withdrawals import Withdrawals
from statemachine_pipeline.database.workers import Workers
from statemachine_pipeline.decide import Crashed, Decision, Failed, Outcome, Succeeded, decide
from statemachine_pipeline.errors import TransitionRefused
from statemachine_pipeline.graph import FAIL, RETRY
from statemachine_pipeline.hooks import Claim, Reject, Retry
from statemachine_pipeline.liveness import Liveness
from statemachine_pipeline.observability.metrics import Metrics
from statemachine_pipeline.records import Accepted, Facts, Incoming, Validated, sha256_hex
from statemachine_pipeline.resilience.access import Accesses
from statemachine_pipeline.runner.drive import Drive
from statemachine_pipeline.runner.following import moved, next_claim
from statemachine_pipeline.runner.journal import Journal
from statemachine_pipeline.runner.perform import Performer
from statemachine_pipeline.runner.proposing import Proposer
from statemachine_pipeline.runner.shares import Bill
from statemachine_pipeline.runner.slots import Slots
from statemachine_pipeline.runner.vitals import Vitals
from statemachine_pipeline.testing.machines.charts import chart
from statemachine_pipeline.testing.stand_ins import is_stand_in

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.records import Document, KeyKind, Submitted
    from statemachine_pipeline.stages import Bound, Stages
    from statemachine_pipeline.testing.machines.charts import Aim

AT_ONCE = 8
"""Documents that a claim takes at most."""
PATIENCE, MONTH = timedelta(seconds=30), timedelta(days=30)
SILENT = GRACE = timedelta(days=1)
"""When hands count as dead, and how far past its deadline a claim may be: longer than any
example takes, since hands never beat, and less than what passes at once; see ``times``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ticket:
    """A claim and the stage it is for."""

    claim: Claim
    bound: Bound


class Bench:
    """Where hands work: one pipeline's tables, on one engine.

    Args:
        engine: An engine on psycopg 3; it is not closed.
        schema: The pipeline's.
        graph: The lifecycle's own, where that of ``stages`` may record.
        stages: Real hooks and stand-ins.
        store: What hands claim from and settle with.

    Attributes:
        age: Longer than any deadline, pause or wait of the stages.
        failed: What the last failure of a real hook was, by its trigger.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        schema: str,
        graph: Graph,
        stages: Stages,
        store: type[Store] = Store,
    ) -> None:
        self.engine, self.tables, self.stages = engine, tables(schema), stages
        self.autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        by_hand = frozenset(state for state in graph.states if stages.is_by_hand(state))
        self.chart = chart(graph, by_hand)
        reader = ContentReader(engine, self.tables)
        self.documents = Documents(engine, self.tables, stages)
        self.workers = Workers(engine, self.tables, liveness=Liveness(dead_after=SILENT))
        self.pauses = Pauses(engine, self.tables, stages)
        self.store = store(engine, self.tables, stages, reader, patience=PATIENCE)
        self.proposer = Proposer(self.store, stages)
        self.served = stages.served(None)
        longest = (max(b.stage.deadline, b.stage.fault_pause, b.stage.wait) for b in self.served)
        self.age = MONTH + max(longest, default=timedelta(0))
        self.failed: dict[str, str] = {}
        self._withdrawals = Withdrawals(engine, self.tables, reader)

    async def hand(self) -> Hand:
        """Register a worker and return it."""
        worker = await self.workers.register()
        # Stages on a bench name no providers; see ``with_stand_ins``.
        metrics = Metrics()
        accesses = Accesses(Providers(self.engine, self.tables), worker, (), metrics)
        performer = Performer(
            *(self.store, self.pauses, self._withdrawals, accesses, self.served, metrics)
        )
        return Hand(self, worker, performer)

    async def submit(self, content: bytes, source_uri: str, tenant: str) -> Submitted:
        """Hand over a document, as ``Pipeline.submit`` does."""
        return await self.documents.submit(
            prepare(Incoming(content, source_uri=source_uri), tenant)
        )

    async def apply(self, trigger: str, document: UUID) -> bool:
        """Ask for a trigger as a person does; tell whether the document moved."""
        applied = await self.documents.apply(
            trigger, [document], state=None, tenant=None, by="test", reason="test", dry_run=False
        )
        return bool(applied.moved)

    async def twin_of(self, claim: Claim, kind: KeyKind) -> Accepted | Validated | None:
        """Return a product whose key another document of this tenant owns.

        None if the claimed document owns its bytes itself: then nobody is before it.
        """
        document = claim.document
        if kind == "bytes":
            content = (await claim.source()).read()
            twin = f"test:twin of {document.content_sha256}"
            if await self._owner(document, kind, document.content_sha256, content, twin):
                return Accepted(media_type="text/plain", sha256=document.content_sha256)
            return None
        for number in itertools.count():
            sha256 = sha256_hex(f"text {number}")
            if await self._owner(document, kind, sha256, b"twin", "test:twin"):
                break
        return Validated(text_sha256=sha256)

    async def _owner(
        self, document: Document, kind: KeyKind, sha256: str, content: bytes, twin: str
    ) -> bool:
        """Hand over a twin, and let it take a key; False if ``document`` had it already."""
        sent = await self.submit(content, twin, document.tenant)
        key = (document.tenant, kind, sha256)
        async with self.engine.begin() as connection:
            owners = await take_keys(connection, self.tables, [(key, sent.document_id)])
        return owners[key] != document.id


class Hand:
    """One registered worker that does what it is told, one step at a time.

    Args:
        bench: Where.
        worker: Its id.
        performer: Runs real hooks, and says what exceptions mean.
    """

    def __init__(self, bench: Bench, worker: int, performer: Performer) -> None:
        self._bench, self.worker, self._performer = bench, worker, performer

    async def claim(
        self, tenant: str, state: str | None = None, *, alone: bool = False
    ) -> list[Ticket]:
        """Take what is ready, of a tenant before all others; or what took a worker down.

        Args:
            tenant: Whose turn it is.
            state: Where the documents stand; anywhere by default.
            alone: Take one of those that are to be tried alone.
        """
        bench = self._bench
        free = {
            bound.state: AT_ONCE if state in {None, *bench.stages.leading_to(bound)} else 0
            for bound in bench.served
        }
        # The round begins behind this name, which is right before the tenant's.
        after = dict.fromkeys(free, tenant[:-1])
        found = await bench.store.claim(
            self.worker, free, bench.served, after, documents=1 if alone else AT_ONCE, alone=alone
        )
        return [Ticket(claim, bound) for claim, bound in found]

    async def perform(self, ticket: Ticket, aim: Aim | None, *, goes_on: bool = False) -> Proposal:
        """Hop, or make an attempt; return what is to be settled.

        A real hook is run, whatever is aimed at: where the graph then takes another edge, it is
        decided on the facts of the aim instead.

        Args:
            ticket: The claim.
            aim: What has to come of it; None takes what comes.
            goes_on: Whether this worker keeps the document for the next stage.
        """
        claim, bound = ticket.claim, ticket.bound
        drive, slots = self._drive()
        if not goes_on:
            slots.close()
        walked = await drive._hop(claim, bound)
        if walked is not None:
            return walked[0]
        if aim is not None:
            aim = self._bench.chart.by_text(aim)
        outcome = await self._outcome(ticket, aim)
        known = await self._bench.proposer.facts_with_key(claim, bound, outcome)
        admitted = self._bench.stages.after(bound.state) if goes_on else frozenset()
        made = self._bench.proposer.propose(claim, bound, outcome, known, admitted, 0.0)
        if aim is None or not isinstance(outcome, Succeeded):
            return dataclasses.replace(made, decide=functools.partial(self._either, made, outcome))
        steer = functools.partial(self._steered, made, outcome, aim, admitted)
        return dataclasses.replace(made, decide=steer)

    async def fail(self, ticket: Ticket, error: BaseException) -> Proposal:
        """Return what is to be settled after a hook that raised."""
        outcome = await self._performer.judge(ticket.claim, ticket.bound, error)
        proposer = self._bench.proposer
        facts = proposer.facts(ticket.claim, ticket.bound)
        made = proposer.propose(ticket.claim, ticket.bound, outcome, facts, frozenset(), 0.0)
        return dataclasses.replace(made, decide=functools.partial(self._either, made, outcome))

    async def settle(self, ticket: Ticket, proposal: Proposal) -> tuple[Settled, Ticket | None]:
        """Write what came of an attempt; return the ticket for the next stage, if it goes on.

        Raises:
            StaleClaim: The claim is gone; nothing was written.
            OwnerChanged: Its twin did; nothing was written.
        """
        (answer,) = await self._bench.store.settle([proposal], self.worker)
        if answer is None:  # locked, or gone: only alone it is told apart
            (answer,) = await self._bench.store.settle([proposal], self.worker, alone=True)
        if not isinstance(answer, Settled):
            assert answer is not None  # noqa: S101 - alone, nobody is skipped
            raise answer
        following = self._bench.stages.at(answer.decision.state)
        if answer.continuation is None or following is None:
            return answer, None
        document = moved(ticket.claim.document, answer, proposal.product)
        claim = next_claim(ticket.claim, document, following, answer.continuation)
        return answer, Ticket(claim, following)

    async def rescue(self) -> int:
        """Look for claims of the dead and of those far past their deadline; return how many."""
        return len(await self._bench.store.rescue(self.worker, grace=GRACE))

    async def end(self) -> None:
        """End its threads and children; what it holds stays claimed."""
        await self._performer.close()

    def _drive(self) -> tuple[Drive, Slots]:
        bench = self._bench
        metrics = Metrics()
        slots = Slots(bench.served, lambda: None, metrics)
        # Proposals are those of the runner; nothing is performed or settled by it.
        settling: Any = None
        journal = Journal(Vitals(metrics))
        drive = Drive(bench.store, bench.stages, slots, self._performer, settling, journal)
        return drive, slots

    async def _outcome(self, ticket: Ticket, aim: Aim | None) -> Outcome:
        claim, bound = ticket.claim, ticket.bound
        if aim is None:
            return await self._tried(claim, bound)
        if not aim.succeeds:
            again = aim.edge.from_state == aim.edge.to_state
            error = Retry("once more") if again else Reject("never")
            return await self._performer.judge(claim, bound, error)
        if aim.facts.duplicate_by is not None:
            product = await self._bench.twin_of(claim, aim.facts.duplicate_by)
            if product is None:  # it owns the key, which is handed on when it ends
                return await self._performer.judge(claim, bound, Reject("the first of its kind"))
            return Succeeded(product=product, reported=aim.facts.reported)
        if is_stand_in(bound.stage.hook):
            return Succeeded(reported=aim.facts.reported)
        return await self._tried(claim, bound)

    async def _tried(self, claim: Claim, bound: Bound) -> Outcome:
        outcome = await self._performer.perform(claim, bound, Bill())
        if isinstance(outcome, Failed):
            told = f"{outcome.reason}: {outcome.detail}" if outcome.detail else outcome.reason
            self._bench.failed[bound.trigger] = told
        return outcome

    def _steered(
        self,
        made: Proposal,
        outcome: Succeeded,
        aim: Aim,
        admitted: frozenset[str],
        seen: Facts,
    ) -> Decision:
        """Decide on what was seen if that takes the edge, else on the facts of the aim."""
        told = dataclasses.replace(seen, reported=outcome.reported)
        graph, state = self._bench.chart.graph, made.claim.document.state
        way = graph.advance(state, told)
        if not isinstance(way, str) and way == aim.edge:
            return made.decide(seen)
        facts = aim.facts
        if facts.duplicate_of is not None:
            facts = dataclasses.replace(facts, duplicate_of=seen.duplicate_of)
        return decide(
            self._bench.stages,
            state,
            dataclasses.replace(outcome, reported=facts.reported),
            facts,
            policy=self._bench.stages.policy_at(state),
            draw=0.0,
            admitted=admitted,
            input_sha256=made.output_sha256,
        )

    def _either(self, made: Proposal, outcome: Outcome, seen: Facts) -> Decision:
        """Decide, and see that of retry and fail the other one was closed.

        Raises:
            AssertionError: Both were open.
        """
        decision = made.decide(seen)
        took = decision.steps[-1].edge.trigger if decision.steps else None
        if isinstance(outcome, Succeeded) or took not in {RETRY, FAIL}:
            return decision
        state = made.claim.document.state
        policy = self._bench.stages.policy_at(state)
        told = dataclasses.replace(
            seen,
            permanent=isinstance(outcome, Failed) and outcome.permanent,
            attempts_allowed=policy.attempts,
            crashes=seen.crashes + isinstance(outcome, Crashed),
            crashes_allowed=policy.crashes,
        )
        other = FAIL if took == RETRY else RETRY
        with contextlib.suppress(TransitionRefused):
            self._bench.stages.graph.step(state, other, told)
            raise AssertionError(f"{state}: {RETRY} and {FAIL} are both open on {told}")
        return decision
