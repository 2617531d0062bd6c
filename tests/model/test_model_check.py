"""Every behaviour of a lifecycle is looked through, and whatever is wrong with it is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest
from statemachine import State

from statemachine_pipeline import Lifecycle, by_hand
from statemachine_pipeline.adapters.shipped import shipped_hooks
from statemachine_pipeline.lifecycle import DocumentLifecycle
from statemachine_pipeline.stages import Stages
from statemachine_pipeline.testing import (
    MUTANTS,
    ModelViolated,
    Row,
    assert_mutants_killed,
    model_check,
)
from statemachine_pipeline.testing.modelling.actions import Action
from statemachine_pipeline.testing.modelling.choices import Choices
from statemachine_pipeline.testing.modelling.exploration import Exploration
from statemachine_pipeline.testing.modelling.properties import PROPERTIES, Safety
from statemachine_pipeline.testing.modelling.protocol import AS_BUILT
from statemachine_pipeline.testing.modelling.situations import IDLE, Budget, Situation
from statemachine_pipeline.testing.modelling.steps import Steps

if TYPE_CHECKING:
    from statemachine_pipeline import Facts


def is_short(facts: Facts) -> bool:
    """The hook wants more."""
    return bool(facts.reported.get("short"))


def is_short_at_first(facts: Facts) -> bool:
    """The hook wants more, and has not asked for it often."""
    return bool(facts.reported.get("short")) and facts.attempt < 3


class Collected(Lifecycle):
    """Goes back for more as often as its hook says."""

    waiting = State(initial=True)
    counted = State()
    full = State(final=True)

    count = waiting.to(counted)
    again = counted.to(waiting, cond=is_short)
    finish = counted.to(full)


class Stubborn(Lifecycle):
    """Comes back to the state it leaves, as often as its hook says."""

    waiting = State(initial=True)
    full = State(final=True)

    again = waiting.to.itself(internal=True, cond=is_short)
    finish = waiting.to(full)


class Patient(Lifecycle):
    """Comes back too; its guard reads the attempt, which begins anew each time."""

    waiting = State(initial=True)
    full = State(final=True)

    again = waiting.to.itself(internal=True, cond=is_short_at_first)
    finish = waiting.to(full)


class Leaky(Lifecycle):
    """Has a way past the state that must not be left out."""

    received = State(initial=True)
    cleaned = State()
    shown = State(final=True)

    hurry = received.to(shown, cond=is_short)
    clean = received.to(cleaned)
    show = cleaned.to(shown)


class Signed(Lifecycle):
    """Somebody has to sign."""

    drafted = State(initial=True)
    signed, refused = State(final=True), State(final=True)

    sign = drafted.to(signed)
    refuse = drafted.to(refused)


class Reviewed(Lifecycle):
    """A draft may come back."""

    drafted = State(initial=True)
    reviewed = State()
    accepted = State(final=True)

    submit_draft = drafted.to(reviewed)
    send_back = reviewed.to(drafted, cond=is_short)
    accept = reviewed.to(accepted)


def test_the_shipped_lifecycle_keeps_every_property() -> None:
    """'Safety and liveness', with two workers, two crashes and two duplicates."""
    report = model_check(DocumentLifecycle)
    report.raise_for_violation()
    assert report.violations == ()
    assert report.states > 10_000
    assert str(report).startswith(f"DocumentLifecycle: {report.states:,} states")
    assert str(report).endswith("every property holds")


def test_it_takes_every_edge_from_where_a_document_ever_stands() -> None:
    """A check that never reached an edge would prove nothing of it."""
    graph = DocumentLifecycle.graph
    hooks = {t: h for t, h in shipped_hooks().items() if t in graph.triggers}
    choices = Choices(Stages(graph, hooks))
    steps = Steps(choices, AS_BUILT, tracks=False)
    start = steps.beginning(Situation(Row("", None), Budget(2, 1), (IDLE, IDLE)))
    explored = Exploration(steps, Safety(choices, {}), start)
    taken = [step for at in explored.situations for step in steps.after(at)]
    codes = {edge.code for step in taken for edge in step.edges}
    standing = {at.row.state for at in explored.situations}
    # Nothing is to earn there, nor behind it, so that every walk goes through.
    assert set(graph.states) - standing == {"chunks_stored"}
    edges = (*graph.edges, *graph.restarts)
    assert {edge.code for edge in edges if edge.from_state in standing} - codes == set()
    assert {step.action for step in taken} == set(get_args(Action))


EXPECTED = {
    "settle_without_fence": "legal_history",
    "settle_by_state_alone": "own_claim",
    "repeated_settle_unchecked": "legal_history",
    "lost_answer_settled_blindly": "legal_history",
    "product_outside_settle": "written_once",
    "workers_keep_fence": "new_fence",
    "rescue_keeps_fence": "new_fence",
    "people_keep_fence": "new_fence",
    "claim_of_claimed": "bystanders",
    "attempt_not_counted": "attempts_counted",
    "crash_not_counted": "crashes_counted",
    "wait_counted": "attempts_counted",
    "attempts_kept_on_entry": "attempts_counted",
    "no_rescue": "can_rest",
    "rescue_of_the_living": "bystanders",
    "deferred_never_due": "can_rest",
    "deferred_without_place": "in_place",
    "rest_keeps_place": "in_place",
    "retry_without_budget": "bounded",
    "same_bytes_restart": "same_bytes",
}


def test_every_mutant_of_the_protocol_is_killed() -> None:
    """'Protocol mutants ship with it and every one is killed', each by what it breaks."""
    killed = assert_mutants_killed(DocumentLifecycle)
    assert {name: found.name for name, found in killed.items()} == EXPECTED
    assert max(len(found.story) for found in killed.values()) <= 8
    assert set(killed) == set(MUTANTS)


def test_mutants_that_nothing_notices_are_named() -> None:
    """The killing of mutants can itself fail: where people do everything, nothing is claimed."""
    hooks = {"sign": by_hand, "refuse": by_hand}
    with pytest.raises(AssertionError, match="Signed: nothing notices settle_without_fence, "):
        assert_mutants_killed(Signed, hooks)


def test_a_cycle_without_an_end_is_told_with_the_way_into_it() -> None:
    """'No endless cycle under bounded faults', as a user's own edge may make one."""
    hooks = {"count": _hook, "again": None, "finish": None}
    (endless,) = model_check(Collected, hooks).violations
    assert str(endless) == (
        "no_endless_cycle: no document is worked on for ever under finitely many faults; "
        "this is not so\n"
        "  1. the document is submitted: it is ready at waiting\n"
        "  2. worker 1 claims the document at waiting (attempt 1)\n"
        "  3. worker 1 settles (its hook succeeds): count to counted, any worker may take it\n"
        "  and then again and again:\n"
        "  1. worker 2 claims the document at counted (attempt 1)\n"
        "  2. worker 2 settles (what it needs is there already): again to waiting, "
        "it goes on there\n"
        "  3. worker 2 settles (its hook succeeds): count to counted, any worker may take it\n"
        "  if hooks put an end to that, name an edge of it in bounded=[...]"
    )


