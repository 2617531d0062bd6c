"""The one seam at which a test may interrupt the library: what it asks the database, and hooks.

Off, which it is unless a test sets ``active`` in its own context, a step costs one look at a
context variable. Nothing of the library ever sets it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Moment: TypeAlias = Literal["before", "after"]
"""Before nothing was sent; after all of it is committed, and the answer may still be lost."""

Failpoint: TypeAlias = "Callable[[str, Moment], None]"
"""Called with what the step is doing; what it raises is what the step ends with."""

active: ContextVar[Failpoint | None] = ContextVar("statemachine_pipeline_failpoint", default=None)


def reached(doing: str, moment: Moment) -> None:
    """Say that a step was reached, to whoever listens."""
    failpoint = active.get()
    if failpoint is not None:
        failpoint(doing, moment)
