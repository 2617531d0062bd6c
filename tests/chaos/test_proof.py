"""The walk through a history that the chaos suite makes, beside the database's own checks."""

from __future__ import annotations

import pytest
import scenario

BORN = (1, 1, "submit", None, "uploaded")
PARSED = (2, 1, "queue_parse", "uploaded", "parse_queued")
CANCELLED = (3, 1, "cancel", "parse_queued", "cancelled")
AGAIN = (4, 2, "requeue", "cancelled", "uploaded")


def test_a_path_of_the_graph_is_legal() -> None:
    """Restarts begin the next life."""
    assert scenario.illegal([BORN, PARSED, CANCELLED, AGAIN]) is None


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([PARSED], "version 2"),
        ([(1, 1, "queue_parse", "uploaded", "parse_queued")], "stood in None"),
        ([BORN, (2, 1, "cancel", "parse_queued", "cancelled")], "stood in uploaded"),
        ([BORN, (2, 1, "finalize", "uploaded", "complete")], "no edge"),
        ([BORN, PARSED, CANCELLED, (4, 1, *AGAIN[2:])], "life 1, not 2"),
        ([BORN, PARSED, PARSED], "version 2"),
        ([BORN, (2, 1, "submit", None, "uploaded")], "stood in uploaded"),
    ],
    ids=["gap", "unborn", "jump", "no-edge", "same-life", "twice", "born-twice"],
)
def test_anything_else_is_not(steps: list[tuple[int, int, str, str | None, str]], why: str) -> None:
    """The reason names the step."""
    problem = scenario.illegal(steps)
    assert problem is not None
    assert why in problem
