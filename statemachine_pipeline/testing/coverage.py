"""What of a lifecycle was exercised: edges taken, and guards that said yes and no.

A graph that records takes the place of the lifecycle's own; it decides the same, so nothing of the
library knows that it is watched. Asking for an explanation is not counted: only what was decided.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import TYPE_CHECKING

from statemachine_pipeline.graph import Edge, Graph, Guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from statemachine_pipeline.records import Facts, Option


class Coverage:
    """Counts what is decided on one lifecycle.

    Args:
        graph: The lifecycle's.

    Attributes:
        graph: Decides as that one does, and is counted.
        edges: How often each edge was taken, by its code.
        verdicts: How often each guard of an edge said yes or no, by code, label and verdict.
    """

    def __init__(self, graph: Graph) -> None:
        self._plain = graph
        self.edges: Counter[str] = Counter()
        self.verdicts: Counter[tuple[str, str, bool]] = Counter()
        values = {f.name: getattr(graph, f.name) for f in dataclasses.fields(graph) if f.init}
        values["edges"] = tuple(self._watched(edge) for edge in graph.edges)
        self.graph: Graph = _Recording(**values, plain=graph, taken=self._take)

    @property
    def missing(self) -> tuple[str, ...]:
        """What was never exercised, in words: edges of one life, and verdicts of their guards."""
        lines = []
        for edge in self._plain.edges:
            if not self.edges[edge.code]:
                lines.append(f"never taken: {edge.code}")
            for guard, verdict in itertools.product(edge.guards, (True, False)):
                if not self.verdicts[edge.code, guard.label, verdict]:
                    word = "agreed" if verdict else "refused"
                    lines.append(f"never {word}: {guard.label} of {edge.code}")
        return tuple(lines)

    def _take(self, edge: Edge) -> None:
        self.edges[edge.code] += 1

    def _watched(self, edge: Edge) -> Edge:
        guards = (self._watched_guard(edge, guard) for guard in edge.guards)
        return dataclasses.replace(edge, guards=tuple(guards))

    def _watched_guard(self, edge: Edge, guard: Guard) -> Guard:
        def function(facts: Facts) -> object:
            verdict = guard.judge(facts)
            self.verdicts[edge.code, guard.label, verdict.holds] += 1
            return guard.function(facts) if guard.function else not guard.expected

        return dataclasses.replace(guard, function=function)


@dataclasses.dataclass(frozen=True)
class _Recording(Graph):
    """A graph that tells of each edge it returns."""

    plain: Graph
    taken: Callable[[Edge], None]

    def step(self, state: str, trigger: str, facts: Facts) -> Edge:
        edge = super().step(state, trigger, facts)
        self.taken(edge)
        return edge

    def advance(self, state: str, facts: Facts) -> Edge | str:
        edge = super().advance(state, facts)
        if isinstance(edge, Edge):
            self.taken(edge)
        return edge

    def restart(self, state: str, trigger: str) -> Edge:
        edge = super().restart(state, trigger)
        self.taken(edge)
        return edge

    def explain(self, state: str, facts: Facts) -> tuple[Option, ...]:
        return self.plain.explain(state, facts)
