"""Lint: what is wrong with a lifecycle though its class could be made, each with what to do.

``docs/reference/lint.md`` lists the rules. Checks of guards come first; a state with a guard that
is found fault with is not looked at further, for its verdicts prove nothing.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import networkx as nx

from statemachine_pipeline.adapters.shipped import stages_of
from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.testing import choices, guards, knowledge, routes
from statemachine_pipeline.testing.findings import CATALOGUE, Finding
from statemachine_pipeline.testing.subjects import Subject

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.lifecycle import Lifecycle
    from statemachine_pipeline.stages import Stages


def lint(
    lifecycle: type[Lifecycle], hooks: Mapping[str, Any] | None = None
) -> tuple[Finding, ...]:
    """Return what is wrong with a lifecycle, in the order of the rules.

    Args:
        lifecycle: A finished lifecycle.
        hooks: As its Pipeline is given them, so {} takes the shipped ones. Without them rules that
            ask for hooks are left out, and no state is known to be decided by hand.

    Raises:
        DefinitionError: The class has no states, or the hooks do not fit it.
    """
    graph = _graph(lifecycle)
    return findings(graph, None if hooks is None else stages_of(graph, hooks))


def findings(graph: Graph, stages: Stages | None) -> tuple[Finding, ...]:
    """Return what is wrong with a graph, and with its hooks where they are known."""
    subject = Subject(graph=graph, stages=stages)
    found, doubted = guards.judged(subject)
    subject = dataclasses.replace(subject, doubted=doubted)
    for check in (choices.check, knowledge.check, routes.check):
        found += check(subject)
    return tuple(sorted(found, key=lambda one: one.id))


def assert_lint_clean(
    lifecycle: type[Lifecycle],
    hooks: Mapping[str, Any] | None = None,
    allow: Collection[str] = (),
) -> None:
    """Fail with everything that lint finds.

    Args:
        lifecycle: A finished lifecycle.
        hooks: As for ``lint``.
        allow: Rules that are meant to be broken, as ``L13``, or at one place, as ``L13:parsed``.

    Raises:
        AssertionError: Something is found that is not allowed, or what is allowed is not found.
        DefinitionError: As for ``lint``.
    """
    __tracebackhide__ = True
    left, idle = unallowed(lint(lifecycle, hooks), allow)
    lines = [str(one) for one in left]
    lines += [f"allow names {one}, which is not found (any more); remove it" for one in idle]
    if lines:
        raise AssertionError(f"{lifecycle.__name__}:\n" + "\n".join(f"* {one}" for one in lines))


def unallowed(
    found: Collection[Finding], allow: Collection[str]
) -> tuple[list[Finding], list[str]]:
    """Return the findings that are not allowed, and what is allowed in vain."""
    left = [one for one in found if not {one.id, one.key} & set(allow)]
    used = {name for one in found for name in (one.id, one.key)}
    return left, [name for name in allow if name not in used]


def assert_precedes(lifecycle: type[Lifecycle], first: str, then: str) -> None:
    """Fail if a document may come to the state ``then`` in a life without having been in ``first``.

    Guards are not asked: it holds for whatever they say.

    Raises:
        AssertionError: A way leads past it, which is told.
        DefinitionError: The lifecycle does not declare such a state.
    """
    __tracebackhide__ = True
    graph = _graph(lifecycle)
    for state in (first, then):
        if state not in graph.states:
            known = ", ".join(graph.states)
            raise DefinitionError(f"{graph.name}: no state {state!r}; there are {known}")
    walks = nx.DiGraph([(edge.from_state, edge.to_state) for edge in graph.edges])
    walks.remove_nodes_from({first} - {then})
    if first != graph.initial and nx.has_path(walks, graph.initial, then):
        way = " > ".join(nx.shortest_path(walks, graph.initial, then))
        raise AssertionError(f"{graph.name}: {then} is reached without {first}: {way}")


def _graph(lifecycle: type[Lifecycle]) -> Graph:
    graph: Graph | None = getattr(lifecycle, "graph", None)
    if graph is None:
        raise DefinitionError(f"{lifecycle.__name__}: it has no states, so there is nothing to lint")
    return graph
