"""XLSX: each sheet a page, its name a heading, cells as they are shown."""

from __future__ import annotations

import datetime as dt
import io
import re
import zipfile
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest

from statemachine_pipeline.adapters import sheets
from statemachine_pipeline.adapters.chunkers import MarkdownChunker
from statemachine_pipeline.adapters.media_types import XLSX, sniff
from statemachine_pipeline.adapters.parsers import DocumentParser
from statemachine_pipeline.adapters.reading import Reading
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import ParsedText, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def parse(content: bytes, **limits: int) -> ParsedText:
    """Parse a workbook."""
    source = Source(name="a", media_type=XLSX, size_bytes=len(content), data=content)
    return DocumentParser(Reading(**limits)).parse(source)


def workbook(rows: Iterable[Iterable[Any]], change: Callable[[Any], object] = id) -> bytes:
    """Make a workbook of one sheet, and change it."""
    made = openpyxl.Workbook()
    made.active.title = "Loans"
    for row in rows:
        made.active.append(list(row))
    change(made)
    stream = io.BytesIO()
    made.save(stream)
    return stream.getvalue()


def rewritten(content: bytes, part: str, change: Callable[[bytes], bytes | None]) -> bytes:
    """Return an archive with one part changed, or without it."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            kept = change(data) if entry.filename == part else data
            if kept is not None:
                new.writestr(entry, kept)
    return out.getvalue()


def test_sheets_are_pages_and_their_names_headings() -> None:
    """A sheet is a page and its name a heading; an empty one keeps an empty span."""

    def add(made: Any) -> None:
        made.create_sheet("Empty")
        made.create_sheet("Rooms").append(["Hall"])

    parsed = parse(workbook([["month", "loans"], ["May", 3]], add))
    first, second, third = (parsed.text[span.start : span.end] for span in parsed.spans)
    assert first == "# Loans\n\n| month | loans |\n| --- | --- |\n| May | 3 |"
    assert (second, third) == ("", "# Rooms\n\nHall")
    assert parsed.warnings == ()


def test_hidden_sheets_are_left_out_and_counted() -> None:
    """Nobody who opens the file sees them."""

    def hide(made: Any) -> None:
        for name, state in (("a", "hidden"), ("b", "veryHidden")):
            sheet = made.create_sheet(name)
            sheet["A1"], sheet.sheet_state = "secret", state

    parsed = parse(workbook([["words"]], hide))
    assert parsed.text == "# Loans\n\nwords"
    assert parsed.warnings == ("left out 2 hidden sheets",)


CELLS = [
    (3, "General", "3"),
    (0.1 + 0.2, "General", "0.3"),
    (1234.5, "#,##0.00", "1,234.50"),
    (2200.5, "#,##0", "2,201"),
    (-1234.5, "#,##0.00;[Red](#,##0.00)", "-1,234.50"),
    (0.256, "0%", "26%"),
    (0.256, "0.0%", "25.6%"),
    (1.5, "0.0##", "1.5"),
    (7, "00000", "00007"),
    (1234567, "#,##0,", "1,235"),
    (5, '0" pcs"', "5 pcs"),
    (1234.5, "[$€-407] #,##0.00", "€ 1,234.50"),
    (1234, "$#,##0_-", "$1,234"),
    (0.5, "# ?/?", "0.5"),
    (1234, "0.00E+00", "1234"),
    (1e20, "0", "1e+20"),
    (True, "General", "TRUE"),
    (dt.datetime.fromisoformat("2024-03-01"), "dd.mm.yyyy", "2024-03-01"),
    (dt.datetime.fromisoformat("2024-03-01 12:30"), "dd.mm.yyyy hh:mm", "2024-03-01 12:30:00"),
    (dt.time(12, 30), "hh:mm", "12:30:00"),
    ("#N/A", "General", "#N/A"),
    ("one_x000D_\ntwo_xD800_", "General", "one two"),
]


@pytest.mark.parametrize(("value", "pattern", "shown"), CELLS)
def test_cells_are_written_as_they_are_shown(value: Any, pattern: str, shown: str) -> None:
    """Rounded and grouped as the format says; dates as ISO 8601 has them."""

    def give(made: Any) -> None:
        made.active["A1"].number_format = pattern

    text = parse(workbook([[value]], give)).text
    assert text.removeprefix("# Loans\n\n").removeprefix("\\") == shown


def test_every_passage_of_a_long_sheet_names_its_sheet_and_columns() -> None:
    """The same table shape as CSV, below the sheet's name."""
    rows = [["id", "name"], *([n, f"reader {n}"] for n in range(500))]
    chunks = MarkdownChunker().split(parse(workbook(rows)))
    assert len(chunks) > 10
    assert all("| id | name |" in chunk.text for chunk in chunks)
    assert {(chunk.headings, chunk.page) for chunk in chunks} == {(("Loans",), 1)}


