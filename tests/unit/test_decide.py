"""An outcome becomes edges and a lane, by arithmetic that anyone can check."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statemachine import State

from statemachine_pipeline.decide import (
    Crashed,
    Decision,
    Earned,
    Failed,
    Parked,
    Postponed,
    Standing,
    Succeeded,
    decide,
    output_sha256,
    resume,
    walk_from,
)
from statemachine_pipeline.lifecycle import (
    DocumentLifecycle,
    Lifecycle,
    all_chunks_stored,
    same_bytes,
)
from statemachine_pipeline.records import (
    Accepted,
    Facts,
    ParsedText,
    Publication,
    Validated,
    sha256_hex,
)
from statemachine_pipeline.retry import Policy
from statemachine_pipeline.stages import Bound, Stages, by_hand

POLICY = Policy(attempts=3, crashes=2)
OWNER = UUID(int=5)
FAULT = Failed(code="timeout", reason="the provider did not answer", detail="read timed out")
EARNING = (
    "queue_parse",
    "finish_parse",
    "accept_parse",
    "store_chunks",
    "store_embeddings",
    "finalize",
)


async def work(claim: object) -> None:
    """Stand for any hook; nothing here runs one."""


def stages_of(cls: type[Lifecycle], **hooks: Any) -> Stages:
    """Bind ``work`` or nothing to every trigger, but what is said."""
    shipped = {t: work if t in EARNING else None for t in cls.graph.forward_triggers()}
    return Stages(cls.graph, shipped | hooks)


STAGES = stages_of(DocumentLifecycle)
HOOKED = {bound.state for bound in STAGES}
WORKING = [
    state for state in DocumentLifecycle.graph.states if DocumentLifecycle.graph.forward(state)
]


def settle(state: str, outcome: Any, facts: Facts | None = None, **more: Any) -> Decision:
    """Decide with this module's policy and a draw of one half."""
    given_ = {"stages": STAGES, "policy": POLICY, "draw": 0.5, "facts": facts or Facts()} | more
    return decide(given_.pop("stages"), state, outcome, given_.pop("facts"), **given_)


def walked(decision: Decision) -> list[tuple[str, bool]]:
    """Return each step's trigger and whether it was a hop."""
    return [(step.edge.trigger, step.hop) for step in decision.steps]


# Failure.


@pytest.mark.parametrize(
    ("attempt", "trigger"), [(1, "retry"), (2, "retry"), (3, "fail"), (4, "fail")]
)
def test_a_failure_is_tried_again_while_attempts_are_left(attempt: int, trigger: str) -> None:
    """'Transient: retry with backoff, attempt counted', up to the stage's attempts."""
    decision = settle("parse_queued", FAULT, Facts(attempt=attempt, attempts_allowed=99))
    assert walked(decision) == [(trigger, False)]
    step = decision.steps[0]
    assert (step.error, step.reason) == ("timeout", "the provider did not answer")
    assert decision.error == "the provider did not answer: read timed out"
    assert not decision.give_back
    assert not decision.crashed
    if trigger == "retry":
        assert (decision.state, decision.lane) == ("parse_queued", "deferred")
    else:
        assert (decision.state, decision.lane) == ("dead_letter", None)


@pytest.mark.parametrize(("crashes", "trigger"), [(0, "retry"), (1, "fail"), (2, "fail")])
def test_a_crash_counts_and_parks_at_the_bound(crashes: int, trigger: str) -> None:
    """'A document that kills its workers is parked after a bounded number of crashes'."""
    decision = settle("parse_queued", Crashed(reason="worker 3 died"), Facts(crashes=crashes))
    assert walked(decision) == [(trigger, False)]
    assert decision.crashed
    assert decision.steps[0].error == "crashed"
    assert decision.error == "worker 3 died"


@pytest.mark.parametrize("is_contained", [True, False])
def test_only_what_took_its_worker_down_is_tried_alone(*, is_contained: bool) -> None:
    """'The next try is made by a worker that holds nothing else', but for children that died."""
    crashed = Crashed(reason="it died", detail="signal 9", is_contained=is_contained)
    decision = settle("parse_queued", crashed)
    assert decision.alone is (not is_contained)
    assert decision.error == "it died: signal 9"


