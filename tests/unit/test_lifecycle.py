"""A lifecycle is right or it is no class: everything wrong raises with its name."""

from __future__ import annotations

import functools
import re
import types
from typing import TYPE_CHECKING, Any

import pytest
from statemachine import Event, HistoryState, State, StateChart
from statemachine.states import States

from statemachine_pipeline import lifecycle
from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.graph import DELETED, FAILURE_TRIGGERS, RESERVED
from statemachine_pipeline.lifecycle import (
    Cursor,
    DocumentLifecycle,
    Lifecycle,
    all_chunks_stored,
    all_embeddings_stored,
    has_text,
    is_duplicate,
    is_unique,
    may_retry,
    same_bytes,
)
from statemachine_pipeline.records import Facts

if TYPE_CHECKING:
    from collections.abc import Callable

GRAPH = DocumentLifecycle.graph

MAIN_LINE = [
    ("uploaded", "queue_parse", "parse_queued"),
    ("parse_queued", "finish_parse", "parse_complete"),
    ("parse_complete", "accept_parse", "parse_validated"),
    ("parse_validated", "store_chunks", "chunks_stored"),
    ("chunks_stored", "queue_embedding", "embedding_queued"),
    ("embedding_queued", "start_embedding", "embedding_in_progress"),
    ("embedding_in_progress", "store_embeddings", "embeddings_stored"),
    ("embeddings_stored", "finalize", "complete"),
]
WORKING = [state for state, _, _ in MAIN_LINE]
SEALED = "belongs to a finished lifecycle; declare a new Lifecycle with its own states"
ONLY_STATES = (
    "a lifecycle holds states and triggers only; work belongs in hooks, guards are functions "
    "outside the class"
)


def is_open(facts: Facts) -> bool:
    """Agree with everything."""
    return True


def declare(**names: Any) -> type[Lifecycle]:
    """Make a class named Odd out of these names, as a class body would."""
    return types.new_class("Odd", (Lifecycle,), exec_body=lambda body: body.update(names))


def declare_line(name: str = "go", **edge: Any) -> type[Lifecycle]:
    """Make the shortest lifecycle; ``edge`` is what its only forward edge is declared with."""
    first, last = State(initial=True), State(final=True)
    return declare(first=first, last=last, **{name: first.to(last, **edge)})


def refusal(make: Callable[[], object]) -> str:
    """Return the sentence with which a class is refused."""
    with pytest.raises(DefinitionError) as caught:
        make()
    return str(caught.value)


# What is shipped.


def test_the_shipped_states_stand_in_the_order_of_a_life() -> None:
    """The states of 'the document lifecycle', then the three that every lifecycle gets."""
    assert GRAPH.states == (
        *WORKING,
        "complete",
        "duplicate",
        "dead_letter",
        "cancelled",
        "deleted",
    )
    assert GRAPH.initial == "uploaded"
    assert GRAPH.ends == {"complete", "duplicate"}
    assert GRAPH.resting == {"complete", "duplicate", "dead_letter", "cancelled", "deleted"}


def test_the_main_line_leads_from_upload_to_complete() -> None:
    """Every row of the table of states: its trigger and where that leads."""
    edges = {(e.from_state, e.trigger): e.to_state for e in GRAPH.edges}
    assert [(s, t, edges[s, t]) for s, t, _ in MAIN_LINE] == MAIN_LINE
    forward = [(s, t) for s in GRAPH.states for t in GRAPH.forward(s)]
    assert set(forward) - {(s, t) for s, t, _ in MAIN_LINE} == {
        ("uploaded", "mark_duplicate"),
        ("parse_complete", "mark_duplicate"),
    }


def test_a_duplicate_is_looked_for_before_the_work_it_saves() -> None:
    """'mark_duplicate is declared before what it precedes': it is asked first."""
    assert GRAPH.forward("uploaded") == ("mark_duplicate", "queue_parse")
    assert GRAPH.forward("parse_complete") == ("mark_duplicate", "accept_parse")
    assert GRAPH.targets("uploaded", "mark_duplicate") == ("duplicate",)
    assert GRAPH.targets("parse_complete", "mark_duplicate") == ("duplicate",)


