"""Rows of cells to text in which a passage from the middle still names its columns.

A chunker cuts a long table anywhere. So the header is repeated over every few rows, and a row too
long for that becomes lines of ``column: value``. CSV, sheets and tables on slides come out alike.
"""

from __future__ import annotations

import bisect
import re
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

GROUP_BYTES: Final = 700
"""Most bytes of a group of rows with its header: 170 tokens of English, 320 of figures.

So a group fits a passage of 400 tokens whole, and a passage never begins within one. Bytes, not
characters: a Chinese character takes three bytes and about one token.
"""

_KEY_BYTES: Final = 100
# A cell of these alone is a figure, a date or a time, and no name of a column.
_FIGURES: Final = "0123456789 .,:/%€$£¥()+-'\u2019\xa0"
_YEAR: Final = re.compile(r"(?:19|20)\d\d")
_DIGITS: Final = re.compile(r"\d+")
_ROWS_COMPARED: Final = 3
# What makes a line something else in Markdown.
_MARKS: Final = frozenset("#>-+*|~`=\\")

Row: TypeAlias = "list[str]"


def blocks(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Render rows as blocks of Markdown, to be joined by a blank line.

    The first row is the header, unless it holds figures only or one that looks like the one below
    it and is no year. Lines before it that fill their first cell alone are a caption. After a
    blank row another table may begin: when its columns are others, or its first row is words over
    figures. Blanks and line ends in a cell become one space.

    Args:
        rows: Cells as text; rows may differ in length.
    """
    header: Row = []
    head = ""
    columns: Sequence[int] = ()
    known: set[int] = set()  # made once for each table, as the head is: there may be many runs
    for run in _runs(rows):
        filled = sorted({n for row in run for n, cell in enumerate(row) if cell})
        if len(filled) == 1:
            yield "\n".join(escaped(row[filled[0]]) for row in run)
            continue
        while _cell(run[0], filled[0]) and sum(map(bool, run[0])) == 1:
            yield escaped(run.pop(0)[filled[0]])
        is_new = not known.issuperset(filled) or _is_titled(_picked(run, filled), len(filled))
        if is_new:
            columns, known = filled, set(filled)
        table = _picked(run, columns)
        if is_new:
            header = table.pop(0) if _is_header(table) else []
            header += [""] * (len(columns) - len(header))
            head = f"{_line(header)}\n|{' --- |' * len(header)}"
        yield from _groups(header, head, table)


def _runs(rows: Iterable[Sequence[str]]) -> Iterator[list[Row]]:
    """Yield the rows between blank rows, their cells cleaned.

    Rows stay as long as they are: padded to the longest, one long row among a million short ones
    would take more memory than there is.
    """
    run: list[Row] = []
    for cells in rows:
        row = [" ".join(cell.split()) for cell in cells]
        if any(row):
            run.append(row)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _cell(row: Row, place: int) -> str:
    return row[place] if place < len(row) else ""


def _picked(run: list[Row], columns: Sequence[int]) -> list[Row]:
    return [[row[n] for n in columns[: bisect.bisect_left(columns, len(row))]] for row in run]


def _is_name(cell: str) -> bool:
    return bool(cell.strip(_FIGURES))


def _is_figure(cell: str) -> bool:
    return bool(cell) and not _is_name(cell)


def _is_header(table: list[Row]) -> bool:
    first, below = table[0], table[1 : 1 + _ROWS_COMPARED]
    alike = (
        _looks(cell) == _looks(_cell(row, n))
        for n, cell in enumerate(first)
        if cell and not _is_name(cell) and not _YEAR.fullmatch(cell)
        for row in below
    )
    is_corner = not _cell(first, 0) and any(_is_name(_cell(row, 0)) for row in below)
    return (is_corner or any(map(_is_name, first))) and not any(alike)


def _looks(cell: str) -> str:
    return _DIGITS.sub("9", cell)


def _is_titled(table: list[Row], width: int) -> bool:
    """Whether the first row is words and one of them stands over a column of figures."""
    first, rest = table[0], table[1:]
    if not rest or len(first) < width or not all(map(_is_name, first)):
        return False
    return any(all(_is_figure(_cell(row, n)) for row in rest) for n in range(width))


def _groups(header: Row, head: str, rows: list[Row]) -> Iterator[str]:
    # Bytes are counted only where they may matter; a head may be as long as the document.
    head_bytes = _size(head) if len(head) <= GROUP_BYTES else len(head)
    group, size_bytes = [head], head_bytes
    is_narrow = 2 * head_bytes <= GROUP_BYTES
    for row in rows:
        line = _line(row + [""] * (len(header) - len(row))) if is_narrow else ""
        line_bytes = _size(line) + 1
        fits_alone = is_narrow and head_bytes + line_bytes <= GROUP_BYTES
        if group[1:] and (not fits_alone or size_bytes + line_bytes > GROUP_BYTES):
            yield "\n".join(group)
            group, size_bytes = [head], head_bytes
        if fits_alone:
            group.append(line)
            size_bytes += line_bytes
        else:
            yield from _record(header, row)
    if group[1:] or not rows:
        yield "\n".join(group)


def _line(row: Row) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _record(header: Row, row: Row) -> Iterator[str]:
    """Yield a row as lines of ``column: value``, its first one repeated where it is cut."""
    pairs = zip(header, row, strict=False)
    first, *rest = (escaped(f"{name}: {cell}" if name else cell) for name, cell in pairs if cell)
    key = [first] if _size(first) <= _KEY_BYTES else []
    part, size_bytes = [first], _size(first)
    for line in rest:
        if size_bytes + _size(line) > GROUP_BYTES and len(part) > len(key):
            yield "\n".join(part)
            part, size_bytes = [*key], sum(map(_size, key))
        part.append(line)
        size_bytes += _size(line) + 1
    yield "\n".join(part)


def escaped(line: str) -> str:
    """Keep a line of words from being read as a heading, a list, a quotation or a table."""
    return f"\\{line}" if line[:1] in _MARKS else line


def _size(text: str) -> int:
    return len(text.encode())
