"""The table answers as a lifecycle says, gives its reasons, and survives a round trip."""

from __future__ import annotations

import dataclasses
import json
from typing import Any
from uuid import UUID

import pytest
from statemachine import State

from statemachine_pipeline.errors import DefinitionError, TransitionRefused
from statemachine_pipeline.graph import Edge, Graph, Guard
from statemachine_pipeline.lifecycle import DocumentLifecycle, Lifecycle, has_text, is_duplicate
from statemachine_pipeline.records import Facts, Option, Verdict

SHIPPED = DocumentLifecycle.graph


def is_broken(facts: Facts) -> bool:
    """Raises, as a careless guard would."""
    raise LookupError("no such fact")


def is_wide(facts: Facts) -> int:
    """Answers with a number, as a careless guard would."""
    return facts.text_chars


class ForkedLifecycle(Lifecycle):
    """Two ways out of the first state; the second trigger has two candidates."""

    first = State(initial=True)
    left, right = State(), State()
    last = State(final=True)

    turn = first.to(left, cond=[has_text, is_duplicate])
    choose = first.to(left, unless=has_text) | first.to(right, cond=is_duplicate)
    break_ = left.to(last, cond=is_broken) | left.to(right)
    end = left.to(last, unless=is_wide)
    stop = right.to(last)


FORKED = ForkedLifecycle.graph
TEXT = Facts(text_chars=1)
TWIN = Facts(text_chars=1, duplicate_of=UUID(int=1))


def refusal(state: str, trigger: str, facts: Facts, graph: Graph = FORKED) -> str:
    """Return the reason for which a step is refused."""
    with pytest.raises(TransitionRefused) as caught:
        graph.step(state, trigger, facts)
    assert (caught.value.state, caught.value.trigger) == (state, trigger)
    return caught.value.reason


# step


def test_a_step_takes_the_edge_whose_guards_agree() -> None:
    """'Return the edge that trigger takes from state on these facts'."""
    edge = FORKED.step("first", "turn", TWIN)
    assert (edge.from_state, edge.trigger, edge.to_state) == ("first", "turn", "left")
    assert [guard.name for guard in edge.guards] == ["has_text", "is_duplicate"]


def test_of_several_candidates_the_first_that_agrees_is_taken() -> None:
    """Candidates of one trigger are asked in the order in which they are declared."""
    assert FORKED.step("first", "choose", Facts()).to_state == "left"
    assert FORKED.step("first", "choose", TWIN).to_state == "right"
    both = dataclasses.replace(TWIN, text_chars=0)
    assert FORKED.step("first", "choose", both).to_state == "left"


def test_a_refusal_says_why() -> None:
    """'A refusal says why: unknown trigger, wrong state, which guard'."""
    assert refusal("first", "fly", TEXT) == "unknown_trigger"
    assert refusal("right", "turn", TEXT) == "wrong_state"
    assert refusal("last", "stop", TEXT) == "wrong_state"
    assert refusal("nowhere", "turn", TEXT) == "wrong_state"
    assert refusal("first", "turn", Facts()) == "guard_refused:has_text"
    assert refusal("first", "turn", TEXT) == "guard_refused:is_duplicate"
    assert refusal("first", "choose", TEXT) == "guard_refused:is_duplicate"


def test_a_guard_that_raises_refuses_and_no_later_candidate_is_asked() -> None:
    """'A guard that raises refuses with guard_error:<name>', where the engine would raise."""
    assert refusal("left", "break_", TEXT) == "guard_error:is_broken"


def test_a_refusal_names_what_is_possible_restarts_included() -> None:
    """What to do instead is part of the message."""
    with pytest.raises(TransitionRefused) as caught:
        SHIPPED.step("complete", "finalize", Facts())
    assert str(caught.value) == (
        "'finalize' refused in state 'complete' (wrong_state); possible here: delete, reprocess, "
        "revise"
    )
    with pytest.raises(TransitionRefused) as caught:
        SHIPPED.step("uploaded", "fly", Facts())
    assert str(caught.value) == (
        "'fly' refused in state 'uploaded' (unknown_trigger); possible here: cancel, fail, "
        "mark_duplicate, queue_parse, retry, revise"
    )


def test_a_guard_may_answer_with_any_value() -> None:
    """A guard's truth counts, for ``cond`` and ``unless`` alike, as the engine counts it."""
    assert FORKED.step("left", "end", Facts()).to_state == "last"
    assert refusal("left", "end", Facts(text_chars=2)) == "guard_refused:is_wide"


# advance


def test_the_first_forward_trigger_whose_guards_agree_is_taken() -> None:
    """'Of several forward triggers the first declared whose guards agree is taken'."""
    taken = [FORKED.advance("first", facts) for facts in (TWIN, Facts())]
    assert [edge.trigger for edge in taken if isinstance(edge, Edge)] == ["turn", "choose"]