def test_the_guards_stand_where_the_table_says() -> None:
    """The guards in brackets of 'the document lifecycle', and no others."""
    guarded = {
        (e.from_state, e.trigger): [g.label for g in e.guards]
        for e in GRAPH.edges
        if e.guards and e.trigger not in FAILURE_TRIGGERS
    }
    assert guarded == {
        ("uploaded", "mark_duplicate"): ["same_bytes"],
        ("parse_complete", "mark_duplicate"): ["is_duplicate"],
        ("parse_complete", "accept_parse"): ["has_text", "is_unique"],
        ("parse_validated", "store_chunks"): ["all_chunks_stored"],
        ("embedding_in_progress", "store_embeddings"): ["all_embeddings_stored"],
    }


@pytest.mark.parametrize("state", WORKING)
def test_every_working_state_gets_retry_fail_and_cancel(state: str) -> None:
    """'Every working state gets retry, fail and cancel without a word from the user'."""
    own = {
        e.trigger: (e.to_state, [g.label for g in e.guards])
        for e in GRAPH.edges
        if e.from_state == state and e.trigger in FAILURE_TRIGGERS
    }
    assert own == {
        "retry": (state, ["may_retry"]),
        "fail": ("dead_letter", ["not may_retry"]),
        "cancel": ("cancelled", []),
    }


def test_no_edge_of_a_life_leaves_a_resting_state() -> None:
    """'One machine is one life': final states have no edges but restarts."""
    assert not {e.from_state for e in GRAPH.edges} - set(WORKING)


def test_the_restarts_are_exactly_those_declared_by_the_library() -> None:
    """'Restarts begin the next life at the initial state and are declared once'."""
    restarts = {(e.trigger, e.from_state, e.to_state) for e in GRAPH.restarts}
    assert restarts == {
        ("submit", None, "uploaded"),
        ("requeue", "dead_letter", "uploaded"),
        ("requeue", "cancelled", "uploaded"),
        ("reprocess", "complete", "uploaded"),
        ("reprocess", "duplicate", "uploaded"),
        *(("revise", state, "uploaded") for state in GRAPH.states),
        ("delete", "complete", "deleted"),
        ("delete", "duplicate", "deleted"),
        ("delete", "dead_letter", "deleted"),
        ("delete", "cancelled", "deleted"),
    }
    assert len(restarts) == len(GRAPH.restarts)
    assert not any(e.guards for e in GRAPH.restarts)


def test_only_revise_leaves_deleted() -> None:
    """'delete from every final state to deleted, which only revise leaves'."""
    assert GRAPH.possible(DELETED) == ("revise",)


# Its guards.


@pytest.mark.parametrize(
    ("facts", "allowed"),
    [
        (Facts(attempt=1, attempts_allowed=2), True),
        (Facts(attempt=2, attempts_allowed=2), False),
        (Facts(attempt=3, attempts_allowed=2), False),
        (Facts(crashes=2, crashes_allowed=3), True),
        (Facts(crashes=3, crashes_allowed=3), False),
        (Facts(permanent=True), False),
    ],
)
def test_another_try_needs_attempts_crashes_and_hope(facts: Facts, allowed: bool) -> None:
    """'may_retry: not permanent, attempts left, crashes left'."""
    assert may_retry(facts) is allowed


def test_guards_about_twins_read_whom_and_by_what() -> None:
    """'same_bytes: before a parse is paid for'; 'is_duplicate' afterwards, by bytes or text."""
    twin = lifecycle.graphs.json  # any value stands for an id here
    by_text = Facts(duplicate_of=twin, duplicate_by="text")  # type: ignore[arg-type]
    by_bytes = Facts(duplicate_of=twin, duplicate_by="bytes")  # type: ignore[arg-type]
    asked = [(same_bytes(f), is_duplicate(f), is_unique(f)) for f in (Facts(), by_text, by_bytes)]
    assert asked == [(False, False, True), (False, True, False), (True, True, False)]


def test_a_text_needs_one_character() -> None:
    """'The parser found at least one character'."""
    assert [has_text(Facts(text_chars=n)) for n in (0, 1)] == [False, True]


@pytest.mark.parametrize(
    ("expected", "stored", "whole"), [(0, 0, False), (2, 1, False), (2, 2, True), (1, 2, False)]
)
def test_all_means_some_and_as_many_as_expected(expected: int, stored: int, whole: bool) -> None:
    """'Nothing that failed looks done': none of none is not all."""
    chunks = Facts(chunks_expected=expected, chunks_stored=stored)
    vectors = Facts(vectors_expected=expected, vectors_stored=stored)
    assert (all_chunks_stored(chunks), all_embeddings_stored(vectors)) == (whole, whole)
    assert not all_chunks_stored(vectors)
    assert not all_embeddings_stored(chunks)


