"""What of a lifecycle was exercised: edges taken, and guards that said yes and no.

A graph that records takes the place of the lifecycle's own; it decides the same, so nothing of the
library knows that it is watched. Asking for an explanation is not counted: only what was decided.

Restarts are counted too, and missed by nobody: the library declares them, the same for every
lifecycle. ``submit`` is not, since no graph is asked for it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.graph import FAIL, RETRY, Edge, Graph, Guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from statemachine_pipeline.records import Facts, Option


class Coverage:
    """Counts what is decided on one lifecycle.

    Args:
        graph: The lifecycle's; one that records already goes on recording.

    Attributes:
        graph: Decides as that one does, and is counted.
        edges: How often each edge was taken, by its code.
        verdicts: How often each guard of an edge said yes or no, by code, label and verdict.
    """

    def __init__(self, graph: Graph) -> None:
        self._plain = plain(graph)
        self._within = graph if isinstance(graph, _Recording) else None
        self.edges: Counter[str] = Counter()
        self.verdicts: Counter[tuple[str, str, bool]] = Counter()
        values = {f.name: getattr(graph, f.name) for f in dataclasses.fields(Graph) if f.init}
        values["edges"] = tuple(self._watched(edge) for edge in graph.edges)
        self.graph: Graph = _Recording(**values, plain=self._plain, taken=self._take)

    @property
    def states(self) -> Mapping[str, int]:
        """How often each state was entered, or stayed in by ``retry``, in declared order."""
        entered = Counter[str]()
        edges = {edge.code: edge for edge in (*self._plain.edges, *self._plain.restarts)}
        for code, edge in edges.items():
            entered[edge.to_state] += self.edges[code]
        return {state: entered[state] for state in self._plain.states}

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often each life was begun or erased, by the code of the edge."""
        return {e.code: self.edges[e.code] for e in self._plain.restarts if self.edges[e.code]}

    @property
    def missing(self) -> tuple[str, ...]:
        """What was never exercised, in words: edges of one life, and verdicts of their guards."""
        return tuple(words for words, count in self._wanted() if not count)

    @property
    def percent(self) -> float:
        """Share of the edges of one life, and of the two verdicts of each guard, in 0 to 100."""
        counts = [count for _, count in self._wanted()]
        return 100.0 * sum(map(bool, counts)) / len(counts)

    def to_json(self) -> dict[str, Any]:
        """Return what was counted as plain JSON values, for ``add``."""
        return {
            "lifecycle": self._plain.name,
            "fingerprint": self._plain.fingerprint,
            "edges": dict(self.edges),
            "verdicts": [[*key, count] for key, count in self.verdicts.items()],
        }

    def add(self, counted: Mapping[str, Any]) -> None:
        """Count what another process has counted on the same lifecycle.

        Raises:
            ValueError: It was another lifecycle, or another version of it.
        """
        if counted["fingerprint"] != self._plain.fingerprint:
            raise ValueError(
                f"this was counted on another {counted['lifecycle']}; count both on the same code"
            )
        self.edges.update(counted["edges"])
        self.verdicts.update({(code, label, v): n for code, label, v, n in counted["verdicts"]})

    def _wanted(self) -> Iterator[tuple[str, int]]:
        """Name all that can be missing, with how often it was seen."""
        for edge in self._plain.edges:
            yield f"never taken: {edge.code}", self.edges[edge.code]
            for guard, verdict in itertools.product(edge.guards, (True, False)):
                word = "agreed" if verdict else "refused"
                count = self.verdicts[edge.code, guard.label, verdict]
                yield f"never {word}: {guard.label} of {edge.code}", count

    def _take(self, edge: Edge) -> None:
        self.edges[edge.code] += 1
        if self._within is not None:
            self._within.taken(edge)

    def _watched(self, edge: Edge) -> Edge:
        guards = (self._watched_guard(edge, guard) for guard in edge.guards)
        return dataclasses.replace(edge, guards=tuple(guards))

    def _watched_guard(self, edge: Edge, guard: Guard) -> Guard:
        def function(facts: Facts) -> object:
            verdict = guard.judge(facts)
            self.verdicts[edge.code, guard.label, verdict.holds] += 1
            return guard.function(facts) if guard.function else not guard.expected

        return dataclasses.replace(guard, function=function)


def plain(graph: Graph) -> Graph:
    """Return the lifecycle's own graph: for whoever asks what could be, and decides nothing."""
    return graph.plain if isinstance(graph, _Recording) else graph


@dataclasses.dataclass(frozen=True)
class _Recording(Graph):
    """A graph that tells of each edge it returns."""

    plain: Graph
    taken: Callable[[Edge], None]

    def step(self, state: str, trigger: str, facts: Facts) -> Edge:
        if trigger in {RETRY, FAIL}:
            # Which of the two it is was decided before, by what explains rather than decides.
            other = FAIL if trigger == RETRY else RETRY
            self._choose(self._table.get(state, {}).get(other, ()), facts)
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
