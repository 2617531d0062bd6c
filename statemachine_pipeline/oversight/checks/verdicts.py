"""What a check is given, and what it says."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.blobs import Blobs
    from statemachine_pipeline.database.inspection import Inspection
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.stages import Stages

Status = Literal["ok", "warn", "fail", "skip"]

SHOWN = 5
"""How many of several things are named."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A pipeline, as a check looks at it.

    Attributes:
        inspection: Asks its database what no other class of ``database`` is for.
        engine: An engine on its database.
        t: Its tables.
        stages: Its lifecycle and hooks; the hooks may not be known.
        blobs: Where bytes are kept outside the database.
    """

    inspection: Inspection
    engine: AsyncEngine
    t: Tables
    stages: Stages
    blobs: Blobs | None


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What one check found.

    Attributes:
        fix: A command or a sentence; None when there is nothing to mend.
    """

    status: Status
    message: str
    fix: str | None = None


def ok(message: str) -> Verdict:
    """Say that all is well."""
    return Verdict("ok", message)


def skip(message: str) -> Verdict:
    """Say why there is nothing to look at."""
    return Verdict("skip", message)


def warn(message: str, fix: str) -> Verdict:
    """Tell of what works, and may not for long."""
    return Verdict("warn", message, fix)


def fail(message: str, fix: str) -> Verdict:
    """Tell of what does not work, or no longer holds."""
    return Verdict("fail", message, fix)


def named(things: Sequence[str]) -> str:
    """Name the first few of several things."""
    more = len(things) - SHOWN
    return ", ".join(things[:SHOWN]) + (f" and {more} more" if more > 0 else "")
