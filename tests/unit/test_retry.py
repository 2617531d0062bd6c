"""Backoff is arithmetic: schedules, ceilings and draws."""

from __future__ import annotations

import dataclasses
import doctest
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statemachine_pipeline import retry
from statemachine_pipeline.retry import Backoff, Constant, Exponential, Fibonacci, Policy

SCHEDULES: list[Backoff] = [Exponential(), Fibonacci(), Constant()]


def seconds(schedule: Backoff | Policy, *attempts: int, draw: float = 1.0) -> list[float]:
    """Return the delays after these attempts."""
    return [schedule.delay(attempt=n, draw=draw).total_seconds() for n in attempts]


def test_the_defaults_are_five_attempts_and_three_crashes() -> None:
    """'Defaults: 5 attempts, 3 crashes, full jitter over 2 s x 2^n, cap 300 s'."""
    policy = Policy()
    assert (policy.attempts, policy.crashes) == (5, 3)
    assert policy.backoff == Exponential(
        base=timedelta(seconds=2), factor=2, cap=timedelta(seconds=300), jitter="full"
    )
    assert seconds(policy, 1, 2, 3, 8, 9, 2000) == [2, 4, 8, 256, 300, 300]
    assert seconds(policy, 3, draw=0.25) == [2]


def test_the_examples_in_the_docstrings_are_true() -> None:
    """The doctests run, and there are some."""
    failed, tried = doctest.testmod(retry)
    assert (failed, tried) == (0, 3)


@pytest.mark.parametrize(("attempts", "crashes"), [(0, 3), (5, 0), (-1, -1)])
def test_less_than_one_try_or_crash_is_refused(attempts: int, crashes: int) -> None:
    """'Tries at one stage before the document is parked; at least 1'."""
    with pytest.raises(ValueError, match="must be at least 1") as caught:
        Policy(attempts=attempts, crashes=crashes)
    assert str(caught.value) == (
        f"attempts and crashes must be at least 1, got {attempts} and {crashes}"
    )


WRONG: list[tuple[type[Any], dict[str, Any], str]] = [
    (Exponential, {"base": timedelta(seconds=-1)}, "base must lie between 0 and cap"),
    (Exponential, {"base": timedelta(seconds=301)}, "base must lie between 0 and cap"),
    (Exponential, {"factor": 0.5}, "factor must lie between 1 and 100"),
    (Exponential, {"factor": 1e9}, "factor must lie between 1 and 100"),
    (Exponential, {"jitter": "some"}, "jitter must be one of full, equal, none"),
    (Fibonacci, {"cap": timedelta(seconds=1)}, "base must lie between 0 and cap"),
    (Fibonacci, {"jitter": "some"}, "jitter must be one of"),
    (Constant, {"base": timedelta(seconds=-1)}, "base must lie between 0 and cap"),
    (Constant, {"jitter": "some"}, "jitter must be one of"),
    (Policy, {"backoff": timedelta(seconds=2)}, "backoff must be one of Exponential"),
]


@pytest.mark.parametrize(
    ("kind", "values", "message"), WRONG, ids=[f"{n}" for n in range(len(WRONG))]
)
def test_a_number_that_makes_no_sense_is_refused(
    kind: type[Any], values: dict[str, Any], message: str
) -> None:
    """'base must lie between 0 and cap', a factor below one would shorten the waits."""
    with pytest.raises(ValueError, match=message):
        kind(**values)


def test_every_number_of_a_schedule_has_an_effect() -> None:
    """'Every number configurable and tested to have effect'."""
    base, cap = timedelta(seconds=10), timedelta(seconds=35)
    assert seconds(Exponential(base=base), 1, 2, 3) == [10, 20, 40]
    assert seconds(Exponential(factor=3), 1, 2, 3) == [2, 6, 18]
    assert seconds(Exponential(factor=1.5), 1, 2, 3) == [2, 3, 4.5]
    assert seconds(Exponential(base=base, cap=cap), 1, 2, 3, 4) == [10, 20, 35, 35]
    assert seconds(Fibonacci(), 1, 2, 3, 4, 5, 6) == [2, 2, 4, 6, 10, 16]
    assert seconds(Fibonacci(base=base), 1, 2, 3) == [10, 10, 20]
    assert seconds(Fibonacci(base=base, cap=cap), 3, 4, 5, 6) == [20, 30, 35, 35]
    assert seconds(Constant(base=base), 1, 2, 3) == [10, 10, 10]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: type(one).__name__)
def test_jitter_decides_where_a_delay_is_drawn(schedule: Backoff) -> None:
    """'full' from zero, 'equal' from half, 'none' not at all."""
    (whole,) = seconds(schedule, 5)
    drawn = {
        jitter: [
            seconds(dataclasses.replace(schedule, jitter=jitter), 5, draw=draw)[0]
            for draw in (0.0, 0.5)
        ]
        for jitter in ("full", "equal", "none")
    }
    assert drawn == {
        "full": [0, whole / 2],
        "equal": [whole / 2, whole * 3 / 4],
        "none": [whole, whole],
    }


def test_no_wait_at_all_can_be_had() -> None:
    """The bounds themselves are allowed, for any number of attempts."""
    nothing = timedelta(0)
    for schedule in (Exponential(base=nothing), Fibonacci(base=nothing), Constant(base=nothing)):
        assert seconds(Policy(attempts=1, crashes=1, backoff=schedule), 1, 5000) == [0, 0]


@settings(max_examples=50)
@given(
    attempt=st.integers(min_value=1, max_value=200),
    draw=st.floats(min_value=0, max_value=1),
    base=st.integers(min_value=0, max_value=60),
    factor=st.floats(min_value=1, max_value=100),
)
def test_no_delay_is_below_zero_or_above_the_cap(
    attempt: int, draw: float, base: int, factor: float
) -> None:
    """'Longest delay ever', for any attempt and draw."""
    cap, shortest = timedelta(seconds=60), timedelta(seconds=base)
    for schedule in (
        Exponential(base=shortest, factor=factor, cap=cap),
        Fibonacci(base=shortest, cap=cap),
    ):
        assert timedelta(0) <= schedule.delay(attempt=attempt, draw=draw) <= cap