# A lifecycle of one's own.


def is_clean(facts: Facts) -> bool:
    """Nothing is left to black out."""
    return facts.reported.get("findings_left") == 0


def make_redacted() -> type[Lifecycle]:
    """Declare the example of the documentation."""

    class RedactedLifecycle(Lifecycle):
        """Documents whose names and numbers are blacked out before they are cut up."""

        uploaded = State(initial=True)
        parse_queued, parse_complete, parse_validated = State(), State(), State()
        pii_redacted, chunks_stored = State(), State()
        embedding_queued, embedding_in_progress, embeddings_stored = State(), State(), State()
        complete, duplicate = State(final=True), State(final=True)

        queue_parse = uploaded.to(parse_queued)
        finish_parse = parse_queued.to(parse_complete)
        mark_duplicate = parse_complete.to(duplicate, cond=is_duplicate)
        accept_parse = parse_complete.to(parse_validated, cond=[has_text, is_unique])
        redact = parse_validated.to(pii_redacted, cond=is_clean)
        store_chunks = pii_redacted.to(chunks_stored, cond=all_chunks_stored)
        queue_embedding = chunks_stored.to(embedding_queued)
        start_embedding = embedding_queued.to(embedding_in_progress)
        store_embeddings = embedding_in_progress.to(embeddings_stored, cond=all_embeddings_stored)
        finalize = embeddings_stored.to(complete)

    return RedactedLifecycle


def test_a_users_lifecycle_takes_seventeen_lines() -> None:
    """'The class above gives 13 states and 37 edges'; ``deleted`` is added around them."""
    graph = make_redacted().graph
    assert len(graph.states) == 14
    assert graph.states[-3:] == ("dead_letter", "cancelled", "deleted")
    assert len(graph.edges) == 37
    assert graph.forward("parse_validated") == ("redact",)
    assert graph.forward("pii_redacted") == ("store_chunks",)
    assert graph.ends == {"complete", "duplicate"}


def test_a_second_lifecycle_leaves_the_shipped_one_untouched() -> None:
    """'A second lifecycle beside it is untouched'."""
    before = DocumentLifecycle.graph.to_json()
    states = [state.id for state in DocumentLifecycle.states]
    events = [event.id for event in DocumentLifecycle.events]
    redacted = make_redacted()
    assert redacted.graph.name == "RedactedLifecycle"
    assert DocumentLifecycle.graph.to_json() == before
    assert [state.id for state in DocumentLifecycle.states] == states
    assert [event.id for event in DocumentLifecycle.events] == events
    assert "redact" not in DocumentLifecycle.graph.triggers


def test_an_abstract_base_may_stand_between() -> None:
    """'No class meant to be inherited but Lifecycle', with a name of one's own if wished."""

    class OurLifecycle(Lifecycle):
        """What our lifecycles have in common: nothing yet."""

    first, last = State(initial=True), State(final=True)
    names = {"first": first, "last": last, "go": first.to(last)}
    made = types.new_class("Ours", (OurLifecycle,), exec_body=lambda body: body.update(names))
    assert made.graph.forward("first") == ("go",)


def test_the_engine_of_every_lifecycle_is_strict() -> None:
    """'StateChart with four strict flags'."""
    cls = make_redacted()
    assert cls.atomic_configuration_update is True
    assert cls.allow_event_without_transition is False
    assert cls.catch_errors_as_events is False
    assert cls.enable_self_transition_entries is False


# What is wrong raises when the class is made.


def test_a_subclass_with_an_edge_is_refused() -> None:
    """'Adding an edge raises': python-statemachine would silently change the base class."""

    def make() -> None:
        class Odd(DocumentLifecycle):
            extra = State()
            go = DocumentLifecycle.uploaded.to(extra)

    before = DocumentLifecycle.graph.to_json()
    assert refusal(make) == f"state uploaded {SEALED}"
    assert DocumentLifecycle.graph.to_json() == before
    assert len(DocumentLifecycle.uploaded.transitions) == 5


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"extra": State()},
        {"on_finalize": lambda machine: None},
        {"catch_errors_as_events": True},
    ],
    ids=["nothing", "a state", "a callback", "a flag"],
)
def test_a_finished_lifecycle_cannot_be_subclassed(body: dict[str, Any]) -> None:
    """'Users declare their own lifecycle as a new Lifecycle class'."""

    def make() -> type:
        return types.new_class("Odd", (DocumentLifecycle,), exec_body=lambda ns: ns.update(body))

    assert refusal(make) == (
        "Odd: DocumentLifecycle is finished and cannot be subclassed; declare a new Lifecycle with "
        "its own states"
    )


