"""How many tokens a text has, exactly or at most."""

from __future__ import annotations

import sys

import pytest

from statemachine_pipeline.adapters.tokens import BpeTokens, BytesAsTokens, TokenCounter
from statemachine_pipeline.errors import MissingExtra

TEXTS = ["", "a", "é", "🦆🦆", "one word after the other", "x = [1, 2, 3]\n" * 9, "<|endoftext|>"]


def test_bytes_are_never_fewer_than_tokens() -> None:
    """A bound that the true count never exceeds."""
    pytest.importorskip("quicktok")
    bound, exact = BytesAsTokens(), BpeTokens()
    assert isinstance(bound, TokenCounter)
    assert isinstance(exact, TokenCounter)
    assert all(exact.count(text) <= bound.count(text) for text in TEXTS)
    assert (bound.count("🦆"), bound.is_exact, exact.is_exact) == (4, False, True)


def test_exact_counts_are_those_of_the_encoding() -> None:
    """cl100k_base, with names of special tokens as plain text."""
    pytest.importorskip("quicktok")
    assert [BpeTokens().count(text) for text in TEXTS] == [0, 1, 1, 6, 5, 99, 7]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first count, so that whoever only looks needs no tokenizer."""
    monkeypatch.setitem(sys.modules, "quicktok", None)
    counter = BpeTokens()
    with pytest.raises(MissingExtra, match=r"quicktok is not installed.*\[tokens\]"):
        counter.count("a")
