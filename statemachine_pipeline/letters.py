"""Dead letters as values: what is known of documents that failed for good, and which are meant."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Why a document failed for good; it goes when the document starts again or is deleted.

    Attributes:
        document_id: Which one.
        tenant: Whose.
        name: As it is displayed.
        stage: The trigger that was not earned.
        state: Where the document stood.
        code: One word for grouping.
        reason: The whole story for people, with secrets masked.
        attempts: Tries at that stage; 0 where there was nothing to try.
        crashes: Those of them that took a child process or a worker down.
        error_type: Dotted name of the exception; None when the hook said it by a signal.
        traceback: Types and frames of the exception, without messages, source or values.
        at: When (UTC).
    """

    document_id: UUID
    tenant: str
    name: str
    stage: str
    state: str
    code: str
    reason: str
    attempts: int
    crashes: int
    error_type: str | None
    traceback: str | None
    at: datetime


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterGroup:
    """Dead letters of one stage and code.

    Attributes:
        stage: The trigger that was not earned.
        code: Why.
        count: How many.
        first_at: When the oldest failed (UTC).
        last_at: When the newest did (UTC).
        example: The newest document.
        reason: What is known of the newest.
    """

    stage: str
    code: str
    count: int
    first_at: datetime
    last_at: datetime
    example: UUID
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Which dead letters are meant; None takes all.

    Attributes:
        stage: Of this trigger.
        code: With this code.
        tenant: Of this tenant.
        since: Failed at this time or later; needs a time zone.
    """

    stage: str | None = None
    code: str | None = None
    tenant: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        if self.since is not None and self.since.tzinfo is None:
            raise ValueError(
                f"since={self.since} has no time zone; datetime.now(UTC) has one, and so has "
                "datetime(..., tzinfo=UTC)"
            )

    @property
    def is_narrow(self) -> bool:
        """Whether it leaves any out."""
        return any(value is not None for value in self.parameters().values())

    def parameters(self) -> dict[str, Any]:
        """Return what the statements ask for."""
        return {
            "stage": self.stage,
            "code": self.code,
            "tenant": self.tenant,
            "since": self.since,
        }
