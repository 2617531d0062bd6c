"""Every behaviour of a lifecycle under the runners' protocol, looked through one by one.

One document stands for all: documents share nothing but the answer to who owns some bytes or text,
and that is left open. Times are left open too: whatever may be late is late in some behaviour.
"""

from __future__ import annotations

import dataclasses
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from statemachine_pipeline.adapters.shipped import shipped_hooks
from statemachine_pipeline.errors import PipelineError
from statemachine_pipeline.stages import Stages
from statemachine_pipeline.testing.coverage import plain
from statemachine_pipeline.testing.modelling.choices import Choices
from statemachine_pipeline.testing.modelling.exploration import Broken, Exploration
from statemachine_pipeline.testing.modelling.properties import PROPERTIES, Safety
from statemachine_pipeline.testing.modelling.protocol import AS_BUILT, MUTANTS
from statemachine_pipeline.testing.modelling.situations import IDLE, Budget, Row, Situation
from statemachine_pipeline.testing.modelling.steps import Steps
from statemachine_pipeline.testing.modelling.story import Story, numbered
from statemachine_pipeline.testing.stand_ins import with_stand_ins

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.lifecycle import Lifecycle

    Predicates: TypeAlias = Mapping[str, Callable[[Row], object]]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A property that does not hold.

    Attributes:
        name: The property.
        says: What should be true.
        story: The shortest way to break it, a sentence for each step.
        again: What then goes on for ever, if that is what is wrong.
    """

    name: str
    says: str
    story: tuple[str, ...] = ()
    again: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.name}: {self.says}; this is not so"]
        parts += [numbered(self.story)] if self.story else []
        if self.again:
            parts += ["  and then again and again:", numbered(self.again)]
            parts.append("  if hooks put an end to that, name an edge of it in bounded=[...]")
        return "\n".join(parts)


class ModelViolated(PipelineError):
    """A lifecycle can be brought to break what it must keep.

    Attributes:
        violations: What, and how.
    """

    def __init__(self, name: str, violations: tuple[Violation, ...]) -> None:
        self.violations = violations
        super().__init__("\n".join([f"{name} does not keep what it must", *map(str, violations)]))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was looked through.

    Attributes:
        name: The lifecycle.
        states: Situations that can be reached: of the document, its workers and what may go wrong.
        steps: Ways from one to the next.
        seconds: How long it took.
        violations: What does not hold; empty when all is well.
    """

    name: str
    states: int
    steps: int
    seconds: float
    violations: tuple[Violation, ...]

    def raise_for_violation(self) -> None:
        """Do nothing when every property holds.

        Raises:
            ModelViolated: One does not; the message tells the shortest way to see it.
        """
        __tracebackhide__ = True
        if self.violations:
            raise ModelViolated(self.name, self.violations)

    def __str__(self) -> str:
        looked = f"{self.states:,} states, {self.steps:,} steps, {self.seconds:.1f} s"
        found = "\n".join(map(str, self.violations)) or "every property holds"
        return f"{self.name}: {looked}\n{found}"


