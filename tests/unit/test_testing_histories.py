"""Histories held against a graph, as the machine and the crash points hold theirs."""

from __future__ import annotations

import pytest

from statemachine_pipeline import Lifecycle, State
from statemachine_pipeline.testing import histories
from statemachine_pipeline.testing.histories import Step


class Letters(Lifecycle):
    """One stage of work."""

    received = State(initial=True)
    sent = State(final=True)

    post = received.to(sent)


def rows(*codes: str, versions: str = "12345", lives: str = "11222") -> list[Step]:
    """Return a history by the codes of its edges."""
    made = []
    for code, version, life in zip(codes, versions, lives, strict=False):
        source, trigger, target = code.split(">")
        row = Step(
            version=int(version),
            life=int(life),
            trigger=trigger,
            from_state=source or None,
            to_state=target,
            attempt=None,
            error=None,
        )
        made.append(row)
    return made


WHOLE = (
    ">submit>received",
    "received>post>sent",
    "sent>reprocess>received",
    "received>cancel>cancelled",
    "cancelled>delete>deleted",
)


def test_a_path_of_the_graph_has_nothing_broken() -> None:
    """'Of which it has to be a path, from ``submit`` on', over all lives and to its removal."""
    steps = rows(*WHOLE)
    assert [histories.code(step) for step in steps] == list(WHOLE)
    assert [*histories.broken(steps, Letters.graph, state="deleted", version=5)] == []


@pytest.mark.parametrize(
    ("steps", "stands", "said"),
    [
        (rows(*WHOLE, versions="12445"), ("deleted", 5), "step 3 says version 4 of life 2, not 2"),
        (rows(*WHOLE, lives="11122"), ("deleted", 5), "step 3 says version 3 of life 1, not 2"),
        (
            rows(WHOLE[0], WHOLE[3], "received>post>sent", lives="111"),
            ("sent", 3),
            "step 3 leaves 'received', and the document stood in 'cancelled'",
        ),
        (
            rows(WHOLE[0], "received>send>sent"),
            ("sent", 2),
            "step 2 is received>send>sent, which Letters does not declare",
        ),
        (rows(">post>sent"), ("sent", 1), "step 1 is >post>sent, which Letters does not declare"),
        (
            rows(WHOLE[0], ">submit>received"),
            ("received", 2),
            "step 2 leaves None, and the document stood in 'received'",
        ),
        (
            rows(*WHOLE[:2]),
            ("received", 2),
            "it stands in 'received' at version 2, and its history ends in 'sent' after 2 steps",
        ),
        (
            rows(*WHOLE[:2]),
            ("sent", 3),
            "it stands in 'sent' at version 3, and its history ends in 'sent' after 2 steps",
        ),
        (
            [],
            ("received", 1),
            "it stands in 'received' at version 1, and its history ends in None after 0 steps",
        ),
    ],
)
def test_each_break_is_named(steps: list[Step], stands: tuple[str, int], said: str) -> None:
    """'Yield what does not hold of the history of one document': each can be found."""
    state, version = stands
    assert [*histories.broken(steps, Letters.graph, state=state, version=version)] == [said]
