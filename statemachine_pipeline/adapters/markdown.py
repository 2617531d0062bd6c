"""Writes Markdown from the elements of an HTML document as they are entered and left.

Emphasis is dropped, since it means nothing to a search; nothing is ever dropped for its content.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.adapters.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCKS: Final = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "caption", "center", "dd"),
        *("details", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form"),
        *("header", "hgroup", "html", "legend", "li", "main", "menu", "ol", "p", "search"),
        *("section", "summary", "ul"),
    )
)
_HEADINGS: Final = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_LISTS: Final = frozenset(("ul", "ol", "menu"))
_TABLES: Final = frozenset(("table", "tr", "td", "th"))
# Deeper ones are written like these: each level costs two characters on every line.
_DEEPEST: Final = 10
_BREAK: Final = "\v"  # stands for <br> until blanks are collapsed
_BLANKS: Final = re.compile(rf"[^\S{_BREAK}]+")
_AROUND_BREAK: Final = re.compile(rf" ?{_BREAK} ?")
_EMPTY_CODE: Final = re.compile(r"`(\s*)`")
_LANGUAGE: Final = re.compile(r"\blang(?:uage)?-(\w{1,20})")
_FENCES: Final = re.compile(r"`{3,}")


@dataclasses.dataclass(slots=True)
class _List:
    """An open list: the next item's number, and how far its items and their text are indented."""

    number: int | None
    indent: int
    hang: int = 2


