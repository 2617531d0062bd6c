"""OpenDocument texts (ODT) to Markdown: written as HTML, then as any HTML.

Changes are read as accepted. Not read are comments, page headers and footers and charts, which
warnings count, and tables of contents.

Source: OpenDocument 1.3, part 3 (OASIS standard).
"""

from __future__ import annotations

import dataclasses
import html
import io
import zipfile
from collections import Counter
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from statemachine_pipeline.adapters import xmlparts
from statemachine_pipeline.adapters.decoding import clean
from statemachine_pipeline.adapters.markup import TITLE, below_title, read_html
from statemachine_pipeline.adapters.zipped import check
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import ParsedText

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree.ElementTree import Element

    from statemachine_pipeline.adapters.reading import Reading
    from statemachine_pipeline.records import Source

_TAGS: Final = {
    "text:list-item": "li",
    "text:list-header": "li",
    "table:table": "table",
    "table:table-row": "tr",
}
_SKIPPED: Final = frozenset(
    (
        *("office:forms", "svg:title", "svg:desc", "table:covered-table-cell", "text:ruby-text"),
        *("text:alphabetical-index", "text:illustration-index", "text:object-index"),
        *("text:table-index", "text:table-of-content", "text:tracked-changes", "text:user-index"),
    )
)
_SPACES: Final = {"text:s": " ", "text:tab": " ", "text:line-break": "<br>"}
# Styles that say what a paragraph is; their names are stored in English.
_PARAGRAPHS: Final = {
    "Title": (TITLE, "</h1>"),
    "Preformatted_20_Text": ("<pre>", "</pre>"),
    "Quotations": ("<blockquote><p>", "</p></blockquote>"),
}
_RUNNING: Final = {"style:header": "page header", "style:footer": "page footer"}
_DEEPEST_HEADING: Final = 6


def read_odt(source: Source, reading: Reading) -> ParsedText:
    """Turn an OpenDocument text into Markdown.

    Raises:
        Reject: Password-protected, damaged, unsafe, or over a limit.
    """
    content = source.read()
    check(content, reading)
    archive = zipfile.ZipFile(io.BytesIO(content))
    _check_unlocked(archive)
    document = xmlparts.parse_part(archive, "content.xml")
    has_styles = "styles.xml" in archive.namelist()
    styles = [xmlparts.parse_part(archive, "styles.xml")] if has_styles else []
    writer = _HtmlWriter(archive, _Styles.of(document, *styles))
    body = next((part for part in document.iter() if _kind(part) == "office:text"), None)
    if body is None:
        raise Reject("damaged: content.xml holds no text document", "damaged")
    try:
        page = writer.page(body)
    except RecursionError:
        raise Reject("damaged: its parts are nested too deeply to be read", "damaged") from None
    writer.count_running(styles)
    text, removed = clean(read_html(below_title(page), keep_links=reading.keep_links))
    reading.check_chars(len(text))
    notes = (f"left out {count:,} {what}{'s' * (count > 1)}" for what, count in writer.lost.items())
    return ParsedText(text, (), (*notes, *removed))


def _check_unlocked(archive: zipfile.ZipFile) -> None:
    """Refuse a document with a password, whose entries are encrypted inside a plain archive."""
    name = "META-INF/manifest.xml"
    if name not in archive.namelist():
        return
    for part in xmlparts.parse_part(archive, name).iter():
        if xmlparts.local_name(part) == "encryption-data":
            raise Reject("password-protected", "encrypted")


def _kind(element: Element) -> str:
    """Return an element's usual name: ``text:p``, ``svg:desc``."""
    namespace, _, name = str(element.tag).rpartition("}")
    # urn:oasis:names:tc:opendocument:xmlns:text:1.0, ...:svg-compatible:1.0
    prefix = namespace.split(":")[-2:-1]
    return f"{prefix[0].removesuffix('-compatible')}:{name}" if prefix else name


@dataclasses.dataclass(frozen=True, slots=True)
class _Styles:
    """What a document's styles say about meaning.

    Attributes:
        parents: The style that each style is based on.
        numbered: Names of list styles and their 1-based levels that count.
    """

    parents: dict[str, str]
    numbered: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, *roots: Element) -> _Styles:
        """Read the styles of a document and of its common part."""
        parents = {}
        numbered: set[tuple[str, str]] = set()
        for element in (element for root in roots for element in root.iter()):
            name = xmlparts.attribute(element, "name")
            if _kind(element) == "style:style":
                parents[name] = xmlparts.attribute(element, "parent-style-name")
            elif _kind(element) == "text:list-style":
                numbered.update(
                    (name, xmlparts.attribute(level, "level"))
                    for level in element
                    if _kind(level) == "text:list-level-style-number"
                )
        return cls(parents, frozenset(numbered))

    def paragraph(self, name: str) -> tuple[str, str]:
        """Return how a paragraph of a style begins and ends in HTML."""
        seen = set()
        while name and name not in _PARAGRAPHS and name not in seen:
            seen.add(name)
            name = self.parents.get(name, "")
        return _PARAGRAPHS.get(name, ("<p>", "</p>"))


