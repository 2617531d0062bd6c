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
from statemachine_pipeline.pipeline import Pipeline
from statemachine_pipeline.testing.coverage import plain
from statemachine_pipeline.testing.linting import choices, guards, knowledge, routes
from statemachine_pipeline.testing.linting.findings import Finding, unallowed
from statemachine_pipeline.testing.linting.subjects import Subject

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.lifecycle import Lifecycle
    from statemachine_pipeline.stages import Stages


def lint(
    lifecycle: type[Lifecycle] | Pipeline, hooks: Mapping[str, Any] | None = None
) -> tuple[Finding, ...]:
    """Return what is wrong with a lifecycle, in the order of the rules.

    Args:
        lifecycle: A finished lifecycle, or a Pipeline, which brings its hooks.
        hooks: As its Pipeline is given them, so {} takes the shipped ones. Without them rules that
            ask for hooks are left out, and no state is known to be decided by hand.

    Raises:
        DefinitionError: The class has no states, or the hooks do not fit it.
    """
    graph = _graph(lifecycle)
    if isinstance(lifecycle, Pipeline):
        stages: Stages | None = lifecycle.stages
    else:
        stages = None if hooks is None else stages_of(graph, hooks)
    subject = Subject(graph=graph, stages=stages)
    findings, doubted = guards.judged(subject)
    subject = dataclasses.replace(subject, doubted=doubted)
    for check in (choices.check, knowledge.check, routes.check):
        findings += check(subject)
    return tuple(sorted(findings, key=lambda one: one.id))


def assert_lint_clean(
    lifecycle: type[Lifecycle] | Pipeline,
    hooks: Mapping[str, Any] | None = None,
    allow: Collection[str] = (),
) -> None:
    """Fail with everything that lint finds.

    Args:
        lifecycle: As for ``lint``.
        hooks: As for ``lint``.
        allow: Rules that are meant to be broken, as ``L13``, or at one place, as ``L13:parsed``.

    Raises:
        AssertionError: Something is found that is not allowed, or what is allowed is not found.
        DefinitionError: As for ``lint``.
    """
    __tracebackhide__ = True
    left, idle = unallowed(lint(lifecycle, hooks), allow)
    if left or idle:
        lines = [f"* {one}" for one in (*left, *idle)]
        raise AssertionError("\n".join([f"{_graph(lifecycle).name} is not clean:", *lines]))


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


def _graph(lifecycle: type[Lifecycle] | Pipeline) -> Graph:
    graph: Graph | None = getattr(lifecycle, "graph", None)
    if graph is None:
        raise DefinitionError(f"{lifecycle!r} declares no states, so there is nothing to lint")
    return plain(graph)