def test_another_base_is_refused() -> None:
    """The engine would call its methods as callbacks, and a callback hides effects."""

    class Mixin:
        def on_go(self) -> None: ...

    def make() -> type:
        return types.new_class("Odd", (Mixin, Lifecycle))

    assert refusal(make) == "Odd: Mixin is no Lifecycle; a lifecycle has no other bases"


def test_an_edge_from_a_foreign_state_is_refused() -> None:
    """'from_ on a foreign state raises at class creation with a usable sentence'."""

    def make() -> None:
        last = State(final=True)
        last.from_(DocumentLifecycle.embedding_queued)

    assert refusal(make) == f"state embedding_queued {SEALED}"


def test_an_edge_from_a_state_of_no_class_is_refused() -> None:
    """An edge from a state outside the class would silently be no edge of it."""
    first, last, stray = State(initial=True), State(final=True), State()
    names = {"first": first, "last": last, "go": first.to(last), "come": last.from_(stray)}
    assert refusal(lambda: declare(**names)) == (
        "Odd.come: an edge from a state that this class does not declare; name each state it leaves"
    )


def test_an_edge_from_any_state_is_refused() -> None:
    """'from_.any() would also give edges to a state whose own edge was forgotten'."""
    first, second, last = State(initial=True), State(), State(final=True)
    names = {"first": first, "second": second, "last": last, "go": first.to(second)}
    assert refusal(lambda: declare(**names, skip=last.from_.any())) == (
        "Odd.skip: an edge from a state that this class does not declare; name each state it leaves"
    )


def test_an_edge_to_a_foreign_state_is_refused() -> None:
    """An edge into another class would lead where no table has an edge out."""
    first, last = State(initial=True), State(final=True)
    names = {"first": first, "last": last, "go": first.to(last)}
    assert refusal(lambda: declare(**names, away=first.to(DocumentLifecycle.complete))) == (
        "Odd.away: leads to complete that this class does not declare"
    )
    first, last = State(initial=True), State(final=True)
    names = {"first": first, "last": last, "go": first.to(last)}
    assert refusal(lambda: declare(**names, away=first.to(State()))) == (
        "Odd.away: leads to a state that this class does not declare"
    )


def test_a_state_shared_by_two_classes_is_refused() -> None:
    """'A State shared by two classes' is named."""
    shared = State(final=True)
    first, second = State(initial=True), State(initial=True)
    declare(first=first, last=shared, go=first.to(shared))
    assert refusal(lambda: declare(second=second, end=shared, go=second.to(shared))) == (
        "Odd.end: this State belongs to another lifecycle"
    )


def test_a_state_under_two_names_is_refused() -> None:
    """One object with two names would be one state with a lost name."""
    first, both, last = State(initial=True), State(), State(final=True)
    names = {"first": first, "one": both, "two": both, "last": last}
    assert refusal(lambda: declare(**names, go=first.to(both), end=both.to(last))) == (
        "Odd.two: the same State as one"
    )


def test_a_forgotten_edge_is_refused_with_its_state_named() -> None:
    """'A working state without an outgoing edge gets none of the three': it is named."""
    first, lost, last = State(initial=True), State(), State(final=True)
    names = {"first": first, "lost": lost, "last": last}
    assert refusal(lambda: declare(**names, go=first.to(lost), end=first.to(last))) == (
        "Odd: All non-final states should have at least one outgoing transition. These states have "
        "no outgoing transition: ['lost']"
    )


def test_an_unreachable_state_is_refused() -> None:
    """A state that no edge leads to is a forgotten edge too."""
    first, lost, last = State(initial=True), State(), State(final=True)
    names = {"first": first, "lost": lost, "last": last}
    assert refusal(lambda: declare(**names, go=first.to(last), end=lost.to(last))) == (
        "Odd: There are unreachable states. The statemachine graph should have a single component. "
        "Disconnected states: ['lost']"
    )