class _HtmlWriter:
    """Writes the text of a document as HTML, notes last.

    Attributes:
        lost: How much was left out, by kind.
    """

    def __init__(self, archive: zipfile.ZipFile, styles: _Styles) -> None:
        self.lost: Counter[str] = Counter()
        self._archive = archive
        self._styles = styles
        self._out: list[str] = []
        self._notes: list[tuple[str, Element]] = []
        self._lists: list[str] = []  # styles of the open lists
        self._cell = "td"

    def page(self, body: Element) -> str:
        """Write the whole document."""
        self._children(body)
        for label, note in self._notes:
            for index, part in enumerate(note):
                if index == 0:
                    self._within(f"<p>[{label}] ", part, "</p>")
                else:
                    self._write(part)
        return "".join(self._out).replace("</pre><pre>", "\n")

    def count_running(self, styles: list[Element]) -> None:
        """Count headers and footers that say more than page numbers."""
        for part in (part for root in styles for part in root.iter()):
            kind = _kind(part).partition("-")[0]
            if kind in {"style:header", "style:footer"} and xmlparts.has_sentence(
                xmlparts.words(part)
            ):
                self.lost[f"page {kind.removeprefix('style:')}"] += 1

    def _write(self, element: Element) -> None:
        kind = _kind(element)
        if kind in _SKIPPED:
            return
        if kind in _SPACES:
            self._out.append(_SPACES[kind])
        elif kind in _TAGS:
            self._within(f"<{_TAGS[kind]}>", element, f"</{_TAGS[kind]}>")
        elif kind in _WRITE:
            _WRITE[kind](self, element)
        else:
            self._children(element)

    def _children(self, element: Element) -> None:
        self._out.append(html.escape(element.text or ""))
        for child in element:
            self._write(child)
            self._out.append(html.escape(child.tail or ""))

    def _within(self, start: str, element: Element, end: str) -> None:
        self._out.append(start)
        self._children(element)
        self._out.append(end)

    def _paragraph(self, element: Element) -> None:
        start, end = self._styles.paragraph(xmlparts.attribute(element, "style-name"))
        self._within(start, element, end)

    def _heading(self, element: Element) -> None:
        told = xmlparts.attribute(element, "outline-level")
        level = min(int(told), _DEEPEST_HEADING) if told.isdecimal() and told != "0" else 1
        self._within(f"<h{level}>", element, f"</h{level}>")

    def _list(self, element: Element) -> None:
        own = xmlparts.attribute(element, "style-name")
        self._lists.append(own or (self._lists[-1] if self._lists else ""))
        is_numbered = (self._lists[-1], str(len(self._lists))) in self._styles.numbered
        tag = "ol" if is_numbered else "ul"
        self._within(f"<{tag}>", element, f"</{tag}>")
        self._lists.pop()

    def _header_rows(self, element: Element) -> None:
        self._cell = "th"
        self._children(element)
        self._cell = "td"

    def _table_cell(self, element: Element) -> None:
        spans = {
            "colspan": xmlparts.attribute(element, "number-columns-spanned"),
            "rowspan": xmlparts.attribute(element, "number-rows-spanned"),
        }
        told = "".join(f' {name}="{html.escape(span)}"' for name, span in spans.items() if span)
        self._within(f"<{self._cell}{told}>", element, f"</{self._cell}>")

    def _link(self, element: Element) -> None:
        target = html.escape(xmlparts.attribute(element, "href"))
        self._within(f'<a href="{target}">', element, "</a>")

    def _note(self, element: Element) -> None:
        parts = {_kind(part): part for part in element}
        citation, body = parts.get("text:note-citation"), parts.get("text:note-body")
        label = xmlparts.words(citation) if citation is not None else ""
        self._out.append(html.escape(f"[{label}]"))
        if body is not None:
            self._notes.append((html.escape(label), body))

    def _comment(self, _element: Element) -> None:
        self.lost["comment"] += 1

    def _frame(self, element: Element) -> None:
        told = {_kind(part): xmlparts.words(part) for part in element}
        description = told.get("svg:desc") or told.get("svg:title")
        is_picture = "drawing:text-box" not in told
        if is_picture and description:
            self._out.append(f'<img alt="{html.escape(description)}">')
        if "drawing:object" in told:  # beside it stands only its picture, for other programs
            element = next(part for part in element if _kind(part) == "drawing:object")
            self._object(element)
        else:
            self._children(element)

    def _object(self, element: Element) -> None:
        """Write a formula in the words of its author; count other objects."""
        place = xmlparts.attribute(element, "href").removeprefix("./")
        name = f"{place}/content.xml"
        is_here = name in self._archive.namelist()
        root = xmlparts.parse_part(self._archive, name) if is_here else ET.Element("nothing")
        if xmlparts.local_name(root) == "math":
            notations = (part for part in root.iter() if xmlparts.local_name(part) == "annotation")
            self._out.append(html.escape(xmlparts.words(next(notations, root))))
        else:
            is_chart = any(_kind(part) == "office:chart" for part in root.iter())
            self.lost["chart" if is_chart else "embedded object"] += 1


_WRITE: Final[dict[str, Callable[[_HtmlWriter, Element], None]]] = {
    "text:p": _HtmlWriter._paragraph,
    "text:h": _HtmlWriter._heading,
    "text:list": _HtmlWriter._list,
    "text:a": _HtmlWriter._link,
    "text:note": _HtmlWriter._note,
    "office:annotation": _HtmlWriter._comment,
    "table:table-header-rows": _HtmlWriter._header_rows,
    "table:table-cell": _HtmlWriter._table_cell,
    "drawing:frame": _HtmlWriter._frame,
}
