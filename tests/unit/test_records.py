"""Ids are computed, pinned and told apart; texts know their pages."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statemachine_pipeline.records import (
    NAMESPACE,
    Accepted,
    Chunk,
    Chunks,
    Facts,
    Option,
    ParsedText,
    Source,
    Span,
    Validated,
    Verdict,
    chain_sha256,
    chunk_id,
    document_id,
    idempotency_key,
    identify,
    sha256_hex,
)

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = document_id("default", "file:///data/report.pdf")


def chunk(index: int, text: str, **more: object) -> Chunk:
    """Build a chunk whose place does not matter."""
    return dataclasses.replace(Chunk(index=index, text=text, start=0, end=len(text)), **more)


def test_the_root_of_every_id_is_pinned() -> None:
    """'Root of every id; a change would give every document another id'."""
    assert UUID("0d5a4f7e-6c1b-5e0f-9a55-2f1f0a9f5d11") == NAMESPACE


def test_a_document_is_named_by_tenant_and_source() -> None:
    """'The same tenant and source, the same id', pinned, since databases hold it."""
    assert UUID("9a44c3d0-cd9f-571a-a782-d818771ac5c2") == DOCUMENT
    assert document_id("default", "file:///data/report.pdf") == DOCUMENT
    assert document_id("other", "file:///data/report.pdf") != DOCUMENT
    assert document_id("default", "file:///data/report.PDF") != DOCUMENT


def test_tenant_and_source_cannot_be_shifted_into_each_other() -> None:
    """'id = uuid5(uuid5(namespace, tenant), source_uri)': no two pairs give one id."""
    assert document_id("ab", "c") != document_id("a", "bc")


def test_a_chunk_is_named_by_its_text() -> None:
    """'Changed text can never stand under an old id', pinned."""
    assert chunk_id(DOCUMENT, "Hello", 0) == UUID("5054450a-d796-5368-9295-ef7db7bc808e")
    assert chunk_id(DOCUMENT, "Hello", 1) != chunk_id(DOCUMENT, "Hello", 0)
    assert chunk_id(DOCUMENT, "Hello!", 0) != chunk_id(DOCUMENT, "Hello", 0)
    assert chunk_id(NAMESPACE, "Hello", 0) != chunk_id(DOCUMENT, "Hello", 0)


def test_an_idempotency_key_changes_with_each_of_its_parts_and_nothing_else() -> None:
    """'Equal over attempts, crashes and requeues', another as soon as input or hook differ."""
    key = idempotency_key(DOCUMENT, "finish_parse", "ab" * 32, "parser#1")
    assert key == UUID("14c6996e-88d5-5acf-8bdd-7b3658ef43cd")
    assert key == idempotency_key(DOCUMENT, "finish_parse", "ab" * 32, "parser#1")
    others = {
        idempotency_key(NAMESPACE, "finish_parse", "ab" * 32, "parser#1"),
        idempotency_key(DOCUMENT, "store_chunks", "ab" * 32, "parser#1"),
        idempotency_key(DOCUMENT, "finish_parse", "cd" * 32, "parser#1"),
        idempotency_key(DOCUMENT, "finish_parse", "ab" * 32, "parser#2"),
    }
    assert len(others | {key}) == 5


def test_chunks_with_the_same_text_are_told_apart_by_their_order() -> None:
    """'occurrence: 0-based count of earlier chunks of the document with the same text'."""
    named = identify(DOCUMENT, [chunk(0, "a"), chunk(1, "b"), chunk(2, "a"), chunk(3, "a")])
    assert [one.id for one in named] == [
        chunk_id(DOCUMENT, "a", 0),
        chunk_id(DOCUMENT, "b", 0),
        chunk_id(DOCUMENT, "a", 1),
        chunk_id(DOCUMENT, "a", 2),
    ]
    assert [(one.index, one.text) for one in named] == [(0, "a"), (1, "b"), (2, "a"), (3, "a")]


def test_unchanged_text_keeps_its_id_when_text_before_it_goes() -> None:
    """'Unchanged text keeps its vector': an id does not depend on the place."""
    before = identify(DOCUMENT, [chunk(0, "gone"), chunk(1, "stays")])
    after = identify(DOCUMENT, [chunk(0, "stays")])
    assert after[0].id == before[1].id


def test_text_is_hashed_as_utf8_and_broken_text_too() -> None:
    """'Hash text (as UTF-8) or bytes, as 64 hexadecimal digits'."""
    assert sha256_hex("ä") == sha256_hex("ä".encode())
    assert sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert len(sha256_hex("\ud800")) == 64


def test_a_chain_of_texts_has_one_hash_only() -> None:
    """'No two sequences give the same input': text cannot move from one part to the next."""
    spelled = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ()]
    assert len({chain_sha256(*parts) for parts in spelled}) == len(spelled)
    assert chain_sha256("ab", "c") == (
        "601d5476e2ccfe2c87a2bba7a322659734a05749d5b5aa781f513e4912db0d5f"
    )


@settings(max_examples=60)
@given(
    one=st.lists(st.text("ab\x00\x01", max_size=3), max_size=3),
    other=st.lists(st.text("ab\x00\x01", max_size=3), max_size=3),
)
def test_different_chains_have_different_hashes(one: list[str], other: list[str]) -> None:
    """'No two sequences give the same input', for any two."""
    assert (chain_sha256(*one) == chain_sha256(*other)) == (one == other)


def test_a_text_knows_the_page_of_each_character() -> None:
    """'The page that holds the character at offset, if the format has pages'."""
    text = ParsedText("oneXtwo", (Span(page=1, start=0, end=3), Span(page=2, start=4, end=7)))
    assert [text.page_at(n) for n in range(-1, 8)] == [None, 1, 1, 1, None, 2, 2, 2, None]
    assert ParsedText("plain").page_at(0) is None


def test_replaced_text_drops_its_pages_but_keeps_its_warnings() -> None:
    """'Pages are dropped, since their offsets moved'."""
    text = ParsedText("secret", (Span(page=1, start=0, end=6),), ("page 2 is a picture",))
    assert text.replace(text="******") == ParsedText("******", (), ("page 2 is a picture",))
    assert text.replace(text="secret") == text
    assert text.text == "secret"


def test_the_hash_of_a_text_covers_its_pages_but_not_its_warnings() -> None:
    """'Hash of the text and its pages'."""
    plain = ParsedText("abc")
    paged = ParsedText("abc", (Span(page=1, start=0, end=3),))
    moved = ParsedText("abc", (Span(page=2, start=0, end=3),))
    warned = ParsedText("abc", (), ("a sentence",))
    assert len({plain.sha256, paged.sha256, moved.sha256}) == 3
    assert warned.sha256 == plain.sha256


@pytest.mark.parametrize(
    "change",
    [
        {"index": 1},
        {"text": "other"},
        {"start": 1},
        {"end": 9},
        {"page": 2},
        {"headings": ("Title",)},
        {"metadata": {"kind": "table"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_hash_of_chunks_covers_all_that_is_read_later(change: dict[str, object]) -> None:
    """'Hash of everything about the chunks that later stages read'."""
    first = chunk(0, "text")
    assert Chunks((dataclasses.replace(first, **change),)).sha256 != Chunks((first,)).sha256


def test_a_source_reads_its_data_or_its_file(tmp_path: Path) -> None:
    """'The bytes of a document, in memory or in a file'."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"in a file")
    here = Source(name="a", media_type=None, size_bytes=6, data=b"memory", path=path)
    there = Source(name="a", media_type=None, size_bytes=9, path=path)
    assert here.read() == b"memory"
    assert there.read() == b"in a file"