def test_what_is_parked_says_where_how_and_after_how_many_tries() -> None:
    """A dead letter says of the attempt that was the last what lists and groups show."""
    assert settle("parse_queued", FAULT).parked is None
    failed = settle("parse_queued", FAULT, Facts(attempt=3, crashes=1)).parked
    assert failed == Parked(stage="finish_parse", failed=FAULT, attempts=3, crashes=1)
    crashed = settle("parse_queued", Crashed(reason="gone"), Facts(attempt=2, crashes=1)).parked
    assert crashed is not None
    assert (crashed.attempts, crashed.crashes, crashed.failed.code) == (2, 2, "crashed")
    # Where nothing is to be earned, nothing was tried.
    nobody = settle("chunks_stored", FAULT, Facts(attempt=3)).parked
    assert nobody == Parked(stage="queue_embedding", failed=FAULT, attempts=0, crashes=0)
    # The stage is the hook's own, also where it earns the first of several ways out.
    stages = stages_of(CircleLifecycle, go=work, end=work)
    forked = settle("one", FAULT, Facts(attempt=3), stages=stages).parked
    assert forked is not None
    assert forked.stage == "end"


def test_a_crash_at_the_last_attempt_parks_too() -> None:
    """'Rescue takes the same two': attempts bound crashes as they bound failures."""
    decision = settle("parse_queued", Crashed(reason="gone"), Facts(attempt=3))
    assert walked(decision) == [("fail", False)]


def test_a_failure_of_a_document_with_crashes_at_the_bound_parks_it() -> None:
    """'may_retry: attempts left, crashes left': both are needed."""
    assert settle("parse_queued", FAULT, Facts(crashes=1)).lane == "deferred"
    assert settle("parse_queued", FAULT, Facts(crashes=2)).state == "dead_letter"


def test_a_permanent_failure_is_not_tried_again() -> None:
    """'Permanent: fail', at the first attempt."""
    rejected = Failed(code="rejected", reason="no text on 12 pages: a scan?", permanent=True)
    decision = settle("parse_complete", rejected)
    assert (decision.state, decision.lane) == ("dead_letter", None)
    assert decision.steps[0].error == "rejected"
    assert decision.error == "no text on 12 pages: a scan?"


def test_the_backoff_uses_the_draw() -> None:
    """'The delay is drawn evenly between zero and base * 2**(n - 1)'."""
    policy = Policy(attempts=9)
    waits = [
        settle("parse_queued", FAULT, Facts(attempt=3), policy=policy, draw=draw).after
        for draw in (0.0, 0.25, 0.5)
    ]
    assert waits == [timedelta(0), timedelta(seconds=2), timedelta(seconds=4)]


def test_a_hook_may_ask_for_a_longer_wait_but_not_for_a_shorter_one() -> None:
    """'Wait at least this long; the stage's backoff when None'."""
    long = dataclasses.replace(FAULT, after=timedelta(minutes=5))
    short = dataclasses.replace(FAULT, after=timedelta(milliseconds=1))
    assert settle("parse_queued", long).after == timedelta(minutes=5)
    assert settle("parse_queued", short).after == timedelta(seconds=1)


@pytest.mark.parametrize("code", ["waiting", "rate_limited", "stage_fault"])
def test_what_is_postponed_costs_no_attempt(code: Any) -> None:
    """'Waiting: released as deferred, attempt given back'; no row of history is written."""
    outcome = Postponed(code=code, reason="not yet", after=timedelta(seconds=30))
    decision = settle("parse_queued", outcome, Facts(attempt=3))
    assert decision == Decision(
        state="parse_queued",
        lane="deferred",
        after=timedelta(seconds=30),
        give_back=True,
        error="not yet",
    )


@settings(max_examples=50)
@given(
    state=st.sampled_from(WORKING),
    attempt=st.integers(1, 4),
    crashes=st.integers(0, 4),
    permanent=st.booleans(),
    attempts_allowed=st.integers(1, 4),
    crashes_allowed=st.integers(1, 4),
    text_chars=st.integers(0, 1),
)
def test_exactly_one_of_retry_and_fail_is_open(state: str, **facts: Any) -> None:
    """'Exactly one of retry and fail is open', in every working state, for all facts."""
    options = DocumentLifecycle.graph.explain(state, Facts(**facts))
    is_open = {o.trigger: o.is_open for o in options if o.trigger in {"retry", "fail"}}
    assert sorted(is_open) == ["fail", "retry"]
    assert is_open["retry"] != is_open["fail"]


