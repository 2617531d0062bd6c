"""Pages, slides and sheets to one text with a span for each."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import Span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from statemachine_pipeline.adapters.reading import Reading


def join(pages: Iterable[str], reading: Reading, what: str) -> tuple[str, tuple[Span, ...]]:
    """Join pages by a blank line; one without text keeps an empty span.

    Args:
        pages: Their texts in order, made while they are joined.
        reading: Limit: ``text_chars``.
        what: What one of them is called: ``slide``.

    Raises:
        Reject: Over the limit, with code ``too_large``.
    """
    text = io.StringIO()
    spans: list[Span] = []
    for number, page in enumerate(pages, 1):
        if page and text.tell():
            text.write("\n\n")
        start = text.tell()
        text.write(page)
        spans.append(Span(page=number, start=start, end=text.tell()))
        if text.tell() > reading.text_chars:
            raise Reject(
                f"{what} {number:,} takes the text over the limit of "
                f"{reading.text_chars:,} characters",
                "too_large",
            )
    return text.getvalue(), tuple(spans)
