"""A lifecycle's proof by Hypothesis: guided walks and faults on the real store, checked each step.

``lifecycle_machine`` makes a rule-based state machine of a lifecycle. Its rules take plain values
only, so that a failing example can be told as a test that needs no Hypothesis.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from statemachine_pipeline.database.store import Store
from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.testing.machines import checks, faults, proofs, stories, trials, walks
from statemachine_pipeline.testing.machines.faults import Fault
from statemachine_pipeline.testing.machines.worlds import World

if TYPE_CHECKING:
    import unittest
    from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping

    from statemachine_pipeline.lifecycle import Lifecycle
    from statemachine_pipeline.testing.machines.checks import Snapshot

T = TypeVar("T")
DOCUMENTS = 3
"""Most documents of one example, beside the twins of duplicates."""
CHECK = "check_"


class _TestCase:
    """The ``unittest`` class of a machine, for pytest and unittest alike."""

    def __get__(self, machine: object, owner: type[LifecycleMachine]) -> type[unittest.TestCase]:
        return trials.test_case(owner)


class LifecycleMachine(RuleBasedStateMachine):
    """Made by ``lifecycle_machine``; subclass what that returns.

    A method ``check_<state>(self, document)`` is called after each step with every document that
    stands in that state; own ``@rule`` methods take part like those here.

    Attributes:
        lifecycle: The class that is tried.
        hooks: Those that are real; every other trigger is earned by a stand-in.
        database: A URL, or what returns one. A schema of its own is made there, and dropped.
        store: What workers claim from and settle with.
        faults: What may go wrong; all of it by default.
        world: This example's documents and workers.
    """

    lifecycle: ClassVar[type[Lifecycle]]
    hooks: ClassVar[Mapping[str, Any]] = {}
    database: ClassVar[str | Callable[[], str] | None] = None
    store: ClassVar[type[Store]] = Store
    faults: ClassVar[Collection[Fault]] = frozenset(Fault)

    TestCase: Any = _TestCase()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if hasattr(cls, "lifecycle"):
            _refuse_strange_checks(cls)

    def __init__(self) -> None:
        super().__init__()
        self.proof = proofs.of(type(self))
        self.proof.clear()
        self.world = World(self.proof.bench)
        self._story = stories.Story()
        self._rows, self._is_replayed = 0, False
        self.run(self.world.begin())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await something, on the loop that the engine belongs to."""
        return self.proof.run(coroutine)

    @initialize()
    def begin(self) -> None:
        """Hand over the first document."""
        self.submit()

    @precondition(lambda self: len(self.world.documents) < DOCUMENTS)
    @rule()
    def submit(self) -> None:
        """Hand over one more document."""
        with self._telling("submit"):
            self.run(self.world.submit())

    @precondition(lambda self: self.world.documents)
    @rule(
        document=st.integers(0, DOCUMENTS - 1),
        goal=st.runner().flatmap(lambda self: st.sampled_from(self.goals)),
        steps=st.integers(1, 3),
        # To claim anew costs most of a step.
        goes_on=st.sampled_from([True, True, False]),
    )
    def walk(self, document: int, goal: str, steps: int, goes_on: bool) -> None:
        """Go some edges towards a goal by the shortest way; each is looked at.

        Args:
            document: Which one, counted from 0.
            goal: An edge by its code, or what a guard says.
            steps: Edges at most.
            goes_on: Whether workers keep a document from stage to stage.
        """
        given = {"document": document, "goal": goal, "steps": steps, "goes_on": goes_on}
        reached: bool | None = None
        with self._telling("walk", **given):
            aim = self.proof.bench.chart.aims[goal]
            chosen = self.world.documents[document % len(self.world.documents)]
            for _ in range(steps):
                reached = self.run(walks.walk(self.world, chosen, aim, goes_on=goes_on))
                if reached is not None:
                    break
                self.everything_holds()
            if reached:
                _say(f"goal reached: {goal}")

    @precondition(lambda self: self.world.documents and self.faults)
    @rule(
        document=st.integers(0, DOCUMENTS - 1),
        fault=st.runner().flatmap(lambda self: st.sampled_from([f.value for f in self.chosen])),
    )
    def disturb(self, document: int, fault: str) -> None:
        """Let something go wrong with a document.

        Args:
            document: Which one, counted from 0.
            fault: The value of a ``Fault``.
        """
        with self._telling("disturb", document=document, fault=fault):
            chosen = self.world.documents[document % len(self.world.documents)]
            if self.run(faults.strike(self.world, chosen, Fault(fault))):
                self.proof.faults[fault] += 1
                _say(f"fault: {fault}")

    @invariant()
    def everything_holds(self) -> None:
        """Look at all there is after a step."""
        seen = self.run(self._look())
        self._rows = self.proof.see(seen, self._rows)
        for document, problem in checks.broken(seen, self.proof.bench.stages, self.world.claims):
            raise AssertionError(f"document {self.world.names[document]}: {problem}")
        for one in seen.documents.values():
            own = getattr(self, CHECK + one.state, None)
            if own is not None and one.id in self.world.documents:
                own(one)

    def teardown(self) -> None:
        """Heal, drain, and see that everything rests; or tell what happened."""
        try:
            failed = sys.exc_info()[1]
            if failed is None:
                self._heal()
            elif isinstance(failed, Exception):
                self._tell(failed)
        finally:
            self.run(self.world.end())

    @property
    def goals(self) -> list[str]:
        """Everything to aim at, in declared order."""
        return list(self.proof.bench.chart.aims)

    @property
    def chosen(self) -> list[Fault]:
        """The faults of this machine, in the order of ``Fault``."""
        return [fault for fault in Fault if fault in self.faults]

    @classmethod
    @contextlib.contextmanager
    def replay(cls) -> Iterator[LifecycleMachine]:
        """Open a machine whose rules are called by hand; each call is checked, and so is the end.

        What a failing example prints is such a test.
        """
        is_first = not proofs.is_open(cls)
        try:
            with contextlib.closing(cls()) as state:
                state._is_replayed = True
                yield state
        finally:
            if is_first:
                proofs.close(cls)

    def close(self) -> None:
        """End a replay as an example ends."""
        self.teardown()

    @contextlib.contextmanager
    def _telling(self, name: str, **arguments: Any) -> Iterator[None]:
        self._story.calls.append(stories.Call(name, arguments))
        self.world.forget()
        yield
        if self._is_replayed:
            self.everything_holds()

    async def _look(self) -> Snapshot:
        bench = self.proof.bench
        async with bench.autocommit.connect() as connection:
            return await checks.look(connection, bench.tables)

    def _heal(self) -> None:
        try:
            self.run(walks.drain(self.world))
            self.everything_holds()
            self._rests(self.run(self._look()))
        except Exception as error:
            self._tell(error)
            raise

    def _rests(self, seen: Snapshot) -> None:
        stages = self.proof.bench.stages
        for one in seen.documents.values():
            if not stages.graph.is_resting(one.state) and not stages.is_by_hand(one.state):
                raise AssertionError(
                    f"document {self.world.names[one.id]} stands in {one.state!r} "
                    f"({seen.work[one.id].lane}), with no fault left and nobody to take it"
                )
        for document, problem in checks.lost_products(seen, stages):
            raise AssertionError(f"document {self.world.names[document]}: {problem}")

    def _tell(self, error: Exception) -> None:
        """Keep the story; a replay puts it on its error, where pytest prints it."""
        try:
            seen = self.run(self._look())
        except Exception:  # noqa: BLE001 - what went wrong first is what matters
            return
        self.proof.calls = tuple(self._story.calls)
        self.proof.told = self._story.tell(seen, self.world.documents, type(self), error)
        if self._is_replayed:
            error.add_note(self.proof.told)


