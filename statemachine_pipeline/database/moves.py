"""What a person's trigger does to one document. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

from statemachine_pipeline.decide import Step, walk_from
from statemachine_pipeline.errors import TransitionRefused
from statemachine_pipeline.graph import (
    CANCEL,
    DELETE,
    DELETED,
    FAILURE_TRIGGERS,
    MARK_DUPLICATE,
    RESTARTS,
)

if TYPE_CHECKING:
    from uuid import UUID

    from statemachine_pipeline.records import Document, Facts
    from statemachine_pipeline.stages import Stages


class Standing(Protocol):
    """A document and, unless it rests, its work row."""

    @property
    def document(self) -> Document:
        """The document."""

    @property
    def work(self) -> Any:
        """Its work row, or None."""

    @property
    def facts(self) -> Facts:
        """What guards read."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Edges to write for one document outside any claim, as the rows of two statements."""

    id: UUID
    state: str
    given: dict[str, Any]
    steps: list[dict[str, Any]]


def plan(stages: Stages, held: Standing, trigger: str, *, by: str | None, reason: str) -> Move:
    """Turn a trigger into edges.

    Raises:
        TransitionRefused: It is not possible here, or workers take this edge, not people.
    """
    document = held.document
    steps = _steps(stages, held, trigger)
    edges = [step.edge for step in steps]
    lives = sum(edge.trigger in RESTARTS and edge.to_state != DELETED for edge in edges)
    state = edges[-1].to_state
    return Move(
        id=document.id,
        state=state,
        given={
            "id": document.id,
            "base": document.version,
            "steps": len(edges),
            "state": state,
            "lane": _lane(stages, state),
            "lives": lives,
            "error": reason if trigger == CANCEL else None,
        },
        steps=[
            {
                "id": document.id,
                "offset": number,
                "trigger": step.edge.trigger,
                "from_state": step.edge.from_state,
                "to_state": step.edge.to_state,
                "restarts": lives,
                "hop": step.hop,
                "by": by,
                "reason": reason,
            }
            for number, step in enumerate(steps, start=1)
        ],
    )


def _steps(stages: Stages, held: Standing, trigger: str) -> tuple[Step, ...]:
    graph, facts, state = stages.graph, held.facts, held.document.state
    if trigger == CANCEL:
        return (Step(graph.step(state, CANCEL, facts)),)
    if trigger == DELETE and held.work is not None:
        stop = graph.step(state, CANCEL, facts)
        return Step(stop), Step(graph.restart(stop.to_state, DELETE))
    if trigger in RESTARTS:
        return (Step(graph.restart(state, trigger)),)
    edge = graph.step(state, trigger, facts)
    if not stages.is_by_hand(state) or trigger in FAILURE_TRIGGERS:
        raise TransitionRefused(state, trigger, "taken_by_workers", graph.possible(state))
    steps = walk_from(stages, edge, facts).steps
    if any(step.edge.trigger == MARK_DUPLICATE for step in steps):
        # Whom it rests on is decided under the lock of the key, by a worker that has the bytes.
        raise TransitionRefused(state, trigger, "taken_by_workers", graph.possible(state))
    failed = next((step.error for step in steps if step.error is not None), None)
    if failed is not None:
        # Where a worker would park it, a person is told, and nothing is written.
        raise TransitionRefused(state, trigger, failed, graph.possible(state))
    return steps


def _lane(stages: Stages, state: str) -> str | None:
    if stages.graph.is_resting(state):
        return None
    return "held" if stages.is_by_hand(state) else "ready"