def test_a_circle_that_hooks_put_an_end_to_is_said_to_be_one() -> None:
    """'Edges that a life takes finitely often, because hooks count the rounds.'."""
    hooks = {"count": _hook, "again": None, "finish": None}
    model_check(Collected, hooks, bounded=["counted>again>waiting"]).raise_for_violation()
    assert model_check(Collected, hooks, bounded=["counted>finish>full"]).violations
    with pytest.raises(ValueError, match="no edge counted>agian>waiting; there are "):
        model_check(Collected, hooks, bounded=["counted>agian>waiting"])


@pytest.mark.parametrize("lifecycle", [Stubborn, Patient])
def test_a_return_to_the_same_state_has_no_end(lifecycle: type[Lifecycle]) -> None:
    """Attempts are those of one stay: whoever comes back has made none, so no guard ends it."""
    (endless,) = model_check(lifecycle).violations
    assert endless.name == "no_endless_cycle"
    assert endless.again[-1].endswith(
        "(its hook succeeds): again to waiting, any worker may take it"
    )


def test_attempts_are_looked_through_as_far_as_a_guard_reads_them() -> None:
    """Where a forward guard reads the attempt the policy stands; two do elsewhere."""
    stages = Stages(Patient.graph, {"again": _hook, "finish": None})
    assert Choices(stages).policy_at("waiting").attempts == 5
    stages = Stages(Stubborn.graph, {"again": _hook, "finish": None})
    assert Choices(stages).policy_at("waiting").attempts == 2


