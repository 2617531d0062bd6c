"""Chunkers: cut a text into passages, each with its place and the titles above it."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.adapters.headings import Outline
from statemachine_pipeline.errors import MissingExtra
from statemachine_pipeline.records import Chunk

if TYPE_CHECKING:
    from statemachine_pipeline.records import ParsedText

# Its vocabulary (cl100k_base) is compiled into the splitter, so nothing is downloaded.
_MODEL = "text-embedding-3-small"


class MarkdownChunker:
    """Cuts at headings, blocks, sentences and words, in that order, up to a number of tokens.

    Tokens are those of OpenAI's cl100k_base; other models count a few more or fewer.

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
            Chunks whose ``text`` is ``parsed.text[start:end]``, with the titles in force where
            each begins and the page it begins on.
        """
        outline = Outline(text.text)
        page_starts = [span.start for span in text.spans]
        chunks: list[Chunk] = []
        for start, passage in self._splitter().chunk_indices(text.text):
            if not passage.strip():
                continue
            page = None
            if page_starts:
                # Pages without text share their start with the next page: the last one is right.
                at = bisect.bisect_right(page_starts, start) - 1
                page = text.spans[max(at, 0)].page
            chunks.append(
                Chunk(
                    index=len(chunks),
                    text=passage,
                    start=start,
                    end=start + len(passage),
                    headings=outline.at(start),
                    page=page,
                )
            )
        return chunks

    def _splitter(self) -> Any:
        try:
            from semantic_text_splitter import MarkdownSplitter
        except ImportError as error:
            raise MissingExtra("semantic-text-splitter", "documents") from error
        return MarkdownSplitter.from_tiktoken_model(
            _MODEL, self.max_tokens, overlap=self.overlap_tokens
        )
