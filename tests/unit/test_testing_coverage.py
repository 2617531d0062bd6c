"""Coverage of a lifecycle: what is counted, what is missing, and how counts are put together."""

from __future__ import annotations

import pytest

from statemachine_pipeline import DocumentLifecycle, Facts, Lifecycle, State
from statemachine_pipeline.graph import Edge
from statemachine_pipeline.testing import Coverage


def is_long(facts: Facts) -> bool:
    """There is much text."""
    return facts.text_chars > 100


class Notes(Lifecycle):
    """Short and long notes."""

    written = State(initial=True)
    shelved, pinned = State(final=True), State(final=True)

    shelve = written.to(shelved, cond=is_long)
    pin = written.to(pinned)


LONG, SHORT = Facts(text_chars=101), Facts(text_chars=100)


def everything(coverage: Coverage) -> None:
    """Take every edge of one life, by both verdicts of every guard."""
    for facts in (LONG, SHORT):
        coverage.graph.advance("written", facts)
    for attempt, trigger in ((1, "retry"), (5, "fail"), (1, "cancel")):
        coverage.graph.step("written", trigger, Facts(attempt=attempt, attempts_allowed=5))


def test_it_decides_as_the_plain_graph_does() -> None:
    """'It decides the same, so nothing of the library knows that it is watched.'."""
    coverage, plain = Coverage(Notes.graph), Notes.graph
    assert coverage.graph.fingerprint == plain.fingerprint
    for facts in (LONG, SHORT):
        found = coverage.graph.advance("written", facts)
        wanted = plain.advance("written", facts)
        assert isinstance(found, Edge)
        assert isinstance(wanted, Edge)
        assert found.code == wanted.code
        assert coverage.graph.explain("written", facts) == plain.explain("written", facts)


def test_edges_and_verdicts_are_counted_and_the_rest_is_missing() -> None:
    """'Edges taken, and guards that said yes and no.'."""
    coverage = Coverage(Notes.graph)
    coverage.graph.explain("written", LONG)
    assert (coverage.percent, len(coverage.missing)) == (0.0, 11)
    coverage.graph.advance("written", SHORT)
    assert coverage.edges == {"written>pin>pinned": 1}
    assert coverage.verdicts == {("written>shelve>shelved", "is_long", False): 1}
    assert "never agreed: is_long of written>shelve>shelved" in coverage.missing
    everything(coverage)
    assert (coverage.percent, coverage.missing) == (100.0, ())
    assert coverage.states["pinned"] == 2


def test_retry_and_fail_are_one_question() -> None:
    """Which of the two it is was explained before, so both guards count as asked."""
    coverage = Coverage(Notes.graph)
    coverage.graph.step("written", "fail", Facts(permanent=True))
    assert coverage.edges == {"written>fail>dead_letter": 1}
    assert coverage.verdicts == {
        ("written>fail>dead_letter", "not may_retry", True): 1,
        ("written>retry>written", "may_retry", False): 1,
    }


def test_restarts_are_counted_apart() -> None:
    """'Restarts are counted too, and missed by nobody.'."""
    coverage = Coverage(Notes.graph)
    coverage.graph.restart("pinned", "reprocess")
    assert coverage.restarts == {"pinned>reprocess>written": 1}
    assert coverage.states["written"] == 1
    assert coverage.percent == 0.0
    assert not any("reprocess" in line for line in coverage.missing)


def test_counts_of_several_processes_are_added() -> None:
    """'Count what another process has counted on the same lifecycle.'."""
    coverage, other = Coverage(Notes.graph), Coverage(Notes.graph)
    coverage.graph.advance("written", LONG)
    everything(other)
    coverage.add(other.to_json())
    assert coverage.missing == ()
    assert coverage.edges["written>shelve>shelved"] == 2
    assert coverage.verdicts["written>shelve>shelved", "is_long", True] == 2


def test_counts_of_another_lifecycle_are_refused() -> None:
    """'It was another lifecycle, or another version of it.'."""
    with pytest.raises(ValueError, match="counted on another DocumentLifecycle"):
        Coverage(Notes.graph).add(Coverage(DocumentLifecycle.graph).to_json())