def test_people_may_send_a_document_back_as_often_as_they_like() -> None:
    """'Everything can rest without help, except by-hand states, which may wait for a person'."""
    hooks = {"submit_draft": _hook, "accept": by_hand, "send_back": by_hand}
    assert model_check(Reviewed, hooks).violations == ()
    own = {"submit_draft": _hook, "accept": None, "send_back": None}
    assert "no_endless_cycle" in [one.name for one in model_check(Reviewed, own).violations]


async def _hook(claim: object) -> None:
    raise AssertionError(claim)


def test_what_users_want_always_is_found_broken_by_the_shortest_way() -> None:
    """'always={name: predicate}' sees the states that a life came through."""

    def is_clean(row: Row) -> bool:
        return row.state != "shown" or "cleaned" in row.passed

    report = model_check(Leaky, always={"only clean ones are shown": is_clean})
    (found,) = report.violations
    assert found.name == "only clean ones are shown"
    assert found.story[1:] == (
        "worker 1 claims the document at received (attempt 1)",
        "worker 1 settles (its hook succeeds): hurry to shown, it rests",
    )
    with pytest.raises(ModelViolated, match="only clean ones are shown") as raised:
        report.raise_for_violation()
    assert raised.value.violations == report.violations
    model_check(Leaky, always={"any": lambda row: True}).raise_for_violation()


def test_what_users_want_sometimes_is_found_missing() -> None:
    """'sometimes={...}' fails when never reached: here by hooks that ask nobody."""

    def is_asked(row: Row) -> bool:
        return row.lane == "held"

    asked = {"somebody is asked": is_asked}
    assert [one.name for one in model_check(Signed, sometimes=asked).violations] == [*asked]
    hooks = {"sign": by_hand, "refuse": by_hand}
    assert model_check(Signed, hooks, sometimes=asked).violations == ()


@pytest.mark.parametrize("workers", [1, 3])
def test_it_holds_for_any_number_of_workers(workers: int) -> None:
    """Workers are alike, so that three of them are not much more than two."""
    model_check(DocumentLifecycle, workers=workers, crashes=1, duplicates=1).raise_for_violation()


def test_nobody_rests_where_nobody_works() -> None:
    """'Everything can rest' is not vacuous."""
    (found,) = model_check(Signed, workers=0, crashes=0, duplicates=0).violations
    assert found.name == "can_rest"


def test_a_mutant_that_is_not_there_is_refused() -> None:
    """An error says what was asked, what there is."""
    with pytest.raises(ValueError, match="no mutant 'none'; there are settle_without_fence"):
        model_check(Signed, mutant="none")
    with pytest.raises(
        TypeError, match="a Lifecycle class is looked through, got a Graph; pass hooks="
    ):
        model_check(Signed.graph)  # type: ignore[arg-type]


def test_every_property_is_broken_by_something_here() -> None:
    """'Every property can fail': by a mutant, or by a lifecycle with a fault."""
    by_lifecycles = {"no_endless_cycle"}
    assert set(PROPERTIES) - set(EXPECTED.values()) - by_lifecycles == {"one_holder"}
    at = Situation(
        Row("waiting", "claimed", 1), Budget(0, 0), (IDLE._replace(is_current=True),) * 2
    )
    stages = Stages(Collected.graph, {"count": _hook, "again": None, "finish": None})
    assert Safety(Choices(stages), {}).of_situation(at) == "one_holder"
