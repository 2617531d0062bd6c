"""What every lifecycle gets, and the lifecycle of a document. The only place that names its states.

A lifecycle is declared once, as a class with its own states; guards are plain functions of
``Facts``. Everything wrong raises when the class is made, with the state named. Nothing here runs a
hook, writes a row or awaits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from statemachine import State, StateChart
from statemachine.exceptions import StateMachineError
from statemachine.factory import StateMachineMetaclass
from statemachine.transition_list import TransitionList

from statemachine_pipeline import graph as graphs
from statemachine_pipeline.errors import DefinitionError

if TYPE_CHECKING:
    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.records import Facts


def may_retry(facts: Facts) -> bool:
    """Another try is allowed: not permanent, attempts left, crashes left."""
    return (
        not facts.permanent
        and facts.attempt < facts.attempts_allowed
        and facts.crashes < facts.crashes_allowed
    )


def same_bytes(facts: Facts) -> bool:
    """Another document of this tenant owns exactly these bytes."""
    return facts.duplicate_by == "bytes"


def is_duplicate(facts: Facts) -> bool:
    """Another document of this tenant owns the same bytes or the same text."""
    return facts.duplicate_of is not None


def is_unique(facts: Facts) -> bool:
    """No other document of this tenant owns the same text."""
    return facts.duplicate_of is None


def has_text(facts: Facts) -> bool:
    """The parser found at least one character."""
    return facts.text_chars > 0


def all_chunks_stored(facts: Facts) -> bool:
    """The chunker returned chunks, and as many stand in the database."""
    return 0 < facts.chunks_expected == facts.chunks_stored


def all_embeddings_stored(facts: Facts) -> bool:
    """Every chunk has its vector in the database."""
    return 0 < facts.vectors_expected == facts.vectors_stored


# What an engine or its class keeps under these names would be lost behind a state or trigger.
_USED_BY_ENGINE = frozenset(
    {
        "final_states",
        "graph",
        "history_values",
        "initial_state",
        "model",
        "start_configuration_values",
        "state_field",
    }
)


class Cursor:
    """The model an engine stands on: one state name, nothing else.

    Never an ORM entity: the engine scans its model's attributes and writes to it.
    """

    __slots__ = ("state",)

    def __init__(self, state: str) -> None:
        self.state = state


class _Sealed(TransitionList):
    """The edges of a state whose lifecycle is finished."""

    def add_transitions(self, transition: Any) -> Any:
        # python-statemachine would add the edge to the base class too and then accept it there.
        edges = transition if isinstance(transition, TransitionList) else [transition]
        names = ", ".join(dict.fromkeys(str(edge.source.id) for edge in edges))
        raise DefinitionError(
            f"state {names} belongs to a finished lifecycle; declare a new Lifecycle with its own "
            "states"
        )


class _LifecycleMeta(StateMachineMetaclass):
    graph: Graph

    # What is made here is a class, hence cls.
    def __init__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> None:  # noqa: N805
        states = {key: value for key, value in body.items() if isinstance(value, State)}
        if any(isinstance(base, _LifecycleMeta) for base in bases):
            _check_bases(name, bases)
            _check_names(name, body)
            _check_edges(name, states, body)
        if not states:
            super().__init__(name, bases, body)  # type: ignore[arg-type]
            return
        working = [s for s in states.values() if not s.final and s.transitions.transitions]
        dead, stopped = State(final=True), State(final=True)
        body |= {graphs.DEAD_LETTER: dead, graphs.CANCELLED: stopped}
        retry = TransitionList()
        for state in working:
            retry |= state.to.itself(internal=True, cond=may_retry)  # type: ignore[no-untyped-call]
        # A state without an edge of its own gets none of these, so that the engine's check for
        # trap states names it.
        body |= {
            graphs.RETRY: retry,
            graphs.FAIL: dead.from_(*working, unless=may_retry),
            graphs.CANCEL: stopped.from_(*working),
        }
        try:
            super().__init__(name, bases, body)  # type: ignore[arg-type]
            cls.graph = graphs.read(cls)  # type: ignore[arg-type]
            cls(Cursor(cls.graph.initial))  # resolves every guard now, not at the first document
        except (StateMachineError, TypeError) as error:  # TypeError: a guard that is no callable
            raise DefinitionError(f"{name}: {error}") from error
        for state in cls.states:
            state.transitions.__class__ = _Sealed


def _check_bases(name: str, bases: tuple[type, ...]) -> None:
    for base in bases:
        if getattr(base, "graph", None) is not None:
            raise DefinitionError(
                f"{name}: {base.__name__} is finished and cannot be subclassed; declare "
                "a new Lifecycle with its own states"
            )
        if not isinstance(base, _LifecycleMeta):
            # The engine would call its methods as callbacks, by their names.
            raise DefinitionError(
                f"{name}: {base.__name__} is no Lifecycle; a lifecycle has no other bases"
            )


def _check_names(name: str, body: dict[str, Any]) -> None:
    seen: dict[int, str] = {}
    for key, value in body.items():
        declared = isinstance(value, State | TransitionList)
        if declared and key in graphs.RESERVED:
            raise DefinitionError(f"{name}.{key}: this name is given by Lifecycle; choose another")
        if declared and (hasattr(StateChart, key) or key in _USED_BY_ENGINE):
            raise DefinitionError(f"{name}.{key}: this name is used by StateChart; choose another")
        if not declared and not _is_dunder(key):
            raise DefinitionError(
                f"{name}.{key}: a lifecycle holds states and triggers only; work belongs in hooks, "
                "guards are functions outside the class"
            )
        if isinstance(value, State):
            if id(value) in seen:
                raise DefinitionError(f"{name}.{key}: the same State as {seen[id(value)]}")
            if value.transitions.__class__ is _Sealed or value._id:
                raise DefinitionError(f"{name}.{key}: this State belongs to another lifecycle")
            seen[id(value)] = key


def _is_dunder(key: str) -> bool:
    return key.startswith("__") and key.endswith("__") and key != "__init__"


def _check_edges(name: str, states: dict[str, State], body: dict[str, Any]) -> None:
    own = set(map(id, states.values()))
    for key, value in body.items():
        if isinstance(value, TransitionList) and any(id(edge.source) not in own for edge in value):
            raise DefinitionError(
                f"{name}.{key}: an edge from a state that this class does not declare; name each "
                "state it leaves"
            )
    for key, state in states.items():
        if any(edge.event for edge in state.transitions):
            raise DefinitionError(
                f"{name}.{key}: an edge with event=; assign the edge to its trigger's name"
            )


class Lifecycle(StateChart[Cursor], metaclass=_LifecycleMeta):
    """Declare states and forward triggers; the rest comes with it.

    Every working state gets ``retry`` (while ``may_retry``), ``fail`` to ``dead_letter`` (when not)
    and ``cancel`` to ``cancelled``. The restarts ``requeue``, ``reprocess``, ``revise`` and
    ``delete`` begin the next life at the initial state.

    Attributes:
        graph: The class compiled to a table.

    Raises:
        DefinitionError: When the class is made, naming the state or trigger that is wrong.
    """

    # The engine's own defaults write NULL in mid-transition, swallow illegal events and lose
    # exceptions, so each is set here.
    atomic_configuration_update = True
    allow_event_without_transition = False
    catch_errors_as_events = False
    enable_self_transition_entries = False

    graph: ClassVar[Graph]


class DocumentLifecycle(Lifecycle):
    """From raw bytes to searchable chunks."""

    uploaded = State(initial=True)
    parse_queued, parse_complete, parse_validated = State(), State(), State()
    chunks_stored = State()
    embedding_queued, embedding_in_progress, embeddings_stored = State(), State(), State()
    complete, duplicate = State(final=True), State(final=True)

    # Declared before what it precedes: the first trigger whose guards agree is taken.
    mark_duplicate = uploaded.to(duplicate, cond=same_bytes) | parse_complete.to(
        duplicate, cond=is_duplicate
    )
    queue_parse = uploaded.to(parse_queued)
    finish_parse = parse_queued.to(parse_complete)
    accept_parse = parse_complete.to(parse_validated, cond=[has_text, is_unique])
    store_chunks = parse_validated.to(chunks_stored, cond=all_chunks_stored)
    queue_embedding = chunks_stored.to(embedding_queued)
    start_embedding = embedding_queued.to(embedding_in_progress)
    store_embeddings = embedding_in_progress.to(embeddings_stored, cond=all_embeddings_stored)
    finalize = embeddings_stored.to(complete)
