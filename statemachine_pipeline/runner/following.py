"""What a settle made of a document, and the claim it goes on with, without reading either again."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from statemachine_pipeline.records import Accepted, Validated

if TYPE_CHECKING:
    from statemachine_pipeline.database.proposal import Continuation, Settled
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.records import Document
    from statemachine_pipeline.stages import Bound


def moved(before: Document, settled: Settled, product: object) -> Document:
    """Return the document as the settle left it, without reading it again."""
    decision, found = settled.decision, settled.children
    return dataclasses.replace(
        before,
        state=decision.state,
        version=before.version + len(decision.steps),
        input_sha256=decision.input_sha256 or before.input_sha256,
        text_chars=decision.counts.get("text_chars", before.text_chars),
        media_type=product.media_type if isinstance(product, Accepted) else before.media_type,
        text_sha256=product.text_sha256 if isinstance(product, Validated) else before.text_sha256,
        last_error=None,
        children=before.children if found is None else found,
    )


def next_claim(
    claim: Claim, document: Document, following: Bound, continuation: Continuation
) -> Claim:
    """Return the claim on the stage that a settle went on with."""
    return dataclasses.replace(
        claim,
        document=document,
        stage=following.trigger,
        sequence=continuation.sequence,
        attempt=1,
        crashes=0,
        due_at=continuation.deadline_at - following.stage.deadline,  # as it is claimed, at once
        deadline_at=continuation.deadline_at,
        entered_at=continuation.entered_at,
        fingerprint=following.fingerprint,
        tokens=0,
    )
