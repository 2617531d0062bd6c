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
# Enough to tell encodings apart; charset-normalizer reads 5 MB in 9 s and this in 30 ms.
_DETECTION_BYTES: Final = 100_000


def decode(content: bytes, declared: str | None = None) -> tuple[str, list[str]]:
    """Decode a text of unknown encoding.

    A byte order mark decides; then strict UTF-8; then what the document itself declares; then
    detection. Bytes that remain invalid become U+FFFD.

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
    except UnicodeDecodeError:
        pass
    if declared is not None and _is_known(declared):
        return _decode_as(content, declared)
    return _detect(content)


def clean(text: str) -> tuple[str, list[str]]:
    """Remove what a database or a reader cannot use, and make every line end a line feed.

    Returns:
        The text, and a sentence if characters were removed.
    """
    text = _LINE_ENDS.sub("\n", text).removeprefix("\ufeff")
    text, count = _UNPRINTABLE.subn("", text)
    if not count:
        return text, []
    return text, [f"{count:,} control character{'s' * (count > 1)} removed"]


def _detect(content: bytes) -> tuple[str, list[str]]:
    try:
        from charset_normalizer import from_bytes
    except ImportError as error:
        raise MissingExtra("charset-normalizer", "documents") from error
    best = from_bytes(content[:_DETECTION_BYTES]).best()
    encoding = "cp1252" if best is None else best.encoding
    text, warnings = _decode_as(content, encoding)
    return text, [f"not UTF-8: read as {encoding}, which is a guess", *warnings]


def _decode_as(content: bytes, encoding: str) -> tuple[str, list[str]]:
    try:
        return content.decode(encoding), []
    except UnicodeDecodeError:
        text = content.decode(encoding, "replace")
        count = text.count("\ufffd")
        return text, [f"{count:,} invalid byte sequences in {encoding} replaced"]


def _is_known(encoding: str) -> bool:
    """Whether Python decodes text with this name; codecs such as ``hex`` do not count."""
    try:
        return bool(codecs.lookup(encoding)._is_text_encoding)
    except LookupError:
        return False
