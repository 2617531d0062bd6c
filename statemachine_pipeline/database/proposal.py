"""What the runner asks to have written at the end of an attempt, and what it gets back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.cures import first_line
from statemachine_pipeline.errors import PipelineError
from statemachine_pipeline.records import (
    Accepted,
    Chunks,
    Facts,
    ParsedText,
    Publication,
    Validated,
    Vectors,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from statemachine_pipeline.decide import Decision, Outcome, ProductKind
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.records import Child
    from statemachine_pipeline.stages import Bound

_KINDS: Mapping[type, ProductKind] = {
    ParsedText: "text",
    Chunks: "chunks",
    Vectors: "vectors",
    Publication: "publication",
    Accepted: "none",
    Validated: "none",
}


class OwnerChanged(PipelineError):
    """The bytes or text changed hands since the decision; nothing was written, decide again."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"document {claim.document.id}: its twin changed meanwhile")


class ProductFailed(PipelineError):
    """A product could not be written; nothing was, and the attempt has failed."""

    def __init__(self, claim: Claim, cause: BaseException) -> None:
        self.cause = cause
        super().__init__(f"{claim.stage}: its product was not written: {first_line(cause)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposal:
    """The outcome of one attempt, ready to be settled.

    Attributes:
        claim: The ticket.
        bound: The stage, or None when only hops are settled.
        product: What the hook made.
        output_sha256: Hash of what later stages read; None unless the hook succeeded.
        reported: What it said for guards.
        children: Documents it found in this one.
        facts: What is known before the product is written.
        decide: Turns facts into a decision; called again after the product is written, with the
            counts that the writes returned.
        deadline_seconds: For each state at which the claim may go on, how long it may take there.
        run_seconds: How long the hook ran.
        tokens: What its requests were charged for.
        outcome: What came of it, for whoever tells of it; the decision is made of it already.
        refused: It stands for an earlier proposal that PostgreSQL refused.
    """

    claim: Claim
    bound: Bound | None
    decide: Callable[[Facts], Decision]
    facts: Facts
    product: object | None = None
    output_sha256: str | None = None
    reported: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    children: tuple[Child, ...] = ()
    deadline_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    run_seconds: float | None = None
    tokens: int = 0
    outcome: Outcome | None = None
    refused: bool = False

    @property
    def kind(self) -> ProductKind:
        """Where the product's data goes."""
        return "none" if self.product is None else _KINDS.get(type(self.product), "other")

    @property
    def concerns_children(self) -> bool:
        """Whether its stage found documents in this one, now or when it last ran."""
        stage = self.bound.trigger if self.bound else None
        return bool(self.children) or stage in self.claim.document.children


@dataclasses.dataclass(frozen=True, slots=True)
class Continuation:
    """What a claim on the next stage is made of; times are the database's."""

    sequence: int
    deadline_at: datetime
    entered_at: datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Settled:
    """What was written.

    Attributes:
        decision: The decision that was taken in the end.
        continuation: The claim on the next stage, when the same worker goes on.
        children: How many documents each stage has found in this one; None if that is unchanged.
    """

    decision: Decision
    continuation: Continuation | None
    children: Mapping[str, int] | None = None
