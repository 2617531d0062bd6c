"""A table's cells, rendered as a Markdown table or, for layout tables, as paragraphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# A cell longer than this holds prose: the table only lays out a page.
_PROSE_CHARS: Final = 1_000
_COLUMN_LIMIT: Final = 100


class Table:
    """Collects one table's cells, row by row."""

    def __init__(self) -> None:
        self._rows: list[list[str]] = []
        self._columns = 1

    def begin_row(self) -> None:
        """Begin a row."""
        self._rows.append([])

    def begin_cell(self, columns: str | None) -> None:
        """Begin a cell that is ``columns`` wide, as the attribute says it."""
        wide = columns is not None and columns.isdecimal() and len(columns) < 4  # noqa: PLR2004
        self._columns = min(int(columns), _COLUMN_LIMIT) if wide and columns else 1

    def end_cell(self, text: str) -> None:
        """Take the cell's text; cells that it covers stay empty, so that columns line up."""
        if not self._rows:
            self._rows.append([])
        row = self._rows[-1]
        if len(row) < _COLUMN_LIMIT:
            row.append(text)
            row.extend([""] * (self._columns - 1))
        self._columns = 1

    def flat(self) -> str:
        """Return all cells on one line."""
        return "; ".join(" ".join(filter(None, row)) for row in self._rows if any(row))

    def blocks(self) -> Iterator[str]:
        """Yield the table as Markdown: one block, or one for each cell of a layout table."""
        rows = [row for row in self._rows if any(row)]
        width = max((len(row) for row in rows), default=0)
        if width < 2 or any(len(cell) > _PROSE_CHARS for row in rows for cell in row):  # noqa: PLR2004
            yield from (cell for row in rows for cell in row if cell)
            return
        lines = [self._line(row, width) for row in rows]
        lines.insert(1, "|" + " --- |" * width)
        yield "\n".join(lines)

    @staticmethod
    def _line(row: list[str], width: int) -> str:
        cells = (cell.replace("\n", " ").replace("|", "\\|") for cell in row)
        return "| " + " | ".join([*cells, *[""] * (width - len(row))]) + " |"
