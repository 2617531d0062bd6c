"""The shipped parser: PDF, HTML, Markdown and plain text, told apart by media type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.adapters.decoding import clean, decode
from statemachine_pipeline.adapters.markup import declared_encoding, read_html
from statemachine_pipeline.adapters.media_types import SUPPORTED
from statemachine_pipeline.adapters.pdf import read_pdf
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import ParsedText

if TYPE_CHECKING:
    from statemachine_pipeline.records import Source


class DocumentParser:
    """Reads a document whole, with what its media type needs.

    It keeps nothing between calls and can be pickled, so it runs in a child process, where a
    hostile file can do the least harm.

    Args:
        page_limit: PDFs with more pages are rejected.
        text_limit_chars: Documents with more text are rejected.
    """

    # Limits are no part of it: they decide whether there is a text, never which.
    fingerprint = "document-parser/1"

    def __init__(self, *, page_limit: int = 5_000, text_limit_chars: int = 20_000_000) -> None:
        self.page_limit = page_limit
        self.text_limit_chars = text_limit_chars

    def parse(self, source: Source) -> ParsedText:
        """Turn the bytes into Markdown or plain text, with pages where the format has them.

        A PDF of scans gives an empty text and one empty span for each page.

        Raises:
            Reject: Password-protected, damaged, over a limit, or of another type; codes
                ``encrypted``, ``damaged``, ``too_large`` and ``unsupported_type``.
        """
        match source.media_type:
            case "application/pdf":
                return read_pdf(
                    source, page_limit=self.page_limit, text_limit_chars=self.text_limit_chars
                )
            case "text/html":
                return self._html(source)
            case "text/markdown" | "text/plain":
                return self._text(source)
            case other:
                raise Reject(
                    f"no parser for {other or 'a document of unknown type'}; "
                    f"supported: {', '.join(SUPPORTED.values())}",
                    "unsupported_type",
                )

    def _text(self, source: Source) -> ParsedText:
        content = source.read()
        self._check_bytes(len(content))
        text, decoding = decode(content)
        text, cleaning = clean(text)
        self._check_chars(len(text))
        return ParsedText(text, (), (*decoding, *cleaning))

    def _html(self, source: Source) -> ParsedText:
        content = source.read()
        self._check_bytes(len(content))
        text, decoding = decode(content, declared_encoding(content))
        text, cleaning = clean(text)
        text = read_html(text)
        self._check_chars(len(text))
        return ParsedText(text, (), (*decoding, *cleaning))

    def _check_bytes(self, size_bytes: int) -> None:
        """Refuse before decoding what cannot pass: a character takes at most four bytes."""
        if size_bytes > 4 * self.text_limit_chars:
            raise Reject(
                f"{size_bytes:,} bytes of text are more than the limit of "
                f"{self.text_limit_chars:,} characters can hold",
                "too_large",
            )

    def _check_chars(self, count: int) -> None:
        if count > self.text_limit_chars:
            raise Reject(
                f"{count:,} characters are more than the limit of {self.text_limit_chars:,}",
                "too_large",
            )