def test_advance_never_takes_retry_fail_or_cancel() -> None:
    """Failing is no way forward, though those edges are open."""
    assert FORKED.step("first", "cancel", TEXT).to_state == "cancelled"
    assert FORKED.advance("first", TEXT) == "guard_refused:is_duplicate"


def test_advance_says_why_there_is_no_way() -> None:
    """'Why the last one refused'; where nothing leads on, that."""
    assert FORKED.advance("last", TEXT) == "no_forward_trigger"
    assert FORKED.advance("nowhere", TEXT) == "no_forward_trigger"


def test_a_guard_that_raises_shuts_its_trigger_only() -> None:
    """A broken guard refuses its own trigger; the next trigger is asked."""
    edge = FORKED.advance("left", Facts())
    assert isinstance(edge, Edge)
    assert edge.trigger == "end"
    assert FORKED.advance("left", TEXT) == "guard_refused:is_wide"


# Compiled


def test_a_class_is_compiled_with_all_that_it_declares_and_is_given() -> None:
    """States and edges in declared order, guards with what they have to answer, restarts."""

    class Small(Lifecycle):
        come = State(initial=True)
        gone, kept = State(final=True), State(final=True)

        leave = come.to(gone, cond=[has_text, is_duplicate])
        keep = come.to(kept, unless=has_text)

    graph = Small.graph
    assert (graph.name, graph.initial, graph.ends) == ("Small", "come", {"gone", "kept"})
    assert graph.states == ("come", "gone", "kept", "dead_letter", "cancelled", "deleted")
    assert [edge.code for edge in graph.edges] == [
        "come>leave>gone",
        "come>keep>kept",
        "come>retry>come",
        "come>fail>dead_letter",
        "come>cancel>cancelled",
    ]
    assert [[guard.label for guard in edge.guards] for edge in graph.edges] == [
        ["has_text", "is_duplicate"],
        ["not has_text"],
        ["may_retry"],
        ["not may_retry"],
        [],
    ]
    assert graph.edges[1].guards[0] == Guard("has_text", expected=False, function=has_text)
    assert {edge.code for edge in graph.restarts} == {
        ">submit>come",
        "dead_letter>requeue>come",
        "cancelled>requeue>come",
        "gone>reprocess>come",
        "kept>reprocess>come",
        *(f"{state}>revise>come" for state in graph.states),
        *(f"{state}>delete>deleted" for state in ("gone", "kept", "dead_letter", "cancelled")),
    }
    assert len(graph.restarts) == 15
    lines = graph.difference(dataclasses.replace(graph, edges=()))
    assert "only in the code: come>leave>gone [has_text] [is_duplicate]" in lines


def test_a_state_from_which_no_end_is_reached_is_named_with_the_ends_there_are() -> None:
    """``fail`` gives every state an end, so that the engine's own check finds nothing."""
    with pytest.raises(DefinitionError, match="no way forward from lost to gone or kept; add"):

        class Lost(Lifecycle):
            come = State(initial=True)
            lost = State()
            gone, kept = State(final=True), State(final=True)

            leave = come.to(gone)
            keep = come.to(kept)
            lose = come.to(lost)
            stay = lost.to(lost)


# restart


def test_a_restart_begins_the_next_life() -> None:
    """'Restarts begin the next life at the initial state'."""
    assert SHIPPED.restart("dead_letter", "requeue").to_state == "uploaded"
    assert SHIPPED.restart("parse_queued", "revise").to_state == "uploaded"
    assert SHIPPED.restart("complete", "delete").to_state == "deleted"


@pytest.mark.parametrize(
    ("state", "trigger", "reason"),
    [
        ("complete", "requeue", "wrong_state"),
        ("dead_letter", "reprocess", "wrong_state"),
        ("uploaded", "delete", "wrong_state"),
        ("deleted", "reprocess", "wrong_state"),
        ("deleted", "delete", "wrong_state"),
        ("uploaded", "queue_parse", "wrong_state"),
        ("uploaded", "submit", "wrong_state"),
        ("complete", "fly", "unknown_trigger"),
    ],
)
def test_a_restart_that_is_not_declared_is_refused(state: str, trigger: str, reason: str) -> None:
    """'requeue (dead_letter, cancelled), reprocess (every final state that the class declares)'."""
    with pytest.raises(TransitionRefused) as caught:
        SHIPPED.restart(state, trigger)
    error = caught.value
    assert (error.state, error.trigger, error.reason) == (state, trigger, reason)
    assert str(error).endswith(f"possible here: {', '.join(sorted(SHIPPED.possible(state)))}")


