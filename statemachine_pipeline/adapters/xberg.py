"""A broad parser for what the shipped one does not read: rich text, old Office formats, and more.

xberg is one compiled library with its own limits against hostile files. Nothing of it is loaded
until a document is parsed.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.adapters import pages
from statemachine_pipeline.adapters.decoding import clean
from statemachine_pipeline.adapters.media_types import RTF, SUPPORTED
from statemachine_pipeline.adapters.reading import Reading
from statemachine_pipeline.errors import MissingExtra
from statemachine_pipeline.hooks import Reject, StageFault
from statemachine_pipeline.records import ParsedText

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.records import Source

_OLD_OFFICE: Final = "application/msword"
_OPEN_DOCUMENT: Final = "application/vnd.oasis.opendocument."
_PICTURES: Final = ("image/png", "image/jpeg", "image/tiff", "image/webp")

READ_BY_XBERG: Final = (
    *SUPPORTED,
    *(RTF, _OLD_OFFICE),
    *(_OPEN_DOCUMENT + kind for kind in ("spreadsheet", "presentation")),
)
"""Media types to let through intake for it: ``Intake(accepts=READ_BY_XBERG)``."""

READ_BY_OCR: Final = (*READ_BY_XBERG, *_PICTURES)
"""The same with pictures, for a parser that was given languages."""

# xberg raises RuntimeError for all of these and says what kind by how the message begins.
_CODES: Final = (
    ("security violation", "too_large", "over a limit of xberg's"),
    ("unsupported format", "unsupported_type", "xberg does not read this format"),
    ("parsing error", "damaged", "xberg cannot read it"),
    ("validation error", "damaged", "xberg cannot read it"),
)


class XbergParser:
    """Reads documents with xberg; needs the extra ``broad``.

    Run it with ``Stage(XbergParser(), run="process")``: a process that has parsed with xberg may
    abort when it ends, which does no harm to a child (measured with 1.3.9: 2 of 10 exits).
    It reaches no network, unless languages are given.

    Args:
        reading: Limits, over which documents are rejected.
        ocr_languages: Languages of scans, as Tesseract names them: ``eng``, ``deu``. Their data is
            downloaded when first needed. Without any, scans have no text.
    """

    def __init__(
        self, reading: Reading | None = None, *, ocr_languages: Sequence[str] = ()
    ) -> None:
        self.reading = reading or Reading()
        self.ocr_languages = tuple(ocr_languages)

    @property
    def fingerprint(self) -> str:
        """Identity of the parser, its settings and the library, whose versions differ in output.

        Raises:
            MissingExtra: xberg is not installed.
        """
        try:
            version = importlib.metadata.version("xberg")
        except importlib.metadata.PackageNotFoundError as error:
            raise MissingExtra("xberg", "broad") from error
        return f"xberg/1:{version}" + ",".join(("", *self.ocr_languages))

    def parse(self, source: Source) -> ParsedText:
        """Turn the bytes into Markdown, with pages where xberg knows them.

        Raises:
            Reject: Password-protected, damaged, of a format that it does not read, or over a limit;
                codes ``encrypted``, ``damaged``, ``unsupported_type`` and ``too_large``.
            StageFault: The data of an OCR language cannot be downloaded.
        """
        try:
            import xberg
        except ImportError as error:
            raise MissingExtra("xberg", "broad") from error
        wanted = xberg.ExtractInput(
            kind="bytes",
            bytes=source.read(),
            # Sniffing calls every old Office format by one name, so xberg looks for itself.
            mime_type=None if source.media_type == _OLD_OFFICE else source.media_type,
            filename=source.name,
        )
        try:
            # It has no call that blocks, and no loop runs where parsers are called.
            found = asyncio.run(xberg.extract(wanted, self._settings(xberg)))
        except RuntimeError as error:
            raise _told(error) from None
        if not found.results:
            raise Reject("xberg cannot read it", "damaged")
        return self._parsed(found.results[0])

    def _settings(self, xberg: Any) -> Any:
        reading = self.reading
        return xberg.ExtractionConfig(
            output_format="markdown",
            # Its cache is a directory that nobody empties when a document is deleted.
            use_cache=False,
            disable_ocr=not self.ocr_languages,
            ocr=xberg.OcrConfig(backend="tesseract", language=list(self.ocr_languages))
            if self.ocr_languages
            else None,
            pages=xberg.PageConfig(extract_pages=True),
            security_limits=xberg.SecurityLimits(
                max_archive_size=reading.inflated_bytes,
                max_compression_ratio=reading.inflation_ratio,
                max_files_in_archive=reading.entries,
                max_content_size=4 * reading.text_chars,
                max_pages=reading.pages,
            ),
        )

    def _parsed(self, document: Any) -> ParsedText:
        if document.pages:
            texts = (clean(page.content)[0].strip() for page in document.pages)
            text, spans = pages.join(texts, self.reading, "page")
        else:
            text, spans = clean(document.content)[0].strip(), ()
            self.reading.check_chars(len(text))
        # What a warning quotes is unknown, so that there were some has to do.
        count = len(document.processing_warnings or ())
        notes = (f"xberg warns of {count:,} thing{'s' * (count > 1)} in it",) if count else ()
        return ParsedText(text, spans, notes)


def _told(error: RuntimeError) -> Exception:
    """Turn xberg's message into a rejection; it may quote the document, so it is not repeated."""
    message = str(error).lower()
    if "failed to download" in message:
        return StageFault("xberg cannot download the data of its OCR languages")
    if "password" in message or "encrypted" in message:
        return Reject("password-protected", "encrypted")
    for beginning, code, reason in _CODES:
        if message.startswith(beginning):
            return Reject(reason, code)
    return error