def test_success_takes_the_next_edge_and_the_claim_goes_on_where_admitted() -> None:
    """'settle returns the claim on the next stage if this runner serves it'."""
    decision = settle("parse_queued", Succeeded(), admitted={"parse_complete"}, input_sha256="ab")
    assert walked(decision) == [("finish_parse", False)]
    assert (decision.state, decision.lane) == ("parse_complete", "claimed")
    assert decision.goes_on
    assert decision.input_sha256 == "ab"
    assert decision.error is None
    assert not decision.give_back


def test_success_releases_the_document_where_this_runner_does_not_go_on() -> None:
    """'Otherwise the document is released as ready'."""
    decision = settle("parse_queued", Succeeded())
    assert (decision.state, decision.lane, decision.goes_on) == ("parse_complete", "ready", False)


def test_the_counts_that_the_guards_saw_are_kept() -> None:
    """'What the guards saw when a stage was earned; kept with its product'."""
    facts = Facts(chunks_expected=2, chunks_stored=2, text_chars=9)
    expected = {
        "text_chars": 9,
        "chunks_expected": 2,
        "chunks_stored": 2,
        "vectors_expected": 0,
        "vectors_stored": 0,
    }
    assert settle("parse_validated", Succeeded(), facts).counts == expected
    ended = settle("embeddings_stored", Succeeded(), facts)
    assert (ended.state, ended.counts) == ("complete", expected)
    assert settle("parse_queued", FAULT, facts).counts == {}


def test_a_guard_that_refuses_success_fails_permanently() -> None:
    """'Failed permanently with code guard_refused:<guard>: same input, same facts'."""
    decision = settle("parse_validated", Succeeded(), Facts(chunks_expected=2, chunks_stored=1))
    assert (decision.state, decision.lane) == ("dead_letter", None)
    assert decision.steps[0].error == "guard_refused:all_chunks_stored"
    assert decision.error == (
        "the hook succeeded but no forward guard agreed (guard_refused:all_chunks_stored)"
    )


def is_broken(facts: Facts) -> bool:
    """Raises, as a careless guard would."""
    raise LookupError


def is_clean(facts: Facts) -> bool:
    """Reads what the hook reported."""
    return facts.reported.get("left") == 0


class OddLifecycle(Lifecycle):
    """A guard that raises, one that reads a report, and hops behind both."""

    first = State(initial=True)
    second, third, fourth = State(), State(), State()
    last = State(final=True)

    go = first.to(second, cond=is_clean)
    on = second.to(third, cond=is_clean)
    check = third.to(fourth, cond=is_broken)
    circle = fourth.to(third)
    end = third.to(last) | fourth.to(last)


def test_a_guard_that_raises_fails_permanently() -> None:
    """'A guard that raises refuses with guard_error:<name>'."""
    graph = dataclasses.replace(
        OddLifecycle.graph, edges=tuple(e for e in OddLifecycle.graph.edges if e.trigger != "end")
    )
    stages = Stages(graph, {"go": None, "on": None, "check": work, "circle": None})
    decision = settle("third", Succeeded(), stages=stages)
    assert decision.state == "dead_letter"
    assert decision.steps[0].error == "guard_error:is_broken"


def test_guards_read_what_the_hook_reported() -> None:
    """'A custom guard gets its fact through Done(**reported)', and so do hops behind it."""
    stages = stages_of(OddLifecycle, go=work, end=work)
    clean = settle("first", Succeeded(reported={"left": 0}), stages=stages, admitted={"third"})
    assert walked(clean) == [("go", False), ("on", True)]
    assert (clean.state, clean.lane) == ("third", "claimed")
    dirty = settle("first", Succeeded(reported={"left": 3}), stages=stages)
    assert dirty.steps[0].error == "guard_refused:is_clean"


