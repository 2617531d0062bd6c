"""The shipped parser: one reader for each media type, imported when it is needed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.adapters.media_types import (
    CSV,
    DOCX,
    EMAIL,
    EPUB,
    HTML,
    MARKDOWN,
    ODT,
    PDF,
    PLAIN,
    PPTX,
    SUPPORTED,
    TSV,
    XLSX,
)
from statemachine_pipeline.adapters.reading import Reading
from statemachine_pipeline.hooks import Reject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from statemachine_pipeline.hooks import Done
    from statemachine_pipeline.records import ParsedText, Source

_READERS: Final[Mapping[str, str]] = {
    PDF: "pdf:read_pdf",
    HTML: "texts:read_text",
    MARKDOWN: "texts:read_text",
    PLAIN: "texts:read_text",
    DOCX: "word:read_docx",
    ODT: "opendocument:read_odt",
    EPUB: "epub:read_epub",
    EMAIL: "mail:read_mail",
    CSV: "separated:read_separated",
    TSV: "separated:read_separated",
    PPTX: "slides:read_slides",
    XLSX: "sheets:read_sheets",
}
"""Module and function for each media type, so that no library is loaded for another's sake."""


class DocumentParser:
    """Reads a document whole, with what its media type needs.

    It keeps nothing between calls and can be pickled, so it runs in a child process, where a
    hostile file can do the least harm.

    Args:
        reading: Limits, over which documents are rejected, and what is kept.
    """

    def __init__(self, reading: Reading | None = None) -> None:
        self.reading = reading or Reading()

    @property
    def fingerprint(self) -> str:
        """Identity of the parser and what changes its output.

        Limits are no part of it: they decide whether there is a text, never which.
        """
        return "document-parser/1" + ",links" * self.reading.keep_links

    def parse(self, source: Source) -> ParsedText | Done:
        """Turn the bytes into Markdown or plain text, with pages where the format has them.

        A PDF of scans gives an empty text and one empty span for each page. What is attached to an
        e-mail comes with its text, as children.

        Raises:
            Reject: Password-protected, damaged, unsafe, over a limit, or of another type; codes
                ``encrypted``, ``damaged``, ``unsafe_xml``, ``too_large`` and
                ``unsupported_type``.
        """
        place = _READERS.get(source.media_type or "")
        if place is None:
            raise Reject(
                f"no parser for {source.media_type or 'a document of unknown type'}; "
                f"supported: {', '.join(SUPPORTED.values())}",
                "unsupported_type",
            )
        module, name = place.split(":")
        found = importlib.import_module(f"statemachine_pipeline.adapters.{module}")
        read: Callable[[Source, Reading], ParsedText | Done] = getattr(found, name)
        return read(source, self.reading)