def test_a_loop_that_never_ends_is_refused() -> None:
    """'Every working state reaches complete-like ends by forward edges'; ``fail`` is none."""
    first, one, two, last = State(initial=True), State(), State(), State(final=True)
    names = {"first": first, "one": one, "two": two, "last": last}
    edges = {"go": first.to(last) | first.to(one), "there": one.to(two), "back": two.to(one)}
    assert refusal(lambda: declare(**names, **edges)) == (
        "Odd: no way forward from one, two to last; add the missing edge"
    )


@pytest.mark.parametrize("name", ["has_text", "has_txt", "has_text and is_unique"])
def test_a_guard_by_name_is_refused(name: str) -> None:
    """'Guards by name cannot be checked by mypy or followed in an editor', misspelt or not."""
    assert refusal(lambda: declare_line(cond=name)) == (
        f"Odd.go: guard '{name}' is not a plain function; a name or an expression cannot be "
        "checked or followed, so pass the function itself"
    )


def test_an_async_guard_is_refused() -> None:
    """'Sync pure guards': one async guard would switch the engine to another one."""

    async def asks_somebody(facts: Facts) -> bool:
        return True

    assert refusal(lambda: declare_line(cond=asks_somebody)) == (
        "Odd.go: guard asks_somebody is async; guards are pure"
    )


def test_a_guard_that_yields_is_refused() -> None:
    """A generator is true whatever it would have said."""

    def tells(facts: Facts) -> Any:
        yield False

    async def tells_later(facts: Facts) -> Any:
        yield False

    assert refusal(lambda: declare_line(cond=tells)) == (
        "Odd.go: guard tells yields; it must return a bool"
    )
    assert refusal(lambda: declare_line(unless=tells_later)) == (
        "Odd.go: guard tells_later yields; it must return a bool"
    )


def _another_name(document: Facts) -> bool:
    return True


def _two(facts: Facts, more: int = 1) -> bool:
    return True


def _none() -> bool:
    return True


def _by_name_only(*, facts: Facts) -> bool:
    return True


def _by_place_only(facts: Facts, /) -> bool:
    return True


def _any(*facts: Facts) -> bool:
    return True


@pytest.mark.parametrize("guard", [_another_name, _two, _none, _by_name_only, _by_place_only, _any])
def test_a_guard_takes_facts_and_nothing_else(guard: Callable[..., bool]) -> None:
    """The engine passes ``facts`` by name and the table by place: a guard must take both."""
    assert refusal(lambda: declare_line(cond=guard)) == (
        f"Odd.go: guard {guard.__name__} must take one argument, `facts`"
    )


@pytest.mark.parametrize(
    "guard",
    [functools.partial(is_open), property(is_open), len, Facts],
    ids=["partial", "property", "builtin", "class"],
)
def test_a_guard_is_a_plain_function(guard: Any) -> None:
    """'Guards are plain functions of Facts': what is none is shown."""
    assert refusal(lambda: declare_line(cond=guard)) == (
        f"Odd.go: guard {guard!r} is not a plain function; a name or an expression cannot be "
        "checked or followed, so pass the function itself"
    )


@pytest.mark.parametrize("guard", [True, 3])
def test_a_guard_that_is_no_callable_is_refused(guard: object) -> None:
    """The engine's own words, with the class named."""
    assert refusal(lambda: declare_line(cond=guard)).startswith("Odd: expected string or bytes")


@pytest.mark.parametrize("group", ["validators", "before", "on", "after"])
@pytest.mark.parametrize("callback", ["work", is_open], ids=["name", "function"])
def test_callbacks_of_an_edge_are_refused(group: str, callback: object) -> None:
    """'No effects in callbacks'; 'use guards for routing, validators nowhere'."""
    assert refusal(lambda: declare_line(**{group: callback})) == (
        f"Odd.go: {group}= callbacks hide effects; use a guard"
    )


@pytest.mark.parametrize("group", ["enter", "exit", "invoke"])
@pytest.mark.parametrize("callback", ["work", is_open], ids=["name", "function"])
def test_callbacks_of_a_state_are_refused(group: str, callback: object) -> None:
    """'No effects in callbacks', of states as of edges."""
    first, second = State(initial=True), State(**{group: callback})
    last = State(final=True)
    names = {"first": first, "second": second, "last": last}
    assert refusal(lambda: declare(**names, go=first.to(second), end=second.to(last))) == (
        f"Odd.second: {group}= callbacks hide effects; use a stage's hook"
    )