# The walk where there is nothing to earn.


CHUNKED = Facts(chunks_expected=1, chunks_stored=1)


def test_the_walk_stops_before_embedding_where_it_is_not_admitted() -> None:
    """'The walk stops here, released as ready, when this runner does not serve' embedding."""
    decision = settle("parse_validated", Succeeded(), CHUNKED)
    assert walked(decision) == [("store_chunks", False), ("queue_embedding", True)]
    assert (decision.state, decision.lane) == ("embedding_queued", "ready")


def test_the_walk_goes_into_embedding_where_it_is_admitted() -> None:
    """'One settle walks all hops', into the state whose stage this runner goes on with."""
    decision = settle("parse_validated", Succeeded(), CHUNKED, admitted={"embedding_in_progress"})
    assert walked(decision) == [
        ("store_chunks", False),
        ("queue_embedding", True),
        ("start_embedding", True),
    ]
    assert (decision.state, decision.lane) == ("embedding_in_progress", "claimed")


def test_an_edge_kept_by_hand_holds_the_document() -> None:
    """'by_hand: the document waits in lane held'."""
    stages = stages_of(DocumentLifecycle, start_embedding=by_hand)
    decision = settle("parse_validated", Succeeded(), CHUNKED, stages=stages, admitted=HOOKED)
    assert (decision.state, decision.lane) == ("embedding_queued", "held")
    assert walked(decision)[-1] == ("queue_embedding", True)


def test_a_hop_whose_guard_refuses_parks_the_document() -> None:
    """Nothing can be earned there, so another try could not help; the stage itself is kept."""
    stages = stages_of(OddLifecycle, go=None, on=work, end=None, check=None)
    decision = settle("second", Succeeded(reported={"left": 0}), stages=stages)
    assert walked(decision) == [("on", False), ("end", True)]
    graph = dataclasses.replace(
        OddLifecycle.graph, edges=tuple(e for e in OddLifecycle.graph.edges if e.trigger != "end")
    )
    stages = Stages(graph, {"go": None, "on": work, "check": None, "circle": None})
    decision = settle("second", Succeeded(reported={"left": 0}), stages=stages, input_sha256="ab")
    assert walked(decision) == [("on", False), ("fail", False)]
    assert (decision.state, decision.lane) == ("dead_letter", None)
    assert decision.steps[-1].error == "guard_error:is_broken"
    assert (decision.input_sha256, decision.counts["text_chars"]) == ("ab", 0)


class CircleLifecycle(Lifecycle):
    """Two states that lead to each other as long as there are no chunks."""

    first = State(initial=True)
    one, two = State(), State()
    last = State(final=True)

    go = first.to(one)
    end = one.to(last, cond=all_chunks_stored)
    there = one.to(two)
    back = two.to(one)


def test_hops_in_a_circle_end() -> None:
    """'It comes to rest': with the same facts the walk would never end, so it is a failure."""
    stages = stages_of(CircleLifecycle, go=work)
    decision = settle("first", Succeeded(), stages=stages)
    assert walked(decision) == [("go", False), ("there", True), ("fail", False)]
    assert decision.steps[-1].error == "hops_in_a_circle"
    assert decision.error == "nothing to earn here, yet no way forward (hops_in_a_circle)"
    assert settle("first", Succeeded(), CHUNKED, stages=stages).state == "last"
    resumed = walk("one", earned={}, stages=stages)
    assert resumed is not None
    assert walked(resumed) == [("there", True), ("fail", False)]


def test_an_edge_that_somebody_asks_for_is_followed_where_nothing_is_to_be_earned() -> None:
    """'Take an edge that somebody asked for, and those behind it', on the facts there are."""
    stages = stages_of(OddLifecycle, go=None, on=work, end=None, check=None)
    edge = stages.graph.step("second", "on", Facts(reported={"left": 0}))
    decision = walk_from(stages, edge, Facts(text_chars=1))
    assert walked(decision) == [("on", False), ("end", True)]
    assert (decision.state, decision.lane, decision.input_sha256) == ("last", None, None)
    stages = stages_of(CircleLifecycle, go=by_hand)
    edge = stages.graph.step("first", "go", Facts())
    assert walked(walk_from(stages, edge, CHUNKED)) == [("go", False), ("end", True)]
    assert walk_from(stages, edge, Facts()).steps[-1].error == "hops_in_a_circle"
    stored = STAGES.graph.step("parse_validated", "store_chunks", CHUNKED)
    before = walk_from(STAGES, stored, CHUNKED)  # nobody is there to go on into a stage
    assert walked(before) == [("store_chunks", False), ("queue_embedding", True)]
    assert (before.state, before.lane) == ("embedding_queued", "ready")


