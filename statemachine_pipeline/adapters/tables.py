"""A table's cells, rendered as a Markdown table or, for layout tables, as paragraphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# A cell longer than this holds prose: the table only lays out a page.
_PROSE_CHARS: Final = 1_000
_COLUMN_LIMIT: Final = 100
_LEAST_COLUMNS: Final = 2


class Table:
    """Collects one table's cells, row by row."""

    def __init__(self) -> None:
        self._rows: list[list[str]] = []
        self._covered: dict[int, int] = {}  # column: rows that a cell above still reaches into
        self._size = (1, 1)
        self._outside: list[str] = []

    def begin_row(self) -> None:
        """Begin a row."""
        self._rows.append([])
        self._fill()

    def begin_cell(self, columns: str | None, rows: str | None, outside: list[str]) -> None:
        """Begin a cell.

        Args:
            columns: How many columns it covers, as its attribute says.
            rows: How many rows.
            outside: Text collected so far outside of cells, given back by ``end_cell``.
        """
        self._size = (_count(columns), _count(rows))
        self._outside = outside

    def end_cell(self, text: str) -> list[str]:
        """Take the cell's text; places that it covers stay empty, so that columns line up."""
        if not self._rows:
            self._rows.append([])
        row = self._rows[-1]
        columns, rows = self._size
        for column in range(len(row), min(len(row) + columns, _COLUMN_LIMIT)):
            row.append(text)
            text = ""
            if rows > 1:
                self._covered[column] = rows - 1
        self._fill()
        return self._outside

    def _fill(self) -> None:
        """Leave places empty that cells above reach into."""
        row = self._rows[-1]
        while self._covered.get(len(row), 0) > 0:
            self._covered[len(row)] -= 1
            row.append("")

    def flat(self) -> str:
        """Return all cells on one line."""
        return "; ".join(" ".join(filter(None, row)) for row in self._rows if any(row))

    def blocks(self) -> Iterator[str]:
        """Yield the table as Markdown: one block, or one for each cell of a layout table."""
        rows = [row for row in self._rows if any(row)]
        width = max((len(row) for row in rows), default=0)
        if width < _LEAST_COLUMNS or any(len(cell) > _PROSE_CHARS for row in rows for cell in row):
            yield from (cell for row in rows for cell in row if cell)
            return
        lines = [self._line(row, width) for row in rows]
        lines.insert(1, "|" + " --- |" * width)
        yield "\n".join(lines)

    @staticmethod
    def _line(row: list[str], width: int) -> str:
        cells = (" ".join(cell.split()).replace("|", "\\|") for cell in row)
        return "| " + " | ".join([*cells, *[""] * (width - len(row))]) + " |"


def _count(attribute: str | None) -> int:
    """Read a span; what is no number, or zero, counts as one."""
    told = attribute is not None and attribute.isascii() and attribute.isdigit()
    return max(1, int(attribute[:4])) if told and attribute else 1
