"""HTML to Markdown: what a reader would read, with headings, lists, tables and code.

Scripts, styles, navigation and hidden parts go; emphasis goes too, since it means nothing to a
search. The tree is walked without recursion, so depth cannot break it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.adapters.tables import Table
from statemachine_pipeline.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator

# fmt: off
_SKIPPED: Final = frozenset((
    "script", "style", "noscript", "template", "svg", "iframe", "object", "embed", "canvas", "audio", "video", "map",
    "head", "nav", "dialog", "button", "select", "datalist", "textarea", "input", "annotation", "annotation-xml",
))
_BLOCKS: Final = frozenset((
    "html", "body", "p", "div", "section", "article", "main", "header", "footer", "aside", "address", "figure",
    "figcaption", "form", "fieldset", "legend", "details", "summary", "center", "hgroup", "search", "dl", "dt",
    "dd", "ul", "ol", "menu", "li", "blockquote", "caption",
))
# fmt: on
_HEADINGS: Final = {f"h{level}": "#" * level for level in range(1, 7)}
_LISTS: Final = frozenset(("ul", "ol", "menu"))
_BREAK: Final = "\v"  # stands for <br> until blanks are collapsed
_BLANKS: Final = re.compile(rf"[^\S{_BREAK}]+")
_AROUND_BREAK: Final = re.compile(rf" ?{_BREAK} ?")
_DECLARATION: Final = re.compile(
    rb"<meta\b[^>]{0,400}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})"
    rb"|<\?xml\b[^>]{0,400}?encoding\s*=\s*[\"']([\w.:-]{1,40})",
    re.IGNORECASE,
)
# What browsers read under these names. Source: https://encoding.spec.whatwg.org/#names-and-labels
_BROWSER_ENCODINGS: Final = {
    **dict.fromkeys(("iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk", "x-gbk"), "gb18030"),
    **dict.fromkeys(("shift_jis", "sjis", "x-sjis"), "cp932"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987"), "cp949"),
    # A declaration that could be read as ASCII is not in UTF-16.
    **dict.fromkeys(("utf-16", "utf-16le", "utf-16be"), "utf-8"),
}


def declared_encoding(content: bytes) -> str | None:
    """Return the encoding that an HTML document names in its first 4 KiB, as browsers read it."""
    found = _DECLARATION.search(content[:4096])
    if found is None:
        return None
    name = (found[1] or found[2]).decode("ascii", "replace").lower()
    return _BROWSER_ENCODINGS.get(name, name)


def read_html(html: str, *, keep_links: bool = False) -> str:
    """Render an HTML document as Markdown; its title stands first if it has no ``h1``."""
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError as error:
        raise MissingExtra("selectolax", "documents") from error
    tree = LexborHTMLParser(html)
    writer = _Writer(keep_links=keep_links)
    title = tree.css_first("head > title")
    if title is not None and tree.css_first("h1") is None:
        writer.write_title(title.text())
    if tree.root is not None:
        for node, entering in _walk(tree.root):
            if node.tag == "-text":
                writer.text(node.text_content or "")
            elif entering:
                writer.enter(node)
            else:
                writer.leave(node)
    return writer.finish()


def _walk(root: Any) -> Iterator[tuple[Any, bool]]:
    """Yield each element as it is entered and left, and each text once, in document order."""
    path: list[Any] = []
    node = root
    while True:
        if node.is_text_node:
            yield node, True
        elif node.is_element_node and not _is_noise(node):
            yield node, True
            child = node.child
            if child is not None:
                path.append(node)
                node = child
                continue
            yield node, False
        while path and node.next is None:
            node = path.pop()
            yield node, False
        if not path:
            return
        node = node.next


def _is_noise(node: Any) -> bool:
    if node.tag in _SKIPPED:
        return True
    attributes = node.attributes
    return bool(attributes) and (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") == "navigation"
        or "display:none" in (attributes.get("style") or "").replace(" ", "").lower()
    )


class _Writer:
    """Collects inline text and turns it into blocks of Markdown."""

    def __init__(self, *, keep_links: bool) -> None:
        self._keep_links = keep_links
        self._out: list[str] = []
        self._inline: list[str] = []
        self._lists: list[int | None] = []  # next number of each open list; None for bullets
        self._mark = ""  # what the next block begins with: a bullet, a number, a colon
        self._quotes = 0
        self._pre = 0
        self._tight = False  # the next block follows without a blank line
        self._tables: list[Table] = []
        self._links: list[int] = []

    def write_title(self, title: str) -> None:
        """Begin with the document's own title."""
        self._inline.append(title)
        self._flush("# ")

    def text(self, text: str) -> None:
        """Take a text node."""
        self._inline.append(text if self._pre else text.replace(_BREAK, " "))

    def enter(self, node: Any) -> None:
        """Begin an element."""
        tag = node.tag
        if self._pre:
            if tag == "br":
                self._inline.append("\n")
            self._pre += tag == "pre"
        elif tag in _HEADINGS or tag in _BLOCKS:
            self._flush()
            self._enter_block(tag, node)
        elif tag == "pre":
            self._flush()
            self._pre = 1
        elif tag in {"table", "tr", "td", "th"}:
            self._enter_table(tag, node)
        else:
            self._enter_inline(tag, node)

    def leave(self, node: Any) -> None:
        """End an element."""
        tag = node.tag
        if self._pre:
            self._pre -= tag == "pre"
            if not self._pre:
                self._flush_pre(node)
        elif tag in _HEADINGS:
            self._flush(_HEADINGS[tag] + " ")
        elif tag in _BLOCKS:
            self._flush()
            self._leave_block(tag)
        elif tag in {"table", "tr", "td", "th"}:
            self._leave_table(tag)
        elif tag == "a" and self._links:
            self._leave_link(node)
        elif tag == "code":
            self._inline.append("`")

    def finish(self) -> str:
        """Return the document."""
        self._flush()
        return "".join(self._out).strip("\n") + "\n" if self._out else ""

    def _enter_block(self, tag: str, node: Any) -> None:
        if tag in _LISTS:
            start = (node.attributes.get("start") or "1") if tag == "ol" else None
            number = int(start) if start and start.isdecimal() and len(start) < 10 else 1  # noqa: PLR2004
            self._lists.append(None if tag != "ol" else number)
        elif tag == "li":
            number_or_bullet = self._lists[-1] if self._lists else None
            if number_or_bullet is None:
                self._mark = "- "
            else:
                self._mark = f"{number_or_bullet}. "
                self._lists[-1] = number_or_bullet + 1
        elif tag == "dd":
            self._mark, self._tight = ": ", True
        elif tag == "blockquote":
            self._quotes += 1

    def _leave_block(self, tag: str) -> None:
        self._mark = ""
        if tag in _LISTS and self._lists:
            self._lists.pop()
            self._tight = bool(self._lists)
        elif tag == "li":
            self._tight = True
        elif tag == "blockquote":
            self._quotes -= 1

    def _enter_inline(self, tag: str, node: Any) -> None:
        if tag == "br":
            self._inline.append(_BREAK)
        elif tag == "hr":
            self._flush()
            self._put("---")
        elif tag == "img":
            alt = (node.attributes.get("alt") or "").strip()
            if alt:
                self._inline.append(f"[image: {alt}]")
        elif tag == "a" and self._keep_links and node.attributes.get("href"):
            self._links.append(len(self._inline))
        elif tag == "code":
            self._inline.append("`")

    def _leave_link(self, node: Any) -> None:
        start = self._links.pop()
        words = "".join(self._inline[start:]).strip()
        if words and start <= len(self._inline):
            self._inline[start:] = [f"[{words}]({node.attributes.get('href')})"]

    def _enter_table(self, tag: str, node: Any) -> None:
        if tag == "table":
            if not self._tables:
                self._flush()
            self._tables.append(Table())
        elif self._tables and tag == "tr":
            self._tables[-1].begin_row()
        elif self._tables:
            self._take()
            self._tables[-1].begin_cell(node.attributes.get("colspan"))

    def _leave_table(self, tag: str) -> None:
        if not self._tables:
            return
        table = self._tables[-1]
        if tag in {"td", "th"}:
            table.end_cell(self._take())
        elif tag == "table":
            self._tables.pop()
            if self._tables:
                # A table within a cell becomes a line of that cell.
                self._inline.append(f" {table.flat()} ")
            else:
                self._take()
                for block in table.blocks():
                    self._put(block)

    def _take(self) -> str:
        """Return the collected inline text on one line or, at breaks, several."""
        text = _BLANKS.sub(" ", "".join(self._inline))
        self._inline.clear()
        self._links.clear()
        return _AROUND_BREAK.sub("\n", text).strip().replace("``", "")

    def _flush(self, mark: str = "") -> None:
        """End a block: put what was collected, if anything."""
        if self._tables:
            # Within a cell a block's end is a blank; the cell collects all of it.
            self._inline.append(" ")
            return
        if not self._inline:
            return
        text = self._take()
        if text:
            self._put(mark + (text.replace("\n", " ") if mark else text))

    def _flush_pre(self, node: Any) -> None:
        text = "".join(self._inline)
        self._inline.clear()
        if self._tables:
            self._inline.append(text)
        elif text.strip():
            fence = "```"
            while fence in text:
                fence += "`"
            found = re.search(r"\blang(?:uage)?-(\w{1,20})", node.html[:400] if node.html else "")
            language = found[1] if found else ""
            self._put(f"{fence}{language}\n{text.strip(chr(10)).rstrip()}\n{fence}")

    def _put(self, block: str) -> None:
        """Write a block with its bullet, its indentation and its quote marks."""
        depth = len(self._lists)
        mark, self._mark = self._mark, ""
        indent = "  " * (depth - 1 if mark and depth else depth)
        first = indent + mark
        rest = " " * len(first) if mark else indent
        quote = "> " * self._quotes
        lines = block.split("\n")
        written = [quote + first + lines[0], *(quote + rest + line for line in lines[1:])]
        separator = "\n" if self._tight or (mark and depth > 1) else "\n\n"
        if self._out:
            self._out.append(separator)
        self._tight = False
        self._out.append("\n".join(line.rstrip() for line in written))