def test_a_duplicate_rests_on_its_owner() -> None:
    """'duplicate_of lists who rests on whom', and by what."""
    for state, kind in (("uploaded", "bytes"), ("parse_complete", "text")):
        facts = Facts(duplicate_of=OWNER, duplicate_by=kind, text_chars=3)  # type: ignore[arg-type]
        decision = settle(state, Succeeded(), facts)
        assert walked(decision) == [("mark_duplicate", False)]
        assert (decision.state, decision.lane) == ("duplicate", None)
        assert (decision.duplicate_of, decision.duplicate_by) == (OWNER, kind)


def test_who_is_no_duplicate_rests_on_nobody() -> None:
    """A document that completes keeps no owner, whatever its facts say."""
    facts = Facts(duplicate_of=OWNER, duplicate_by="bytes")
    decision = settle("embeddings_stored", Succeeded(), facts, input_sha256="out")
    assert decision.input_sha256 == "out"  # its product is kept, for the next life
    assert (decision.state, decision.duplicate_of, decision.duplicate_by) == (
        "complete",
        None,
        None,
    )


# Hops over what is current.

KINDS = {
    "queue_parse": "none",
    "finish_parse": "text",
    "accept_parse": "none",
    "store_chunks": "chunks",
    "store_embeddings": "vectors",
    "finalize": "publication",
}
OUTPUTS = {
    "queue_parse": "bytes",
    "finish_parse": "text",
    "accept_parse": "text",
    "store_chunks": "chunks",
    "store_embeddings": "vectors",
    "finalize": "vectors",
}


def earlier(stages: Stages = STAGES, **changes: dict[str, Any]) -> dict[str, Earned]:
    """Return what a whole earlier life earned; ``changes`` by trigger."""
    earned, read = {}, "bytes"
    for bound in stages:
        trigger = bound.trigger
        made = Earned(
            stage=trigger,
            input_sha256=read,
            fingerprint=bound.fingerprint,
            output_sha256=OUTPUTS[trigger],
            kind=KINDS[trigger],  # type: ignore[arg-type]
            key={"queue_parse": ("bytes", "b"), "accept_parse": ("text", "t")}.get(trigger),  # type: ignore[arg-type]
            facts={
                "text_chars": 5,
                "chunks_expected": 2,
                "chunks_stored": 2,
                "vectors_expected": 2,
                "vectors_stored": 2,
            },
        )
        earned[trigger] = dataclasses.replace(made, **changes.get(trigger, {}))
        read = OUTPUTS[trigger]
    return earned


ALL_THERE = {
    "text": {"text"},
    "chunks": {"chunks"},
    "vectors": {"vectors"},
    "publication": {"vectors"},
}


def walk(
    state: str = "uploaded",
    earned: dict[str, Earned] | None = None,
    read: str = "bytes",
    **more: Any,
) -> Decision | None:
    """Resume a claimed document; all data of its earlier life is there unless said."""
    standing = Standing(
        earned=earlier() if earned is None else earned,
        present=ALL_THERE | more.pop("present", {}),
        owners=more.pop("owners", {}),
    )
    stages = more.pop("stages", STAGES)
    facts = more.pop("facts", Facts())
    admitted = more.pop("admitted", HOOKED)
    return resume(stages, state, facts, input_sha256=read, standing=standing, admitted=admitted)


MAIN_LINE = [
    "queue_parse",
    "finish_parse",
    "accept_parse",
    "store_chunks",
    "queue_embedding",
    "start_embedding",
    "store_embeddings",
    "finalize",
]


def hops(decision: Decision | None) -> list[str]:
    """Return the triggers hopped over; every step must be a hop."""
    assert decision is not None
    assert all(step.hop for step in decision.steps)
    return [step.edge.trigger for step in decision.steps]


