"""PDF to text, page by page, with pypdfium2.

PDFium is not thread-safe and reads hostile files in C: run it in a child process. In threads, one
lock lets one document at a time in.
"""

from __future__ import annotations

import io
import re
import threading
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.adapters.decoding import clean
from statemachine_pipeline.errors import MissingExtra
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import ParsedText, Span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.adapters.reading import Reading
    from statemachine_pipeline.records import Source

PAGE_BREAK: Final = "\n\n"
_PASSWORD: Final = 4  # FPDF_ERR_PASSWORD
_SECURITY: Final = 5  # FPDF_ERR_SECURITY: a security handler that PDFium does not know
_LOCK: Final = threading.Lock()
# PDFium writes U+FFFE or U+0002 where a word was hyphenated at the end of a line.
_HYPHEN: Final = re.compile("[\ufffe\x02]")


def read_pdf(source: Source, reading: Reading) -> ParsedText:
    """Extract the text of every page; pages without text keep an empty span.

    Raises:
        Reject: Password-protected, damaged, or over a limit.
    """
    with _LOCK:
        document = _open(source)
        try:
            page_count = len(document)
            reading.check_pages(page_count)
            return _join(_pages(document, page_count), page_count, reading.text_chars)
        finally:
            document.close()


def _open(source: Source) -> Any:
    try:
        import pypdfium2
    except ImportError as error:
        raise MissingExtra("pypdfium2", "documents") from error
    try:
        return pypdfium2.PdfDocument(source.path if source.data is None else source.data)
    except pypdfium2.PdfiumError as error:
        if error.err_code == _PASSWORD:
            raise Reject("password-protected", "encrypted") from None
        if error.err_code == _SECURITY:
            raise Reject("encrypted in a way that cannot be read", "encrypted") from None
        raise Reject(f"damaged PDF: it cannot be opened ({_reason(error)})", "damaged") from None


def _pages(document: Any, page_count: int) -> Iterator[str | None]:
    """Yield the text of each page, or None for one that cannot be read."""
    from pypdfium2 import PdfiumError

    for index in range(page_count):
        try:
            page = document[index]
            try:
                text_page = page.get_textpage()
                try:
                    # Not get_text_bounded(): it glues neighbouring pieces of a page together
                    # ("ofAmerican", "Item A• Item B"), this one at worst breaks a line too often.
                    yield text_page.get_text_range()
                finally:
                    text_page.close()
            finally:
                page.close()
        except PdfiumError:
            yield None


def _join(pages: Iterator[str | None], page_count: int, text_limit_chars: int) -> ParsedText:
    text = io.StringIO()
    spans: list[Span] = []
    empty = unreadable = removed = 0
    for number, raw in enumerate(pages, 1):
        page, warnings = clean(_HYPHEN.sub("-", raw or ""))
        page = "\n".join(line.rstrip() for line in page.split("\n")).strip()
        removed += len(warnings)
        unreadable += raw is None
        empty += raw is not None and not page
        if page and text.tell():
            text.write(PAGE_BREAK)
        start = text.tell()
        text.write(page)
        spans.append(Span(page=number, start=start, end=text.tell()))
        if text.tell() > text_limit_chars:
            raise Reject(
                f"page {number:,} of {page_count:,} takes the text over the limit of "
                f"{text_limit_chars:,} characters",
                "too_large",
            )
    if unreadable == page_count:
        raise Reject(f"damaged PDF: none of its {page_count:,} pages can be read", "damaged")
    notes = (
        (unreadable, f"{unreadable:,} of {page_count:,} pages cannot be read: damaged?"),
        (empty, f"no text on {empty:,} of {page_count:,} pages: scans?"),
        (removed, f"control characters removed on {removed:,} of {page_count:,} pages"),
    )
    return ParsedText(text.getvalue(), tuple(spans), tuple(note for count, note in notes if count))


def _reason(error: Exception) -> str:
    """Keep PDFium's own word for what is wrong."""
    found = re.search(r"PDFium: (.*?)\.?\)", str(error))
    return found[1].lower() if found else "no reason given"