def _method(machine: object) -> None: ...


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("on_go", _method),
        ("before_transition", staticmethod(_method)),
        ("after_go", property(_method)),
        ("__init__", _method),
        ("listeners", [object()]),
        ("prepare_event", "first"),
        ("allow_event_without_transition", True),
        ("validate_trap_states", False),
        ("limit", 3),
        ("more", States({"x": State()})),
    ],
)
def test_a_class_body_holds_states_and_triggers_only(name: str, value: object) -> None:
    """'Constructs the table could not honour are refused', by their name."""
    first, last = State(initial=True), State(final=True)
    names = {"first": first, "last": last, "go": first.to(last), name: value}
    assert refusal(lambda: declare(**names)) == f"Odd.{name}: {ONLY_STATES}"


def test_an_event_with_settings_of_its_own_is_refused() -> None:
    """'No delays': an Event could carry one, so a trigger is the edge itself."""
    first, last = State(initial=True), State(final=True)
    names = {"first": first, "last": last, "go": Event(first.to(last), delay=1000)}
    assert refusal(lambda: declare(**names)) == f"Odd.go: {ONLY_STATES}"


def test_a_callback_on_a_base_without_states_is_refused() -> None:
    """A method of a base would be called by its name just the same."""
    assert refusal(lambda: declare(on_go=_method)) == f"Odd.on_go: {ONLY_STATES}"


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_names_are_refused(name: str) -> None:
    """'deleted and submit are reserved names', like all that a lifecycle is given."""
    said = f"Odd.{name}: this name is given by Lifecycle; choose another"
    assert refusal(lambda: declare_line(name)) == said
    first, last = State(initial=True), State(final=True)
    assert refusal(lambda: declare(first=first, **{name: last}, go=first.to(last))) == said


def test_every_name_that_an_engine_uses_is_refused() -> None:
    """A trigger or state must not hide what the engine needs, such as ``model``."""
    made = declare_line()
    given = {"first", "last", "go", "retry", "fail", "cancel", "dead_letter", "cancelled"}
    used = {name for name in {*dir(StateChart), *dir(made(Cursor("first")))} if name[0] != "_"}
    for name in sorted(used - given):
        said = f"Odd.{name}: this name is used by StateChart; choose another"
        if callable(getattr(State, name, None)):
            continue
        assert refusal(functools.partial(declare_line, name)) == said
    assert {"model", "graph", "send", "configuration", "initial_state"} <= used


@pytest.mark.parametrize("name", ["Upper", "with-dash", "ünï", "_first", "1st", "x" * 64])
def test_names_that_sql_and_logs_could_not_spell_are_refused(name: str) -> None:
    """'Python, SQL, JSON, logs and docs use the same word', so a word is a plain one."""
    assert refusal(lambda: declare_line(name)) == (
        f"Odd.{name}: trigger names are lower case, digits, underscores"
    )
    first, last = State(initial=True), State(final=True)
    assert refusal(lambda: declare(first=first, **{name: last}, go=first.to(last))) == (
        f"Odd.{name}: state names are lower case, digits and underscores"
    )


def test_the_longest_name_fits() -> None:
    """63 characters, as in PostgreSQL."""
    assert declare_line("x" * 63).graph.forward("first") == ("x" * 63,)


@pytest.mark.parametrize("name", ["error_parse", "done_state_parse", "done_invoke_parse"])
def test_names_to_which_the_engine_adds_a_second_are_refused(name: str) -> None:
    """'Each registers a second dotted event', under which the edge could be taken unseen."""
    said = refusal(lambda: declare_line(name))
    assert re.fullmatch(rf"Odd\.first: one edge under two triggers \({name}, [a-z.]+\)", said)


def test_a_value_of_a_state_is_refused() -> None:
    """'Two states with equal value: one silently vanishes', so the name is the value."""
    first, second, last = State(initial=True), State(value="first"), State(final=True)
    names = {"first": first, "second": second, "last": last}
    assert refusal(lambda: declare(**names, go=first.to(second), end=second.to(last))) == (
        "Odd.second: value='first' is not used here; leave it out"
    )