def test_formulas_are_their_values_and_those_without_are_counted() -> None:
    """Formulas as the values that the last program to save the file computed."""
    content = workbook([["sum"], ["=1+2"]])
    parsed = parse(content)
    assert parsed.text == "# Loans\n\nsum"
    assert parsed.warnings == (
        "1 formula without a value: open the file in a spreadsheet program and save it",
    )
    computed = rewritten(
        content,
        "xl/worksheets/sheet1.xml",
        lambda xml: re.sub(rb"</f><v ?(/>|></v>)", b"</f><v>3</v>", xml),
    )
    assert parse(computed) == ParsedText("# Loans\n\nsum\n3", parse(computed).spans)


def test_a_cell_far_out_is_left_out_and_told() -> None:
    """One of them would make every row thousands of cells wide."""

    def put(made: Any) -> None:
        made.active.cell(1, sheets.COLUMN_LIMIT + 1, "far")

    parsed = parse(workbook([["words"]], put))
    assert parsed.text == "# Loans\n\nwords"
    assert parsed.warnings == ("left out cells after the first 1,000 in 1 row",)


def test_a_sheet_that_lies_about_its_size_is_read() -> None:
    """Its own word on its size is not believed."""
    content = workbook([["a", "b"], ["1", "2"]])
    for told in (b"A1:XFD1048576", b"A1"):
        lying = rewritten(
            content, "xl/worksheets/sheet1.xml", lambda xml, told=told: xml.replace(b"A1:B2", told)
        )
        assert parse(lying).text == parse(content).text


def test_a_workbook_with_macros_is_read_without_them() -> None:
    """Macros are not read and never run."""
    main = b"spreadsheetml.sheet.main+xml"
    content = rewritten(
        workbook([["words"]]),
        "[Content_Types].xml",
        lambda xml: xml.replace(
            b"application/vnd.openxmlformats-officedocument." + main,
            b"application/vnd.ms-excel.sheet.macroEnabled.main+xml",
        ),
    )
    assert sniff("a.xlsm", content) == XLSX
    assert parse(content).text == "# Loans\n\nwords"


@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,
        lambda xml: xml[:-90],
        lambda xml: xml.replace(b'<row r="2"', b'<row r="99999999999"'),
    ],
)
def test_a_broken_sheet_costs_itself(change: Callable[[bytes], bytes | None]) -> None:
    """A sheet whose part is missing is told, though openpyxl passes over it."""
    content = workbook([["a", "b"], ["1", "2"]], lambda made: made.create_sheet("B").append(["c"]))
    parsed = parse(rewritten(content, "xl/worksheets/sheet1.xml", change))
    assert parsed.text == "# B\n\nc"
    assert parsed.warnings == ("1 sheet cannot be read: damaged?",)


def rejection(content: bytes, **limits: int) -> tuple[str, str]:
    """Return the code and the sentence with which a workbook is rejected."""
    with pytest.raises(Reject) as caught:
        parse(content, **limits)
    return caught.value.code, caught.value.reason


def test_what_cannot_be_read_is_refused_with_a_reason() -> None:
    """Damaged, unsafe, or over a limit."""
    content = workbook([["month", "loans"], ["May", 3]])
    sheet = "xl/worksheets/sheet1.xml"
    assert rejection(content[:-40])[0] == "damaged"
    for change in (lambda _: None, lambda _: b"<a", lambda xml: xml[:-90]):
        assert rejection(rewritten(content, sheet, change))[0] == "damaged"
    assert rejection(rewritten(content, "xl/workbook.xml", lambda _: b"<a"))[0] == "damaged"
    assert rejection(content, pages=0) == ("too_large", "1 sheets are more than the limit of 0")
    assert rejection(content, text_chars=20)[0] == "too_large"
    assert rejection(content, inflated_bytes=1000)[0] == "too_large"
