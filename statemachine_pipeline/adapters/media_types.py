"""What a file is, told from its bytes; the name decides only between kinds of text.

Nothing here parses a document or trusts a name: a PDF called ``notes.txt`` is a PDF.
"""

from __future__ import annotations

import codecs
import io
import re
from pathlib import PurePath
from typing import BinaryIO, Final

from statemachine_pipeline.errors import MissingExtra

PDF: Final = "application/pdf"
HTML: Final = "text/html"
MARKDOWN: Final = "text/markdown"
PLAIN: Final = "text/plain"
CSV: Final = "text/csv"
TSV: Final = "text/tab-separated-values"
_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
DOCX: Final = _OFFICE + "wordprocessingml.document"
PPTX: Final = _OFFICE + "presentationml.presentation"
XLSX: Final = _OFFICE + "spreadsheetml.sheet"
ODT: Final = "application/vnd.oasis.opendocument.text"
EPUB: Final = "application/epub+zip"
EMAIL: Final = "message/rfc822"
RTF: Final = "application/rtf"
LOCKED_OFFICE: Final = "application/x-ooxml-protected"
"""A docx, xlsx or pptx with a password: what it is lies encrypted in a file of the old kind."""

SUPPORTED: Final = {
    PDF: "PDF",
    HTML: "HTML",
    MARKDOWN: "Markdown",
    PLAIN: "plain text",
    CSV: "CSV",
    TSV: "TSV",
    DOCX: "docx",
    PPTX: "pptx",
    XLSX: "xlsx",
    ODT: "odt",
    EPUB: "epub",
    EMAIL: "e-mail",
}
"""Media types that the shipped parser reads, with their names for people."""

HEAD_BYTES: Final = 64 * 1024
"""How much of a file is looked at; a zip archive's directory, at its end, is read besides."""

_XLSB: Final = "application/vnd.ms-excel.sheet.binary.macroenabled.12"
_ZIP: Final = "application/zip"
_XML: Final = "application/xml"
_SVG: Final = "image/svg+xml"
_POSTSCRIPT: Final = "application/postscript"

_ARCHIVES: Final = {
    _ZIP: "zip archive",
    **dict.fromkeys(("application/x-tar", "application/tar"), "tar archive"),
    **dict.fromkeys(("application/gzip", "application/x-gzip"), "gzip archive"),
    **dict.fromkeys(("application/x-bzip2", "application/x-bzip"), "bzip2 archive"),
    **dict.fromkeys(("application/x-xz", "application/x-lzma"), "xz archive"),
    **dict.fromkeys(("application/zstd", "application/x-zstd"), "zstd archive"),
    "application/x-7z-compressed": "7z archive",
    **dict.fromkeys(
        ("application/vnd.rar", "application/x-rar", "application/x-rar-compressed"), "rar archive"
    ),
}

_NAMES: Final = {
    **SUPPORTED,
    **_ARCHIVES,
    _XLSB: "xlsb",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "application/msword": "doc (or another old Office format)",
    LOCKED_OFFICE: "Office document with a password",
    _XML: "XML",
    _SVG: "SVG image",
    RTF: "rtf",
    _POSTSCRIPT: "PostScript",
}

# The part that each Office format begins with.
_OFFICE_PARTS: Final = {
    b"word/document": DOCX,
    b"ppt/presentation": PPTX,
    b"xl/workbook.bin": _XLSB,
    b"xl/workbook": XLSX,
}
_OLD_OFFICE_MAGIC: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_LOCKED_ENTRY: Final = "EncryptedPackage".encode("utf-16-le")
_MEDIA_TYPE: Final = re.compile(rb"[a-z]+/[\w.+-]+")
_MIMETYPE_LIMIT_BYTES: Final = 200

_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_EXTENSIONS: Final = {
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd", ".mkdn"), MARKDOWN),
    **dict.fromkeys((".txt", ".text", ".log", ".rst"), PLAIN),
    ".csv": CSV,
    ".tsv": TSV,
    **dict.fromkeys((".html", ".htm", ".xhtml", ".xht"), HTML),
}

