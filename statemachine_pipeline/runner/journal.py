"""What a runner tells of its documents: a line of the log and its counts, from one call each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from statemachine_pipeline.counting import counted
from statemachine_pipeline.database import telling
from statemachine_pipeline.decide import Crashed, Failed, Outcome, Postponed, Succeeded
from statemachine_pipeline.observability import instruments, log_events
from statemachine_pipeline.observability.noting import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.database.proposal import Proposal, Settled
    from statemachine_pipeline.decide import Decision
    from statemachine_pipeline.errors import DatabaseUnavailable
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.observability.log_events import LogEvent
    from statemachine_pipeline.records import Document
    from statemachine_pipeline.runner.vitals import Vitals
    from statemachine_pipeline.stages import Bound

_ENDINGS: dict[type[Outcome], tuple[str, LogEvent]] = {
    Succeeded: ("succeeded", log_events.STAGE_SUCCEEDED),
    Postponed: ("postponed", log_events.STAGE_POSTPONED),
    Failed: ("failed", log_events.STAGE_FAILED),
    Crashed: ("crashed", log_events.STAGE_CRASHED),
}


class Journal:
    """Tells what one runner does.

    Args:
        vitals: Told of what brings documents on; with its metrics, where everything is counted.
    """

    def __init__(self, vitals: Vitals) -> None:
        self._metrics, self._vitals = vitals.metrics, vitals

    def looked(self, seconds: float, *, found: int) -> None:
        """Count that the database answered a look for documents to claim."""
        self._metrics.observe(instruments.CLAIM_SECONDS, seconds)
        if not found:
            self._metrics.add(instruments.EMPTY_CLAIMS)

    def unanswered(self, error: DatabaseUnavailable) -> None:
        """Tell that the database did not answer who had an outcome to write."""
        self._vitals.outage.goes_on("write", error)

    def answered(self) -> None:
        """Tell that it did, be it by losing the claim."""
        self._vitals.outage.ended("write")

    def claimed(self, claim: Claim, bound: Bound) -> None:
        """Tell of one that was claimed, be it to try a provider."""
        self._metrics.add(instruments.CLAIMED, stage=bound.trigger)
        told: dict[str, Any] = {"stage": claim.stage, "attempt": claim.attempt}
        note(log_events.CLAIMED, "claimed for {}", bound.trigger, **told)

    def started(self, claim: Claim, bound: Bound) -> None:
        """Tell that a hook is called."""
        # Both by the database's clock: when it was claimed, and since when it could be.
        waited = (claim.deadline_at - bound.stage.deadline - claim.due_at).total_seconds()
        self._metrics.observe(instruments.WAIT_SECONDS, max(waited, 0.0), stage=bound.trigger)
        note(log_events.STAGE_STARTED, "{} begins", bound.trigger)

    def settled(self, proposal: Proposal, decision: Decision, seconds: float) -> None:
        """Tell that an outcome is written, and what became of the document."""
        self._metrics.observe(instruments.SETTLE_SECONDS, seconds)
        if not isinstance(proposal.outcome, Postponed):
            self._vitals.settle()
        if proposal.bound is not None and proposal.outcome is not None:
            stage, run_seconds = proposal.bound.trigger, proposal.run_seconds or 0.0
            outcome = _judged(proposal.outcome, decision)
            name, _ = _ENDINGS[type(outcome)]
            self._metrics.observe(instruments.RUN_SECONDS, run_seconds, stage=stage, outcome=name)
            self._attempted(stage, outcome, decision, duration_s=round(run_seconds, 6))
        if decision.lane is None and decision.steps:
            self._ended(proposal.claim.document, decision)

    def _attempted(
        self, stage: str, outcome: Outcome, decision: Decision, **fields: object
    ) -> None:
        name, event = _ENDINGS[type(outcome)]
        code = "" if isinstance(outcome, Succeeded) else outcome.code
        self._metrics.add(instruments.ATTEMPTS, stage=stage, outcome=name, code=code)
        told: dict[str, Any] = {"outcome": name, "state": decision.state, **fields}
        if isinstance(outcome, Succeeded):
            note(event, "{} is earned", stage, **told)
            return
        told |= {"error_code": code, "error_type": getattr(outcome, "error_type", None)}
        note(event, "{} was not earned: {}", stage, outcome.reason, **told)

    def _ended(self, document: Document, decision: Decision) -> None:
        self._metrics.add(instruments.ENDED, state=decision.state)
        if decision.parked is not None:
            telling.dead_lettered(document, decision.state, decision.parked)
            return
        note(log_events.DOCUMENT_ENDED, "it is {}", decision.state, state=decision.state)

    def lost(self, claim: Claim) -> None:
        """Tell that a write was refused by the claim's fence."""
        self._metrics.add(instruments.STALE, stage=claim.stage)
        note(log_events.CLAIM_LOST, "the claim had passed to somebody else; nothing was written")

    def rescued(self, rescued: Sequence[tuple[Proposal, Settled]]) -> None:
        """Count claims that were taken over from workers that died or are late.

        Of an attempt of another worker nobody knows how long it ran; the store told of each.
        """
        self._metrics.add(instruments.RESCUED, len(rescued))
        told = counted(len(rescued), "claim was", "claims were")
        note(log_events.CLAIMS_RESCUED, "{} rescued", told)
        for proposal, settled in rescued:
            stage, decision = proposal.claim.stage, settled.decision
            if isinstance(proposal.outcome, Crashed | Postponed):
                name, code = _ENDINGS[type(proposal.outcome)][0], proposal.outcome.code
                self._metrics.add(instruments.ATTEMPTS, stage=stage, outcome=name, code=code)
            if decision.lane is None:
                self._metrics.add(instruments.ENDED, state=decision.state)


def _judged(outcome: Outcome, decision: Decision) -> Outcome:
    """Return what came of an attempt: a hook that succeeded failed, where no guard agreed."""
    last = decision.steps[-1] if decision.steps else None
    if isinstance(outcome, Succeeded) and last is not None and last.error is not None:
        return Failed(code=last.error, reason=last.reason or last.error, permanent=True)
    return outcome
