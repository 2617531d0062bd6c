"""Walks through every situation there is, nearest first, and looks for what must not be."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

import networkx as nx

from statemachine_pipeline.testing.modelling.situations import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from statemachine_pipeline.testing.modelling.actions import Step
    from statemachine_pipeline.testing.modelling.properties import Safety
    from statemachine_pipeline.testing.modelling.situations import Row, Situation
    from statemachine_pipeline.testing.modelling.steps import Steps

Way: TypeAlias = "tuple[tuple[Situation, Step], ...]"
"""Steps in order, each with the situation in which it is taken."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A property that does not hold, and the shortest way to see it.

    Attributes:
        name: The property.
        way: How it comes about.
        again: What then happens over and over, if it is an endless cycle.
    """

    name: str
    way: Way = ()
    again: Way = ()


class Exploration:
    """Every situation that can be reached from one.

    Args:
        steps: How situations follow one another.
        safety: What must be true of each step and situation; the first that is not ends the walk.
        start: Where it begins.
        bounded: Edges that are taken finitely often, by their code.

    Attributes:
        situations: In the order in which they were reached, nearest first.
        count: How many steps there are between them.
        broken: What is not true.
    """

    def __init__(
        self, steps: Steps, safety: Safety, start: Situation, bounded: Collection[str] = ()
    ) -> None:
        self._steps, self._safety, self._bounded = steps, safety, bounded
        self.situations = [start]
        self.count = 0
        self._numbers = {start: 0}
        self._came: list[tuple[int, Step] | None] = [None]
        self._by_workers: list[list[int]] = [[]]
        self._cycles = nx.DiGraph()
        self.broken = self._walk()

    def _walk(self) -> Broken | None:
        name = self._safety.of_situation(self.situations[0])
        if name is not None:
            return Broken(name=name)
        for number, situation in enumerate(self.situations):
            for step in self._steps.after(situation):
                self.count += 1
                name = self._safety.of_step(situation, step)
                if name is not None:
                    return Broken(name=name, way=(*self._way_to(number), (situation, step)))
                name = self._reach(number, step)
                if name is not None:
                    return Broken(name=name, way=self._way_to(len(self.situations) - 1))
        return None

    def _reach(self, number: int, step: Step) -> str | None:
        """Note where a step leads; return what is broken there, if it is new."""
        after = canonical(step.after)
        found = self._numbers.setdefault(after, len(self.situations))
        is_new = found == len(self.situations)
        if is_new:
            self.situations.append(after)
            self._came.append((number, step))
            self._by_workers.append([])
        if step.cause == "worker":
            self._by_workers[found].append(number)
        goes_on = step.cause != "person" and self._works(number) and self._works(found)
        if goes_on and not any(edge.code in self._bounded for edge in step.edges):
            self._cycles.add_edge(number, found)
        return self._safety.of_situation(after) if is_new else None

    def _works(self, number: int) -> bool:
        return self.situations[number].row.lane not in {None, "held"}

    def _way_to(self, number: int) -> Way:
        way = []
        while (came := self._came[number]) is not None:
            number, step = came
            way.append((self.situations[number], step))
        return tuple(reversed(way))

    def stuck(self) -> Broken | None:
        """Return the nearest situation from which workers alone never come to a rest."""
        resting = [n for n in range(len(self.situations)) if not self._works(n)]
        reached = set(resting)
        waiting = deque(resting)
        while waiting:
            before = [n for n in self._by_workers[waiting.popleft()] if n not in reached]
            reached.update(before)
            waiting.extend(before)
        lost = next((n for n in range(len(self.situations)) if n not in reached), None)
        return None if lost is None else Broken(name="can_rest", way=self._way_to(lost))

    def cycle(self) -> Broken | None:
        """Return the nearest cycle that never comes to a rest, and the shortest through there."""
        nearest: int | None = None
        for group in nx.strongly_connected_components(self._cycles):
            first = min(group)
            if len(group) > 1 or self._cycles.has_edge(first, first):
                nearest = first if nearest is None else min(nearest, first)
        if nearest is None:
            return None
        lengths = nx.single_target_shortest_path(self._cycles, nearest)
        back = [lengths[n] for n in self._cycles.successors(nearest) if n in lengths]
        ring = [nearest, *min(back, key=len)]
        return Broken(
            name="no_endless_cycle", way=self._way_to(nearest), again=self._way_along(ring)
        )

    def _way_along(self, numbers: Sequence[int]) -> Way:
        way = []
        for before, after in itertools.pairwise(numbers):
            at, wanted = self.situations[before], self.situations[after]
            steps = (s for s in self._steps.after(at) if s.cause != "person")
            way.append((at, next(s for s in steps if canonical(s.after) == wanted)))
        return tuple(way)

    def never(self, sometimes: Mapping[str, Callable[[Row], object]]) -> Iterable[Broken]:
        """Yield those of a user's properties that are true of no situation at all."""
        rows = {situation.row for situation in self.situations}
        for name, holds in sometimes.items():
            if not any(holds(row) for row in rows):
                yield Broken(name=name)
