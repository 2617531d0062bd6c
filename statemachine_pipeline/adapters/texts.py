"""HTML, Markdown and plain text: decoded, cleaned, and relieved of what nobody reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.adapters.decoding import clean, decode
from statemachine_pipeline.adapters.markup import declared_encoding, read_html
from statemachine_pipeline.adapters.media_types import HTML
from statemachine_pipeline.records import ParsedText

if TYPE_CHECKING:
    from statemachine_pipeline.adapters.reading import Reading
    from statemachine_pipeline.records import Source

# Pictures written into a text as base64: nobody reads them, yet each would become many passages.
_EMBEDDED: Final = re.compile(r"data:[\w/+.;=-]{1,100};base64,[A-Za-z0-9+/=]{200,}")


def read_text(source: Source, reading: Reading) -> ParsedText:
    """Decode a text and turn HTML into Markdown; Markdown stays as it is.

    Raises:
        Reject: Over a limit.
    """
    content = source.read()
    reading.check_bytes(len(content))
    is_html = source.media_type == HTML
    text, warnings = decode(content, declared_encoding(content) if is_html else None)
    if is_html:
        text = read_html(text, keep_links=reading.keep_links)
    else:
        text, lost = without_embedded(text)
        warnings += lost
    text, lost = clean(text)
    reading.check_chars(len(text))
    return ParsedText(text, (), (*warnings, *lost))


def without_embedded(text: str) -> tuple[str, list[str]]:
    """Leave out files that are written into a text.

    Returns:
        The text, and a sentence if there were any.
    """
    shorter, count = _EMBEDDED.subn("data:,", text)
    if not count:
        return text, []
    lost = len(text) - len(shorter)
    files = f"{count:,} embedded file{'s' * (count > 1)}"
    return shorter, [f"left out {files}, {lost:,} characters of base64"]
