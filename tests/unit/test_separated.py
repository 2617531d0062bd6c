"""CSV and TSV: what separates, and that a passage from the middle names its columns."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from statemachine_pipeline.adapters import grids
from statemachine_pipeline.adapters.chunkers import MarkdownChunker
from statemachine_pipeline.adapters.media_types import CSV, TSV
from statemachine_pipeline.adapters.parsers import DocumentParser
from statemachine_pipeline.adapters.reading import Reading
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import ParsedText, Source


def parse(content: bytes | str, media_type: str = CSV, **limits: int) -> ParsedText:
    """Parse a table."""
    data = content.encode() if isinstance(content, str) else content
    source = Source(name="a", media_type=media_type, size_bytes=len(data), data=data)
    return DocumentParser(Reading(**limits)).parse(source)


def table(*rows: str) -> str:
    """Write rows as the Markdown table that is expected."""
    head, *rest = (f"| {row} |" for row in rows)
    return "\n".join([head, "|" + " --- |" * (head.count(" | ") + 1), *rest])


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(separator: str) -> None:
    """Find the character that cuts most rows of a sample into equally many cells."""
    text = "name,city,fee\nAnna,Berlin,2.50\nBela,Wien,3.10\n".replace(",", separator)
    assert parse(text).text == table(
        "name | city | fee", "Anna | Berlin | 2.50", "Bela | Wien | 3.10"
    )


def test_commas_within_cells_do_not_mislead() -> None:
    """Decimal commas are no separators where semicolons are."""
    assert parse("name;fee\nAnna;2,50\nBela;3,10\n").text == table(
        "name | fee", "Anna | 2,50", "Bela | 3,10"
    )


def test_a_tsv_is_separated_by_tabs_and_excel_may_say_what_separates() -> None:
    """Take off Excel's first line ``sep=;``, which says what separates."""
    assert parse("a, b\tc\n1, 2\t3\n", TSV).text == table("a, b | c", "1, 2 | 3")
    assert parse("sep=/\na/b\n1/2\n").text == table("a | b", "1 | 2")


def test_quotes_hold_separators_and_lines() -> None:
    """Blanks and line ends in a cell become one space; a bar does not end it."""
    assert parse('a,b\n"x, ""y""\nz","1|2"\n').text == table("a | b", 'x, "y" z | 1\\|2')


def test_quotes_that_do_not_match_lose_nothing() -> None:
    """Where quotes do not match, they are taken as they stand."""
    assert parse('size,name\n5" pipe,"a\n6,b\n').text == table(
        "size | name", '5" pipe | "a', "6 | b"
    )


def test_text_without_columns_is_kept() -> None:
    """Text in which nothing separates columns is kept as it is."""
    assert parse("one\ntwo\n") == ParsedText("one\ntwo\n")
    assert parse("") == ParsedText("")


def test_a_cell_that_python_refuses_leaves_plain_text() -> None:
    """A cell over csv's limit of 131,072 characters is no reason to lose the document."""
    parsed = parse("a,b\n1," + "x" * 140_000)
    assert parsed.text.startswith("a,b\n1,xxx")
    assert parsed.warnings[0].startswith("no table: field larger than field limit")


def test_embedded_pictures_are_left_out() -> None:
    """Nobody reads base64, yet it would become many passages."""
    parsed = parse('name,picture\nAnna,"data:image/png;base64,' + "QUJD" * 100 + '"\n')
    assert parsed.text == table("name | picture", "Anna | data:,")
    assert parsed.warnings == ("left out 1 embedded file, 416 characters of base64",)


def test_legacy_encodings_are_guessed() -> None:
    """As in every text, a warning names the encoding."""
    parsed = parse("Straße;Größe\nBücherweg;5\n".encode("cp1252"))
    assert parsed.text == table("Straße | Größe", "Bücherweg | 5")
    assert parsed.warnings == ("not UTF-8; read as cp1252, which is a guess",)


def test_limits_name_both_figures() -> None:
    """Over a limit -> Reject, before the text is made."""
    with pytest.raises(Reject, match="characters are more than the limit of 30") as caught:
        parse("a,b,c\n" * 5, text_chars=30)
    assert caught.value.code == "too_large"


