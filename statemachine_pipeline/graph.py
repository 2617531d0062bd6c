"""A lifecycle class read once into an immutable table: states, edges, guards, restarts.

The engine of python-statemachine is the authority and costs 100 to 300 us an event; this table
answers the same questions in under one. ``tests/model/test_graph_equals_engine.py`` drives both
with random triggers and facts and wants one answer. What the table could not honour (callbacks,
async or named guards, nested states) is refused when the class is made. Nothing here awaits or does
I/O, and a refused step changes nothing.

Around the edges that a class declares the table adds what every document needs: ``submit``, from
nothing to the initial state, and the restarts, which begin the next life there.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.errors import DefinitionError, TransitionRefused
from statemachine_pipeline.records import Facts, Option, Verdict, sha256_hex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from statemachine import State, StateChart

SUBMIT = "submit"
DELETED = "deleted"
DEAD_LETTER = "dead_letter"
CANCELLED = "cancelled"
RETRY, FAIL, CANCEL = "retry", "fail", "cancel"
REQUEUE, REPROCESS, REVISE, DELETE = "requeue", "reprocess", "revise", "delete"
MIGRATE = "migrate"
MARK_DUPLICATE = "mark_duplicate"
"""A forward trigger like any other, but taking it records whom the document rests on."""

FAILURE_TRIGGERS = frozenset({RETRY, FAIL, CANCEL})
RESTARTS = frozenset({REQUEUE, REPROCESS, REVISE, DELETE})
RESERVED = FAILURE_TRIGGERS | RESTARTS | {SUBMIT, MIGRATE, DELETED, DEAD_LETTER, CANCELLED}

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclasses.dataclass(frozen=True, slots=True)
class Guard:
    """A pure function of facts that opens an edge when it returns ``expected``.

    ``function`` is None in a graph that was read back from the database: then the verdict is
    unknown and counts as a refusal.
    """

    name: str
    expected: bool
    function: Callable[[Facts], object] | None

    @property
    def label(self) -> str:
        """The guard as people read it: its name, with ``not`` for an ``unless``."""
        return self.name if self.expected else f"not {self.name}"

    def judge(self, facts: Facts) -> Verdict:
        """Ask the guard; a guard that raises refuses, and the verdict says what it raised."""
        if self.function is None:
            return Verdict(guard=self.label, holds=False, error="only known by name here")
        try:
            holds = bool(self.function(facts)) is self.expected
        except Exception as error:  # noqa: BLE001 - a user's guard may raise anything
            return Verdict(guard=self.label, holds=False, error=f"{type(error).__name__}: {error}")
        return Verdict(guard=self.label, holds=holds)


@dataclasses.dataclass(frozen=True, slots=True)
class Edge:
    """One declared way from a state to a state; ``from_state`` is None only for ``submit``."""

    trigger: str
    from_state: str | None
    to_state: str
    guards: tuple[Guard, ...] = ()

    @property
    def code(self) -> str:
        """The edge as the database's CHECK spells it."""
        return f"{self.from_state or ''}>{self.trigger}>{self.to_state}"