def test_a_document_whose_products_are_all_current_walks_to_complete() -> None:
    """'Compares products, and one settle walks all hops'."""
    decision = walk()
    assert hops(decision) == MAIN_LINE
    assert decision is not None
    assert (decision.state, decision.lane) == ("complete", None)


def test_there_is_nothing_to_hop_without_products() -> None:
    """'None when the document's own stage has to be run'."""
    assert walk(earned={}) is None
    assert walk(read="other bytes") is None
    assert walk("parse_complete", earned={}, read="text") is None


@pytest.mark.parametrize("changed", [t for t in MAIN_LINE if t in EARNING][1:])
@pytest.mark.parametrize("what", ["input_sha256", "fingerprint"])
def test_the_walk_stops_at_the_first_changed_stage(changed: str, what: str) -> None:
    """'reprocess stops at the first stage whose input or fingerprint changed'."""
    decision = walk(earned=earlier(**{changed: {what: "another"}}))
    assert hops(decision) == MAIN_LINE[: MAIN_LINE.index(changed)]
    assert decision is not None
    assert (decision.lane, decision.give_back) == ("claimed", False)
    before = MAIN_LINE[MAIN_LINE.index(changed) - 1]
    if before in OUTPUTS:
        assert decision.input_sha256 == OUTPUTS[before]
    else:
        assert decision.input_sha256 == "chunks"


@pytest.mark.parametrize(
    ("kind", "stops_at"),
    [("text", "finish_parse"), ("chunks", "store_chunks"), ("vectors", "store_embeddings")],
)
def test_the_walk_stops_where_data_is_gone(kind: str, stops_at: str) -> None:
    """'Its data still in parsed_document, chunk_buffer or chunk, vector_buffer or chunk_vector'."""
    decision = walk(present={kind: set()})
    assert hops(decision) == MAIN_LINE[: MAIN_LINE.index(stops_at)]


def test_the_walk_stops_before_what_is_not_published_any_more() -> None:
    """A publication counts as current only while readers see it."""
    assert hops(walk(present={"publication": set()})) == MAIN_LINE[:-1]


class RedactedLifecycle(Lifecycle):
    """Two stages write a text, and one makes chunks in between."""

    uploaded = State(initial=True)
    parsed, cut, cleaned = State(), State(), State()
    done = State(final=True)

    finish_parse = uploaded.to(parsed)
    store_chunks = parsed.to(cut)
    redact = cut.to(cleaned)
    finalize = cleaned.to(done)


REDACTED = stages_of(RedactedLifecycle, redact=work)


def redacted(**present: set[str]) -> Decision | None:
    """Resume where a later stage replaced the parser's text."""
    kinds = {"finish_parse": "text", "store_chunks": "chunks", "redact": "text", "finalize": "none"}
    outputs = {"finish_parse": "raw", "store_chunks": "chunks", "redact": "clean", "finalize": "x"}
    earned, read = {}, "bytes"
    for bound in REDACTED:
        earned[bound.trigger] = Earned(
            stage=bound.trigger,
            input_sha256=read,
            fingerprint=bound.fingerprint,
            output_sha256=outputs[bound.trigger],
            kind=kinds[bound.trigger],  # type: ignore[arg-type]
        )
        read = outputs[bound.trigger]
    standing = Standing(earned=earned, present=present, owners={})  # type: ignore[arg-type]
    return resume(
        REDACTED,
        "uploaded",
        Facts(),
        input_sha256="bytes",
        standing=standing,
        admitted={bound.state for bound in REDACTED},
    )


def test_a_replaced_text_counts_while_its_replacement_does() -> None:
    """'A ParsedText product replaces the generation's earlier text': only the newest is stored."""
    everything = redacted(text={"clean"}, chunks={"chunks"})
    assert hops(everything) == ["finish_parse", "store_chunks", "redact", "finalize"]


def test_a_text_that_was_replaced_is_made_again_when_a_stage_behind_it_has_to_run() -> None:
    """A cut for lost chunks leaves the raw text as the newest, and that one is gone."""
    assert redacted(text={"clean"}, chunks=set()) is None
    assert hops(redacted(text={"raw"}, chunks={"chunks"})) == ["finish_parse", "store_chunks"]


