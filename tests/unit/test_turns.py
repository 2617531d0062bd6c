"""Whose turn it is at a stage: tenants in the order of their names, once round."""

from __future__ import annotations

import pytest

from statemachine_pipeline.database.turns import Turns


@pytest.mark.parametrize(
    ("after", "claimed", "then"),
    [
        ("", "a", "a"),
        ("", "abc", "c"),
        ("b", "ca", "a"),
        ("c", "ab", "b"),
        ("", "aabc", "a"),
        ("a", "bbcca", "c"),
        ("b", "aaaaac", "a"),
    ],
)
def test_the_next_round_begins_behind_the_last_who_got_something(
    after: str, claimed: str, then: str
) -> None:
    """What is left over goes to the first of a round, so they are the last to get something."""
    turns = Turns()
    turns.after["uploaded"] = after
    turns.taken(("uploaded", tenant) for tenant in claimed)
    assert turns.after == {"uploaded": then}


def test_every_stage_has_a_round_of_its_own() -> None:
    """A tenant that was served at one stage has lost nothing at another."""
    turns = Turns()
    turns.taken([("uploaded", "b"), ("parse_queued", "a")])
    turns.taken([])
    assert turns.after == {"uploaded": "b", "parse_queued": "a"}


def test_who_was_not_asked_comes_next() -> None:
    """A claim asks 32 tenants at most; the next one begins behind them, whoever got most."""
    turns = Turns()
    names = [f"t{number:02}" for number in range(32)]
    turns.taken([("uploaded", name) for name in [*names, "t00", "t01"]])
    assert turns.after == {"uploaded": "t31"}