@dataclasses.dataclass(frozen=True)
class Graph:
    """A lifecycle as data.

    Attributes:
        name: Name of the class.
        states: Every state in declared order, then dead_letter, cancelled, deleted.
        initial: Where each life begins.
        ends: Final states that the class itself declares.
        edges: Edges of one life, in declared order of each state.
        restarts: Edges that begin the next life, ``delete`` and ``submit``.
    """

    name: str
    states: tuple[str, ...]
    initial: str
    ends: frozenset[str]
    edges: tuple[Edge, ...]
    restarts: tuple[Edge, ...]

    def __post_init__(self) -> None:
        by_state: dict[str, dict[str, list[Edge]]] = {state: {} for state in self.states}
        for edge in self.edges:
            if edge.from_state is not None:
                by_state[edge.from_state].setdefault(edge.trigger, []).append(edge)
        object.__setattr__(
            self,
            "_table",
            {s: {t: tuple(e) for t, e in triggers.items()} for s, triggers in by_state.items()},
        )
        object.__setattr__(self, "_restart", {(e.from_state, e.trigger): e for e in self.restarts})
        ways = {s: tuple(t for t in ts if t not in FAILURE_TRIGGERS) for s, ts in by_state.items()}
        object.__setattr__(self, "_forward", ways)

    _table: Mapping[str, Mapping[str, tuple[Edge, ...]]] = dataclasses.field(
        init=False, repr=False, compare=False
    )
    _restart: Mapping[tuple[str | None, str], Edge] = dataclasses.field(
        init=False, repr=False, compare=False
    )
    _forward: Mapping[str, tuple[str, ...]] = dataclasses.field(
        init=False, repr=False, compare=False
    )

    @property
    def resting(self) -> frozenset[str]:
        """States in which no worker has anything to do."""
        return self.ends | {DEAD_LETTER, CANCELLED, DELETED}

    @property
    def triggers(self) -> frozenset[str]:
        """Every trigger anyone may name."""
        return frozenset(edge.trigger for edge in (*self.edges, *self.restarts))

    def is_resting(self, state: str) -> bool:
        """Tell whether no worker has anything to do in ``state``."""
        return state not in self._table or not self._table[state]

    def forward(self, state: str) -> tuple[str, ...]:
        """Triggers that lead on from ``state``, in the order they are tried."""
        return self._forward.get(state, ())

    def forward_triggers(self) -> tuple[str, ...]:
        """Every forward trigger of the lifecycle, each once, in declared order."""
        return tuple(dict.fromkeys(t for state in self.states for t in self.forward(state)))

    def leads_back(self, state: str) -> bool:
        """Tell whether forward triggers may lead from ``state`` back to it."""
        reached: list[str] = [state]
        for one in reached:
            for trigger in self.forward(one):
                targets = self.targets(one, trigger)
                if state in targets:
                    return True
                reached += [to for to in targets if to not in reached]
        return False

    def targets(self, state: str, trigger: str) -> tuple[str, ...]:
        """States that ``trigger`` may lead to from ``state``."""
        return tuple(edge.to_state for edge in self._table.get(state, {}).get(trigger, ()))

    def sources(self, trigger: str) -> tuple[str, ...]:
        """States from which ``trigger`` is declared within a life."""
        return tuple(state for state in self.states if trigger in self._table.get(state, {}))

    def step(self, state: str, trigger: str, facts: Facts) -> Edge:
        """Return the edge that ``trigger`` takes from ``state`` on these facts.

        Raises:
            TransitionRefused: No such edge, or a guard refused; the reason names which.
        """
        found = self._choose(self._table.get(state, {}).get(trigger, ()), facts)
        if isinstance(found, Edge):
            return found
        reason = found or ("wrong_state" if trigger in self.triggers else "unknown_trigger")
        raise TransitionRefused(state, trigger, reason, self.possible(state))

    def advance(self, state: str, facts: Facts) -> Edge | str:
        """Return the first forward edge whose guards agree, else why the last one refused.

        The reason is ``guard_refused:<guard>`` or ``guard_error:<guard>``.
        """
        reason = "no_forward_trigger"
        for trigger in self.forward(state):
            found = self._choose(self._table[state][trigger], facts)
            if isinstance(found, Edge):
                return found
            reason = found
        return reason

    def restart(self, state: str, trigger: str) -> Edge:
        """Return the edge by which ``trigger`` begins the next life from ``state``.

        Raises:
            TransitionRefused: The restart is not possible from there.
        """
        edge = self._restart.get((state, trigger))
        if edge is None:
            reason = "wrong_state" if trigger in self.triggers else "unknown_trigger"
            raise TransitionRefused(state, trigger, reason, self.possible(state))
        return edge

    def possible(self, state: str) -> tuple[str, ...]:
        """Every trigger declared from ``state``, restarts included."""
        own = tuple(self._table.get(state, {}))
        return own + tuple(e.trigger for e in self.restarts if e.from_state == state)

    def explain(self, state: str, facts: Facts) -> tuple[Option, ...]:
        """Return every trigger declared from ``state`` with each guard's verdict."""
        edges = [edge for group in self._table.get(state, {}).values() for edge in group]
        edges += [edge for edge in self.restarts if edge.from_state == state]
        return tuple(
            Option(
                trigger=edge.trigger,
                to_state=edge.to_state,
                verdicts=tuple(guard.judge(facts) for guard in edge.guards),
            )
            for edge in edges
        )

    def codes(self) -> tuple[str, ...]:
        """Every legal step as ``from>trigger>to``, sorted: the database's CHECK."""
        return tuple(sorted(edge.code for edge in (*self.edges, *self.restarts)))

    @property
    def fingerprint(self) -> str:
        """Hash of everything that makes two graphs differ."""
        return sha256_hex(json.dumps(self.to_json(), sort_keys=True))

    def to_json(self) -> dict[str, Any]:
        """Return the graph as plain JSON values; guards by name."""
        return {
            "name": self.name,
            "initial": self.initial,
            "states": list(self.states),
            "ends": sorted(self.ends),
            "edges": [_edge_json(edge) for edge in self.edges],
            "restarts": [_edge_json(edge) for edge in self.restarts],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Graph:
        """Read a stored graph back; its guards are known by name only."""
        return cls(
            name=stored["name"],
            states=tuple(stored["states"]),
            initial=stored["initial"],
            ends=frozenset(stored["ends"]),
            edges=tuple(_edge_from_json(edge) for edge in stored["edges"]),
            restarts=tuple(_edge_from_json(edge) for edge in stored["restarts"]),
        )

    def difference(self, other: Graph) -> tuple[str, ...]:
        """Say in short lines what this graph has that ``other`` lacks, and the reverse."""
        mine, theirs = _signature(self), _signature(other)
        lines = [f"only in the code: {line}" for line in sorted(mine - theirs)]
        lines += [f"only in the database: {line}" for line in sorted(theirs - mine)]
        if self.name != other.name:
            lines.append(f"named {self.name} in the code, {other.name} in the database")
        if not lines and self.fingerprint != other.fingerprint:
            lines.append("the same edges are declared in another order")
        return tuple(lines)

    def mermaid(self) -> str:
        """Draw the main line as Mermaid text; retry, fail and cancel are folded into a note."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial}: {SUBMIT}"]
        for edge in self.edges:
            if edge.trigger in FAILURE_TRIGGERS:
                continue
            guards = ", ".join(guard.label for guard in edge.guards)
            label = f"{edge.trigger} [{guards}]" if guards else edge.trigger
            lines.append(f"    {edge.from_state} --> {edge.to_state}: {label}")
        lines += [f"    {state} --> [*]" for state in self.states if state in self.ends]
        lines += [
            f"    note right of {self.initial}",
            f"        every working state: {RETRY} [may_retry],",
            f"        {FAIL} to {DEAD_LETTER} [not may_retry], {CANCEL} to {CANCELLED}",
            "    end note",
        ]
        return "\n".join(lines) + "\n"

    @staticmethod
    def _choose(candidates: Iterable[Edge], facts: Facts) -> Edge | str:
        """Return the first candidate whose guards agree, else why the last one refused.

        Like the engine it asks no further candidate once a guard has raised.
        """
        reason = ""
        for edge in candidates:
            for guard in edge.guards:
                verdict = guard.judge(facts)
                if verdict.error is not None:
                    return f"guard_error:{guard.name}"
                if not verdict.holds:
                    reason = f"guard_refused:{guard.name}"
                    break
            else:
                return edge
        return reason


def read(cls: type[StateChart[Any]]) -> Graph:
    """Compile a finished lifecycle class.

    Raises:
        DefinitionError: The class uses something that the table or the database cannot honour.
    """
    states = [_checked_state(cls, state) for state in cls.states]
    own = tuple(s.id for s in states if s.id not in {DEAD_LETTER, CANCELLED})
    ends = frozenset(s.id for s in states if s.final and s.id in own)
    edges = tuple(edge for state in states for edge in _checked_edges(cls, state))
    if not ends:
        raise DefinitionError(f"{cls.__name__}: no State(final=True); documents could never rest")
    initial = str(cls.initial_state.id)
    names = (*own, DEAD_LETTER, CANCELLED, DELETED)
    graph = Graph(
        name=cls.__name__,
        states=names,
        initial=initial,
        ends=ends,
        edges=edges,
        restarts=_restarts(names, initial, ends),
    )
    _refuse_states_without_an_end(graph)
    return graph


def _restarts(states: tuple[str, ...], initial: str, ends: frozenset[str]) -> tuple[Edge, ...]:
    resting = [s for s in states if s in ends or s in {DEAD_LETTER, CANCELLED}]
    return (
        Edge(SUBMIT, None, initial),
        *(Edge(REQUEUE, state, initial) for state in (DEAD_LETTER, CANCELLED)),
        *(Edge(REPROCESS, state, initial) for state in resting if state in ends),
        *(Edge(REVISE, state, initial) for state in states),
        *(Edge(DELETE, state, DELETED) for state in resting),
    )


def _checked_state(cls: type[StateChart[Any]], state: State) -> State:
    where = f"{cls.__name__}.{state.id}"
    if not _NAME.fullmatch(state.id):
        raise DefinitionError(f"{where}: state names are lower case, digits and underscores")
    if state.value != state.id:
        raise DefinitionError(f"{where}: value={state.value!r} is not used here; leave it out")
    if state.states or state.history or state.parallel:
        raise DefinitionError(f"{where}: nested, parallel and history states are not supported")
    groups = {"enter": state.enter, "exit": state.exit, "invoke": state.invoke}
    for group, specs in groups.items():
        if any(not spec.is_convention for spec in specs):
            raise DefinitionError(f"{where}: {group}= callbacks hide effects; use a stage's hook")
    return state


def _checked_edges(cls: type[StateChart[Any]], state: State) -> Iterable[Edge]:
    for transition in state.transitions:
        where = f"{cls.__name__}.{state.id}"
        triggers = [str(event.id) for event in transition.events]
        if not triggers:
            raise DefinitionError(f"{where}: an edge without a trigger; assign it to a name")
        if len(triggers) > 1:
            raise DefinitionError(f"{where}: one edge under two triggers ({', '.join(triggers)})")
        where = f"{cls.__name__}.{triggers[0]}"
        if not _NAME.fullmatch(triggers[0]):
            raise DefinitionError(f"{where}: trigger names are lower case, digits, underscores")
        groups = {
            "validators": transition.validators,
            "before": transition.before,
            "on": transition.on,
            "after": transition.after,
        }
        for group, specs in groups.items():
            if any(not spec.is_convention for spec in specs):
                raise DefinitionError(f"{where}: {group}= callbacks hide effects; use a guard")
        if len(transition.targets) != 1:
            raise DefinitionError(f"{where}: an edge leads to exactly one state")
        target = transition.targets[0]
        if all(target is not known for known in cls.states):
            raise DefinitionError(
                f"{where}: leads to {target.id or 'a state'} that this class does not declare"
            )
        guards = tuple(_checked_guard(where, spec) for spec in transition.cond)
        yield Edge(triggers[0], str(state.id), str(target.id), guards)


def _checked_guard(where: str, spec: Any) -> Guard:
    function = spec.func
    if not inspect.isfunction(function):
        raise DefinitionError(
            f"{where}: guard {function!r} is not a plain function; a name or an expression cannot "
            "be checked or followed, so pass the function itself"
        )
    if inspect.iscoroutinefunction(function):
        raise DefinitionError(f"{where}: guard {function.__name__} is async; guards are pure")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(f"{where}: guard {function.__name__} yields; it must return a bool")
    parameters = inspect.signature(function).parameters.values()
    named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    # The engine passes it by name, the table by position.
    if named != ["facts"] or len(parameters) != 1:
        raise DefinitionError(f"{where}: guard {function.__name__} must take one argument, `facts`")
    return Guard(function.__name__, bool(spec.expected_value), function)


def _refuse_states_without_an_end(graph: Graph) -> None:
    """``fail`` gives every state an end, so the engine's own check no longer finds dead ends."""
    reaching = set(graph.ends)
    grew = True
    while grew:
        grew = False
        for edge in graph.edges:
            if edge.trigger in FAILURE_TRIGGERS or edge.from_state in reaching:
                continue
            if edge.to_state in reaching and edge.from_state is not None:
                reaching.add(edge.from_state)
                grew = True
    working = [s for s in graph.states if not graph.is_resting(s)]
    lost = [state for state in working if state not in reaching]
    if lost:
        raise DefinitionError(
            f"{graph.name}: no way forward from {', '.join(lost)} to "
            f"{' or '.join(sorted(graph.ends))}; add the missing edge"
        )


def _signature(graph: Graph) -> set[str]:
    return {
        edge.code + "".join(f" [{guard.label}]" for guard in edge.guards)
        for edge in (*graph.edges, *graph.restarts)
    }


def _edge_json(edge: Edge) -> dict[str, Any]:
    return {
        "trigger": edge.trigger,
        "from": edge.from_state,
        "to": edge.to_state,
        "guards": [{"name": guard.name, "expected": guard.expected} for guard in edge.guards],
    }


def _edge_from_json(stored: Mapping[str, Any]) -> Edge:
    guards = tuple(Guard(g["name"], g["expected"], None) for g in stored["guards"])
    return Edge(stored["trigger"], stored["from"], stored["to"], guards)