def test_a_duplicate_is_found_while_hopping() -> None:
    """'Locks that row': who owns the same text meanwhile is who this one rests on."""
    decision = walk(owners={("text", "t"): OWNER})
    assert hops(decision) == ["queue_parse", "finish_parse", "mark_duplicate"]
    assert decision is not None
    assert (decision.state, decision.lane) == ("duplicate", None)
    assert (decision.duplicate_of, decision.duplicate_by) == (OWNER, "text")
    by_bytes = walk(owners={("bytes", "b"): OWNER})
    assert hops(by_bytes) == ["mark_duplicate"]
    assert by_bytes is not None
    assert (by_bytes.duplicate_of, by_bytes.duplicate_by) == (OWNER, "bytes")


def test_hops_do_not_go_into_a_stage_this_runner_does_not_serve() -> None:
    """'A CPU fleet hands over to an embedding fleet here', also after a requeue."""
    vectors_gone = {"vectors": set[str]()}
    decision = walk(present=vectors_gone, admitted=HOOKED - {"embedding_in_progress"})
    assert hops(decision) == MAIN_LINE[: MAIN_LINE.index("start_embedding")]
    assert decision is not None
    assert (decision.state, decision.lane) == ("embedding_queued", "ready")


def test_a_document_that_waits_before_embedding_is_taken_in() -> None:
    """'A document that waits where there is nothing to earn is claimed for the stage behind'."""
    decision = walk("embedding_queued", earned={}, read="chunks")
    assert hops(decision) == ["start_embedding"]
    assert decision is not None
    assert (decision.state, decision.lane, decision.give_back) == (
        "embedding_in_progress",
        "claimed",
        False,
    )


def test_a_claim_that_cannot_go_on_is_given_back() -> None:
    """'Give a claim back unspent': nothing was done, so no attempt counts."""
    decision = walk("embedding_queued", earned={}, read="chunks", admitted=())
    assert decision is not None
    assert (decision.steps, decision.lane, decision.give_back) == ((), "ready", True)


def test_a_document_that_is_held_stays_held() -> None:
    """'Only apply takes this edge', whatever a claim finds."""
    stages = stages_of(DocumentLifecycle, start_embedding=by_hand)
    decision = walk("embedding_queued", earned={}, read="chunks", stages=stages)
    assert decision is not None
    assert (decision.steps, decision.lane) == ((), "held")
    assert hops(walk(stages=stages, earned=earlier(stages)))[-1] == "queue_embedding"


def test_hops_see_the_facts_of_the_stage_they_follow() -> None:
    """A guard behind a stage that is hopped over reads what it read when the stage was run."""
    stages = stages_of(OddLifecycle, go=work, end=work)
    bound = stages.at("first")
    assert isinstance(bound, Bound)
    earned = Earned(
        stage="go",
        input_sha256="bytes",
        fingerprint=bound.fingerprint,
        output_sha256="out",
        kind="other",
        reported={"left": 0},
    )
    decision = walk("first", earned={"go": earned}, stages=stages, admitted={"third"})
    assert hops(decision) == ["go", "on"]
    assert decision is not None
    assert (decision.state, decision.lane, decision.input_sha256) == ("third", "claimed", "out")


def test_where_there_is_no_hook_guards_see_the_stage_that_led_there() -> None:
    """Not whichever was run last: an earlier stage may have been run anew, and this one hopped."""
    stages = stages_of(OddLifecycle, go=work, end=work)
    led = Earned(
        stage="go",
        input_sha256="bytes",
        fingerprint="hook",
        output_sha256="out",
        kind="other",
        reported={"left": 0},
    )
    other = dataclasses.replace(led, stage="end", input_sha256="out", reported={"left": 3})
    older = dataclasses.replace(other, output_sha256="older")
    for last in (other, older):
        earned = {"go": led, "end": last}
        decision = walk("second", earned, "out", stages=stages, admitted={"third"})
        assert hops(decision) == ["on"]