def test_a_source_without_data_and_path_says_so() -> None:
    """A source that was built wrongly is named, not read as empty."""
    with pytest.raises(ValueError, match="source 'a' has neither data nor path"):
        Source(name="a", media_type=None, size_bytes=0).read()


def test_intake_and_validation_name_what_nobody_else_may_own() -> None:
    """'What another document must not own too': bytes after intake, text after validation."""
    assert Accepted(media_type="text/plain", sha256="ab").key == ("bytes", "ab")
    assert Validated(text_sha256="cd").key == ("text", "cd")


def test_an_option_is_open_when_every_guard_agrees() -> None:
    """'Whether every guard agrees'; an edge without guards is open."""
    yes, no = Verdict(guard="a", holds=True), Verdict(guard="b", holds=False)
    assert Option(trigger="go", to_state="x", verdicts=()).is_open
    assert Option(trigger="go", to_state="x", verdicts=(yes, yes)).is_open
    assert not Option(trigger="go", to_state="x", verdicts=(yes, no)).is_open


def test_records_cannot_be_changed() -> None:
    """'A record is made once and never changed'."""
    facts = Facts()
    with pytest.raises(dataclasses.FrozenInstanceError):
        facts.attempt = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        facts.reported["found"] = 1  # type: ignore[index]


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
def test_parsed_text_refuses_what_no_database_could_keep(text: str) -> None:
    """A parser that lets such text through fails at once, with the reason."""
    with pytest.raises(ValueError, match=r"NUL|surrogates"):
        ParsedText(text)