# What can be asked about it.


def test_explain_gives_every_trigger_with_each_guards_verdict() -> None:
    """'A guard that raises refuses with guard_error:<name>, and explain shows it'."""
    broken = Verdict(guard="is_broken", holds=False, error="LookupError: no such fact")
    again = Verdict(guard="may_retry", holds=True)
    assert FORKED.explain("left", TEXT) == (
        Option(trigger="break_", to_state="last", verdicts=(broken,)),
        Option(trigger="break_", to_state="right", verdicts=()),
        Option(
            trigger="end", to_state="last", verdicts=(Verdict(guard="not is_wide", holds=False),)
        ),
        Option(trigger="retry", to_state="left", verdicts=(again,)),
        Option(
            trigger="fail",
            to_state="dead_letter",
            verdicts=(Verdict(guard="not may_retry", holds=False),),
        ),
        Option(trigger="cancel", to_state="cancelled", verdicts=()),
        Option(trigger="revise", to_state="first", verdicts=()),
    )


def test_explain_shows_every_guard_not_only_the_first_that_refuses() -> None:
    """'With each guard's verdict': all that has to change is visible at once."""
    turn = FORKED.explain("first", Facts())[0]
    assert [(v.guard, v.holds) for v in turn.verdicts] == [
        ("has_text", False),
        ("is_duplicate", False),
    ]
    assert not turn.is_open


def test_explain_of_a_resting_state_shows_the_restarts() -> None:
    """What people can do with a document at rest."""
    shown = [(o.trigger, o.to_state) for o in SHIPPED.explain("complete", Facts())]
    assert shown == [("reprocess", "uploaded"), ("revise", "uploaded"), ("delete", "deleted")]


def test_asking_a_state_that_is_unknown_gives_nothing() -> None:
    """A state of an older version has no edges here, and nobody works on it."""
    assert FORKED.explain("nowhere", TEXT) == ()
    assert FORKED.possible("nowhere") == ()
    assert FORKED.forward("nowhere") == ()
    assert FORKED.targets("nowhere", "turn") == ()
    assert FORKED.is_resting("nowhere")


def test_triggers_states_and_targets_can_be_looked_up() -> None:
    """Where a trigger is declared and where it may lead."""
    assert FORKED.forward_triggers() == ("turn", "choose", "break_", "end", "stop")
    assert FORKED.targets("first", "choose") == ("left", "right")
    assert FORKED.sources("retry") == ("first", "left", "right")
    assert FORKED.sources("requeue") == ()
    assert SHIPPED.sources("mark_duplicate") == ("uploaded", "parse_complete")
    assert not FORKED.is_resting("first")
    assert all(FORKED.is_resting(state) for state in FORKED.resting)
    assert FORKED.triggers == {
        *("turn", "choose", "break_", "end", "stop", "retry", "fail", "cancel"),
        *("submit", "requeue", "reprocess", "revise", "delete"),
    }


def test_codes_spell_every_legal_step_as_the_database_does() -> None:
    """'A CHECK on coalesce(from_state, '')>trigger>to_state', sorted, restarts included."""
    assert FORKED.codes() == (
        ">submit>first",
        "cancelled>delete>deleted",
        "cancelled>requeue>first",
        "cancelled>revise>first",
        "dead_letter>delete>deleted",
        "dead_letter>requeue>first",
        "dead_letter>revise>first",
        "deleted>revise>first",
        "first>cancel>cancelled",
        "first>choose>left",
        "first>choose>right",
        "first>fail>dead_letter",
        "first>retry>first",
        "first>revise>first",
        "first>turn>left",
        "last>delete>deleted",
        "last>reprocess>first",
        "last>revise>first",
        "left>break_>last",
        "left>break_>right",
        "left>cancel>cancelled",
        "left>end>last",
        "left>fail>dead_letter",
        "left>retry>left",
        "left>revise>first",
        "right>cancel>cancelled",
        "right>fail>dead_letter",
        "right>retry>right",
        "right>revise>first",
        "right>stop>last",
    )


# Stored and read back.


@pytest.mark.parametrize("graph", [SHIPPED, FORKED], ids=["shipped", "forked"])
def test_a_graph_survives_the_way_through_json(graph: Graph) -> None:
    """'A lifecycle as data': what comes back is the same but for the functions."""
    back = Graph.from_json(json.loads(json.dumps(graph.to_json())))
    assert back.to_json() == graph.to_json()
    assert back.fingerprint == graph.fingerprint
    assert back.codes() == graph.codes()
    assert back.difference(graph) == ()
    assert (back.states, back.initial, back.ends) == (graph.states, graph.initial, graph.ends)
    assert back.restart("dead_letter", "requeue") == graph.restart("dead_letter", "requeue")