LONG = "id,name,city\n" + "".join(f"{n},reader {n},Alder Vale\n" for n in range(500))
WIDE = (
    ",".join(f"question {n}" for n in range(80))
    + "\n"
    + "".join(",".join(f"{row}/{n}" for n in range(80)) + "\n" for row in range(5))
)
CHINESE = "编号,名称\n" + "".join(f"{n},{'图书馆的年次报告' * 4}\n" for n in range(100))


@pytest.mark.parametrize(
    ("text", "names"), [(LONG, "| id | name | city |"), (CHINESE, "| 编号 | 名称 |")]
)
def test_every_passage_of_a_long_table_begins_with_its_header(text: str, names: str) -> None:
    """A chunker cuts a long table anywhere, so the header is repeated over every few rows."""
    chunks = MarkdownChunker().split(parse(text))
    assert len(chunks) > 10
    assert all(chunk.text.startswith(names) for chunk in chunks)


def test_every_value_of_a_wide_table_stands_beside_its_column() -> None:
    """A row too long for that becomes lines of ``column: value``, its first repeated."""
    chunks = MarkdownChunker().split(parse(WIDE))
    for chunk in chunks:
        lines = [line for line in chunk.text.splitlines() if line]
        assert lines[0].startswith("question 0: ")
        assert all(line.startswith("question ") for line in lines)
    assert "question 79: 4/79" in chunks[-1].text


BLOCKS = {
    "a caption stands before": (
        [["Loans in 2024"], [], ["month", "loans"], ["May", "3"]],
        ["Loans in 2024", table("month | loans", "May | 3")],
    ),
    "a caption stands right above": (
        [["Loans", "", ""], ["month", "loans"], ["May", "3"]],
        ["Loans", table("month | loans", "May | 3")],
    ),
    "years and dates are names": (
        [["", "2023", "2024"], ["May", "3", "4"]],
        ["|  | 2023 | 2024 |\n| --- | --- | --- |\n| May | 3 | 4 |"],
    ),
    "a corner may be empty": (
        [["", "loans"], ["May", "3"]],
        ["|  | loans |\n| --- | --- |\n| May | 3 |"],
    ),
    "figures are no names": ([["1", "2"], ["3", "4"]], [table(" | ", "1 | 2", "3 | 4")]),
    "a row like the next is no header": (
        [["May", "3"], ["June", "14"]],
        [table(" | ", "May | 3", "June | 14")],
    ),
    "a blank row does not end a table": (
        [["month", "loans"], ["May", "3"], [], ["June", "4"]],
        [table("month | loans", "May | 3"), table("month | loans", "June | 4")],
    ),
    "another table may follow": (
        [["month", "loans"], ["May", "3"], [], ["room", "seats"], ["Hall", "40"]],
        [table("month | loans", "May | 3"), table("room | seats", "Hall | 40")],
    ),
    "empty columns go": ([["", "a", "", "b"], ["", "1", "", "2"]], [table("a | b", "1 | 2")]),
    "one column is lines": ([["# one"], ["two"]], ["\\# one\ntwo"]),
    "a header alone stays": ([["a", "b"]], [table("a | b")]),
    "nothing gives nothing": ([[], ["", " "]], []),
}


@pytest.mark.parametrize(("rows", "expected"), BLOCKS.values(), ids=BLOCKS.keys())
def test_rows_become_blocks(rows: list[list[str]], expected: list[str]) -> None:
    """Header, caption, and where another table begins."""
    assert list(grids.blocks(rows)) == expected


@pytest.mark.parametrize("piece", ['"', '",', '","\n', "a,", ";\t|,", '""\n', "\n"])
def test_no_text_makes_the_reading_slow(piece: str) -> None:
    """csv.Sniffer's patterns take minutes on a sample full of quotes; it is not asked."""
    began = time.process_time()
    parse(piece * 50_000)
    assert time.process_time() - began < 4.0


def test_one_long_row_does_not_make_the_others_long() -> None:
    """A table takes memory for the cells that it has, also beside and above a row of 50,000."""
    long = "," * 50_000 + "x\n"
    full = "y," * 50_000 + "x\n"
    tracemalloc.start()
    try:
        for text in ("a,b\n" * 500 + long, full + "a,b\n" * 500 + "\na,b\n" * 500):
            assert "a" in parse(text).text
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 50_000_000
