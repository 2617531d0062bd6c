"""Histories held against a graph: is each step an edge, and does it go on where one ended? Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from statemachine_pipeline.graph import DELETE, RESTARTS, Edge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.records import Transition


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One row of a history, as far as a proof looks at it."""

    version: int
    life: int
    trigger: str
    from_state: str | None
    to_state: str
    attempt: int | None
    error: str | None

    def __str__(self) -> str:
        tried = f", attempt {self.attempt}" if self.attempt else ""
        why = f", {self.error}" if self.error else ""
        return f"{self.version:3} {code(self)}{tried}{why}"


def code(step: Step | Transition) -> str:
    """Return the edge that was taken, as a graph names it."""
    return Edge(step.trigger, step.from_state, step.to_state).code


def broken(
    steps: Sequence[Step | Transition], graph: Graph, *, state: str, version: int
) -> Iterator[str]:
    """Yield what does not hold of the history of one document.

    Args:
        steps: All of it, oldest first.
        graph: Of which it has to be a path, from ``submit`` on.
        state: Where the document stands.
        version: The document's.
    """
    legal = frozenset(graph.codes())
    stood, life = None, 1
    for number, step in enumerate(steps, start=1):
        life += step.trigger in RESTARTS - {DELETE}
        if (step.version, step.life) != (number, life):
            yield f"step {number} says version {step.version} of life {step.life}, not {life}"
        if step.from_state != stood:
            yield f"step {number} leaves {step.from_state!r}, and the document stood in {stood!r}"
        if code(step) not in legal:
            yield f"step {number} is {code(step)}, which {graph.name} does not declare"
        stood = step.to_state
    if (state, version) != (stood, len(steps)):
        yield (
            f"it stands in {state!r} at version {version}, "
            f"and its history ends in {stood!r} after {len(steps)} steps"
        )
