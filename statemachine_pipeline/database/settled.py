"""A settled claim as a record: what the settle statement is told, as plain values. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from statemachine_pipeline.records import Accepted, ParsedText, Validated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from statemachine_pipeline.database.proposal import Proposal
    from statemachine_pipeline.decide import Decision, Parked
    from statemachine_pipeline.stages import Bound


def settled(
    proposal: Proposal, decision: Decision, children: Mapping[str, int] | None
) -> dict[str, Any]:
    """Return one settled claim as the settle statement reads it.

    Args:
        proposal: What was proposed.
        decision: What was decided on it.
        children: How many children each stage has found, if that may have changed.
    """
    product, claim = proposal.product, proposal.claim
    record = {
        "id": str(claim.document.id),
        "seq": claim.sequence,
        "state": decision.state,
        "steps": _steps(proposal, decision),
        "step_count": len(decision.steps),
        "lane": decision.lane,
        "after": decision.after.total_seconds() or None,
        "give_back": int(decision.give_back) or None,
        "crashed": int(decision.crashed) or None,
        "reenters": decision.reenters or None,
        "alone": decision.alone or None,
        "deadline": proposal.deadline_seconds.get(decision.state, 0.0),
        "next_input_sha256": decision.input_sha256,
        "error": decision.error,
        "tokens": claim.tokens + proposal.tokens or None,
        "children": children,
    }
    if isinstance(product, Accepted):
        record["media_type"] = product.media_type
    elif isinstance(product, Validated):
        record["text_sha256"] = product.text_sha256
    elif isinstance(product, ParsedText):
        record["text_chars"] = len(product.text)
    if decision.parked is not None:
        record |= _parked(decision.parked, decision.steps[-1].edge.from_state)
    elif proposal.bound is not None and decision.input_sha256 is not None:
        record |= _earned(proposal, proposal.bound, decision)
    return _said(record)


def _said(record: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is None: a missing key reads as NULL."""
    return {name: value for name, value in record.items() if value is not None}


def _parked(parked: Parked, state: str | None) -> dict[str, Any]:
    """The dead letter of a document that failed for good in ``state``."""
    return {
        "failed_in": state,
        "failed_stage": parked.stage,
        "code": parked.failed.code,
        "attempts": parked.attempts,
        "crashes": parked.crashes,
        "error_type": parked.failed.error_type,
        "traceback": parked.failed.trace,
    }


def _steps(proposal: Proposal, decision: Decision) -> list[dict[str, Any]]:
    ran = proposal.bound is not None
    return [
        _said(
            {
                "offset": number,
                "trigger": step.edge.trigger,
                "from_state": step.edge.from_state,
                "to_state": step.edge.to_state,
                "hop": step.hop or None,
                "attempt": proposal.claim.attempt if ran and not step.hop else None,
                "error": step.error,
                "reason": step.reason,
                "run_seconds": proposal.run_seconds if not step.hop else None,
            }
        )
        for number, step in enumerate(decision.steps, start=1)
    ]


def _earned(proposal: Proposal, bound: Bound, decision: Decision) -> dict[str, Any]:
    """The product row of the stage whose edge was taken."""
    key = getattr(proposal.product, "key", None) or (None, None)
    return {
        "stage": bound.trigger,
        "input_sha256": proposal.claim.document.input_sha256,
        # A stand-in's product is not the stage's own: it is good for this life, not for the next.
        "fingerprint": getattr(proposal.product, "made_by", None) or bound.fingerprint,
        "output_sha256": proposal.output_sha256,
        "kind": proposal.kind,
        "key_kind": key[0],
        "key_sha256": key[1],
        "reported": dict(proposal.reported) or None,
        "facts": {name: count for name, count in decision.counts.items() if count} or None,
    }
