"""CSV and TSV: which character separates, and rows to text."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.adapters import grids
from statemachine_pipeline.adapters.decoding import clean, decode
from statemachine_pipeline.adapters.media_types import TSV
from statemachine_pipeline.adapters.texts import without_embedded
from statemachine_pipeline.records import ParsedText

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.adapters.reading import Reading
    from statemachine_pipeline.records import Source

_SEPARATORS: Final = ",;\t|"
_SAMPLE_CHARS: Final = 64 * 1024
_SAMPLE_ROWS: Final = 200
# What a cell takes up in the text besides its own characters.
_CELL_CHARS: Final = 3


def read_separated(source: Source, reading: Reading) -> ParsedText:
    """Decode a table of separated values and write it so that every passage names its columns.

    Text in which nothing separates columns is kept as it is.

    Raises:
        Reject: Over a limit.
    """
    content = source.read()
    reading.check_bytes(len(content))
    text, warnings = decode(content)
    for mended in (without_embedded, clean):
        text, lost = mended(text)
        warnings += lost
    reading.check_chars(len(text))
    text, separator = _without_announcement(text)
    if separator is None:
        separator = "\t" if source.media_type == TSV else _separator(text)
    if separator is None:
        return ParsedText(text, (), tuple(warnings))
    try:
        rows = list(_rows(text, separator))
    except csv.Error as error:
        text = "\n".join(line.rstrip() for line in text.split("\n"))
        return ParsedText(text, (), (*warnings, f"no table: {error}; kept as plain text"))
    # A comma takes one character, the mark between two cells of the text three.
    reading.check_chars(sum(len(cell) + _CELL_CHARS for row in rows for cell in row))
    text = "\n\n".join(grids.blocks(rows))
    reading.check_chars(len(text))
    return ParsedText(text, (), tuple(warnings))


def _without_announcement(text: str) -> tuple[str, str | None]:
    """Take off Excel's first line ``sep=;``, which says what separates."""
    line, _, rest = text.partition("\n")
    told = line.strip(' "')
    if told[:4].lower() == "sep=" and len(told) == 5:  # noqa: PLR2004 - and one character
        return rest, told[4]
    return text, None


def _separator(text: str) -> str | None:
    """Find the character that cuts most rows of a sample into equally many cells.

    ``csv.Sniffer`` guesses from counts of characters, takes letters and spaces for separators,
    and its patterns take minutes on a sample full of quotes; this asks the reader itself.
    """
    sample = text[:_SAMPLE_CHARS]
    if len(text) > len(sample):
        sample = sample[: sample.rfind("\n") + 1] or sample
    best: tuple[float, int] = (0.0, 1)
    found = None
    for separator in _SEPARATORS:
        widths = Counter(map(len, _sampled(sample, separator)))
        widths.pop(0, None)  # blank lines
        if not widths:
            continue
        width, count = widths.most_common(1)[0]
        score = (count / widths.total(), width)
        if width > 1 and score > best:
            best, found = score, separator
    return found


def _sampled(sample: str, separator: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(sample), delimiter=separator)
    rows: list[list[str]] = []
    # A cell over csv's limit ends it: what came before counts.
    with contextlib.suppress(csv.Error):
        rows.extend(itertools.islice(reader, _SAMPLE_ROWS))
    return rows


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    """Read all rows; where quotes do not match, they are taken as they stand."""
    try:
        return iter(list(csv.reader(io.StringIO(text), delimiter=separator, strict=True)))
    except csv.Error:
        return csv.reader(io.StringIO(text), delimiter=separator, quoting=csv.QUOTE_NONE)
