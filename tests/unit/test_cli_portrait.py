"""How far a document is, as `show` tells it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from statemachine_pipeline import DocumentLifecycle
from statemachine_pipeline.cli.portrait import leads_to, progress
from statemachine_pipeline.records import Facts, Transition


def walked(*states: str, life: int = 1) -> list[Transition]:
    """Return a history that entered ``states``."""
    return [
        Transition(
            document_id=UUID(int=1),
            version=version,
            life=life,
            generation=1,
            trigger="go",
            from_state=None,
            to_state=state,
            hop=False,
            attempt=1,
            worker=1,
            claim_seq=1,
            by=None,
            reason=None,
            correlation_id="c",
            run_seconds=0.1,
            error=None,
            at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        for version, state in enumerate(states, start=1)
    ]


def test_what_lies_ahead_is_the_main_line() -> None:
    """A retry counts no state twice, and side exits such as duplicate are not expected."""
    steps = progress(DocumentLifecycle.graph, walked("uploaded", "parse_queued", "parse_queued"))
    assert steps.reached == ("uploaded", "parse_queued")
    assert steps.ahead == (
        "parse_complete",
        "parse_validated",
        "chunks_stored",
        "embedding_queued",
        "embedding_in_progress",
        "embeddings_stored",
        "complete",
    )


def test_nothing_lies_ahead_of_a_document_at_rest() -> None:
    """Only the present life counts, and a dead letter expects nothing."""
    history = [*walked("uploaded", "complete"), *walked("uploaded", "dead_letter", life=2)]
    steps = progress(DocumentLifecycle.graph, history)
    assert (steps.reached, steps.ahead) == (("uploaded", "dead_letter"), ())


def test_a_document_that_failed_is_shown_to_begin_anew_and_hop_over_what_is_done() -> None:
    """``explain`` says of the same that 'requeue takes it up where it failed'."""
    options = DocumentLifecycle.graph.explain("dead_letter", Facts())
    to = {option.trigger: leads_to(option) for option in options}
    assert to["requeue"] == "uploaded, and on past what is done"
    assert to["delete"] == "deleted"
