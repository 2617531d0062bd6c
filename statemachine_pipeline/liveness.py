"""When a worker counts as silent, and when as dead. Pure."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Final

SILENT_BEATS: Final = 2
"""A worker is called silent after so many beats that did not come; it counts as dead later."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """When a worker counts as dead.

    Each worker says so of itself, and everyone judges it by that: a fleet may be of several minds.

    Attributes:
        beat: Time between two beats.
        dead_after: Silence after which others take its claims; at least four beats.
        grace: Time past its deadline after which a claim is taken from a live worker.
    """

    beat: timedelta = timedelta(seconds=10)
    dead_after: timedelta = timedelta(seconds=60)
    grace: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        if self.beat <= timedelta(0) or self.dead_after < 4 * self.beat:
            raise ValueError(
                f"dead_after must be at least four beats, got {self.dead_after} and {self.beat}"
            )


USUAL: Final = Liveness()
"""Of a worker that was told nothing else."""
