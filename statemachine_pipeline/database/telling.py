"""Lines of the log about documents that are written outside of any walk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.context import of, of_all, of_trace
from statemachine_pipeline.observability.noting import note

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from statemachine_pipeline.database.documents import Submission
    from statemachine_pipeline.database.proposal import Proposal, Settled
    from statemachine_pipeline.decide import Parked
    from statemachine_pipeline.records import Document, Submitted


def submitted(pairs: Iterable[tuple[Submission, Submitted]]) -> None:
    """Tell of documents that were handed over; those found in another one come with its stage.

    In a transaction of the application's it is told before that commits.
    """
    for one, answer in pairs:
        if one.parent_id is not None:
            continue
        note(
            log_events.SUBMITTED,
            "handed over: {}, {} bytes",
            *(answer.outcome, one.size_bytes),
            document_id=str(answer.document_id),
            tenant=one.tenant,
            correlation_id=one.correlation_id,
            **of_trace(one.traceparent),
            outcome=answer.outcome,
            state=answer.state,
        )


def moved(trigger: str, documents: Sequence[Document], *, by: str, reason: str) -> None:
    """Tell of documents that somebody moved, all by one trigger."""
    if documents:
        told = "{} by {}: {} ({} documents)" if len(documents) > 1 else "{} by {}: {}"
        values = trigger, by, reason, len(documents)
        note(log_events.MOVED, told, *values, **of_all(documents), trigger=trigger, by=by)


def rescued(written: Iterable[tuple[Proposal, Settled]]) -> None:
    """Tell what became of claims that were taken from dead workers, or late ones."""
    for one, settled in written:
        claim, decision = one.claim, settled.decision
        fields = of(claim.document) | {"stage": claim.stage, "attempt": claim.attempt}
        why = decision.error or "its worker ended"
        note(log_events.RESCUED, "taken back: {}", why, **fields, state=decision.state)
        if decision.parked is not None:
            dead_lettered(one.claim.document, decision.state, decision.parked)


def dead_lettered(document: Document, state: str, parked: Parked) -> None:
    """Tell that a document failed for good."""
    note(
        log_events.DEAD_LETTERED,
        "it failed for good at {} after {} attempts: {}",
        *(parked.stage, parked.attempts, parked.failed.reason),
        **of(document),
        stage=parked.stage,
        attempt=parked.attempts,
        state=state,
        error_code=parked.failed.code,
    )
