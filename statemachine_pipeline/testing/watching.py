"""``--lifecycle-cov``: watches lifecycles for a session of pytest and reports in the end.

What runs in other processes than pytest's own and those of pytest-xdist is not seen.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from statemachine_pipeline.lifecycle import Lifecycle
from statemachine_pipeline.testing.coverage import Coverage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from statemachine_pipeline.graph import Edge, Graph

_SENT = "statemachine_pipeline_coverage"
"""Under which name a process of pytest-xdist hands over what it counted."""


class Watching:
    """The part of the plugin that is there only when it is asked for.

    Args:
        config: Pytest's.
        names: ``module:Class``, each once.
    """

    def __init__(self, config: pytest.Config, names: Sequence[str]) -> None:
        self._config, self._names = config, tuple(dict.fromkeys(names))
        self._watched: dict[str, tuple[type[Lifecycle], Graph, Coverage]] = {}
        self._lost = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Put recording graphs in place, before test modules are imported."""
        found = [_load(name, self._config.invocation_params.dir) for name in self._names]
        for name, lifecycle in zip(self._names, found, strict=True):
            plain = lifecycle.graph
            coverage = Coverage(plain)
            self._watched[name] = lifecycle, plain, coverage
            lifecycle.graph = coverage.graph

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a process of pytest-xdist counted; one that crashed says nothing."""
        sent = getattr(node, "workeroutput", {}).get(_SENT)
        self._lost += sent is None
        for name, counted in (sent or {}).items():
            self._watched[name][2].add(counted)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand over, or judge; and put the lifecycles' own graphs back."""
        for lifecycle, plain, _ in self._watched.values():
            lifecycle.graph = plain
        counted = {name: one.to_json() for name, (_, _, one) in self._watched.items()}
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput[_SENT] = counted
            return
        if path := self._config.getoption("--lifecycle-cov-json"):
            report = {
                name: {"percent": one.percent, "missing": one.missing, **counted[name]}
                for name, (_, _, one) in self._watched.items()
            }
            Path(path).write_text(json.dumps(report, indent=2) + "\n")
        if session.exitstatus == pytest.ExitCode.OK and self._short():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a table for each lifecycle, what is missing, and what was too little."""
        for name, (_, plain, coverage) in self._watched.items():
            terminalreporter.section(f"lifecycle coverage: {name}")
            for line in table(plain, coverage):
                terminalreporter.write_line(line)
        if self._lost:
            said = f"{self._lost} process(es) crashed, and what they exercised is not counted"
            terminalreporter.write_line(said, yellow=True)
        for line in self._short():
            terminalreporter.write_line(line, red=True)

    def _short(self) -> list[str]:
        least = self._config.getoption("--lifecycle-cov-fail-under") or 0.0
        return [
            f"{name}: {coverage.percent:.1f} % was exercised, {least:g} % are required"
            for name, (_, _, coverage) in self._watched.items()
            if coverage.percent < least
        ]


def table(graph: Graph, coverage: Coverage) -> Iterator[str]:
    """Say how often each state, edge and verdict was seen, and what is missing."""
    width = max(len(edge.code) for edge in (*graph.edges, *graph.restarts))
    yield f"{'state':{width}}  entered"
    yield from (f"{state:{width}}  {n or '-':>7}" for state, n in coverage.states.items())
    yield ""
    yield f"{'edge':{width}}    taken  guards: agreed, refused"
    yield from (f"{e.code:{width}}  {_row(e, coverage)}".rstrip() for e in graph.edges)
    if coverage.restarts:
        yield ""
        yield f"{'restart':{width}}    taken"
        yield from (f"{code:{width}}  {n:>7}" for code, n in coverage.restarts.items())
    yield ""
    yield from coverage.missing
    yield f"{coverage.percent:.1f} % of edges and verdicts, {len(coverage.missing)} missing"


def _row(edge: Edge, coverage: Coverage) -> str:
    verdicts = (
        f"{guard.label} {coverage.verdicts[edge.code, guard.label, True] or '-'}"
        f", {coverage.verdicts[edge.code, guard.label, False] or '-'}"
        for guard in edge.guards
    )
    return f"{coverage.edges[edge.code] or '-':>7}  {'; '.join(verdicts)}"


def _load(name: str, folder: Path) -> type[Lifecycle]:
    module, _, attribute = name.partition(":")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise pytest.UsageError(
            f"--lifecycle-cov={name}: {error}; write it as module:Class, for example "
            "app.lifecycle:ReviewLifecycle"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Lifecycle) and hasattr(found, "graph")):
        raise pytest.UsageError(f"--lifecycle-cov={name}: {attribute} declares no lifecycle")
    return found
