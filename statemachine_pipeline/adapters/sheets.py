"""XLSX to Markdown, sheet by sheet, with openpyxl.

A sheet is a page and its name a heading. Cells are written as they are shown, formulas as the
values that the last program to save the file computed.
"""

from __future__ import annotations

import decimal
import io
import re
import warnings
import zipfile
from datetime import datetime, time
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.adapters import grids, pages, zipped
from statemachine_pipeline.adapters.decoding import clean
from statemachine_pipeline.errors import MissingExtra
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import ParsedText

try:
    import openpyxl
    from openpyxl.utils.escape import unescape
    from openpyxl.utils.exceptions import InvalidFileException
except ImportError as error:
    raise MissingExtra("openpyxl", "documents") from error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.adapters.reading import Reading
    from statemachine_pipeline.records import Source

# What is raised over parts that are missing, or are not as the standard has them.
_BROKEN: Final = (
    *(AttributeError, IndexError, KeyError, OSError, OverflowError, TypeError, ValueError),
    # Both XML parsers that openpyxl may use raise kinds of SyntaxError.
    *(zipfile.BadZipFile, SyntaxError, InvalidFileException),
)
COLUMN_LIMIT: Final = 1_000
"""Cells further right are left out: one of them would make every row thousands of cells wide."""

_ROWS_OF_A_SHEET: Final = 1_048_576
# What a cell takes up in the text besides its own characters.
_CELL_CHARS: Final = 3
# Most places looked at for each character of text: a sheet may be empty but for its corners.
_PLACES_PER_CHAR: Final = 4
# In a format: "words", \c for a character, the width of one, padding, [$currency-locale], [colour].
_LITERAL: Final = re.compile(r'"([^"]*)"|\\(.)|_.|\*.|\[\$([^\]-]*)[^\]]*\]|\[[^\]]*\]')
_PLACES: Final = re.compile(r"([#0?][#0?,]*)(?:\.([0#?]*))?(%?)")
_ODD: Final = re.compile(r"[#0?] ?/|E[-+]")
_EXACT: Final = 1e15  # spreadsheets keep 15 digits
_EMPTY_FORMULA: Final = re.compile(
    rb"<c\b([^<>]*)><f\b[^<>]*(?:/>|>[^<]*</f>)(?:<v ?/>|<v></v>)?</c>"
)
_LISTED: Final = re.compile(rb"<(?:\w+:)?sheet\s")


def read_sheets(source: Source, reading: Reading) -> ParsedText:
    """Read the cells of every sheet that is not hidden, so that every passage names its columns.

    Hidden sheets, macros, comments and pictures are left out; charts only draw what is in cells.

    Raises:
        Reject: Damaged, password-protected, unsafe to inflate, or over a limit.
    """
    content = source.read()
    zipped.check(content, reading)
    # openpyxl warns of extensions it does not know and of odd dates, and quotes them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _read(content, reading)


def _read(content: bytes, reading: Reading) -> ParsedText:
    workbook = _open(content)
    tally = _Tally()
    try:
        shown = [sheet for sheet in workbook.worksheets if sheet.sheet_state == "visible"]
        reading.check_pages(len(shown), "sheets")
        tally.hidden = len(workbook.worksheets) - len(shown)
        tally.missing = _count_sheets(content) - len(workbook.sheetnames)
        tally.uncomputed = _count_uncomputed(content)
        texts = (_sheet(sheet, reading, tally) for sheet in shown)
        text, spans = pages.join(texts, reading, "sheet")
    except _BROKEN as error:
        raise _damaged(error) from None
    finally:
        workbook.close()
    if tally.missing and not text:
        raise Reject("damaged workbook: none of its sheets can be read", "damaged")
    return ParsedText(text, spans, tuple(tally.warnings()))


class _Tally:
    """Counts what was left out."""

    def __init__(self) -> None:
        self.hidden = self.missing = self.cut = self.uncomputed = 0

    def warnings(self) -> Iterator[str]:
        if self.missing:
            sheets = f"{self.missing:,} sheet{'s' * (self.missing > 1)}"
            yield f"{sheets} cannot be read: damaged?"
        if self.hidden:
            yield f"left out {self.hidden:,} hidden sheet{'s' * (self.hidden > 1)}"
        if self.cut:
            rows = f"{self.cut:,} row{'s' * (self.cut > 1)}"
            yield f"left out cells after the first {COLUMN_LIMIT:,} in {rows}"
        if self.uncomputed:
            yield (
                f"{self.uncomputed:,} formula{'s' * (self.uncomputed > 1)} without a value: "
                "open the file in a spreadsheet program and save it"
            )


