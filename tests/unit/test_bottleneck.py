"""The sentence that names the slowest stage and what limits it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from statemachine_pipeline.database.load import StageLoad
from statemachine_pipeline.obstacles import Pause
from statemachine_pipeline.oversight.bottleneck import bottleneck

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAUSE = Pause(
    stage="embed", tenant=None, fault=False, reason="bill", by="ann", until=None, since=NOON
)
DOWN = "provider 'acme' is not asked until then: 5 failures"
EMPTY = "the budget of provider 'acme' is used up"


def load(stage: str = "embed", **changes: Any) -> StageLoad:
    """Return a stage that one live worker takes."""
    return StageLoad(stage=stage, **({"workers": 1} | changes))


WAITS: dict[str, Any] = {"ready": 3, "ready_seconds": 61.4}
RUNS: dict[str, Any] = {"claimed": 4, "run_seconds": 2.5, "slots": 8}


@pytest.mark.parametrize(
    ("changes", "limit", "why"),
    [
        ({"workers": 0}, "unserved", "no live worker takes it"),
        ({"pauses": (PAUSE,)}, "paused", "paused by ann until somebody resumes it: bill"),
        ({"pauses": (PAUSE,), "workers": 0}, "paused", "paused by ann until somebody resumes it"),
        ({"closed": (DOWN,), "used_up": (EMPTY,)}, "provider", DOWN),
        ({"used_up": (EMPTY,), **RUNS}, "budget", EMPTY),
        (
            {**RUNS, "claimed": 8},
            "slots",
            "all 8 slots are busy; 8 attempts are under way, and one takes 2.50 s",
        ),
        (RUNS, "hook", "4 attempts are under way, and one takes 2.50 s"),
        (
            {**RUNS, "claimed": 1, "alone": 1},
            "alone",
            (
                "1 of 1 worker is alone with a document that took a worker down before, and takes "
                "nothing else until that ends; 1 attempt is under way, and one takes 2.50 s"
            ),
        ),
        (
            {**RUNS, "workers": 3, "alone": 2},
            "hook",
            (
                "4 attempts are under way, and one takes 2.50 s; 2 of 3 workers are each alone "
                "with a document that took a worker down before, and take nothing else until that "
                "ends"
            ),
        ),
        ({"claimed": 1}, "hook", "1 attempt is under way"),
        (
            {"claimed": 1, "suspects": 1},
            "hook",
            (
                "1 attempt is under way; 1 that is ready took a worker down before, and workers "
                "take nothing new until one of them has nothing else in hand"
            ),
        ),
        ({}, "nothing", "nothing stands in their way, and a worker takes them next"),
    ],
)
def test_what_limits_a_stage_is_named(changes: dict[str, Any], limit: str, why: str) -> None:
    """'no worker serves it, paused, provider down, budget used up, all slots busy, hook slow'."""
    found = bottleneck([load("parse"), load(**WAITS | changes)])
    assert (found.stage, found.limit) == ("embed", limit)
    assert found.sentence.startswith(f"embed: 3 are ready, the oldest for 61.4 s: {why}")


def test_the_slowest_stage_is_where_one_has_been_due_for_longest() -> None:
    """However many are ready elsewhere."""
    found = bottleneck(
        [load("parse", ready=900, ready_seconds=2.0), load(ready=1, ready_seconds=3.0)]
    )
    assert found.sentence.startswith("embed: 1 is ready, the oldest for 3.0 s")


def test_where_nothing_is_due_work_under_way_is_named() -> None:
    """And what only waits for its time comes last."""
    busy = load("parse", claimed=2, run_seconds=0.5)
    found = bottleneck([load(deferred=7), busy])
    assert found.sentence == (
        "parse: nothing waits; 2 attempts are under way, and one takes 0.50 s"
    )
    assert bottleneck([load(deferred=7)]).sentence == (
        "embed: nothing is due; 7 wait for their time"
    )
    closed = bottleneck([load(deferred=7, closed=(DOWN,))])
    assert (closed.limit, closed.sentence) == ("provider", f"embed: {DOWN}; 7 wait for their time")


def test_nothing_to_do_is_idle() -> None:
    """'nothing: idle'."""
    for loads in ([], [load(), load("parse", workers=0)]):
        found = bottleneck(loads)
        assert (found.stage, found.limit) == (None, "idle")
        assert found.sentence == "idle: no document waits for a worker"
