"""The form whose hash tells duplicates: equal for texts that say the same, and quick."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine_pipeline.adapters.normalise import normalise

RULES = {
    "line ends are LF": ("a\r\nb\rc\u2028d\n", "a\nb\nc\nd\n"),
    "at most one blank line": ("a\n\n\n\nb", "a\n\nb\n"),
    "no blanks at line ends": ("a  \t\nb\u00a0", "a\nb\n"),
    "one space after the marks of a heading": ("##\t Title\n###Other", "## Title\n### Other\n"),
    "an image becomes a fixed mark": ("![a cat](cat.png) sat", "(image) sat\n"),
    "a link keeps its text": ("see [here](https://x.org/a?b=c)", "see here\n"),
    "a link without words leaves nothing": ("a\n\n[](x)\n\nb", "a\n\nb\n"),
    "a linked image": ("[![a](b.png)](https://x.org)", "(image)\n"),
    "bullets are dashes, levels two spaces": ("* a\n\t+ b\n    • c", "- a\n    - b\n    - c\n"),
    "runs of blanks are one space": ("a \t  b\u00a0c", "a b c\n"),
    "blanks in code stay": ("```\na   b\n\n\n\tc\n```", "```\na   b\n\n\n\tc\n```\n"),
    "what prints nothing goes": ("a\u200bb\ufeff\u00adc\x00d", "abcd\n"),
    "one line feed at the end": ("a\n\n\n", "a\n"),
    "leading blank lines go": ("\n\n \na", "a\n"),
    "nothing is nothing": (" \u200b\n", "\n"),
}


@pytest.mark.parametrize(("text", "expected"), RULES.values(), ids=RULES.keys())
def test_each_rule_holds(text: str, expected: str) -> None:
    """Nine rules: line ends are LF; at most one blank line; no blanks at line ends; ..."""
    assert normalise(text) == expected


def test_an_unclosed_fence_reaches_to_the_end() -> None:
    """Runs of blanks are one space outside code."""
    assert normalise("```\na  b\n``` not a closing fence\nc  d") == (
        "```\na  b\n``` not a closing fence\nc  d\n"
    )


def test_ticks_within_a_line_open_no_fence() -> None:
    """Runs of blanks are one space outside code."""
    assert normalise("```inline``` code\na  b") == "```inline``` code\na b\n"


@pytest.mark.parametrize("other", ["Other words", "# a", "- a\n- b", "a\n\nb", "1 2"])
def test_texts_that_differ_stay_different(other: str) -> None:
    """Two texts have the same hash only when they say the same."""
    assert normalise("# a\n\n- b") != normalise(other)


@given(st.text(alphabet="aé図.1-#`(*", min_size=1, max_size=20))
def test_line_ends_and_trailing_blanks_never_matter(word: str) -> None:
    """Two texts have the same hash when only line ends and blanks at line ends differ."""
    assert normalise(f"{word}\nnext") == normalise(f"{word}  \r\nnext\t\n\n")


@given(st.text(alphabet="ab\n\r\t #-`[]()\u200b\u00a0", max_size=60))
def test_any_text_has_a_form_that_ends_in_one_line_feed(text: str) -> None:
    """One line feed at the end."""
    form = normalise(text)
    assert form.endswith("\n")
    assert form == "\n" or not form.endswith("\n\n")


HOSTILE = ["a", " ", "[", "![", "[a](", "](", "#", "# ", "`", "```\n", "\n", "\t- ", "*", "\u00a0"]


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_is_linear_whatever_the_text(piece: str) -> None:
    """Every step is linear in the text: 300,000 characters take far less than a second."""
    text = piece * (300_000 // len(piece))
    began = time.process_time()
    normalise(text)
    assert time.process_time() - began < 2.0
