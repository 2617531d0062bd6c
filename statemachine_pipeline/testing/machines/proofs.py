"""What the examples of one machine share: loop, engine, a schema of its own, and what was seen.

Also the way from code that knows no asyncio to the store. All of it is opened when first needed and
closed with the run.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from statemachine_pipeline.database.embedded import EmbeddedServer
from statemachine_pipeline.database.timeouts import Timeouts, connecting
from statemachine_pipeline.graph import CANCEL, FAILURE_TRIGGERS
from statemachine_pipeline.pipeline import Pipeline
from statemachine_pipeline.stages import Stages
from statemachine_pipeline.testing import histories
from statemachine_pipeline.testing.coverage import Coverage, plain
from statemachine_pipeline.testing.databases import EMPTIED
from statemachine_pipeline.testing.machines.charts import lines
from statemachine_pipeline.testing.machines.hands import Bench
from statemachine_pipeline.testing.stand_ins import with_stand_ins

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from statemachine_pipeline.database.store import Store
    from statemachine_pipeline.graph import Edge, Graph
    from statemachine_pipeline.testing.machines.checks import Snapshot
    from statemachine_pipeline.testing.machines.machine import LifecycleMachine
    from statemachine_pipeline.testing.machines.stories import Call

GIVEN = "SMP_TEST_DATABASE"
_open: set[Proof] = set()
_compiled: dict[Any, Any] = {}
"""Shared by all runs: compiling the statements anew takes most of a short one. That is why schemas
have the names of those before them."""
T = TypeVar("T")


class Proof:
    """One run of a machine.

    Args:
        graph: The lifecycle's.
        hooks: Those that are real.
        database: A URL, or what returns one; None takes ``SMP_TEST_DATABASE``, or else an embedded
            server of its own.
        store: What hands claim from and settle with.

    Attributes:
        bench: Where hands work.
        faults: How often each fault happened.
        edges: How often each edge stands in a history, by its code.
        calls: What was done in the example that failed last.
        told: Its story.
    """

    bench: Bench
    calls: tuple[Call, ...] = ()
    told: str = ""

    def __init__(
        self,
        graph: Graph,
        hooks: Mapping[str, Any],
        database: str | Callable[[], str] | None,
        store: type[Store],
    ) -> None:
        self.graph, self.coverage = plain(graph), Coverage(graph)
        self.faults: collections.Counter[str] = collections.Counter()
        self.edges: collections.Counter[str] = collections.Counter()
        self._hooks = with_stand_ins(graph, hooks)
        self._stages = Stages(self.coverage.graph, self._hooks)
        self._store = store
        self._schema = f"smp_test_{os.getpid()}_{len(_open)}"
        self._ends = contextlib.ExitStack()
        _open.add(self)
        self._ends.callback(_open.discard, self)
        self._runner = self._ends.enter_context(asyncio.Runner())
        try:
            self._open(self._url(database))
        except BaseException:
            self.close()
            raise

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something on the loop that the engine belongs to; wait for it."""
        return self._runner.run(coroutine)

    def close(self) -> None:
        """Drop the schema; close engine and loop."""
        self._ends.close()

    def clear(self) -> None:
        """Remove all there is, so that nobody meets what another example left."""
        self.run(self._clear())

    def see(self, snapshot: Snapshot, known: int) -> int:
        """Count the edges that are new in the histories; return how many there are now."""
        rows = list(itertools.chain.from_iterable(snapshot.histories.values()))
        if len(rows) != known:
            self.edges |= collections.Counter(map(histories.code, rows))
        return len(rows)

    @property
    def missing(self) -> tuple[str, ...]:
        """What was never exercised and could have been, in words."""
        untaken = [
            f"never taken: {edge.code}"
            for edge in (*self.graph.edges, *self.graph.restarts)  # submit is among them
            if not self.edges[edge.code]
        ]
        unsaid = [line for line in self.coverage.missing if not line.startswith("never taken")]
        return tuple(one for one in (*untaken, *unsaid) if one not in self.out_of_reach)

    @property
    def out_of_reach(self) -> frozenset[str]:
        """What no facts show, and what these hooks leave no way to."""
        silent = [edge for edge in self.graph.edges if self._never_stands(edge)]
        return self.bench.chart.out_of_reach | {line for e in silent for line in lines(e)}

    def _never_stands(self, edge: Edge) -> bool:
        """Tell whether nobody fails where no stage is, or stops where nobody is asked."""
        state = str(edge.from_state)
        if self._stages.at(state) is not None or edge.trigger not in FAILURE_TRIGGERS:
            return False
        return edge.trigger != CANCEL or not self._stages.is_by_hand(state)

    def _url(self, database: str | Callable[[], str] | None) -> str:
        given = database() if callable(database) else database or os.environ.get(GIVEN)
        if given:
            return given
        folder = self._ends.enter_context(tempfile.TemporaryDirectory())
        server = EmbeddedServer(Path(folder) / "server", throwaway=True)
        self._ends.callback(server.erase)
        return server.start()

    def _open(self, url: str) -> None:
        given = connecting(url, Timeouts()) | {"execution_options": {"compiled_cache": _compiled}}
        engine = create_async_engine(**given)
        self._engine = engine
        self._ends.callback(lambda: self.run(engine.dispose()))
        # Only the graph is asked for; the one that records decides the same.
        lifecycle: Any = SimpleNamespace(graph=self.coverage.graph)
        pipeline = Pipeline(engine, lifecycle=lifecycle, hooks=self._hooks, schema=self._schema)
        self._ends.callback(lambda: self.run(self._drop()))
        self.run(self._drop())  # of a process that died, under the same number
        self.run(pipeline.migrate())
        self.bench = Bench(engine, self._schema, self.graph, self._stages, self._store)

    async def _drop(self) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.schema.DropSchema(self._schema, cascade=True, if_exists=True)
            )

    async def _clear(self) -> None:
        async with self._engine.begin() as connection:
            for table in EMPTIED:
                await connection.execute(sa.delete(getattr(self.bench.tables, table)))


_running: dict[type[LifecycleMachine], Proof] = {}


def of(machine: type[LifecycleMachine]) -> Proof:
    """Return the run of a machine, opened when there is none."""
    if machine not in _running:
        graph = machine.lifecycle.graph
        _running[machine] = Proof(graph, machine.hooks, machine.database, machine.store)
    return _running[machine]


def is_open(machine: type[LifecycleMachine]) -> bool:
    """Tell whether a machine runs."""
    return machine in _running


def close(machine: type[LifecycleMachine]) -> None:
    """End the run of a machine, if there is one."""
    proof = _running.pop(machine, None)
    if proof is not None:
        proof.close()
