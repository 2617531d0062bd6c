"""Why a document stands where it stands, word for word."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from statemachine import State

from statemachine_pipeline.explain import explain
from statemachine_pipeline.letters import DeadLetter
from statemachine_pipeline.lifecycle import DocumentLifecycle, Lifecycle
from statemachine_pipeline.obstacles import Obstacles, Pause
from statemachine_pipeline.records import Document, Explanation
from statemachine_pipeline.stages import Stage, Stages, by_hand

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
OWNER = UUID(int=9)


async def work(claim: object) -> None:
    """Stand for any hook."""


HOOKS: dict[str, Any] = {
    **dict.fromkeys(DocumentLifecycle.graph.forward_triggers()),
    "finish_parse": Stage(work, attempts=3),
    "store_embeddings": work,
}
STAGES = Stages(DocumentLifecycle.graph, HOOKS)

DOCUMENT = Document(
    id=UUID(int=1),
    tenant="default",
    source_uri="file:///a.txt",
    name="a.txt",
    state="parse_queued",
    version=2,
    generation=1,
    life=1,
    media_type=None,
    size_bytes=3,
    content_sha256="ab",
    input_sha256="ab",
    text_sha256=None,
    text_chars=0,
    chunk_count=4,
    vector_count=3,
    correlation_id="c",
    last_error=None,
    metadata=MappingProxyType({}),
    created_at=NOON,
    updated_at=NOON,
)


def letter(code: str) -> DeadLetter:
    """Return a dead letter with a code."""
    return DeadLetter(
        document_id=DOCUMENT.id,
        tenant="default",
        name="a.txt",
        stage="accept_parse",
        state="parse_complete",
        code=code,
        reason="no",
        attempts=1,
        crashes=0,
        error_type=None,
        traceback=None,
        at=NOON,
    )


def _fault(reason: str) -> Pause:
    """Return a pause that the pipeline itself made."""
    known: dict[str, Any] = {"stage": "finish_parse", "tenant": None, "until": None, "since": NOON}
    return Pause(fault=True, reason=reason, by="pipeline", **known)


def explained(state: str, *, error: str | None = None, **known: Any) -> Explanation:
    """Explain a document of which nothing else is known."""
    unknown = {
        "lane": None,
        "attempt": 0,
        "crashes": 0,
        "worker": None,
        "until": None,
        "owner": None,
    }
    stages = known.pop("stages", STAGES)
    document = dataclasses.replace(DOCUMENT, state=state, last_error=error)
    return explain(stages, document, **(unknown | known))


@pytest.mark.parametrize(
    ("state", "known", "sentence"),
    [
        (
            "dead_letter",
            {"error": "no text on 12 pages: a scan?"},
            "dead_letter: no text on 12 pages: a scan?; `requeue` takes it up where it failed",
        ),
        (
            "dead_letter",
            {"error": "no text on 12 pages: a scan?", "dead_letter": letter("no_text")},
            (
                "dead_letter: no text on 12 pages: a scan? (accept_parse: no_text); "
                "`requeue` takes it up where it failed"
            ),
        ),
        (
            "dead_letter",
            {"error": "refused (guard_refused:x)", "dead_letter": letter("guard_refused:x")},
            (
                "dead_letter: refused (guard_refused:x) (accept_parse); "
                "`requeue` takes it up where it failed"
            ),
        ),
        (
            "cancelled",
            {"error": "wrong customer"},
            "cancelled: wrong customer; `requeue` takes it up where it stopped",
        ),
        (
            "deleted",
            {},
            "deleted: only its history is kept; submitting it again begins a new life",
        ),
        (
            "duplicate",
            {"owner": OWNER},
            f"duplicate: it holds the same as document {OWNER}, and takes over when that one ends",
        ),
        ("complete", {}, "complete: 4 chunks and 3 vectors are published"),
        ("renamed", {}, "renamed: it rests"),
    ],
)
def test_a_document_at_rest_says_why_and_what_can_be_done(
    state: str, known: dict[str, Any], sentence: str
) -> None:
    """'It comes to rest, or anyone can see exactly what it waits for'."""
    found = explained(state, **known)
    assert found.sentence == sentence
    assert found.lane is None


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        (
            {"lane": "ready"},
            "parse_queued: ready for a worker to make attempt 1 of 3 at finish_parse",
        ),
        (
            {"lane": "ready", "attempt": 1, "error": "fell"},
            "parse_queued: ready for a worker to make attempt 2 of 3 at finish_parse, after: fell",
        ),
        (
            {"lane": "deferred", "attempt": 2, "until": NOON, "error": "timed out"},
            (
                "parse_queued: waits until 2026-03-01 12:00:00 UTC for attempt 3 of 3 at "
                "finish_parse, after: timed out"
            ),
        ),
        (
            {"lane": "deferred"},
            "parse_queued: waits until ? for attempt 1 of 3 at finish_parse",
        ),
        (
            {"lane": "claimed", "attempt": 2, "worker": 7, "until": NOON, "error": "timed out"},
            (
                "parse_queued: worker 7 is at finish_parse, attempt 2 of 3, until 2026-03-01 "
                "12:00:00 UTC"
            ),
        ),
    ],
    ids=["ready", "ready again", "deferred", "due at an unknown time", "claimed"],
)
def test_a_working_document_says_who_has_it_or_when_it_is_due(
    known: dict[str, Any], sentence: str
) -> None:
    """'Anyone can see exactly what it waits for', with attempt and stage."""
    assert explained("parse_queued", **known).sentence == sentence


@pytest.mark.parametrize(
    ("error", "known"),
    [
        ("provider 'm' is not asked for now: it fell", {"closed": ("provider 'm' is: it fell",)}),
        ("it fell", {"closed": ("provider 'm' is not asked: 3 in a row, the last: it fell",)}),
        ("it fell", {"pauses": (_fault("it fell"),)}),
    ],
    ids=["refused", "failed", "paused"],
)
def test_what_stands_in_the_way_is_said_once(error: str, known: dict[str, Any]) -> None:
    """The document's own error is the reason why its stage is shut: one of them is enough."""
    found = explained("parse_queued", lane="ready", error=error, obstacles=Obstacles(**known))
    assert found.sentence.count("it fell") == 1
    assert ", after:" not in found.sentence


