"""What lint looks at: a lifecycle as its runners see it, with or without its hooks."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from statemachine_pipeline.graph import FAILURE_TRIGGERS
from statemachine_pipeline.testing.linting.witnesses import agree, guards_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.graph import Edge, Graph, Guard
    from statemachine_pipeline.records import Facts
    from statemachine_pipeline.stages import Stages


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A lifecycle under lint.

    Attributes:
        graph: The lifecycle.
        stages: Its hooks, where they are known.
        doubted: Guards whose verdicts prove nothing, since they are found fault with themselves.
    """

    graph: Graph
    stages: Stages | None = None
    doubted: frozenset[Guard] = frozenset()

    @property
    def forward(self) -> tuple[Edge, ...]:
        """Every edge that leads on within a life, in declared order."""
        return tuple(e for e in self.graph.edges if e.trigger not in FAILURE_TRIGGERS)

    @property
    def working(self) -> tuple[str, ...]:
        """States that a document leaves again within its life."""
        return tuple(s for s in self.graph.states if not self.graph.is_resting(s))

    def ways(self, state: str) -> tuple[Edge, ...]:
        """Return the ways on from a state in the order in which they are tried."""
        return tuple(
            edge
            for trigger in self.graph.forward(state)
            for edge in self.graph.edges
            if edge.from_state == state and edge.trigger == trigger
        )

    def is_by_hand(self, state: str) -> bool:
        """Tell whether people choose the way on from a state, as far as is known."""
        return self.stages is not None and self.stages.is_by_hand(state)

    def is_hop(self, state: str) -> bool:
        """Tell whether there is known to be nothing to earn in a state."""
        is_earned = self.stages is None or self.stages.at(state) is not None
        return not is_earned and not self.is_by_hand(state)

    def choices(self, state: str) -> tuple[tuple[Edge, ...], ...]:
        """Return the edges among which one is taken: all ways, or by trigger where people choose.

        None are returned where a guard is in doubt.
        """
        ways = self.ways(state)
        if self.doubted.intersection(guards_of(ways)):
            return ()
        if not self.is_by_hand(state):
            return (ways,)
        triggers = self.graph.forward(state)
        return tuple(tuple(e for e in ways if e.trigger == trigger) for trigger in triggers)


def taken(choice: Sequence[Edge], facts: Facts) -> Edge | None:
    """Return the first edge that is open on these facts."""
    return next((edge for edge in choice if agree(edge.guards, facts)), None)
