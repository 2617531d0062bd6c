"""Walks one claimed document through its stages: hop or run the hook, settle, go on.

Straight code for one document; what it settles is merged with the others' below.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.proposal import OwnerChanged, ProductFailed, Proposal
from statemachine_pipeline.decide import (
    Failed,
    Outcome,
    Postponed,
    Standing,
    Succeeded,
    resume,
)
from statemachine_pipeline.errors import DatabaseUnavailable, StaleClaim
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.context import attempting, walking
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.runner.chores import end
from statemachine_pipeline.runner.following import moved, next_claim
from statemachine_pipeline.runner.outages import backoff_seconds
from statemachine_pipeline.runner.proposing import Proposer
from statemachine_pipeline.runner.shares import Bill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.database.proposal import Settled
    from statemachine_pipeline.database.store import Store
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.runner.journal import Journal
    from statemachine_pipeline.runner.perform import Performer
    from statemachine_pipeline.runner.settling import Settling
    from statemachine_pipeline.runner.slots import Slots
    from statemachine_pipeline.stages import Bound, Stages

NOTHING = Standing(earned={}, present={}, owners={})
RECONNECT_SECONDS = 0.5
"""First pause before a settle is tried again; each one after it is longer."""
AGAIN = timedelta(seconds=2)
"""When a hook is tried again for which the database did not answer."""
WRITE_SECONDS = 1.0
"""How long at the end what is being written may take; cut off, it would be lost."""


class Drive:
    """Drives claims of one runner.

    Args:
        store: Where products of earlier lives and keys are looked up.
        stages: The lifecycle and its hooks.
        slots: What this runner may go on with.
        performer: Runs hooks.
        settling: Writes outcomes.
        journal: Is told what is begun and what is written.

    Attributes:
        lost_answers: A claim may be held in the database that nobody drives.
    """

    def __init__(
        self,
        store: Store,
        stages: Stages,
        slots: Slots,
        performer: Performer,
        settling: Settling,
        journal: Journal,
    ) -> None:
        self._store, self._stages, self._slots = store, stages, slots
        self._performer, self._settling, self._journal = performer, settling, journal
        self._proposer = Proposer(store, stages)
        self._performing: set[asyncio.Task[Any]] = set()
        self._is_ending = False
        self.lost_answers = False

    async def run(self, claim: Claim, bound: Bound) -> None:
        """Walk on until the document rests, waits, or is for another runner.

        The slot that ``claim`` stands for is given back in the end, whatever happens.
        """
        with walking(claim):
            await self._walk(claim, bound)

    async def _walk(self, claim: Claim, bound: Bound) -> None:
        current: Bound | None = bound
        self._journal.claimed(claim, bound)
        try:
            while current is not None:
                step = await self._step(claim, current)
                if step is None:
                    return
                claim, following = step
                self._slots.give_back({current.state})
                current = following
        except StaleClaim:
            self._journal.lost(claim)
        except DatabaseUnavailable:
            self.lost_answers = True  # the attempt is given back, once the database answers
        finally:
            if current is not None:
                self._slots.give_back({current.state})

    async def end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """End walks: hooks at once, and those that write once they have, or a second later."""
        self._is_ending = True
        for task in self._performing:
            task.cancel()
        await end(tasks, patience=WRITE_SECONDS)

    async def _step(self, claim: Claim, bound: Bound) -> tuple[Claim, Bound] | None:
        """Settle one stage, or the hops before it; return the claim on the next stage, if any."""
        walked = await self._hop(claim, bound)
        if walked is not None:
            proposal, taken = walked
        else:
            proposal, taken = await self._attempt(claim, bound)
        used: frozenset[str] = frozenset()
        try:
            began = time.monotonic()
            with attempting(claim):
                written = await self._settle(proposal)
                if written is None:
                    return None
                proposal, settled = written
                self._journal.settled(proposal, settled.decision, time.monotonic() - began)
            if settled.continuation is None:
                return None
            following = self._stages.at(settled.decision.state)
            if following is None:
                return None
            if following.state in taken:
                used = frozenset({following.state})
            else:
                self._slots.claim(following.state)
            document = moved(claim.document, settled, proposal.product)
            return next_claim(claim, document, following, settled.continuation), following
        finally:
            self._slots.give_back(taken - used)

    async def _hop(self, claim: Claim, bound: Bound) -> tuple[Proposal, frozenset[str]] | None:
        document = claim.document
        here = self._stages.at(document.state)
        if here is not None and document.life == 1:
            return None  # nothing can have been earned before
        asks = document.life > 1 or self._stages.is_guarded(document.state)
        standing = await self._store.standing(claim) if asks else NOTHING
        facts = self._proposer.facts(claim, bound)
        others = {b.state for b in self._stages} - {bound.state}
        taken = self._slots.take(others, document.tenant)
        decision = resume(
            self._stages,
            document.state,
            facts,
            input_sha256=document.input_sha256,
            standing=standing,
            admitted=taken | {bound.state},
        )
        if decision is None:
            self._slots.give_back(taken)
            return None
        if decision.lane is not None and decision.steps:
            try:
                await self._store.refill(claim)
            except BaseException:
                self._slots.give_back(taken)
                raise
        proposal = Proposal(
            claim=claim,
            bound=None,
            decide=lambda _: decision,
            facts=facts,
            deadline_seconds=self._proposer.deadline_seconds,
        )
        if decision.state == bound.state and decision.goes_on:
            # The slot of the claim is the slot of the stage it goes on with.
            self._slots.claim(bound.state)
            taken |= {bound.state}
        return proposal, taken

    async def _attempt(self, claim: Claim, bound: Bound) -> tuple[Proposal, frozenset[str]]:
        started, bill = time.monotonic(), Bill()
        with attempting(claim):
            self._journal.started(claim, bound)
            outcome = await self._perform(claim, bound, bill)
        elapsed = time.monotonic() - started
        self._note_closing(bound, outcome)
        facts = await self._proposer.facts_with_key(claim, bound, outcome)
        following = self._stages.after(bound.state) - {bound.state}
        taken = self._slots.take(following, claim.document.tenant)
        try:
            made = self._proposer.propose(claim, bound, outcome, facts, taken, elapsed)
        except Exception as error:  # noqa: BLE001 - a user's product may fail to tell its hash
            name = type(error).__name__
            outcome = Failed(code=name, reason=f"the hash of its product raised {name}")
            made = self._proposer.propose(claim, bound, outcome, facts, taken, elapsed)
        return dataclasses.replace(made, tokens=bill.tokens), taken

    def _note_closing(self, bound: Bound, outcome: Outcome) -> None:
        """Let no other walk go on to a stage that was closed just now."""
        match outcome:
            case Postponed(code="stage_fault"):
                self._slots.paused |= {bound.state}
            case Postponed(code="provider_closed"):
                self._slots.shut |= {bound.state}

    async def _perform(self, claim: Claim, bound: Bound, bill: Bill) -> Outcome:
        if self._is_ending:
            raise asyncio.CancelledError  # its claim is given back, unspent, by whoever ends it
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a walk is a task
        self._performing.add(task)
        try:
            return await self._performer.perform(claim, bound, bill)
        except DatabaseUnavailable as error:
            # Settled like any other, so that it is seen and does not run hot: what did not answer
            # may be slow for this document alone, or a database of the hook's own.
            return Postponed(code="waiting", reason=str(error), after=AGAIN)
        finally:
            self._performing.discard(task)

    async def _settle(self, proposal: Proposal) -> tuple[Proposal, Settled] | None:
        """Settle until the database answers.

        Returns:
            What was written in the end: a failure, where PostgreSQL refused the product. None when
            it is not known whether it was, or another claim goes on instead.
        """
        claim = proposal.claim
        failures = 0
        while True:
            try:
                return proposal, await self._settling.settle(proposal)
            except OwnerChanged:
                if proposal.bound is None:
                    # The walk is no longer true: the runner gives the claim back, for a new one.
                    self.lost_answers = True
                    return None
                return await self._settle_again(proposal)
            except ProductFailed as error:
                if proposal.bound is None or proposal.refused:
                    # The database refuses even the failure. Trying on would run hot; at the
                    # deadline the claim is rescued, and that is bounded.
                    # Not what it says, which may quote the document.
                    why = type(error.cause).__name__
                    note(log_events.UNSETTLED, "PostgreSQL refuses to note its failure: {}", why)
                    return None
                proposal = await self._failed(proposal, proposal.bound, error)
            except DatabaseUnavailable as error:
                self._journal.unanswered(error)
                # Whether the commit landed is unknown: the fence tells, once the database answers.
                await asyncio.sleep(backoff_seconds(RECONNECT_SECONDS, failures))
                failures += 1
                is_held = await self._is_still_held(claim)
                self._journal.answered()
                if not is_held:
                    self.lost_answers = True
                    return None

    async def _settle_again(self, proposal: Proposal) -> tuple[Proposal, Settled] | None:
        """The twin changed between decision and settle: ask for the key again and decide anew."""
        bound = proposal.bound
        if bound is None:
            return None
        outcome = Succeeded(
            product=proposal.product, children=proposal.children, reported=proposal.reported
        )
        facts = await self._proposer.facts_with_key(proposal.claim, bound, outcome)
        again = self._proposer.propose(
            proposal.claim, bound, outcome, facts, frozenset(), proposal.run_seconds or 0.0
        )
        return await self._settle(dataclasses.replace(again, tokens=proposal.tokens))

    async def _failed(self, proposal: Proposal, bound: Bound, error: ProductFailed) -> Proposal:
        outcome = await self._performer.judge(proposal.claim, bound, error.cause)
        self._note_closing(bound, outcome)
        failed = self._proposer.propose(
            proposal.claim,
            bound,
            outcome,
            self._proposer.facts(proposal.claim, bound),
            frozenset(),
            proposal.run_seconds or 0.0,
        )
        return dataclasses.replace(failed, refused=True, tokens=proposal.tokens)

    async def _is_still_held(self, claim: Claim) -> bool:
        """Tell, once the database answers, whether the settle can be tried again.

        If not it landed, or somebody else has the document. Should it have landed with a claim on
        the next stage, nobody drives that one: the runner gives it back.
        """
        failures = 0
        while True:
            try:
                return await self._store.holds(claim)
            except DatabaseUnavailable:
                await asyncio.sleep(backoff_seconds(RECONNECT_SECONDS, failures))
                failures += 1