def test_a_guard_that_is_known_by_name_only_refuses() -> None:
    """'Then the verdict is unknown and counts as a refusal'."""
    back = Graph.from_json(FORKED.to_json())
    assert refusal("first", "turn", TWIN, back) == "guard_error:has_text"
    assert back.step("right", "stop", TWIN).to_state == "last"
    assert back.explain("first", TWIN)[0].verdicts[0] == Verdict(
        guard="has_text", holds=False, error="only known by name here"
    )


def with_edge(number: int, **change: Any) -> Graph:
    """Change one edge of the shipped graph."""
    edges = list(SHIPPED.edges)
    edges[number] = dataclasses.replace(edges[number], **change)
    return dataclasses.replace(SHIPPED, edges=tuple(edges))


CHANGED = {
    "name": dataclasses.replace(SHIPPED, name="Other"),
    "initial": dataclasses.replace(SHIPPED, initial="parse_queued"),
    "ends": dataclasses.replace(SHIPPED, ends=frozenset({"complete"})),
    "order of states": dataclasses.replace(SHIPPED, states=SHIPPED.states[::-1]),
    "an edge less": dataclasses.replace(SHIPPED, edges=SHIPPED.edges[1:]),
    "a restart less": dataclasses.replace(SHIPPED, restarts=SHIPPED.restarts[:-1]),
    "order of edges": dataclasses.replace(SHIPPED, edges=SHIPPED.edges[::-1]),
    "trigger": with_edge(1, trigger="begin_parse"),
    "target": with_edge(1, to_state="parse_complete"),
    "guard": with_edge(0, guards=()),
    "guard's name": with_edge(0, guards=(Guard("is_same", True, None),)),
    "guard's wish": with_edge(0, guards=(Guard("same_bytes", False, None),)),
}


def test_the_fingerprint_changes_when_anything_does() -> None:
    """'Hash of everything that makes two graphs differ'."""
    prints = {name: graph.fingerprint for name, graph in CHANGED.items()}
    assert len({SHIPPED.fingerprint, *prints.values()}) == len(CHANGED) + 1


def test_the_fingerprint_of_the_shipped_lifecycle_is_pinned() -> None:
    """A change refuses to start on every migrated database, so it must be meant."""
    assert SHIPPED.fingerprint == (
        "b0a90efef9ac25c021cf4be6222db65146bd9f8d745be7be72140b37016c346f"
    )


@pytest.mark.parametrize("name", ["an edge less", "order of edges", "guard's wish", "name"])
def test_two_graphs_with_other_fingerprints_always_have_a_difference(name: str) -> None:
    """'A class not among them is refused at start with the difference named', never with none."""
    assert CHANGED[name].difference(SHIPPED) != ()


def test_the_difference_names_edges_on_either_side() -> None:
    """'Say in short lines what this graph has that other lacks, and the reverse'."""
    assert CHANGED["guard's wish"].difference(SHIPPED) == (
        "only in the code: uploaded>mark_duplicate>duplicate [not same_bytes]",
        "only in the database: uploaded>mark_duplicate>duplicate [same_bytes]",
    )
    assert CHANGED["trigger"].difference(SHIPPED) == (
        "only in the code: uploaded>begin_parse>parse_queued",
        "only in the database: uploaded>queue_parse>parse_queued",
    )
    assert CHANGED["name"].difference(SHIPPED) == (
        "named Other in the code, DocumentLifecycle in the database",
    )
    assert CHANGED["order of edges"].difference(SHIPPED) == (
        "the same edges are declared in another order",
    )
    assert SHIPPED.difference(SHIPPED) == ()


def test_the_diagram_of_the_shipped_lifecycle_is_its_main_line() -> None:
    """'Fold retry/fail/cancel into one note, or the README diagram is unreadable'."""
    assert (
        SHIPPED.mermaid()
        == """stateDiagram-v2
    [*] --> uploaded: submit
    uploaded --> duplicate: mark_duplicate [same_bytes]
    uploaded --> parse_queued: queue_parse
    parse_queued --> parse_complete: finish_parse
    parse_complete --> duplicate: mark_duplicate [is_duplicate]
    parse_complete --> parse_validated: accept_parse [has_text, is_unique]
    parse_validated --> chunks_stored: store_chunks [all_chunks_stored]
    chunks_stored --> embedding_queued: queue_embedding
    embedding_queued --> embedding_in_progress: start_embedding
    embedding_in_progress --> embeddings_stored: store_embeddings [all_embeddings_stored]
    embeddings_stored --> complete: finalize
    complete --> [*]
    duplicate --> [*]
    note right of uploaded
        every working state: retry [may_retry],
        fail to dead_letter [not may_retry], cancel to cancelled
    end note
"""
    )