# Bytes that no text holds, whatever its encoding; tab, line and page breaks and escape are text.
_CONTROLS: Final = bytes(set(range(32)) - set(b"\b\t\n\v\f\r\x1b")) + b"\x7f"
# One stray control character in a long text is a blemish that the parser removes and reports;
# random bytes hold one in nine.
_CONTROLS_PER_BYTE: Final = 1 / 1000

# Text formats that tell themselves by how they begin, whatever their name.
_OPENINGS: Final = (
    (re.compile(r"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE), HTML),
    (re.compile(r"\{\\rtf"), RTF),
    (re.compile(r"%!PS"), _POSTSCRIPT),
)
_PREAMBLES: Final = {"<!--": "-->", "<?xm": "?>"}
_BLANKS: Final = "\ufeff \t\r\n"
_TAG: Final = re.compile(
    r"</?(?:title|h[1-6]|p|div|span|a|ul|ol|li|dl|table|tr|td|br|img|pre)\b[^<>]{0,400}>",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(r"([A-Za-z][A-Za-z0-9-]{1,60}):[ \t]")
# A memo may begin with From, To and Subject; only mail software writes these.
_TECHNICAL_HEADERS: Final = frozenset(
    ("return-path", "received", "delivered-to", "message-id", "mime-version", "dkim-signature")
)
_MAIL_HEADERS: Final = _TECHNICAL_HEADERS | frozenset(
    ("from", "to", "cc", "subject", "date", "reply-to", "content-type")
)
_MARKDOWN_SIGNS: Final = (
    re.compile(r"^#{1,6} \S", re.MULTILINE),
    re.compile(r"^(?:```|~~~)", re.MULTILINE),
    re.compile(r"^[-*+] \S", re.MULTILINE),
    re.compile(r"\]\([^()\s]{1,400}\)"),
    re.compile(r"\*\*[^*\n]{1,200}\*\*"),
    re.compile(r"^\|[ :|-]{4,400}$", re.MULTILINE),
)
_LEAST_MARKDOWN_SIGNS: Final = 2


def name_of(media_type: str) -> str:
    """Name a media type for people: ``docx``, ``e-mail``, ``PNG image``.

    >>> name_of("image/png")
    'PNG image'
    """
    if media_type in _NAMES:
        return _NAMES[media_type]
    family, _, kind = media_type.partition("/")
    kind = kind.removeprefix("x-").removeprefix("vnd.")
    if family in {"image", "audio", "video", "font"}:
        return f"{kind.upper()} {family}"
    return kind or media_type


def is_archive(media_type: str) -> bool:
    """Tell whether a file only wraps others, which are the documents."""
    return media_type in _ARCHIVES


def sniff(name: str, content: bytes | BinaryIO) -> str | None:
    """Tell what a file is.

    Args:
        name: Its name; the extension decides only between kinds of text.
        content: All of it, or a seekable binary stream.

    Returns:
        A media type, or None for bytes of no known kind.
    """
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    if head.lstrip()[:5] == b"%PDF-":
        return PDF
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _sniff_zip(head, stream)
    if head.startswith(_OLD_OFFICE_MAGIC) and _LOCKED_ENTRY in _old_office_directory(head, stream):
        return LOCKED_OFFICE
    text = _text(head)
    if text is not None:
        return _sniff_text(PurePath(name).suffix.lower(), text)
    # Readers accept a PDF whose mark comes late, after bytes that a scanner or mail program added.
    if b"%PDF-" in head[:1024]:
        return PDF
    return _sniff_binary(name, head)


def bom_encoding(content: bytes) -> str | None:
    """Return the encoding that a byte order mark announces, by Python's name."""
    return next((encoding for bom, encoding in _BOMS if content.startswith(bom)), None)


def _sniff_zip(head: bytes, stream: BinaryIO) -> str:
    """Tell zip-based formats apart by what ODF, EPUB and OPC prescribe.

    Names stand uncompressed at both ends of the file. ``zipfile`` would read the whole directory,
    which a hostile archive of 100 MB fills with a million entries.
    """
    if head[30:38] == b"mimetype":  # the first entry, stored, for this purpose
        size_bytes = int.from_bytes(head[18:22], "little")
        start = 38 + int.from_bytes(head[28:30], "little")
        told = head[start : start + min(size_bytes, _MIMETYPE_LIMIT_BYTES)].strip()
        if _MEDIA_TYPE.fullmatch(told):
            return told.decode("ascii")
    stream.seek(max(0, stream.seek(0, io.SEEK_END) - HEAD_BYTES))
    names = head + stream.read()
    if b"[Content_Types].xml" in names:
        for part, media_type in _OFFICE_PARTS.items():
            if part in names:
                return media_type
    return _ZIP


def _old_office_directory(head: bytes, stream: BinaryIO) -> bytes:
    """Read the first names in a file of old Office formats.

    Source: [MS-CFB], section 2.2 (header), and [MS-OFFCRYPTO], section 2.3.1.
    """
    sector_bytes = 1 << min(int.from_bytes(head[30:32], "little"), 16)
    stream.seek((int.from_bytes(head[48:52], "little") + 1) * sector_bytes)
    return stream.read(4096)


def _text(head: bytes) -> str | None:
    """Decode the beginning of a text roughly; None when it is no text."""
    encoding = bom_encoding(head)
    if encoding is None:
        controls = len(head) - len(head.translate(None, _CONTROLS))
        if controls > len(head) * _CONTROLS_PER_BYTE:
            return None
        encoding = "utf-8"  # legacy encodings too: the marks looked for are ASCII
    return codecs.getincrementaldecoder(encoding)("replace").decode(head)


def _sniff_text(extension: str, text: str) -> str:
    start = _without_preamble(text)
    for opening, media_type in _OPENINGS:
        if opening.match(start):
            return media_type
    hint = _EXTENSIONS.get(extension)
    if _is_mail(start, extension, hinted=hint is not None):
        return EMAIL
    if hint is None:
        return _sniff_untold(text.lstrip(_BLANKS), start)
    if hint == HTML and not _TAG.search(text):
        return PLAIN
    return hint


def _sniff_untold(text: str, start: str) -> str:
    """Tell what a text is whose name says nothing."""
    if start.startswith("<svg"):
        return _SVG
    if text.startswith("<?xml"):
        return _XML
    signs = sum(sign.search(text) is not None for sign in _MARKDOWN_SIGNS)
    return MARKDOWN if signs >= _LEAST_MARKDOWN_SIGNS else PLAIN


def _without_preamble(text: str) -> str:
    """Drop blanks, comments and an XML declaration, which may stand before an HTML document."""
    start = text.lstrip(_BLANKS)
    while (end := _PREAMBLES.get(start[:4])) is not None:
        _, found, rest = start.partition(end)
        if not found:
            break
        start = rest.lstrip(_BLANKS)
    return start


def _is_mail(start: str, extension: str, *, hinted: bool) -> bool:
    """Tell whether a text is an e-mail: its first lines are headers that only mail has."""
    found: set[str] = set()
    for line in start[:8000].splitlines():
        if not line.strip():
            break
        if line[0] in " \t" and found:
            continue
        header = _HEADER.match(line)
        if header is None:
            break
        found.add(header[1].lower())
    if extension == ".eml":
        return bool(found & _MAIL_HEADERS)
    return not hinted and len(found & _MAIL_HEADERS) > 1 and bool(found & _TECHNICAL_HEADERS)


def _sniff_binary(name: str, head: bytes) -> str | None:
    try:
        import puremagic
    except ImportError as error:
        raise MissingExtra("puremagic", "documents") from error
    try:
        matches = puremagic.magic_string(head, PurePath(name).name)
    except (puremagic.PureError, ValueError):
        return None
    for match in matches:
        # Its confidence counts matching bytes in tenths; one or two of them match by chance.
        if len(match.byte_match) > 2 and "/" in match.mime_type:  # noqa: PLR2004
            return str(match.mime_type)
    return None
