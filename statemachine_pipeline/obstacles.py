"""What may stand in a document's way beside its own lane: values, no logic. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from datetime import datetime

TIME: Final = "%Y-%m-%d %H:%M:%S %Z"
"""How times are told to people."""

REFUSED: Final = " is not asked for now: "
"""Between a provider that is down and why, where a request of a document was refused."""

Awaited = Literal[
    "worker", "time", "person", "resume", "provider", "idle_worker", "rescue", "withdrawal"
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Why nobody claims for a stage, for a tenant, or for a stage and one tenant.

    Attributes:
        stage: The trigger that the stage earns; None for every stage.
        tenant: Whose documents; None for everybody's.
        fault: Made by the pipeline itself, since the stage could not work for any document.
        by: Who made it.
        until: When it ends by itself (UTC); None until somebody resumes.
        since: When it was made (UTC).
    """

    stage: str | None
    tenant: str | None
    fault: bool
    reason: str
    by: str
    until: datetime | None
    since: datetime

    @property
    def place(self) -> str:
        """What is paused, for people."""
        whose = None if self.tenant is None else f"tenant {self.tenant}"
        what = None if self.stage is None else f"stage {self.stage}"
        return " for ".join(part for part in (what, whose) if part)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """A document that still has to go from a store outside the database.

    Attributes:
        stage: The trigger that the store's publisher earns.
        since: Since when it has to go (UTC).
        last_error: Why the last try failed, if one did.
    """

    stage: str
    since: datetime
    last_error: str | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Obstacles:
    """What stands in a document's way beside its own lane; nothing by default.

    Attributes:
        pauses: Those that hold for it, oldest first.
        closed: A sentence for each provider that its stage may not ask now.
        alone: It took a worker down, so it waits for one that has nothing else in hand.
        holder_silent_seconds: Since the last beat of the worker that holds it.
        holder_is_silent: Whether it missed two beats of its own.
        holder_dead_after_seconds: Silence after which that worker counts as dead.
        holder_is_dead: Whether that worker was declared dead or is gone.
        serving: How many live workers take its stage; None where that was not looked up.
        all_are_alone: Whether each of these has a document in hand that took a worker down, and
            takes no other meanwhile.
        silent_seconds: Since the last beat of any worker; None when there is no worker at all.
        all_are_silent: Whether each of them missed two beats of its own.
        withdrawals: Where it still has to go from.
    """

    pauses: tuple[Pause, ...] = ()
    closed: tuple[str, ...] = ()
    alone: bool = False
    holder_silent_seconds: float | None = None
    holder_is_silent: bool = False
    holder_dead_after_seconds: float | None = None
    holder_is_dead: bool = False
    serving: int | None = None
    all_are_alone: bool = False
    silent_seconds: float | None = None
    all_are_silent: bool = False
    withdrawals: tuple[Withdrawal, ...] = ()
