"""Backoff is arithmetic: bounds, ceilings and draws."""

from __future__ import annotations

import doctest
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statemachine_pipeline import retry
from statemachine_pipeline.retry import Policy


def test_the_defaults_are_five_attempts_and_three_crashes() -> None:
    """'Defaults: 5 attempts, 3 crashes, full jitter over 2 s x 2^n, cap 300 s'."""
    policy = Policy()
    assert (policy.attempts, policy.crashes) == (5, 3)
    assert (policy.base, policy.cap) == (timedelta(seconds=2), timedelta(seconds=300))


def test_the_example_in_the_docstring_is_true() -> None:
    """The doctest of ``Policy`` runs, and there is one."""
    failed, tried = doctest.testmod(retry)
    assert (failed, tried) == (0, 2)


@pytest.mark.parametrize(("attempts", "crashes"), [(0, 3), (5, 0), (-1, -1)])
def test_less_than_one_try_or_crash_is_refused(attempts: int, crashes: int) -> None:
    """'Tries at one stage before the document is parked; at least 1'."""
    with pytest.raises(ValueError, match="must be at least 1") as caught:
        Policy(attempts=attempts, crashes=crashes)
    assert str(caught.value) == (
        f"attempts and crashes must be at least 1, got {attempts} and {crashes}"
    )


@pytest.mark.parametrize(("base", "cap"), [(-1, 300), (301, 300)])
def test_a_base_outside_zero_and_cap_is_refused(base: int, cap: int) -> None:
    """'Longest delay ever' is no shorter than the longest after the first failure."""
    with pytest.raises(ValueError, match="base must lie between 0 and cap"):
        Policy(base=timedelta(seconds=base), cap=timedelta(seconds=cap))


def test_one_try_and_one_crash_are_enough() -> None:
    """The bounds themselves are allowed."""
    policy = Policy(attempts=1, crashes=1, base=timedelta(0), cap=timedelta(0))
    assert policy.delay(attempt=1, draw=1.0) == timedelta(0)


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    """'Evenly between zero and base * 2**(n - 1), at most cap'."""
    ceilings = [Policy().delay(attempt=n, draw=1.0).total_seconds() for n in range(1, 11)]
    assert ceilings == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_the_draw_scales_the_ceiling() -> None:
    """'Full jitter': the draw decides where between zero and the ceiling."""
    policy = Policy()
    assert policy.delay(attempt=3, draw=0.0) == timedelta(0)
    assert policy.delay(attempt=3, draw=0.25) == timedelta(seconds=2)
    assert policy.delay(attempt=3, draw=0.5) == timedelta(seconds=4)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(
    attempt=st.integers(min_value=1, max_value=200),
    draw=st.floats(min_value=0, max_value=1),
    base=st.integers(min_value=0, max_value=60),
)
def test_no_delay_is_below_zero_or_above_the_cap(attempt: int, draw: float, base: int) -> None:
    """'Longest delay ever', for any attempt and draw."""
    policy = Policy(attempts=200, base=timedelta(seconds=base), cap=timedelta(seconds=60))
    assert timedelta(0) <= policy.delay(attempt=attempt, draw=draw) <= timedelta(seconds=60)
