"""How a pipeline does, as values. Pure."""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

Status = Literal["ok", "degraded", "failed"]
_WORST: Final[tuple[Status, ...]] = ("failed", "degraded", "ok")


@dataclasses.dataclass(frozen=True, slots=True)
class Component:
    """How one part does.

    Attributes:
        name: What it is.
        status: ok; degraded, where some documents wait and others go on; or failed.
        says: A sentence for people.
        fix: What to do, unless it is ok.
    """

    name: str
    status: Status
    says: str
    fix: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """How a pipeline does as a whole.

    Attributes:
        components: Its parts.
    """

    components: tuple[Component, ...]

    @property
    def status(self) -> Status:
        """That of the part which does worst."""
        found = {component.status for component in self.components}
        return next((status for status in _WORST if status in found), "ok")
