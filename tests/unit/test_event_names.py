"""Events are named by what happened, and cursors are read back as they were given."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from statemachine_pipeline import DocumentLifecycle
from statemachine_pipeline.events import BEGINNING, Place, name_of, place_of
from statemachine_pipeline.records import Transition

ID = UUID("5d2f5b0e-5f0a-5c55-9a36-3f1d9f1d2a01")
GRAPH = DocumentLifecycle.graph
NAMES = {
    "submit": "DocumentSubmitted",
    "finish_parse": "DocumentAdvanced",
    "finalize": "DocumentCompleted",
    "mark_duplicate": "DocumentMarkedDuplicate",
    "retry": "DocumentRetried",
    "fail": "DocumentFailed",
    "cancel": "DocumentCancelled",
    "requeue": "DocumentRequeued",
    "reprocess": "DocumentReprocessed",
    "revise": "DocumentRevised",
    "delete": "DocumentDeleted",
}


def taken(trigger: str, from_state: str | None, to_state: str) -> Transition:
    """Return a transition of which only the edge matters."""
    return Transition(
        document_id=ID,
        version=1,
        life=1,
        generation=1,
        trigger=trigger,
        from_state=from_state,
        to_state=to_state,
        hop=False,
        attempt=None,
        worker=None,
        claim_seq=None,
        by=None,
        reason=None,
        correlation_id="c",
        run_seconds=None,
        error=None,
        at=datetime.now(UTC),
    )


@pytest.mark.parametrize(("trigger", "name"), NAMES.items())
def test_an_event_says_in_the_past_tense_what_happened(trigger: str, name: str) -> None:
    """'A trigger goes in; an event is the fact afterwards'."""
    edge = next(e for e in (*GRAPH.edges, *GRAPH.restarts) if e.trigger == trigger)
    assert name_of(GRAPH, taken(trigger, edge.from_state, edge.to_state)) == name


def test_every_edge_has_a_name() -> None:
    """Whatever edge is taken, its event is one of those documented."""
    names = {
        name_of(GRAPH, taken(edge.trigger, edge.from_state, edge.to_state))
        for edge in (*GRAPH.edges, *GRAPH.restarts)
    }
    assert names == set(NAMES.values())


def test_a_cursor_is_read_back_as_it_was_given() -> None:
    """Keep it as text."""
    place = Place(7, ID, 3)
    assert place_of(str(place)) == place
    assert place_of(None) == BEGINNING < place


@pytest.mark.parametrize("cursor", ["", "7", "7:x:3", "a:b:c:d", f"7:{ID}:x"])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    """Instead of beginning somewhere else."""
    with pytest.raises(ValueError, match="is no cursor of events"):
        place_of(cursor)