def test_a_document_that_hops_names_its_trigger() -> None:
    """Where there is nothing to earn the trigger itself says what comes."""
    assert explained("embedding_queued", lane="ready").sentence == (
        "embedding_queued: ready for a worker to make attempt 1 of 5 at start_embedding"
    )


def test_a_document_that_is_held_says_for_what() -> None:
    """'The document waits in lane held, and explain says for whom'."""
    stages = Stages(DocumentLifecycle.graph, HOOKS | {"start_embedding": by_hand})
    assert explained("embedding_queued", lane="held", stages=stages).sentence == (
        "embedding_queued: waits until somebody applies start_embedding"
    )


def test_several_ways_out_are_all_named() -> None:
    """A person may choose among the edges that are kept by hand."""

    class ChosenLifecycle(Lifecycle):
        first = State(initial=True)
        last, other = State(final=True), State(final=True)
        approve = first.to(last)
        reject = first.to(other)

    stages = Stages(ChosenLifecycle.graph, {"approve": by_hand, "reject": by_hand})
    assert explained("first", lane="held", stages=stages).sentence == (
        "first: waits until somebody applies approve or reject"
    )
    # This lifecycle publishes nothing that could be counted.
    assert explained("last", stages=stages).sentence == "last: it rests"


def test_the_rest_of_an_explanation_is_what_is_known() -> None:
    """'In one sentence and in full'."""
    found = explained("parse_queued", lane="claimed", attempt=2, crashes=1, worker=7, until=NOON)
    assert (found.document.state, found.lane, found.attempt) == ("parse_queued", "claimed", 2)
    assert (found.crashes, found.worker, found.until) == (1, 7, NOON)
    assert [option.trigger for option in found.options] == [
        "finish_parse",
        "retry",
        "fail",
        "cancel",
        "revise",
    ]


@pytest.mark.parametrize(
    ("attempt", "crashes", "retry"), [(0, 0, True), (2, 2, True), (3, 0, False), (1, 3, False)]
)
def test_the_options_judge_by_the_stages_own_numbers(
    attempt: int, crashes: int, retry: bool
) -> None:
    """'Every trigger declared for the state, with each guard's verdict'."""
    found = explained("parse_queued", lane="ready", attempt=attempt, crashes=crashes)
    is_open = {option.trigger: option.is_open for option in found.options}
    assert (is_open["retry"], is_open["fail"]) == (retry, not retry)