class MarkdownWriter:
    """Collects inline text and turns it into blocks.

    Args:
        keep_links: Write links as ``[words](target)`` instead of their words alone.
    """

    def __init__(self, *, keep_links: bool) -> None:
        self._keep_links = keep_links
        self._out: list[str] = []
        self._inline: list[str] = []
        self._lists: list[_List] = []
        self._tables: list[Table] = []
        self._links: list[int] = []
        self._mark = ""  # what the next block begins with: a bullet, a number, a colon
        self._tight = False  # the next block follows without a blank line
        self._quotes = 0
        self._pre = 0

    def write_title(self, title: str) -> None:
        """Begin with the document's own title."""
        self._inline.append(title)
        self._flush(_HEADINGS["h1"])

    def text(self, text: str) -> None:
        """Take a text node."""
        self._inline.append(text if self._pre else text.replace(_BREAK, " "))

    def enter(self, node: Any) -> None:
        """Begin an element."""
        tag = node.tag
        if self._pre:
            self._pre += tag == "pre"
            if tag == "br":
                self._inline.append("\n")
        elif tag in _HEADINGS or tag in _BLOCKS:
            self._flush()
            self._enter_block(tag, node)
        elif tag == "pre":
            self._flush()
            self._pre = 1
        elif tag in _TABLES:
            self._enter_table(tag, node)
        elif enter := _INLINE.get(tag):
            enter(self, node)

    def leave(self, node: Any) -> None:
        """End an element."""
        tag = node.tag
        if self._pre:
            self._pre -= tag == "pre"
            if not self._pre:
                self._flush_pre(node)
        elif tag in _HEADINGS:
            self._flush(_HEADINGS[tag])
        elif tag in _BLOCKS:
            self._flush()
            self._leave_block(tag)
        elif tag in _TABLES:
            self._leave_table(tag)
        elif tag == "a":
            self._leave_link(node)
        elif tag == "code":
            self._inline.append("`")

    def finish(self) -> str:
        """Return the document, ending in a line feed; empty when there was nothing to read."""
        self._flush()
        self._out.append("\n" if self._out else "")
        return "".join(self._out)

    def _enter_block(self, tag: str, node: Any) -> None:
        if tag in _LISTS:
            outer = self._lists[-1] if self._lists else _List(None, 0, 0)
            indent = outer.indent + outer.hang if len(self._lists) < _DEEPEST else outer.indent
            self._lists.append(_List(_first_number(node) if tag == "ol" else None, indent))
        elif tag == "li":
            self._mark = "- "
            if self._lists and self._lists[-1].number is not None:
                self._mark = f"{self._lists[-1].number}. "
                self._lists[-1].number += 1
        elif tag == "dd":
            self._mark, self._tight = ": ", True
        elif tag == "blockquote":
            self._quotes += 1

    def _leave_block(self, tag: str) -> None:
        self._mark = ""
        if tag in _LISTS:
            self._lists.pop()
            self._tight = bool(self._lists)
        elif tag == "li":
            self._tight = True
        elif tag == "blockquote":
            self._quotes -= 1

    def _line_break(self, _node: Any) -> None:
        self._inline.append(_BREAK)

    def _rule(self, _node: Any) -> None:
        self._flush()
        if not self._tables:
            self._put("---")

    def _image(self, node: Any) -> None:
        if alt := (node.attributes.get("alt") or "").strip():
            self._inline.append(f"[image: {alt}]")

    def _code(self, _node: Any) -> None:
        self._inline.append("`")

    def _link(self, _node: Any) -> None:
        self._links.append(len(self._inline))

    def _leave_link(self, node: Any) -> None:
        target = node.attributes.get("href")
        # A link around blocks was opened in another block: its place is gone with that block.
        start = self._links.pop() if self._links else len(self._inline)
        if self._keep_links and target and (words := "".join(self._inline[start:]).strip()):
            self._inline[start:] = [f"[{words}]({target})"]

    def _enter_table(self, tag: str, node: Any) -> None:
        if tag == "table":
            if not self._tables:
                self._flush()
            self._tables.append(Table())
        elif self._tables and tag == "tr":
            self._tables[-1].begin_row()
        elif self._tables:
            spans = node.attributes
            self._tables[-1].begin_cell(spans.get("colspan"), spans.get("rowspan"), self._inline)
            self._inline = []

    def _leave_table(self, tag: str) -> None:
        if not self._tables:
            return
        if tag in {"td", "th"}:
            text = self._take()
            self._inline = self._tables[-1].end_cell(text)
        elif tag == "table":
            table = self._tables.pop()
            if self._tables:
                self._inline.append(f" {table.flat()} ")  # within a cell: a line of that cell
                return
            self._flush()
            for block in table.blocks():
                self._put(block)

    def _take(self) -> str:
        """Return the collected inline text on one line or, at breaks, several."""
        text = _BLANKS.sub(" ", "".join(self._inline))
        self._inline.clear()
        self._links.clear()
        return _EMPTY_CODE.sub(r"\1", _AROUND_BREAK.sub("\n", text).strip())

    def _flush(self, mark: str = "") -> None:
        """End a block: write what was collected, if anything."""
        if self._tables:
            self._inline.append(" ")  # a cell collects its blocks on one line
        elif self._inline and (text := self._take()):
            self._put(mark + " ".join(text.split()) if mark else text)

    def _flush_pre(self, node: Any) -> None:
        text = "".join(self._inline)
        if self._tables:
            return
        self._inline.clear()
        if text.strip():
            longest = max(map(len, _FENCES.findall(text)), default=2)
            fence = "`" * (longest + 1)
            found = _LANGUAGE.search((node.html or "")[:400])
            code = textwrap.dedent(text).strip("\n").rstrip()
            self._put(f"{fence}{found[1] if found else ''}\n{code}\n{fence}")

    def _put(self, block: str) -> None:
        """Write a block with its bullet, its indentation and its quote marks."""
        mark, self._mark = self._mark, ""
        within = self._lists[-1] if self._lists else _List(None, 0, 0)
        if within.indent + within.hang and mark not in {"", ": "}:
            within.hang = len(mark)
            first = " " * within.indent + mark
        else:
            first = " " * (within.indent + within.hang) + mark
        quote = "> " * min(self._quotes, _DEEPEST)
        lines = (quote + line for line in block.replace("\n", f"\n{' ' * len(first)}").split("\n"))
        written = "\n".join(line.rstrip() for line in lines)
        if self._out:
            is_nested_item = mark not in {"", ": "} and len(self._lists) > 1
            self._out.append("\n" if self._tight or is_nested_item else "\n\n")
        self._tight = False
        self._out.append(quote + first + written[len(quote) :])


_INLINE: Final[dict[str, Callable[[MarkdownWriter, Any], None]]] = {
    "br": MarkdownWriter._line_break,
    "hr": MarkdownWriter._rule,
    "img": MarkdownWriter._image,
    "code": MarkdownWriter._code,
    "a": MarkdownWriter._link,
}


def _first_number(node: Any) -> int:
    start = node.attributes.get("start") or ""
    return int(start) if start.isascii() and start.isdigit() and len(start) < 7 else 1  # noqa: PLR2004