def _open(content: bytes) -> Any:
    try:
        return openpyxl.load_workbook(
            io.BytesIO(content), read_only=True, data_only=True, keep_links=False
        )
    except _BROKEN as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> Reject:
    return Reject(f"damaged workbook: it cannot be read ({type(error).__name__})", "damaged")


def _sheet(sheet: Any, reading: Reading, tally: _Tally) -> str:
    try:
        blocks = list(grids.blocks(_rows(sheet, reading, tally)))
    except _BROKEN:
        tally.missing += 1
        return ""
    if not blocks:
        return ""
    text, _ = clean("\n\n".join((f"# {' '.join(sheet.title.split())}", *blocks)))
    return text


def _rows(sheet: Any, reading: Reading, tally: _Tally) -> Iterator[list[str]]:
    """Yield a sheet's rows; its own word on its size is not believed.

    Raises:
        Reject: Over the limit.
        ValueError: A row's number is beyond what the standard allows; rows that are missing before
            it would be made up without end.
    """
    sheet.reset_dimensions()
    chars = places = 0
    for index, cells in enumerate(sheet.iter_rows()):
        if index >= _ROWS_OF_A_SHEET:
            raise ValueError(index)
        if not cells:
            yield []
            continue
        row = [_shown(cell) for cell in cells[:COLUMN_LIMIT]]
        tally.cut += any(cell.value is not None for cell in cells[COLUMN_LIMIT:])
        places += len(row)
        chars += sum(len(text) + _CELL_CHARS for text in row if text)
        reading.check_chars(max(chars, places // _PLACES_PER_CHAR))
        yield row


def _shown(cell: Any) -> str:
    """Write a cell's value as a person sees it, dates as ISO 8601 has them."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, str):
        # Characters that XML cannot hold, such as a carriage return, are written _x000D_.
        return str(unescape(value)) if "_x" in value else value
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        is_date = value.time() == time.min
        return value.date().isoformat() if is_date else value.isoformat(" ", "seconds")
    if isinstance(value, int | float):
        return _number(value, cell.number_format or "General")
    return str(value)


def _number(value: float, pattern: str) -> str:
    """Round, group and name a number as its format says, below zero with a minus.

    Formats for fractions and powers of ten, and what depends on a condition, count as no format.
    """
    if not abs(value) < _EXACT:
        return str(value)
    section = pattern.partition(";")[0]
    plain = _LITERAL.sub(_literal, section)
    found = _PLACES.search(plain)
    if section == "General" or found is None or _ODD.search(plain):
        return format(value, ".15g")
    whole, fraction, percent = found[1], found[2] or "", found[3]
    scale = 2 * len(percent) - 3 * (len(whole) - len(whole.rstrip(",")))
    exact = decimal.Decimal(repr(value)).scaleb(scale)
    digits = format(_rounded(abs(exact), len(fraction)), ",f" if "," in whole.rstrip(",") else "f")
    before, dot, after = digits.partition(".")
    least = fraction.count("0")
    after = after[:least] + after[least:].rstrip("0")
    digits = before.zfill(whole.count("0")) + (dot if after else "") + after
    shown = f"{plain[: found.start()]}{digits}{percent}{plain[found.end() :]}".strip()
    return f"-{shown}" if exact < 0 else shown


def _rounded(value: decimal.Decimal, places: int) -> decimal.Decimal:
    """Round halves up, as spreadsheets do."""
    with decimal.localcontext(prec=400):
        return value.quantize(decimal.Decimal(1).scaleb(-places), decimal.ROUND_HALF_UP)


def _literal(found: re.Match[str]) -> str:
    """Return what a format writes as it stands, unless it could be taken for places of digits."""
    words = found[1] or found[2] or found[3] or ""
    return "" if _PLACES.search(words) else words


def _count_uncomputed(content: bytes) -> int:
    """Count formulas that nobody computed: programs that write workbooks leave that to readers."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name.startswith("xl/worksheets/")]
        cells = (cell for name in names for cell in _EMPTY_FORMULA.findall(archive.read(name)))
        # A formula whose value is an empty text was computed.
        return sum(b't="str"' not in attributes for attributes in cells)


def _count_sheets(content: bytes) -> int:
    """Count the sheets that a workbook lists; openpyxl passes over those whose part is missing."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return len(_LISTED.findall(archive.read("xl/workbook.xml")))
