"""Chunkers: cut a text into passages, each with its place and the titles above it."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.adapters.headings import Outline
from statemachine_pipeline.errors import MissingExtra
from statemachine_pipeline.records import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.records import ParsedText

# Its vocabulary (cl100k_base) is compiled into the splitter, so nothing is downloaded.
_MODEL: Final = "text-embedding-3-small"

LEAST_SECTION_CHARS: Final = 100
"""A shorter section shares a passage with the one after it."""

PIECE_CHARS: Final = 20_000
"""Longer sections are split in pieces, since the splitter's time grows with their square.

Measured: 400,000 characters of Chinese prose took 68 s at once and 4 s in pieces.
"""


class MarkdownChunker:
    """Cuts at headings, then at blocks, sentences and words, up to a number of tokens.

    A passage keeps within one section, but for sections of a line or two, which are put together;
    the titles it carries stand above all of it. Tokens are those of OpenAI's cl100k_base; other
    models count a few more or fewer.

    Args:
        max_tokens: Most tokens in a passage.
        overlap_tokens: Most tokens that a passage repeats of the one before.
    """

    def __init__(self, *, max_tokens: int = 400, overlap_tokens: int = 0) -> None:
        if not 0 <= overlap_tokens < max_tokens:
            raise ValueError(
                f"overlap_tokens={overlap_tokens} must be at least 0 and less than "
                f"max_tokens={max_tokens}"
            )
        self.max_tokens = max_tokens
        self.overlap_tokens = overlap_tokens

    @property
    def fingerprint(self) -> str:
        """Identity of the chunker and its settings."""
        return f"markdown-chunker/1:cl100k_base,max={self.max_tokens},overlap={self.overlap_tokens}"

    def split(self, text: ParsedText) -> list[Chunk]:
        """Cut ``text`` into passages in reading order; none is blank.

        Returns:
            Chunks whose ``text`` is ``parsed.text[start:end]``, with the titles above all of it
            and the page it begins on.
        """
        outline = Outline(text.text)
        # Pages without text begin where the next one does: bisect_right finds the last of them.
        page_starts = [span.start for span in text.spans]
        chunks: list[Chunk] = []
        for start, passage in self._passages(text.text, outline):
            page = bisect.bisect_right(page_starts, start) - 1
            chunks.append(
                Chunk(
                    index=len(chunks),
                    text=passage,
                    start=start,
                    end=start + len(passage),
                    headings=outline.above(start, start + len(passage)),
                    page=text.spans[page].page if page >= 0 else None,
                )
            )
        return chunks

    def _passages(self, text: str, outline: Outline) -> Iterator[tuple[int, str]]:
        """Yield the passages that are not blank, with their offsets."""
        splitter = self._splitter()
        for section_start, section_end in outline.sections(LEAST_SECTION_CHARS):
            for piece_start, piece_end in _pieces(text, section_start, section_end):
                for start, passage in splitter.chunk_indices(text[piece_start:piece_end]):
                    if passage.strip():
                        yield piece_start + start, passage

    def _splitter(self) -> Any:
        try:
            from semantic_text_splitter import MarkdownSplitter
        except ImportError as error:
            raise MissingExtra("semantic-text-splitter", "documents") from error
        return MarkdownSplitter.from_tiktoken_model(
            _MODEL, self.max_tokens, overlap=self.overlap_tokens
        )


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of pieces short enough for the splitter.

    They end after a blank line, else after a line or a word.
    """
    while end - start > PIECE_CHARS:
        least, most = start + PIECE_CHARS // 2, start + PIECE_CHARS
        cut = most
        for boundary in ("\n\n", "\n", " "):
            found = text.rfind(boundary, least, most)
            if found >= 0:
                cut = found + len(boundary)
                break
        yield start, cut
        start = cut
    yield start, end
