"""``assert_replays``: what a changed class explains of a history, and what it says of the rest."""

from __future__ import annotations

import dataclasses
import itertools
import json
import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from statemachine import State

from statemachine_pipeline import Lifecycle
from statemachine_pipeline.cli.output import jsonable
from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.events import Event
from statemachine_pipeline.records import Transition
from statemachine_pipeline.testing import assert_replays

if TYPE_CHECKING:
    from collections.abc import Iterator

AT = datetime(2026, 1, 31, 8, tzinfo=UTC)
ONE, TWO = UUID(int=1), UUID(int=2)


class Changed(Lifecycle):
    """Two of its states had another name, and one was two."""

    received = State(initial=True)
    read, cut = State(), State()
    kept, done = State(final=True), State(final=True)

    parse = received.to(read)
    split = read.to(cut)
    keep = received.to(kept)
    end = cut.to(done)


STATES = {"parsed": "read", "checked": "read", "stored": "kept"}


def path(document: UUID, *steps: str, version: int = 1) -> list[Transition]:
    """Return a history; each step is an edge as ``from>trigger>to``."""
    rows = []
    for number, step in enumerate(steps, version):
        source, trigger, target = step.split(">")
        rows.append(
            Transition(
                document_id=document,
                version=number,
                life=1,
                generation=1,
                trigger=trigger,
                from_state=source or None,
                to_state=target,
                hop=False,
                attempt=None,
                worker=None,
                claim_seq=None,
                by=None,
                reason=None,
                correlation_id="x",
                run_seconds=None,
                error=None,
                at=AT,
            )
        )
    return rows


WHOLE = path(ONE, ">submit>received", "received>parse>read", "read>split>cut", "cut>end>done")
OLD = path(
    TWO,
    ">submit>received",
    "received>parse>parsed",
    "parsed>retry>parsed",
    "parsed>check>checked",
    "checked>migrate>read",
    "read>split>cut",
)


def complaint(history: Any, **more: Any) -> list[str]:
    """Return the lines of what is wrong with a history."""
    with pytest.raises(AssertionError) as caught:
        assert_replays(history, Changed, **more)
    return str(caught.value).splitlines()


def test_a_history_of_the_class_itself_replays() -> None:
    """The summary counts documents, steps, and how often each edge was taken."""
    found = assert_replays([*WHOLE, *path(TWO, ">submit>received")], Changed)
    assert (found.documents, found.steps) == (2, 5)
    assert found.edges == {
        ">submit>received": 2,
        "received>parse>read": 1,
        "read>split>cut": 1,
        "cut>end>done": 1,
    }


def test_old_states_count_as_those_that_succeed_them() -> None:
    """A step between two that became one is good, and so is the row that ``migrate`` wrote."""
    found = assert_replays(OLD, Changed, states=STATES)
    assert found.edges == {
        ">submit>received": 1,
        "received>parse>read": 1,
        "read>retry>read": 1,
        "read>split>cut": 1,
    }
    # What was no retry of one state is none of its successor.
    looped = path(ONE, ">submit>received", "received>parse>read", "read>look>read")
    assert "read>look>read" in complaint(looped)[1]


def test_each_missing_edge_is_named_once_with_its_count_and_what_to_do() -> None:
    """'Count, one example document and the time', and the option or the edge that is wanted."""
    lost = path(ONE, ">submit>received", "received>keep>stored")
    again = path(TWO, ">submit>received", "received>keep>stored")
    gone = path(UUID(int=3), ">submit>received", "received>drop>done")
    said = f"x, as in document {ONE}, version 2, at {AT};"
    option = 'keep stored, or `migrate --map stored=NEW` and states={"stored": NEW} here'
    last = f"x, as in document {UUID(int=3)}, version 2, at {AT};"
    assert complaint([*lost, *again, *gone]) == [
        "Changed has no such step:",
        f"  received>drop>done: 1 {last} keep 'drop' from 'received'",
        f"  received>keep>stored: 2 {said} {option}",
        "Changed would leave documents where none of its workers looks:",
        f"  stored: 2 {said} {option}",
    ]
    assert complaint([*lost, *again, *gone], states=STATES) == complaint(gone)


def test_a_row_that_migrate_wrote_needs_the_map_too() -> None:
    """Without it nobody could tell why the document changed its state."""
    lines = complaint(OLD)
    assert any(line.startswith("  checked>migrate>read: 1 x") for line in lines)
    assert not any("would leave" in line for line in lines)  # it stands in a known state by now


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([WHOLE[0], WHOLE[2]], "a version does not follow the one before: 1 x"),
        ([WHOLE[0], WHOLE[1], WHOLE[1]], "a version does not follow the one before: 1 x"),
        (
            [WHOLE[0], dataclasses.replace(WHOLE[2], version=2)],
            "a step does not begin where the one before ended: 1 x",
        ),
    ],
)
def test_a_history_with_a_gap_is_broken(rows: list[Transition], found: str) -> None:
    """'Versions contiguous per document', each step from where the one before ended."""
    lines = complaint(rows)
    assert lines[0] == "the history itself is broken:"
    assert lines[1].startswith(f"  {found}, as in document {ONE}")


def test_a_history_may_begin_anywhere_and_documents_may_take_turns() -> None:
    """As events do after a cursor, in which the rows of many documents are mixed."""
    mixed = [row for pair in zip(WHOLE[1:], OLD[3:], strict=True) for row in pair]
    assert assert_replays(mixed, Changed, states=STATES).documents == 2


def test_no_history_shows_nothing() -> None:
    """A query that found nothing would else pass for a proof."""
    assert complaint([]) == ["there was no history, which shows nothing; is it the right one?"]


def test_events_and_the_json_of_show_are_read_too() -> None:
    """'As ``show --json`` prints them'."""
    wanted = assert_replays(WHOLE, Changed)
    events = [Event(name="x", transition=row, cursor="1") for row in WHOLE]
    shown = json.loads(json.dumps({"document": {"id": str(ONE)}, "history": jsonable(WHOLE)}))
    for history in (events, [shown], shown["history"], json.loads(json.dumps(jsonable(events)))):
        assert assert_replays(history, Changed) == wanted


@pytest.mark.parametrize("record", [{"id": str(ONE)}, {"document_id": "x"}, "a row", None])
def test_what_is_no_row_of_history_is_refused(record: Any) -> None:
    """With what to give instead."""
    with pytest.raises(ValueError, match=r"no row of history: .*; give what Pipeline\.history"):
        assert_replays([record], Changed)


@pytest.mark.parametrize("states", [{"read": "cut"}, {"parsed": "reed"}])
def test_a_map_that_migrate_would_refuse_is_refused(states: dict[str, str]) -> None:
    """The test and the migration are told the same."""
    with pytest.raises(DefinitionError, match="cannot move documents from"):
        assert_replays(WHOLE, Changed, states=states)


def test_a_generator_is_never_held() -> None:
    """A history of any length: what is kept is a line per document."""

    def rows(count: int) -> Iterator[dict[str, Any]]:
        yield jsonable(WHOLE[0])
        yield jsonable(WHOLE[1])
        again = jsonable(path(ONE, "read>retry>read")[0])
        for version in itertools.islice(itertools.count(3), count):
            yield again | {"version": version}

    tracemalloc.start()
    try:
        found = assert_replays(rows(20_000), Changed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.documents, found.steps) == (1, 20_002)
    assert peak < 200_000  # bytes; the rows are 20 MB