def model_check(
    lifecycle: type[Lifecycle],
    hooks: Mapping[str, Any] | None = None,
    *,
    workers: int = 2,
    crashes: int = 2,
    duplicates: int = 2,
    always: Predicates = _NOTHING,
    sometimes: Predicates = _NOTHING,
    bounded: Collection[str] = (),
    mutant: str | None = None,
) -> Report:
    """Look through everything that can happen to a document of a lifecycle.

    Edges, retries and hops are those that the library decides, with the policies of the hooks; no
    hook is run. Each life that begins costs from a budget, so the number of behaviours is finite.

    Args:
        lifecycle: The class.
        hooks: As for ``Pipeline``; of those that are left out, which come with the package are
            taken, and the others are stood in for.
        workers: How many there are.
        crashes: How often a worker dies, stalls, leaves or loses an answer.
        duplicates: How often a settle arrives twice, or other bytes are submitted.
        always: Functions of a ``Row`` that have to be true of every one that can be reached.
        sometimes: Functions of a ``Row`` that have to be true of at least one.
        bounded: Edges as ``from>trigger>to`` that a life takes finitely often, because hooks count
            the rounds; without one on it every circle is taken for endless, whatever guards read.
        mutant: Break one rule of the protocol: a name from ``MUTANTS``.

    Raises:
        DefinitionError: Hooks and lifecycle do not fit.
        TypeError: It is no class, but a pipeline for example.
        ValueError: There is no such mutant or edge.
    """
    began = time.perf_counter()
    graph = _checked(lifecycle, bounded, mutant)
    rules = AS_BUILT if mutant is None else MUTANTS[mutant]
    stages = Stages(graph, _hooks(graph, hooks or {}))
    start = Situation(Row("", None), Budget(crashes, duplicates), (IDLE,) * workers)
    choices = Choices(stages, is_bounded=rules.is_bounded)
    steps = Steps(choices, rules, tracks=bool(always or sometimes))
    begun = steps.beginning(start)
    explored = Exploration(steps, Safety(choices, always), begun, bounded)
    return Report(
        name=lifecycle.__name__,
        states=len(explored.situations),
        steps=explored.count,
        seconds=time.perf_counter() - began,
        violations=tuple(_violations(explored, sometimes)),
    )


def _checked(lifecycle: type[Lifecycle], bounded: Collection[str], mutant: str | None) -> Graph:
    """Return the graph to look through, if what is asked of it exists."""
    if not isinstance(lifecycle, type):
        found = type(lifecycle).__name__
        raise TypeError(
            f"a Lifecycle class is looked through, got a {found}; pass hooks= beside it"
        )
    if mutant is not None and mutant not in MUTANTS:
        raise ValueError(f"no mutant {mutant!r}; there are {', '.join(MUTANTS)}")
    graph = plain(lifecycle.graph)
    if unknown := [code for code in bounded if code not in graph.codes()]:
        raise ValueError(f"no edge {', '.join(unknown)}; there are {', '.join(graph.codes())}")
    return graph


def assert_mutants_killed(
    lifecycle: type[Lifecycle], hooks: Mapping[str, Any] | None = None
) -> Mapping[str, Violation]:
    """Break each rule of the protocol in turn, and want it noticed for this lifecycle.

    One crash and one duplicate are enough to notice each.

    Returns:
        By mutant the violation that was found.

    Raises:
        AssertionError: Some were not noticed; the message names them.
    """
    reports = {
        name: model_check(lifecycle, hooks, crashes=1, duplicates=1, mutant=name)
        for name in MUTANTS
    }
    survivors = [name for name, report in reports.items() if not report.violations]
    if survivors:
        raise AssertionError(f"{lifecycle.__name__}: nothing notices {', '.join(survivors)}")
    return {name: report.violations[0] for name, report in reports.items()}


def _violations(explored: Exploration, sometimes: Predicates) -> Iterator[Violation]:
    found: list[Broken | None] = [explored.broken]
    if explored.broken is None:
        found = [explored.stuck(), explored.cycle(), *explored.never(sometimes)]
    return (_told(explored.situations[0], one) for one in found if one is not None)


def _told(start: Situation, broken: Broken) -> Violation:
    says = PROPERTIES.get(broken.name, "a property of this test")
    if not broken.way and not broken.again:
        return Violation(name=broken.name, says=says)
    story = Story(start)
    story.tell(broken.way)
    told = len(story.sentences)
    story.tell(broken.again)
    return Violation(
        name=broken.name,
        says=says,
        story=tuple(story.sentences[:told]),
        again=tuple(story.sentences[told:]),
    )


def _hooks(graph: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a hook for every trigger: the given ones, the shipped ones, and stand-ins."""
    shipped = shipped_hooks()
    known = {t: shipped[t] for t in graph.forward_triggers() if t in shipped}
    return with_stand_ins(graph, known | dict(given))