@pytest.mark.parametrize("kind", [State.Compound, State.Parallel, "history"])
def test_nested_states_are_refused(kind: Any) -> None:
    """'No delays, invoke, nesting'."""
    inner, other = State(initial=True), State()
    names: dict[str, Any] = {"inner": inner, "other": other, "on": inner.to(other)}
    if kind == "history":
        names, kind = {**names, "back": HistoryState()}, State.Compound
    nest = types.new_class("nest", (kind,), exec_body=lambda body: body.update(names))
    first, last = State(initial=True), State(final=True)
    outer = {"first": first, "nest": nest, "last": last}
    assert refusal(lambda: declare(**outer, go=first.to(nest), end=nest.to(last))) == (
        "Odd.nest: nested, parallel and history states are not supported"
    )


def test_two_initial_states_are_refused() -> None:
    """A life begins at one place."""
    first, second, last = State(initial=True), State(initial=True), State(final=True)
    names = {"first": first, "second": second, "last": last}
    assert refusal(lambda: declare(**names, go=first.to(second), end=second.to(last))) == (
        "Odd: There should be one and only one initial state. Your currently have these: first, "
        "second"
    )


def test_a_lifecycle_without_a_final_state_is_refused() -> None:
    """'It comes to rest': dead_letter and cancelled are no place to aim at."""
    first, second = State(initial=True), State()
    names = {"first": first, "second": second}
    assert refusal(lambda: declare(**names, go=first.to(second), back=second.to(first))) == (
        "Odd: no State(final=True); documents could never rest"
    )


def test_an_edge_out_of_a_final_state_is_refused() -> None:
    """'One machine is one life': the next one begins by a restart."""
    first, last = State(initial=True), State(final=True)
    names = {"first": first, "last": last, "go": first.to(last), "back": last.to(first)}
    assert refusal(lambda: declare(**names)) == (
        "Odd: Cannot declare transitions from final state. Invalid state(s): ['last']"
    )


def test_one_edge_under_two_triggers_is_refused() -> None:
    """The database's CHECK and a stage know an edge by one trigger."""
    first, last = State(initial=True), State(final=True)
    edge = first.to(last)
    assert refusal(lambda: declare(first=first, last=last, go=edge, come=edge)) == (
        "Odd.first: one edge under two triggers (go, come)"
    )


def test_an_edge_without_a_trigger_is_refused() -> None:
    """The engine would take it by itself, on any event."""
    first, second, last = State(initial=True), State(), State(final=True)
    first.to(second)
    names = {"first": first, "second": second, "last": last, "end": second.to(last)}
    assert refusal(lambda: declare(**names)) == (
        "Odd.first: an edge without a trigger; assign it to a name"
    )


@pytest.mark.parametrize("event", ["go", "requeue", "retry", "send", "go come", "*"])
def test_a_trigger_inside_an_edge_is_refused(event: str) -> None:
    """A trigger that is no name of the class body would pass by the checks of names."""
    first, last = State(initial=True), State(final=True)
    first.to(last, event=event)
    assert refusal(lambda: declare(first=first, last=last)) == (
        "Odd.first: an edge with event=; assign the edge to its trigger's name"
    )


def test_an_edge_to_no_state_or_to_several_is_refused() -> None:
    """A table has one target for an edge."""
    for several in (False, True):
        first, second, last = State(initial=True), State(), State(final=True)
        names = {"first": first, "second": second, "last": last, "go": first.to(second)}
        odd = first.to([second, last] if several else None)  # type: ignore[arg-type]
        assert refusal(functools.partial(declare, **names, end=second.to(last), odd=odd)) == (
            "Odd.odd: an edge leads to exactly one state"
        )


def test_edges_cannot_be_added_once_the_class_is_finished() -> None:
    """'States of a finished lifecycle are sealed, so adding an edge to them raises'."""
    made = declare_line()
    before = made.graph
    assert refusal(lambda: made.first.to(made.last)) == f"state first {SEALED}"
    assert refusal(lambda: made.last.to(made.first)) == f"state last {SEALED}"
    assert refusal(made.first.to.itself) == f"state first {SEALED}"
    assert refusal(lambda: made.dead_letter.from_(made.first)) == f"state first {SEALED}"
    assert made.graph is before
    assert [edge.event for edge in made.first.transitions] == ["go", "retry", "fail", "cancel"]
