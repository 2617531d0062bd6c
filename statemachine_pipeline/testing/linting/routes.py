"""Checks of the way through a lifecycle: circles, ends that only duplicates reach, twins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx

from statemachine_pipeline.graph import MARK_DUPLICATE
from statemachine_pipeline.testing.linting.findings import Finding, found
from statemachine_pipeline.testing.linting.subjects import taken
from statemachine_pipeline.testing.linting.witnesses import TWIN_FACT, find, guards_of, reads
from statemachine_pipeline.testing.verdicts import basis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from statemachine_pipeline.graph import Edge
    from statemachine_pipeline.testing.linting.subjects import Subject


def check(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with where edges lead."""
    for state in subject.working:
        for choice in subject.choices(state):
            for edge in choice:
                yield from _twins(subject, choice, edge)
    yield from _circles(subject)
    yield from _only_duplicates(subject)


def _twins(subject: Subject, choice: Sequence[Edge], edge: Edge) -> Iterator[Finding]:
    guards, is_end = guards_of(choice), edge.to_state in subject.graph.ends
    if edge.trigger != MARK_DUPLICATE:
        asks = any(TWIN_FACT in reads(guard) for guard in edge.guards)
        leading = (f for f in basis(guards) if is_end and asks and taken(choice, f) is edge)
        first = next(leading, None)
        if first and first.duplicate_of and all(facts.duplicate_of for facts in leading):
            yield found("L15", edge.code, f"twins end here without {MARK_DUPLICATE}", first)
        return
    if subject.is_by_hand(str(edge.from_state)):
        yield found("L15", edge.code, f"people may not take {MARK_DUPLICATE}, so nobody takes it")
    if not is_end:
        yield found("L15", edge.code, f"{edge.to_state} is no final state of the lifecycle")
    witness = find(guards, lambda f: taken(choice, f) is edge and f.duplicate_of is None)
    if witness is not None:
        yield found("L15", edge.code, "it is taken by documents that have no twin", witness)


def _circles(subject: Subject) -> Iterator[Finding]:
    edges = [e for e in subject.forward if not _is_bounded(subject, e)]
    walks = nx.DiGraph([(edge.from_state, edge.to_state) for edge in edges])
    for component in nx.strongly_connected_components(walks):
        first = next(state for state in subject.graph.states if state in component)
        ring = walks.subgraph(component)
        if not any(ring.edges):
            continue
        circle = [start for start, _ in nx.find_cycle(ring, first)]
        shown = " > ".join((*circle, circle[0]))
        if all(map(subject.is_hop, circle)):
            yield found("L22", circle[0], f"{shown} has no hook and nobody who decides")
        else:
            yield found("L21", circle[0], f"no guard on {shown} reads what a hook reports")


def _is_bounded(subject: Subject, edge: Edge) -> bool:
    """Tell whether somebody decides anew, at each round, that the edge is taken again."""
    state = str(edge.from_state)
    if subject.is_by_hand(state):
        return True
    reports = any(name.startswith("reported.") for g in edge.guards for name in reads(g))
    return reports and not subject.is_hop(state)


def _only_duplicates(subject: Subject) -> Iterator[Finding]:
    walks = nx.DiGraph()
    walks.add_nodes_from(subject.graph.states)
    walks.add_edges_from(
        (e.to_state, e.from_state) for e in subject.forward if e.trigger != MARK_DUPLICATE
    )
    leading = set().union(*(nx.descendants(walks, end) for end in subject.graph.ends))
    for edge in subject.forward:
        if edge.trigger == MARK_DUPLICATE and edge.from_state not in leading:
            yield found("L24", str(edge.from_state), f"every end behind it is {MARK_DUPLICATE}'s")
