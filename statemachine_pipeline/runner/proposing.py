"""Makes of an outcome what is asked to be written: facts, keys, and the decision that follows."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

from statemachine_pipeline.database.proposal import Proposal
from statemachine_pipeline.decide import Decision, Outcome, Succeeded, decide, output_sha256
from statemachine_pipeline.records import Accepted, Facts, ParsedText, Validated

if TYPE_CHECKING:
    from statemachine_pipeline.database.store import Store
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.stages import Bound, Stages


class Proposer:
    """Makes proposals of one runner.

    Args:
        store: Where keys are taken.
        stages: The lifecycle and its hooks.

    Attributes:
        deadline_seconds: For each state with a stage, how long an attempt may take there.
    """

    def __init__(self, store: Store, stages: Stages) -> None:
        self._store, self._stages = store, stages
        self.deadline_seconds = {b.state: b.stage.deadline.total_seconds() for b in stages}

    def propose(
        self,
        claim: Claim,
        bound: Bound,
        outcome: Outcome,
        facts: Facts,
        admitted: frozenset[str],
        elapsed: float,
    ) -> Proposal:
        """Return what is to be written of one attempt.

        Args:
            claim: The ticket.
            bound: Its stage.
            outcome: What came of the hook.
            facts: What is known before its product is written.
            admitted: States at which this runner may go on at once.
            elapsed: How many seconds the hook ran.
        """
        draw = random.random()  # noqa: S311 - jitter, not a secret
        done = outcome if isinstance(outcome, Succeeded) else None
        product = done.product if done else None
        read = claim.document.input_sha256
        output = output_sha256(bound, read, product) if done else None

        def decision(seen: Facts) -> Decision:
            return decide(
                self._stages,
                bound.state,
                outcome,
                seen,
                policy=bound.stage.policy,
                draw=draw,
                admitted=admitted,
                input_sha256=output,
            )

        return Proposal(
            claim=claim,
            bound=bound,
            product=product,
            reported=done.reported if done else {},
            children=done.children if done else (),
            output_sha256=output,
            decide=decision,
            facts=facts,
            deadline_seconds=self.deadline_seconds,
            run_seconds=elapsed,
            outcome=outcome,
        )

    def facts(self, claim: Claim, bound: Bound) -> Facts:
        """Return what is known before the hook has run."""
        document = claim.document
        return Facts(
            attempt=claim.attempt,
            attempts_allowed=bound.stage.attempts,
            crashes=claim.crashes,
            crashes_allowed=bound.stage.crashes,
            text_chars=document.text_chars,
        )

    async def facts_with_key(self, claim: Claim, bound: Bound, outcome: Outcome) -> Facts:
        """Return what is known after it, having taken the key that its product names.

        Raises:
            StaleClaim: The claim is no longer held.
            DatabaseUnavailable: Whose the key is could not be asked.
        """
        facts = self.facts(claim, bound)
        product = outcome.product if isinstance(outcome, Succeeded) else None
        if isinstance(product, ParsedText):
            return dataclasses.replace(facts, text_chars=len(product.text))
        if isinstance(product, Accepted | Validated):
            owner = await self._store.take_key(claim, product.key)
            if owner != claim.document.id:
                return dataclasses.replace(facts, duplicate_of=owner, duplicate_by=product.key[0])
        return facts
