"""A lifecycle as a map: what can be aimed at, with facts for it, and the shortest way there. Pure.

An aim is an edge, or a verdict of a guard that no edge shows by itself: a hook that succeeded while
no guard agreed. Facts come from ``verdicts``; what they never open is said to be out of reach.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from typing import TYPE_CHECKING, Self

import networkx as nx

from statemachine_pipeline.errors import TransitionRefused
from statemachine_pipeline.graph import (
    CANCEL,
    DELETED,
    FAIL,
    FAILURE_TRIGGERS,
    MARK_DUPLICATE,
    RESTARTS,
    RETRY,
    REVISE,
    SUBMIT,
    Edge,
    Graph,
)
from statemachine_pipeline.records import Facts
from statemachine_pipeline.testing import verdicts
from statemachine_pipeline.testing.coverage import Coverage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ASIDE = 2
"""A step aside counts as two: a way that leads through failures is taken only if it is shorter."""
_OVER_PRODUCTS = 4
"""Restarts that keep the bytes hop over what was earned, so that a new way needs new bytes."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """Something to exercise.

    Attributes:
        label: How it is named: the code of the edge, or what a guard says of it.
        edge: What is taken at last.
        facts: On which.
        succeeds: Whether the hook succeeds before; else it failed, or nobody ran one.
    """

    label: str
    edge: Edge
    facts: Facts
    succeeds: bool

    @classmethod
    def at(cls, edge: Edge, facts: Facts) -> Self:
        """Aim at an edge by itself."""
        forward = edge.trigger not in FAILURE_TRIGGERS | RESTARTS
        return cls(label=edge.code, edge=edge, facts=facts, succeeds=forward)


class Chart:
    """The map of one lifecycle.

    Args:
        graph: The lifecycle's own, not one that records.
        by_hand: States that people lead out of, by whichever trigger they ask for.

    Attributes:
        aims: Everything within reach, by its label: edges first, in declared order.
        out_of_reach: What the basis of facts never shows, in the words of ``Coverage.missing``.
    """

    def __init__(self, graph: Graph, by_hand: frozenset[str] = frozenset()) -> None:
        self.graph, self._by_hand = graph, by_hand
        edges = {edge.code: aim for edge, aim in self._edges()}
        probe = Coverage(graph)
        for aim in edges.values():
            if aim.succeeds:
                probe.graph.advance(str(aim.edge.from_state), aim.facts)
        refused = [aim for state in graph.states for aim in self._probe(probe, state)]
        self.aims = edges | {aim.label: aim for aim in refused}
        self._roads, self._main = self._draw(), self._draw(only_forward=True)
        near = {graph.initial, *nx.descendants(self._roads, graph.initial)}
        self.aims = {one: aim for one, aim in self.aims.items() if aim.edge.from_state in near}
        far = [e for e in (*graph.edges, *graph.restarts[1:]) if e.from_state not in near]
        self.out_of_reach = frozenset(probe.missing) | {line for e in far for line in lines(e)}
        self.out_of_reach -= {f"never taken: {label}" for label in self.aims}

    def way(self, state: str, edge: Edge) -> tuple[Edge, ...]:
        """Return the shortest way from a state to an edge, the edge included.

        Raises:
            networkx.NetworkXNoPath: There is none.
        """
        return (*self._along(self._roads, state, str(edge.from_state)), edge)

    def home(self, state: str) -> tuple[Edge, ...]:
        """Return the shortest way on to an end of the lifecycle, with nothing failing."""
        ways = nx.single_source_dijkstra_path(self._main, state)
        ends = [ways[end] for end in self.graph.states if end in self.graph.ends and end in ways]
        states = min(ends, key=lambda found: self._weight(self._main, found))
        return tuple(self._edge(self._main, *pair) for pair in itertools.pairwise(states))

    @functools.cache  # noqa: B019 - a chart lives as long as the tests of its class
    def facts_along(self, edges: tuple[Edge, ...], label: str | None = None) -> Facts:
        """Return facts on which all these edges are taken, one after another.

        They are those of the first edge alone when the basis has none for all.

        Args:
            edges: At least one; none but the first leaves a state with a stage.
            label: Of an aim at their end, whose own facts are tried first.
        """
        known = [self.aims[label].facts] if label else []
        for facts in (*known, *self._basis(*(str(edge.from_state) for edge in edges))):
            if all(self._is_taken(edge, facts) for edge in edges):
                return facts
        return self._opening(edges[0]) or Facts()

    def by_text(self, aim: Aim) -> Aim:
        """Return the aim at a twin by its text, if that opens the edge as well as by its bytes.

        A document's own bytes may be its own already, and then no other can be before it.
        """
        if aim.facts.duplicate_by != "bytes":
            return aim
        facts = dataclasses.replace(aim.facts, duplicate_by="text")
        return dataclasses.replace(aim, facts=facts) if self._is_taken(aim.edge, facts) else aim

    def _basis(self, *states: str) -> tuple[Facts, ...]:
        """Return facts that differ in all that is asked on the ways out of these states."""
        edges = (edge for state in states for edge in self.graph.edges if edge.from_state == state)
        return verdicts.basis(guard for edge in edges for guard in edge.guards)

    def _is_taken(self, edge: Edge, facts: Facts) -> bool:
        # A failure is, by what came of the attempt, whatever the facts.
        return edge.trigger in FAILURE_TRIGGERS or self._is_open(edge, facts)

    def _is_open(self, edge: Edge, facts: Facts) -> bool:
        state = str(edge.from_state)
        if state not in self._by_hand:
            return verdicts.taken(self.graph, state, edge.trigger, facts) == edge
        with contextlib.suppress(TransitionRefused):
            return self.graph.step(state, edge.trigger, facts) == edge
        return False

    def _opening(self, edge: Edge) -> Facts | None:
        if edge in self.graph.restarts:
            return Facts()
        known = self._basis(str(edge.from_state))
        return next((facts for facts in known if self._is_open(edge, facts)), None)

    def _edges(self) -> Iterator[tuple[Edge, Aim]]:
        for edge in (*self.graph.edges, *self.graph.restarts):
            facts = self._opening(edge)
            if facts is not None and edge.trigger != SUBMIT and not self._is_spared(edge):
                yield edge, Aim.at(edge, facts)

    def _is_spared(self, edge: Edge) -> bool:
        """Tell whether an edge is one of failures, where nobody tries anything but people."""
        return edge.from_state in self._by_hand and edge.trigger in {RETRY, FAIL}

    def _probe(self, probe: Coverage, state: str) -> Iterator[Aim]:
        """Ask all guards of a state on all facts of their basis; yield what no edge has shown."""
        own = [edge for edge in self.graph.edges if edge.from_state == state]
        parked = next((edge for edge in own if edge.trigger == FAIL), None)
        if parked is None:
            return
        for facts in self._basis(state):
            seen = set(probe.verdicts)
            way = probe.graph.advance(state, facts)
            edge = parked if isinstance(way, str) else self._plain(way)
            for code, guard, holds in sorted(probe.verdicts.keys() - seen):
                label = f"{guard} {'agrees' if holds else 'refuses'} at {code}"
                yield Aim(label=label, edge=edge, facts=facts, succeeds=True)
            for trigger in (RETRY, FAIL, CANCEL):
                with contextlib.suppress(TransitionRefused):
                    probe.graph.step(state, trigger, facts)

    def _plain(self, edge: Edge) -> Edge:
        return next(one for one in self.graph.edges if one.code == edge.code)

    def _draw(self, *, only_forward: bool = False) -> nx.DiGraph:
        roads = nx.DiGraph()
        roads.add_nodes_from(self.graph.states)
        for aim in self.aims.values():
            edge = aim.edge
            if aim.label != edge.code or edge.from_state == edge.to_state:
                continue
            if only_forward and not aim.succeeds:
                continue
            weight = self._length(edge)
            known = roads.get_edge_data(edge.from_state, edge.to_state)
            if known is None or weight < known["weight"]:
                roads.add_edge(edge.from_state, edge.to_state, edge=edge, weight=weight)
        return roads

    def _length(self, edge: Edge) -> int:
        if edge.trigger == MARK_DUPLICATE:
            return len(self.graph.states)  # the main way does not end as somebody's twin
        if edge.trigger in RESTARTS and edge.trigger != REVISE and edge.to_state != DELETED:
            return _OVER_PRODUCTS
        return _ASIDE if edge.trigger in FAILURE_TRIGGERS | RESTARTS else 1

    def _along(self, roads: nx.DiGraph, start: str, end: str) -> tuple[Edge, ...]:
        states = nx.shortest_path(roads, start, end, weight="weight")
        return tuple(self._edge(roads, *pair) for pair in itertools.pairwise(states))

    @staticmethod
    def _edge(roads: nx.DiGraph, start: str, end: str) -> Edge:
        edge: Edge = roads.edges[start, end]["edge"]
        return edge

    @staticmethod
    def _weight(roads: nx.DiGraph, states: Sequence[str]) -> int:
        pairs = itertools.pairwise(states)
        return sum(int(roads.edges[pair]["weight"]) for pair in pairs)


def lines(edge: Edge) -> Iterator[str]:
    """Say about an edge all that ``Coverage.missing`` could say."""
    yield f"never taken: {edge.code}"
    for guard in edge.guards:
        yield f"never agreed: {guard.label} of {edge.code}"
        yield f"never refused: {guard.label} of {edge.code}"


@functools.cache
def chart(graph: Graph, by_hand: frozenset[str] = frozenset()) -> Chart:
    """Return the map of a lifecycle's own graph, made once."""
    return Chart(graph, by_hand)
