"""PPTX to Markdown, slide by slide, with python-pptx.

A slide is a page; its title is a heading. Shapes come in the order in which a screen reader reads
them, which is the order of the file. Layouts and masters are decoration and are left out.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.adapters import grids, pages, zipped
from statemachine_pipeline.adapters.decoding import clean
from statemachine_pipeline.errors import MissingExtra
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import ParsedText

try:
    from lxml import etree
    from pptx.enum.shapes import PP_PLACEHOLDER
    from pptx.exc import PythonPptxError
    from pptx.package import Package
except ImportError as error:
    raise MissingExtra("python-pptx", "documents") from error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from statemachine_pipeline.adapters.reading import Reading
    from statemachine_pipeline.records import Source

# What is raised over parts that are missing, or are not as the standard has them.
_BROKEN: Final = (
    *(AttributeError, IndexError, KeyError, NotImplementedError, OSError, TypeError, ValueError),
    *(zipfile.BadZipFile, etree.LxmlError, PythonPptxError),
)
_MARKUP: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_DRAWING: Final = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_DIAGRAM: Final = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"
_CHART: Final = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_RELATION: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_FURNITURE: Final = (PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.SLIDE_NUMBER)
_LISTS: Final = (PP_PLACEHOLDER.BODY, PP_PLACEHOLDER.OBJECT, PP_PLACEHOLDER.VERTICAL_BODY)
# Programs describe a picture by its file, people by words.
_FILE_NAME: Final = re.compile(r"\S+\.\w{2,4}")
_NUMBERED: Final = re.compile(r"(?:\d{1,3}[.)]|[-\u2022\u2013*])\s")
_LONG_FRACTION: Final = re.compile(r"-?\d+\.\d{10,}(?:[Ee][-+]?\d{1,3})?")


def read_slides(source: Source, reading: Reading) -> ParsedText:
    """Read titles, text, tables, charts, diagrams, descriptions of pictures, and notes.

    Hidden slides are read; macros and comments are not.

    Raises:
        Reject: Damaged, password-protected, unsafe to inflate, or over a limit.
    """
    content = source.read()
    zipped.check(content, reading)
    try:
        main = Package.open(io.BytesIO(content)).main_document_part
        # Not by ``presentation.slides``: one slide that is missing would cost all of them.
        relations = main.presentation.element.xpath("p:sldIdLst/p:sldId/@r:id")
    except _BROKEN as error:
        reason = f"damaged presentation: it cannot be opened ({type(error).__name__})"
        raise Reject(reason, "damaged") from None
    count = len(relations)
    reading.check_pages(count, "slides")
    tally = _Tally()
    texts = (_slide(main, relation, tally) for relation in relations)
    text, spans = pages.join(texts, reading, "slide")
    if count and tally.unreadable == count:
        raise Reject(f"damaged presentation: none of its {count:,} slides can be read", "damaged")
    return ParsedText(text, spans, tuple(tally.warnings(spans)))


class _Tally:
    """Counts what could not be read."""

    def __init__(self) -> None:
        self.unreadable = 0
        self.shapes = 0

    def warnings(self, spans: tuple[Any, ...]) -> Iterator[str]:
        empty = sum(span.start == span.end for span in spans) - self.unreadable
        if self.unreadable:
            yield f"{self.unreadable:,} of {len(spans):,} slides cannot be read: damaged?"
        if empty:
            yield f"no text on {empty:,} of {len(spans):,} slides: pictures?"
        if self.shapes:
            yield f"{self.shapes:,} shape{'s' * (self.shapes > 1)} cannot be read: damaged?"


def _slide(main: Any, relation: str, tally: _Tally) -> str:
    """Return the text of a slide; of one that cannot be read at all, nothing."""
    try:
        slide = main.related_slide(relation)
        _resolve_alternatives(slide.element)
        title = slide.shapes.title
        blocks = [_heading(title)] if title is not None else []
        shapes = [one for one in slide.shapes if title is None or one.element is not title.element]
    except _BROKEN:
        tally.unreadable += 1
        return ""
    for shape in shapes:
        blocks += _blocks(shape, tally)
    blocks += _notes(slide, tally)
    text, _ = clean("\n\n".join(filter(None, blocks)))
    return text


def _resolve_alternatives(element: Any) -> None:
    """Put one of several versions of a shape where python-pptx looks; it skips the whole choice.

    The fallback comes first: it is there for readers that know less, such as this one.
    """
    for choice in list(element.iter(f"{_MARKUP}AlternateContent")):
        versions = [choice.find(f"{_MARKUP}{name}") for name in ("Fallback", "Choice")]
        shapes = next((list(one) for one in versions if one is not None and len(one)), [])
        for shape in shapes:
            choice.addprevious(shape)
        choice.getparent().remove(choice)


def _heading(title: Any) -> str:
    words = " ".join(title.text_frame.text.split())
    return f"# {words}" if words else ""


def _blocks(shape: Any, tally: _Tally) -> list[str]:
    """Return the blocks of a shape and of those grouped in it, without those that are broken."""
    try:
        if _is_furniture(shape):
            return []
        inner = getattr(shape, "shapes", None)
        if inner is None:
            return list(_content(shape))
        shapes = list(inner)
    except _BROKEN:
        tally.shapes += 1
        return []
    return [block for one in shapes for block in _blocks(one, tally)]


def _is_furniture(shape: Any) -> bool:
    return shape.is_placeholder and shape.placeholder_format.type in _FURNITURE


def _content(shape: Any) -> Iterator[str]:
    if getattr(shape, "has_table", False):
        yield from grids.blocks(
            ["" if cell.is_spanned else cell.text for cell in row.cells] for row in shape.table.rows
        )
    elif getattr(shape, "has_chart", False):
        yield from _chart(shape.chart_part.blob)
    elif shape.has_text_frame and shape.text_frame.text.strip():
        yield _paragraphs(shape)
    elif (diagram := shape.element.find(f".//{_DIAGRAM}relIds")) is not None:
        part = shape.part.related_part(diagram.get(f"{_RELATION}dm"))
        yield from _diagram(part.blob)
    else:
        yield _description(shape)


def _paragraphs(shape: Any) -> str:
    is_list = shape.is_placeholder and shape.placeholder_format.type in _LISTS
    paragraphs = [
        (paragraph.level, " ".join(paragraph.text.split()))
        for paragraph in shape.text_frame.paragraphs
    ]
    paragraphs = [(level, words) for level, words in paragraphs if words]
    is_list = is_list and len(paragraphs) > 1
    if is_list or any(level for level, _ in paragraphs):
        return "\n".join(_item(level, words) for level, words in paragraphs)
    return "\n\n".join(grids.escaped(words) for _, words in paragraphs)


def _item(level: int, words: str) -> str:
    mark = "" if _NUMBERED.match(words) else "- "
    return f"{'  ' * level}{mark}{words}"


def _chart(data: bytes) -> Iterator[str]:
    """Read a chart's title, and as a table the figures that are drawn.

    Not by python-pptx, which knows about half of the kinds of charts, and none in three dimensions.
    """
    tree = _tree(data)
    title = tree.find(f"{_CHART}chart/{_CHART}title")
    if title is not None:
        yield grids.escaped(_words(title.iter(f"{_DRAWING}t")))
    header = [""]
    columns: list[dict[int, str]] = [{}]
    for series in tree.iter(f"{_CHART}ser"):
        header.append(_words(series.iterfind(f"{_CHART}tx//{_CHART}v")) or "value")
        columns[0] |= _points(series, "cat", "xVal")
        columns.append(_points(series, "val", "yVal"))
    places = sorted(set().union(*columns))
    rows = [[column.get(place, "") for column in columns] for place in places]
    yield from grids.blocks([header, *rows] if rows else [])


def _points(series: Any, *kinds: str) -> dict[int, str]:
    """Return labels or values by their place in the series; of labels in levels the innermost."""
    points = [p for kind in kinds for p in series.iterfind(f"{_CHART}{kind}//{_CHART}pt")]
    return {
        int(point.get("idx")): _figure(point.findtext(f"{_CHART}v") or "")
        for point in reversed(points)
    }


def _figure(text: str) -> str:
    """Drop what binary fractions leave behind: 0.30000000000000004."""
    return format(float(text), ".15g") if _LONG_FRACTION.fullmatch(text) else text


def _diagram(data: bytes) -> Iterator[str]:
    """Read the texts of a SmartArt diagram, whose parts python-pptx does not know."""
    points = _tree(data).iter(f"{_DIAGRAM}pt")
    texts = [_words(point.iter(f"{_DRAWING}t")) for point in points]
    items = [f"- {text}" for text in texts if text]
    if items:
        yield "\n".join(items)


def _tree(data: bytes) -> Any:
    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))


def _words(runs: Iterable[Any]) -> str:
    return " ".join("".join(run.text or "" for run in runs).split())


def _description(shape: Any) -> str:
    """Return what the author wrote about a picture."""
    words = " ".join((shape.element._nvXxPr.cNvPr.get("descr") or "").split())
    return f"[image: {words}]" if words and not _FILE_NAME.fullmatch(words) else ""


def _notes(slide: Any, tally: _Tally) -> Iterator[str]:
    try:
        frame = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
        words = "" if frame is None else "\n".join(frame.text.split("\v")).strip()
    except _BROKEN:
        tally.shapes += 1
        return
    if words:
        yield f"Notes: {words}"