def lifecycle_machine(
    lifecycle: type[Lifecycle],
    *,
    hooks: Mapping[str, Any] | None = None,
    database: str | Callable[[], str] | None = None,
) -> type[LifecycleMachine]:
    """Return a Hypothesis state machine of a lifecycle, whose ``TestCase`` pytest collects.

    Workers taken apart walk documents over every edge, through faults, on the real store; what must
    hold is checked after each step, and in the end all must come to rest. The test fails too when
    an edge, a guard's verdict or a fault that is within reach was never exercised.

    Args:
        lifecycle: The class.
        hooks: Real ones, ``by_hand``, or None where there is nothing to earn; every other trigger
            is earned by a stand-in, on facts that open its edge.
        database: A URL, or what returns one; None takes ``SMP_TEST_DATABASE`` or else an embedded
            server. The machine makes a schema of its own there, and drops it.
    """
    # Assigned in a class body, a function would become a method.
    url = staticmethod(database) if callable(database) else database
    body = {
        "__doc__": f"Walks and faults of {lifecycle.__name__}.",
        "__module__": sys._getframe(1).f_globals.get("__name__", __name__),
        "lifecycle": lifecycle,
        "hooks": dict(hooks or {}),
        "database": url,
    }
    make: Any = type(LifecycleMachine)
    made: type[LifecycleMachine] = make(f"{lifecycle.__name__}Machine", (LifecycleMachine,), body)
    return made


def _refuse_strange_checks(machine: type[LifecycleMachine]) -> None:
    states = machine.lifecycle.graph.states
    for name, _ in inspect.getmembers(machine, inspect.isfunction):
        state = name.removeprefix(CHECK)
        if state != name and state not in states and not hasattr(RuleBasedStateMachine, name):
            raise DefinitionError(
                f"{machine.__name__}.{name}: {machine.lifecycle.__name__} has no state {state!r}; "
                f"its states are {', '.join(states)}"
            )


def _say(what: str) -> None:
    """Tell Hypothesis's statistics."""
    if hypothesis.currently_in_test_context():
        hypothesis.event(what)