def test_a_guard_is_asked_again_on_what_was_counted_then() -> None:
    """A product whose guard would refuse today is not hopped over."""
    lost = {"store_chunks": {"facts": {"chunks_expected": 2, "chunks_stored": 1}}}
    assert hops(walk(earned=earlier(**lost))) == MAIN_LINE[:3]


class KeyedLifecycle(Lifecycle):
    """A state without a hook from which guards of several kinds lead on, and a hook behind."""

    first = State(initial=True)
    second, third = State(), State()
    twin, last = State(final=True), State(final=True)

    go = first.to(second)
    mark_duplicate = second.to(twin, cond=same_bytes)
    on = second.to(third, cond=all_chunks_stored)
    end = third.to(last)


KEYED = stages_of(KeyedLifecycle, go=work, end=work)


def keyed(**changes: Any) -> dict[str, Earned]:
    """Return what an earlier life of a keyed document earned; ``changes`` of its first stage."""
    stage = KEYED.at("first")
    assert stage is not None
    went = Earned(
        stage="go",
        input_sha256="bytes",
        fingerprint=stage.fingerprint,
        output_sha256="out",
        kind="none",
        key=("bytes", "b"),
        facts={"chunks_expected": 1, "chunks_stored": 1},
    )
    ended = dataclasses.replace(went, stage="end", input_sha256="out", key=None)
    return {"go": dataclasses.replace(went, **changes), "end": ended}


def test_a_stage_behind_a_hop_is_hopped_over_too() -> None:
    """'One settle walks all hops': also those through states where nothing is to be earned."""
    decision = walk("first", keyed(), stages=KEYED)
    assert hops(decision) == ["go", "on", "end"]


def test_whom_a_document_rests_on_is_seen_where_there_is_no_hook() -> None:
    """Another may have taken its key while it waited there."""
    decision = walk("second", keyed(), "out", stages=KEYED, owners={("bytes", "b"): OWNER})
    assert hops(decision) == ["mark_duplicate"]
    assert decision is not None
    assert (decision.duplicate_of, decision.duplicate_by) == (OWNER, "bytes")


def test_a_hop_that_is_refused_while_resuming_parks_the_document() -> None:
    """As it does after a stage that was run."""
    decision = walk("second", {"go": keyed(facts={})["go"]}, "out", stages=KEYED)
    assert decision is not None
    assert walked(decision) == [("fail", False)]
    assert decision.steps[0].error == "guard_refused:all_chunks_stored"


def test_guards_see_the_newest_product_where_none_led_to_what_is_read() -> None:
    """Its input was changed by hand, say: better the newest facts than none."""
    earned = {"go": keyed()["go"]}
    decision = walk("second", earned, "another", stages=KEYED, admitted={"third"})
    assert decision is not None
    assert (walked(decision), decision.state) == ([("on", True)], "third")


def test_data_of_which_nothing_is_known_counts_as_gone() -> None:
    """A kind that is not among what is stored is made again, like one that was changed."""
    standing = Standing(earned=earlier(), present={}, owners={})
    decision = resume(
        STAGES, "uploaded", Facts(), input_sha256="bytes", standing=standing, admitted=HOOKED
    )
    assert hops(decision) == ["queue_parse"]


# What later stages read.


def test_what_later_stages_read_is_hashed_by_the_product_or_follows_from_the_input() -> None:
    """'Any other counts as changed exactly when its input or hook did'."""
    bound = STAGES.at("parse_queued")
    assert isinstance(bound, Bound)
    text = ParsedText("abc")
    assert output_sha256(bound, "in", text) == text.sha256
    assert output_sha256(bound, "in", None) == "in"
    key = Accepted(media_type="text/plain", sha256="ab")
    assert output_sha256(bound, "in", key) == "ab"
    assert output_sha256(bound, "in", Validated(text_sha256="ab")) == "in"
    other = output_sha256(bound, "in", object())
    assert other == output_sha256(bound, "in", object())
    assert other != output_sha256(bound, "other in", object())
    changed = dataclasses.replace(bound, fingerprint="hook#2")
    assert other != output_sha256(changed, "in", object())
    assert other == sha256_hex(f"finish_parse:{bound.fingerprint}:in")
    assert output_sha256(bound, "in", Publication()) != "in"
