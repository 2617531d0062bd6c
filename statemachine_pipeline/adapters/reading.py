"""What a reader of one media type may use up and what it keeps. Values only."""

from __future__ import annotations

import dataclasses
from typing import Final

from statemachine_pipeline.hooks import Reject

MEBIBYTE: Final = 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Limits and settings of the shipped parser; every reader is given them.

    Attributes:
        pages: Most pages, slides or sheets of one document.
        text_chars: Most characters of text.
        inflated_bytes: Most bytes that the entries of a zip-based document inflate to, counted
            while they inflate.
        inflation_ratio: Most bytes that one byte of such a document inflates to, over all entries.
        entries: Most entries of such a document.
        depth: How deep archives may lie in one another; 1 is the document itself. A report with a
            slide with a chart is three deep.
        keep_links: Write links as ``[words](target)``; else their words alone.
    """

    pages: int = 5_000
    text_chars: int = 20_000_000
    inflated_bytes: int = 512 * MEBIBYTE
    inflation_ratio: int = 200
    entries: int = 10_000
    depth: int = 3
    keep_links: bool = False

    def check_pages(self, count: int, what: str = "pages") -> None:
        """Refuse more pages than the limit.

        Raises:
            Reject: With code ``too_large``.
        """
        if count > self.pages:
            raise Reject(f"{count:,} {what} are more than the limit of {self.pages:,}", "too_large")

    def check_chars(self, count: int) -> None:
        """Refuse more text than the limit.

        Raises:
            Reject: With code ``too_large``.
        """
        if count > self.text_chars:
            raise Reject(
                f"{count:,} characters are more than the limit of {self.text_chars:,}", "too_large"
            )

    def check_bytes(self, size_bytes: int) -> None:
        """Refuse before decoding what cannot pass: a character takes at most four bytes.

        Raises:
            Reject: With code ``too_large``.
        """
        if size_bytes > 4 * self.text_chars:
            raise Reject(
                f"{size_bytes:,} bytes of text are more than the limit of "
                f"{self.text_chars:,} characters can hold",
                "too_large",
            )
