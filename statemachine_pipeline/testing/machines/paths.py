"""Every edge of a lifecycle by the shortest way from ``submit``: one test for each."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import pytest

from statemachine_pipeline.graph import SUBMIT
from statemachine_pipeline.records import Facts
from statemachine_pipeline.stages import Stages, by_hand
from statemachine_pipeline.testing import histories
from statemachine_pipeline.testing.coverage import plain
from statemachine_pipeline.testing.machines import walks
from statemachine_pipeline.testing.machines.charts import Aim, chart
from statemachine_pipeline.testing.machines.hands import Bench
from statemachine_pipeline.testing.machines.worlds import World
from statemachine_pipeline.testing.stand_ins import with_stand_ins

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.graph import Edge, Graph
    from statemachine_pipeline.lifecycle import Lifecycle
    from statemachine_pipeline.pipeline import Pipeline


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A way through a lifecycle, from ``submit`` to the edge that it is for.

    Attributes:
        edges: In order; the first is ``submit``.
        facts: For each edge, on which it is taken and no other.
        by_hand: The triggers that people take.
    """

    edges: tuple[Edge, ...]
    facts: tuple[Facts, ...]
    by_hand: tuple[str, ...] = ()

    @property
    def last(self) -> Edge:
        """The edge that it is for."""
        return self.edges[-1]

    @property
    def id(self) -> str:
        """The edge that it is for, as pytest names the test."""
        return self.last.code.removeprefix(">")

    @property
    def triggers(self) -> tuple[str, ...]:
        """The trigger of each edge, as a history shows them."""
        return tuple(edge.trigger for edge in self.edges)

    def __str__(self) -> str:
        return ">".join((self.edges[0].trigger, *(self._step(edge) for edge in self.edges[1:])))

    @staticmethod
    def _step(edge: Edge) -> str:
        return f"{edge.from_state}>{edge.trigger}"


def paths(lifecycle: type[Lifecycle], hooks: Mapping[str, Any] | None = None) -> tuple[Path, ...]:
    """Return the shortest path to every edge, restarts included, in declared order.

    Edges that no facts open are left out; ``every_transition`` says which they are.

    Args:
        lifecycle: The class.
        hooks: As for ``Pipeline``; needed where triggers are kept ``by_hand``, since of several
            ways out people take any, and a worker the first that is open.

    Raises:
        DefinitionError: A hook does not fit the lifecycle.
    """
    graph = plain(lifecycle.graph)
    stages = Stages(graph, with_stand_ins(graph, hooks or {}))
    map_ = chart(graph, frozenset(filter(stages.is_by_hand, graph.states)))
    born = next(edge for edge in graph.restarts if edge.trigger == SUBMIT)
    aims = [aim for label, aim in map_.aims.items() if label == aim.edge.code]
    ways = [(), *(map_.way(born.to_state, aim.edge) for aim in aims)]
    return tuple(
        Path(
            edges=(born, *way),
            facts=(Facts(), *(map_.aims[edge.code].facts for edge in way)),
            by_hand=stages.kept_by_hand,
        )
        for way in ways
    )


def every_transition(
    lifecycle: type[Lifecycle], hooks: Mapping[str, Any] | None = None
) -> pytest.MarkDecorator:
    """Run a test once for every edge of a lifecycle, restarts included.

    The test takes the argument ``path``, and may be ``def`` or ``async def``. An edge that no facts
    open is there too, and skipped.

    Args:
        lifecycle: The class.
        hooks: As for ``paths``.

    Raises:
        DefinitionError: A hook does not fit the lifecycle.
    """
    found = paths(lifecycle, hooks)
    reached = {path.last.code for path in found}
    edges = (*lifecycle.graph.restarts, *lifecycle.graph.edges)
    skipped = pytest.mark.skip(
        "no facts were found that open it; where people choose, give hooks= too, with by_hand"
        if hooks is None
        else "no facts were found that open it, or nobody but people decides there"
    )
    closed: list[Any] = [
        pytest.param(None, id=edge.code, marks=skipped)
        for edge in edges
        if edge.code not in reached
    ]
    known = [pytest.param(path, id=path.id) for path in found]
    return pytest.mark.parametrize("path", [*known, *closed])


async def walk(path: Path, pipeline: Pipeline) -> UUID:
    """Drive a new document along a path on the real store; return it.

    No hook is run: a stand-in earns each edge, on the facts of the path, and people ask for what
    only people take. The database must have been migrated to the lifecycle, and workers of other
    processes must not run.

    Raises:
        AssertionError: Its history is not the path.
    """
    bench = _bench(pipeline.engine, pipeline.schema, pipeline.graph, path.by_hand)
    world = World(bench)
    await world.begin(workers=1)
    try:
        document = await world.submit()
        for edge, facts in zip(path.edges[1:], path.facts[1:], strict=True):
            await walks.walk(world, document, Aim.at(edge, facts), goes_on=True)
    finally:
        await world.leave()
    history = await bench.documents.history(document)
    found = [histories.code(one) for one in history]
    wanted = [edge.code for edge in path.edges]
    if found != wanted:
        raise AssertionError(f"the path is {wanted}, its history is {found}")
    return document


@functools.lru_cache(maxsize=2)  # its statements take longer to make than a walk
def _bench(engine: AsyncEngine, schema: str, graph: Graph, kept: tuple[str, ...]) -> Bench:
    stages = Stages(graph, with_stand_ins(graph, dict.fromkeys(kept, by_hand)))
    return Bench(engine, schema, plain(graph), stages)
