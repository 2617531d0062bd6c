"""Passages: their place, their titles, their pages; nothing lost between them."""

from __future__ import annotations

import itertools
import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine_pipeline.adapters.chunkers import PIECE_CHARS, MarkdownChunker
from statemachine_pipeline.adapters.headings import Outline, headings
from statemachine_pipeline.hooks import Chunker
from statemachine_pipeline.records import ParsedText, Span

BODY = "Words that fill a section so that it can stand alone. " * 3


def titles(text: str) -> list[tuple[str, ...]]:
    """Return the titles above each passage."""
    return [chunk.headings for chunk in MarkdownChunker().split(ParsedText(text))]


def test_it_is_a_chunker_that_can_be_sent_to_a_child() -> None:
    """It runs in a child process."""
    chunker = MarkdownChunker(max_tokens=50)
    assert isinstance(chunker, Chunker)
    assert pickle.loads(pickle.dumps(chunker)).fingerprint == chunker.fingerprint


def test_settings_that_cannot_work_are_refused() -> None:
    """overlap_tokens must be less than max_tokens."""
    with pytest.raises(ValueError, match="overlap_tokens=400 must be at least 0 and less than"):
        MarkdownChunker(overlap_tokens=400)


@given(
    st.lists(
        st.sampled_from(
            ["# A\n", "## B\n", "word ", "é🦆 ", "\n\n", "```\n", "| a | b |\n", "- x\n"]
        ),
        max_size=200,
    ),
    st.integers(1, 40),
)
def test_offsets_are_exact_and_only_blanks_are_lost(pieces: list[str], max_tokens: int) -> None:
    """Chunks whose ``text`` is ``parsed.text[start:end]``, in reading order; none is blank."""
    text = "".join(pieces)
    chunks = MarkdownChunker(max_tokens=max_tokens).split(ParsedText(text))
    place = 0
    for index, chunk in enumerate(chunks):
        assert chunk.index == index
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.text.strip()
        assert not text[place : chunk.start].strip()
        place = chunk.end
    assert not text[place:].strip()


def test_passages_keep_to_the_size() -> None:
    """max_tokens: Most tokens in a passage."""
    chunks = MarkdownChunker(max_tokens=10).split(ParsedText("one two three four five. " * 40))
    assert len(chunks) > 15
    assert all(len(chunk.text.split()) <= 10 for chunk in chunks)


def test_overlap_repeats_the_end_of_the_passage_before() -> None:
    """overlap_tokens: Most tokens that a passage repeats of the one before."""
    chunks = MarkdownChunker(max_tokens=20, overlap_tokens=8).split(
        ParsedText("A b c. D e f. " * 30)
    )
    assert any(later.start < earlier.end for earlier, later in itertools.pairwise(chunks))


def test_titles_stand_above_all_of_a_passage() -> None:
    """The titles above all of it, outermost first."""
    text = f"\n\n{BODY}\n\n".join(["", "# A", "## B #", "### C", "## D", "E\n="]) + f"\n\n{BODY}"
    assert titles(text) == [(), ("A",), ("A", "B"), ("A", "B", "C"), ("A", "D"), ("E",)]


def test_titles_without_a_body_stay_with_what_follows() -> None:
    """A passage that begins with titles stands under the last of them."""
    assert titles(f"# A\n\n## B\n\n{BODY}") == [("A", "B")]


def test_short_sections_share_a_passage_and_its_titles_are_true_for_both() -> None:
    """One that holds several sections stands under what is above each."""
    assert titles("# A\n\n## B\n\nx\n\n## C\n\ny") == [("A",)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```\n# no\n```\n# yes", ["yes"]),
        ("~~~\n```\n# no\n~~~\n# yes", ["yes"]),
        ("---\ntitle: no\n---\n# yes", ["yes"]),
        ("#no\n####### no\n    # no\n# [link](x) **bold** `code`", ["link bold code"]),
        ("yes\n---\n\n- no\n---\n| no |\n---\ntwo lines\nof text\n---", ["yes"]),
        ("#\n# C#\n# D ##", ["", "C#", "D"]),
        ("", []),
    ],
)
def test_headings_are_those_of_markdown(text: str, expected: list[str]) -> None:
    """Lines within code are none."""
    assert [heading.title for heading in headings(text)] == expected


@given(st.text(alphabet="#=-\n a`", max_size=80))
def test_sections_are_the_whole_text(text: str) -> None:
    """The sections between headings, which together are the whole text."""
    assert "".join(text[start:end] for start, end in Outline(text).sections(5)) == text


def test_a_passage_is_on_the_page_where_it_begins() -> None:
    """The page it begins on; pages without text have none."""
    first, third = BODY.strip(), BODY.strip().upper()
    spans = (
        Span(page=1, start=0, end=len(first)),
        Span(page=2, start=len(first), end=len(first)),
        Span(page=3, start=len(first) + 2, end=len(first) + 2 + len(third)),
        Span(page=4, start=len(first) + 2 + len(third), end=len(first) + 2 + len(third)),
    )
    parsed = ParsedText(f"{first}\n\n{third}", spans)
    chunks = MarkdownChunker(max_tokens=45).split(parsed)
    assert {chunk.page for chunk in chunks} == {1, 3}
    assert all(chunk.page == parsed.page_at(chunk.start) for chunk in chunks)


def test_text_without_pages_has_no_page_numbers() -> None:
    """1-based page, where the format has pages."""
    assert MarkdownChunker().split(ParsedText("words"))[0].page is None


HOSTILE = ["a", "> ", "a\n=\n"]


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_is_linear_whatever_the_text(piece: str) -> None:
    """Longer sections are split in pieces, since the splitter's time grows with their square."""
    text = piece * (PIECE_CHARS // len(piece))
    began = time.process_time()
    MarkdownChunker().split(ParsedText(text * 2))
    assert time.process_time() - began < 4.0
