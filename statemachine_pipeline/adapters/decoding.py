"""Bytes to text: which encoding, and what had to be repaired."""

from __future__ import annotations

import codecs
import re
from typing import Final

from statemachine_pipeline.adapters.media_types import bom_encoding
from statemachine_pipeline.errors import MissingExtra

# Controls but tab, line feed, page break and carriage return; two noncharacters that PDF tools
# leave behind; and surrogates, which no UTF-8 can hold. PostgreSQL refuses NUL in text.
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x9f\ufffe\uffff\ud800-\udfff]")
_LINE_ENDS: Final = re.compile("\r\n?|\x85|\u2028|\u2029")
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")
_NOT_ASCII_CHAR: Final = re.compile(r"[^\x00-\x7f]")
# Enough to tell encodings apart, and at most 30 ms of charset-normalizer's time.
_DETECTION_BYTES: Final = 100_000
_CONTEXT_BYTES: Final = 1_000
# UTF-8 in which one character of so many, or fewer, is broken is still UTF-8.
_BLEMISH: Final = 5

# The same script on Windows, which is likelier today when both are possible.
_WINDOWS: Final = {
    "mac_cyrillic": "cp1251",
    "mac_greek": "cp1253",
    "mac_latin2": "cp1250",
    "mac_turkish": "cp1254",
}

# Python calls these text encodings, too, but no document is written in them.
_NO_DOCUMENT: Final = frozenset(
    ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7")
)

_LOWER: Final = "a-zß-öø-ÿšžœ"
_UPPER: Final = "À-ÖØ-ÞŠŽŒŸ"
_LETTER: Final = f"A-Z{_LOWER}{_UPPER}"
_MARKS: Final = (
    "\u2018\u2019\u201c\u201d\u201e\u2013\u2014\u2026\u2022\u2122"
    "\u20ac\xa0\xa1\xa3\xa5\xa7\xa9\xaa\xab\xad\xae\xb0\xb2\xb3\xb4\xb7\xba\xbb\xbc\xbd\xbf"
)
# How Western text never looks: with other signs, signs within a word, capitals after small letters.
_NOT_WESTERN: Final = re.compile(
    f"[^\x00-\x7f{_LETTER}{_MARKS}]"
    f"|[{_LETTER}][^\x00-\x7f{_LETTER}\u2019\xad\xa0\u2013\u2014\u2026][{_LETTER}]"
    f"|[{_LOWER}][{_UPPER}]"
)
_ACCENTED: Final = re.compile(f"[^\x00-\x7f{_MARKS}]")
_ASCII_LETTER: Final = re.compile("[A-Za-z]")


def decode(content: bytes, declared: str | None = None) -> tuple[str, list[str]]:
    """Decode a text of unknown encoding.

    A byte order mark decides; then strict UTF-8; then what the document itself declares; then
    a guess. Bytes that remain invalid become U+FFFD.

    Args:
        content: The bytes.
        declared: An encoding that the document names, as HTML may.

    Returns:
        The text, and sentences about what was guessed or replaced.
    """
    marked = bom_encoding(content)
    if marked is not None:
        return _decode_as(content, marked)
    try:
        return content.decode("utf-8"), []
    except UnicodeDecodeError as error:
        first_invalid = error.start
    if declared is not None and _is_known(declared):
        return _decode_as(content, declared)
    encoding = _guess(content, first_invalid)
    text, warnings = _decode_as(content, encoding)
    return text, [f"not UTF-8; read as {encoding}, which is a guess", *warnings]


def clean(text: str) -> tuple[str, list[str]]:
    """Remove what a database or a reader cannot use, and make every line end a line feed.

    Returns:
        The text, and a sentence if characters were removed.
    """
    text = _LINE_ENDS.sub("\n", text).removeprefix("\ufeff")
    text, count = _UNPRINTABLE.subn("", text)
    if not count:
        return text, []
    return text, [f"removed {count:,} control character{'s' * (count > 1)}"]


def _guess(content: bytes, first_invalid: int) -> str:
    """Guess an encoding from the part where the text stops being UTF-8."""
    found = _NOT_ASCII.search(content)
    start = max(0, (found.start() if found else first_invalid) - _CONTEXT_BYTES)
    sample = content[start : start + _DETECTION_BYTES]
    text = sample.decode("utf-8", "replace")
    if _BLEMISH * text.count("\ufffd") <= len(_NOT_ASCII_CHAR.findall(text)):
        return "utf-8"
    # charset-normalizer takes most short Western texts for Baltic, Icelandic or Chinese ones.
    if _is_western(sample):
        return "cp1252"
    try:
        from charset_normalizer import from_bytes
    except ImportError as error:
        raise MissingExtra("charset-normalizer", "documents") from error
    guesses = [match.encoding for match in from_bytes(sample)] or ["cp1252"]
    likelier = _WINDOWS.get(guesses[0])
    return likelier if likelier and likelier in guesses else guesses[0]


def _is_western(sample: bytes) -> bool:
    """Whether the bytes read well in Windows-1252: accents are few and stand in words."""
    text = sample.decode("cp1252", "replace")
    if _NOT_WESTERN.search(text):
        return False
    return 3 * len(_ACCENTED.findall(text)) <= len(_ASCII_LETTER.findall(text))


def _decode_as(content: bytes, encoding: str) -> tuple[str, list[str]]:
    try:
        return content.decode(encoding), []
    except UnicodeDecodeError:
        text = content.decode(encoding, "replace")
        count = text.count("\ufffd")
        return text, [f"replaced {count:,} byte{'s' * (count > 1)} that are not {encoding}"]


def _is_known(encoding: str) -> bool:
    """Whether Python decodes documents by this name; codecs such as ``hex`` do not count."""
    try:
        codec = codecs.lookup(encoding)
    except (LookupError, ValueError):
        return False
    return bool(codec._is_text_encoding) and codec.name not in _NO_DOCUMENT