def test_the_options_know_a_twin() -> None:
    """Whom a document rests on opens and shuts the guards that ask for it."""
    for owner, is_duplicate in ((OWNER, True), (None, False)):
        found = explained("parse_complete", lane="ready", owner=owner)
        assert {o.trigger: o.is_open for o in found.options}["mark_duplicate"] is is_duplicate


PAUSE = Pause(
    stage="finish_parse",
    tenant=None,
    fault=True,
    reason="no key",
    by="pipeline",
    until=NOON,
    since=NOON - timedelta(minutes=5),
)
PAUSED = (
    "stage finish_parse is paused by pipeline since 2026-03-01 11:55:00 UTC, until 2026-03-01 "
    "12:00:00 UTC: no key"
)
TAKEN_OVER = "its documents are taken over once it counts as dead"
OPEN = "the breaker of parser.example is open until 12:00:30: 5 requests failed"


@pytest.mark.parametrize(
    ("lane", "obstacles", "waits_for", "said"),
    [
        ("ready", {}, ("worker",), ""),
        ("ready", {"serving": 2}, ("worker",), ""),
        ("ready", {"serving": 0}, ("worker",), "no worker is alive"),
        (
            "ready",
            {"serving": 2, "all_are_alone": True},
            ("worker",),
            (
                "every live worker for it is alone with a document that took a worker down before, "
                "and takes nothing else until that ends"
            ),
        ),
        (
            "ready",
            {"serving": 0, "silent_seconds": 3.0, "all_are_silent": True},
            ("worker",),
            "no worker is alive: the last sign of life was 3 s ago",
        ),
        ("ready", {"pauses": (PAUSE,), "serving": 2}, ("resume",), PAUSED),
        ("ready", {"closed": (OPEN,)}, ("provider",), OPEN),
        (
            "deferred",
            {"pauses": (PAUSE,), "closed": (OPEN,), "serving": 0, "silent_seconds": 3.0},
            ("time", "resume", "provider", "worker"),
            f"{PAUSED}; {OPEN}; no live worker takes finish_parse",
        ),
        ("claimed", {"holder_silent_seconds": 119.9}, (), ""),
        (
            "claimed",
            {"holder_silent_seconds": 40.2, "holder_is_silent": True, "pauses": (PAUSE,)},
            ("rescue",),
            f"worker 7 has been silent for 40 s; {TAKEN_OVER}",
        ),
        (
            "claimed",
            {"holder_is_dead": True},
            ("rescue",),
            "worker 7 counts as dead; whoever lives takes its documents over",
        ),
        ("held", {"serving": 0}, ("person",), ""),
    ],
    ids=[
        *(
            "free",
            "served",
            "nobody",
            "behind a suspect",
            "nobody any more",
            "paused",
            "closed",
            "all of it",
        ),
        *("beating", "silent", "dead", "held"),
    ],
)
def test_whatever_is_in_the_way_is_said(
    lane: Any, obstacles: dict[str, Any], waits_for: tuple[str, ...], said: str
) -> None:
    """'It comes to rest, or anyone can see exactly what it waits for'."""
    plain = explained("parse_queued", lane=lane, worker=7)
    found = explained("parse_queued", lane=lane, worker=7, obstacles=Obstacles(**obstacles))
    assert found.waits_for == waits_for
    assert found.obstacles == Obstacles(**obstacles)
    assert found.sentence == "; ".join(filter(None, (plain.sentence, said)))


def test_what_is_paused_is_named() -> None:
    """A stage, a tenant, or both."""
    named = [
        dataclasses.replace(PAUSE, stage=stage, tenant=tenant).place
        for stage, tenant in (("s", None), (None, "t"), ("s", "t"))
    ]
    assert named == ["stage s", "tenant t", "stage s for tenant t"]


def test_the_stage_behind_is_what_a_document_waits_for() -> None:
    """Where there is nothing to earn, and where hooks are known by their triggers alone."""
    stored = Stages(
        DocumentLifecycle.graph,
        dict.fromkeys(DocumentLifecycle.graph.forward_triggers()),
        earned=["finish_parse", "store_embeddings"],
    )
    for stages in (STAGES, stored):
        found = [
            explained(state, lane="ready", stages=stages).stages
            for state in ("uploaded", "parse_queued", "chunks_stored", "embedding_in_progress")
        ]
        assert found == [("finish_parse",)] * 2 + [("store_embeddings",)] * 2
    assert explained("complete").stages == ()
