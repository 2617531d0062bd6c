"""Zip-based documents made for a test, whole and hostile."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from statemachine_pipeline.adapters.parsers import DocumentParser
from statemachine_pipeline.adapters.reading import Reading
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import ParsedText, Source

if TYPE_CHECKING:
    from collections.abc import Mapping

WORD = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships" '
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
    'xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape" '
    'xmlns:v="urn:schemas-microsoft-com:vml"'
)
OPEN_DOCUMENT = " ".join(
    f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for prefix, name in {
        **{prefix: prefix for prefix in ("office", "style", "text", "table")},
        "draw": "drawing",
        "svg": "svg-compatible",
    }.items()
)


def zipped(parts: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Zip parts in the order given."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return content.getvalue()


def docx(body: str, **parts: str) -> bytes:
    """Zip a Word document; other parts by name, with their root elements."""
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "_rels/.rels": f'<Relationships xmlns="{relations}">'
            f'<Relationship Id="a" Type="{kind}" Target="word/document.xml"/></Relationships>',
            "word/document.xml": f"<w:document {WORD}><w:body>{body}</w:body></w:document>",
            **{f"word/{name}.xml": part for name, part in parts.items()},
        }
    )


def odt(body: str, *, styles: str = "", **parts: str) -> bytes:
    """Zip an OpenDocument text; other parts by path, ``__`` for a slash."""
    content = (
        f"<office:document-content {OPEN_DOCUMENT}><office:automatic-styles>{styles}"
        f"</office:automatic-styles><office:body><office:text>{body}</office:text></office:body>"
        "</office:document-content>"
    )
    others = {f"{name.replace('__', '/')}.xml": part for name, part in parts.items()}
    return zipped({"content.xml": content, **others})


def parse(content: bytes, media_type: str, **settings: Any) -> ParsedText:
    """Parse a document as the shipped parser does."""
    source = Source(name="a", media_type=media_type, size_bytes=len(content), data=content)
    return DocumentParser(Reading(**settings)).parse(source)


def rejection(content: bytes, media_type: str, **settings: Any) -> tuple[str, str]:
    """Return the code and the sentence with which a document is rejected."""
    with pytest.raises(Reject) as caught:
        parse(content, media_type, **settings)
    return caught.value.code, caught.value.reason
