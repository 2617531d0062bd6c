"""What a person's trigger does to one document. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

from statemachine_pipeline.errors import TransitionRefused
from statemachine_pipeline.graph import CANCEL, DELETE, DELETED, RESTARTS
from statemachine_pipeline.records import Facts

if TYPE_CHECKING:
    from uuid import UUID

    from statemachine_pipeline.graph import Edge
    from statemachine_pipeline.records import Document
    from statemachine_pipeline.stages import Stages


class Standing(Protocol):
    """A document and, unless it rests, its work row."""

    @property
    def document(self) -> Document:
        """The document."""

    @property
    def work(self) -> Any:
        """Its work row, or None."""


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
    edges = _edges(stages, held, trigger)
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
                "trigger": edge.trigger,
                "from_state": edge.from_state,
                "to_state": edge.to_state,
                "restarts": lives,
                "hop": False,
                "by": by,
                "reason": reason,
            }
            for number, edge in enumerate(edges, start=1)
        ],
    )


def _edges(stages: Stages, held: Standing, trigger: str) -> list[Edge]:
    graph, document = stages.graph, held.document
    state = document.state
    facts = Facts(
        attempt=held.work.attempt if held.work else 1,
        crashes=held.work.crashes if held.work else 0,
        text_chars=document.text_chars,
    )
    if trigger == CANCEL:
        return [graph.step(state, CANCEL, facts)]
    if trigger == DELETE and held.work is not None:
        stop = graph.step(state, CANCEL, facts)
        return [stop, graph.restart(stop.to_state, DELETE)]
    if trigger in RESTARTS:
        return [graph.restart(state, trigger)]
    edge = graph.step(state, trigger, facts)
    if not stages.is_by_hand(state):
        raise TransitionRefused(state, trigger, "taken_by_workers", graph.possible(state))
    return [edge]


def _lane(stages: Stages, state: str) -> str | None:
    if stages.graph.is_resting(state):
        return None
    return "held" if stages.is_by_hand(state) else "ready"
