"""How many tokens a text has, exactly or by estimate."""

from __future__ import annotations

import sys

import pytest

from statemachine_pipeline.adapters.tokens import BpeTokens, TokenCounter
from statemachine_pipeline.batching import estimated_tokens
from statemachine_pipeline.errors import MissingExtra

TEXTS = ["", "a", "é", "🦆🦆", "one word after the other", "x = [1, 2, 3]\n" * 9, "<|endoftext|>"]


def test_an_estimate_is_a_quarter_of_the_bytes_rounded_up() -> None:
    """As OpenAI counts for the limit of one request: characters do not matter."""
    assert [estimated_tokens(text) for text in TEXTS] == [0, 1, 1, 2, 6, 32, 4]
    assert estimated_tokens("\ud800") == 1


def test_exact_counts_are_those_of_the_encoding() -> None:
    """cl100k_base, with names of special tokens as plain text."""
    pytest.importorskip("quicktok")
    assert isinstance(BpeTokens(), TokenCounter)
    assert [BpeTokens().count(text) for text in TEXTS] == [0, 1, 1, 6, 5, 99, 7]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first count, so that whoever only looks needs no tokenizer."""
    monkeypatch.setitem(sys.modules, "quicktok", None)
    counter = BpeTokens()
    with pytest.raises(MissingExtra, match=r"quicktok is not installed.*\[tokens\]"):
        counter.count("a")
