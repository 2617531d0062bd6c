"""What a file is, told from its bytes."""

from __future__ import annotations

import gzip
import io
import random
import time
import zipfile

import pytest

from statemachine_pipeline.adapters.media_types import (
    CSV,
    DOCX,
    EMAIL,
    EPUB,
    HTML,
    LOCKED_OFFICE,
    MARKDOWN,
    ODT,
    PDF,
    PLAIN,
    SUPPORTED,
    TSV,
    name_of,
    sniff,
)

OFFICE = "application/vnd.openxmlformats-officedocument."
MAIL = "Return-Path: <a@x.org>\nFrom: a@x.org\nTo: b@x.org\nSubject: Hi\n\nHello\n"
MEMO = "From: the director\nTo: the board\nSubject: the roof\n\nIt leaks.\n"


def archive(*names: str, mimetype: str = "") -> bytes:
    """Zip empty files, after the entry that ODF and EPUB begin with."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as zipped:
        if mimetype:
            zipped.writestr("mimetype", mimetype, zipfile.ZIP_STORED)
        for name in names:
            zipped.writestr(name, "text " * 100)
    return content.getvalue()


def old_office(entry: str) -> bytes:
    """Return the header of an old Office file and, two sectors behind, the name of an entry."""
    header = bytearray(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".ljust(512, b"\0"))
    header[30:32] = (9).to_bytes(2, "little")
    header[48:52] = (2).to_bytes(4, "little")
    return bytes(header) + bytes(1024) + entry.encode("utf-16-le").ljust(512, b"\0")


TEXTS = [
    ("notes.txt", "# Not a heading, a comment", PLAIN),
    ("notes.md", "plain words", MARKDOWN),
    ("people.csv", "name,city\nAnna,Berlin\n", CSV),
    ("people.tsv", "name\tcity\nAnna\tBerlin\n", TSV),
    ("people.txt", "name,city\nAnna,Berlin\n", PLAIN),
    ("page.html", "<p>words</p>", HTML),
    ("page.html", "no tag at all", PLAIN),
    ("notes.txt", "<!DOCTYPE html><title>x</title>", HTML),
    ("README.md", "<h1 align=center>Title</h1>\n\ntext", MARKDOWN),
    ("noname", "<?xml version='1.0'?><!-- a --><html xmlns='x'><body/></html>", HTML),
    ("noname", "# Title\n\n- a\n- b\n", MARKDOWN),
    ("noname", "just words", PLAIN),
    ("report.pdf", "a text that lies about its type", PLAIN),
    ("letter.eml", "Subject: Hi\n\nHello", EMAIL),
    ("letter.eml", "no headers", PLAIN),
    ("letter", MAIL, EMAIL),
    ("letter.txt", MAIL, PLAIN),
    ("memo", MEMO, PLAIN),
    ("data.xml", "<?xml version='1.0'?><data/>", "application/xml"),
    ("data.txt", "<?xml version='1.0'?><data/>", PLAIN),
    ("drawing.svg", "<?xml version='1.0'?><!-- x --><svg/>", "image/svg+xml"),
    ("letter.txt", r"{\rtf1 words}", "application/rtf"),
]


@pytest.mark.parametrize(("name", "text", "expected"), TEXTS)
def test_the_name_decides_only_between_kinds_of_text(name: str, text: str, expected: str) -> None:
    """The extension decides only between kinds of text."""
    assert sniff(name, text.encode()) == expected


TYPES = "[Content_Types].xml"
BINARIES = [
    ("notes.txt", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", PDF),
    ("late.pdf", b"\x00\x01junk" * 20 + b"%PDF-1.4\n" + bytes(100), PDF),
    ("a", archive(TYPES, "word/document.xml"), DOCX),
    ("a", archive(TYPES, "ppt/presentation.xml"), OFFICE + "presentationml.presentation"),
    ("a", archive(TYPES, "xl/workbook.xml"), OFFICE + "spreadsheetml.sheet"),
    ("a", archive(TYPES, "xl/workbook.xml", "xl/vbaProject.bin"), OFFICE + "spreadsheetml.sheet"),
    (
        "a",
        archive(TYPES, "xl/workbook.bin"),
        "application/vnd.ms-excel.sheet.binary.macroenabled.12",
    ),
    ("a.docx", archive("word/document.xml"), "application/zip"),
    ("a", archive("c.xml", mimetype=ODT), ODT),
    ("a", archive("c.xml", mimetype=EPUB), EPUB),
    ("a", archive("c.xml", mimetype="no type at all"), "application/zip"),
    ("a", archive("c.xml")[:40], "application/zip"),
    ("a.txt", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(50), "image/png"),
    ("a.md", gzip.compress(b"words" * 100), "application/x-gzip"),
    ("a.docx", old_office("EncryptedPackage"), LOCKED_OFFICE),
    ("a.docx", old_office("WordDocument"), "application/msword"),
    ("a.pdf", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "application/msword"),
]


@pytest.mark.parametrize(
    ("name", "content", "expected"), BINARIES, ids=[f"{n}-{t}" for n, _, t in BINARIES]
)
def test_binary_types_are_told_by_their_bytes(name: str, content: bytes, expected: str) -> None:
    """A PDF called ``notes.txt`` is a PDF."""
    assert sniff(name, content) == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "cp1252", "cp1251", "cp932"])
def test_text_in_any_encoding_is_text(encoding: str) -> None:
    """Text is what holds no control characters, whatever its encoding."""
    words = {"cp1251": "библиотека", "cp932": "図書館"}.get(encoding, "bücher für café")
    assert sniff("a.txt", (words * 30).encode(encoding)) == PLAIN


def test_noise_is_no_known_type() -> None:
    """None for bytes of no known kind."""
    noise = random.Random(7)
    assert sniff("a.pdf", noise.randbytes(100_000)) is None
    assert sniff("a.txt", b"abc\x00def") is None
    assert sniff("a.txt", "no mark".encode("utf-16-le")) is None


def test_one_stray_control_character_does_not_make_a_long_text_binary() -> None:
    """A blemish that the parser removes and reports."""
    assert sniff("a.txt", b"words " * 500 + b"\x00" + b"words " * 500) == PLAIN


def test_a_stream_is_read_only_at_its_ends() -> None:
    """How much of a file is looked at: 64 KiB, and for an archive as much of its end."""

    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read(size)
            self.count += len(content)
            return content

    stream = Counting(archive("[Content_Types].xml", *(f"{n}.xml" for n in range(3_000))))
    assert sniff("a.docx", stream) == "application/zip"
    assert stream.count <= 2 * 64 * 1024


HOSTILE = ["<!-- a -->", "<!--", "<?xml ", "|-", "](", "**a", "A: b\n", "<p ", "`"]


@pytest.mark.parametrize("piece", HOSTILE)
def test_no_text_makes_the_looking_slow(piece: str) -> None:
    """Every pattern is linear in what is looked at."""
    began = time.process_time()
    for name in ("a", "a.html", "a.eml"):
        sniff(name, (piece * 100_000).encode())
    assert time.process_time() - began < 2.0


def test_people_read_names_not_media_types() -> None:
    """Name a media type for people."""
    assert [name_of(media_type) for media_type in SUPPORTED] == list(SUPPORTED.values())
    assert name_of(PLAIN) == "plain text"
    assert name_of("application/x-gzip") == "gzip archive"
    assert name_of("image/png") == "PNG image"
