"""The shipped parser: PDF, HTML, Markdown and plain text, told apart by media type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.adapters.decoding import clean, decode
from statemachine_pipeline.adapters.markup import declared_encoding, read_html
from statemachine_pipeline.adapters.media_types import HTML, PDF, SUPPORTED
from statemachine_pipeline.adapters.pdf import read_pdf
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import ParsedText

if TYPE_CHECKING:
    from statemachine_pipeline.records import Source

# Pictures written into a text as base64: nobody reads them, yet each would become many passages.
_EMBEDDED: Final = re.compile(r"data:[\w/+.;=-]{1,100};base64,[A-Za-z0-9+/=]{200,}")


class DocumentParser:
    """Reads a document whole, with what its media type needs.

    It keeps nothing between calls and can be pickled, so it runs in a child process, where a
    hostile file can do the least harm.

    Args:
        page_limit: PDFs with more pages are rejected.
        text_limit_chars: Documents with more text are rejected.
        keep_links: Write the links of HTML as ``[words](target)``; else their words alone.
    """

    def __init__(
        self,
        *,
        page_limit: int = 5_000,
        text_limit_chars: int = 20_000_000,
        keep_links: bool = False,
    ) -> None:
        self.page_limit = page_limit
        self.text_limit_chars = text_limit_chars
        self.keep_links = keep_links

    @property
    def fingerprint(self) -> str:
        """Identity of the parser and what changes its output.

        Limits are no part of it: they decide whether there is a text, never which.
        """
        return "document-parser/1" + ",links" * self.keep_links

    def parse(self, source: Source) -> ParsedText:
        """Turn the bytes into Markdown or plain text, with pages where the format has them.

        A PDF of scans gives an empty text and one empty span for each page.

        Raises:
            Reject: Password-protected, damaged, over a limit, or of another type; codes
                ``encrypted``, ``damaged``, ``too_large`` and ``unsupported_type``.
        """
        if source.media_type == PDF:
            return read_pdf(
                source, page_limit=self.page_limit, text_limit_chars=self.text_limit_chars
            )
        if source.media_type not in SUPPORTED:
            raise Reject(
                f"no parser for {source.media_type or 'a document of unknown type'}; "
                f"supported: {', '.join(SUPPORTED.values())}",
                "unsupported_type",
            )
        content = source.read()
        self._check_bytes(len(content))
        is_html = source.media_type == HTML
        text, warnings = decode(content, declared_encoding(content) if is_html else None)
        if is_html:
            text = read_html(text, keep_links=self.keep_links)
        else:
            text, lost = _without_embedded(text)
            warnings += lost
        text, lost = clean(text)
        self._check_chars(len(text))
        return ParsedText(text, (), (*warnings, *lost))

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


def _without_embedded(text: str) -> tuple[str, list[str]]:
    shorter, count = _EMBEDDED.subn("data:,", text)
    if not count:
        return text, []
    lost = len(text) - len(shorter)
    files = f"{count:,} embedded file{'s' * (count > 1)}"
    return shorter, [f"left out {files}, {lost:,} characters of base64"]
