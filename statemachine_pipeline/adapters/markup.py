"""HTML to Markdown: what a reader would read, with headings, lists, tables and code.

Chosen here is what of a page is read; ``markdown.py`` writes it down. Scripts, styles, navigation
and hidden parts go. The tree is walked without recursion, so its depth cannot break anything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.adapters.markdown import MarkdownWriter
from statemachine_pipeline.errors import MissingExtra
from statemachine_pipeline.hooks import Reject

if TYPE_CHECKING:
    from collections.abc import Iterator

_SKIPPED: Final = frozenset(
    (
        *("annotation", "annotation-xml", "audio", "button", "canvas", "datalist", "dialog"),
        *("embed", "head", "iframe", "input", "map", "nav", "noscript", "object", "script"),
        *("select", "style", "svg", "template", "textarea", "video"),
    )
)
# A shorter <main> is a mistake or a shell that a script would have filled.
_LEAST_MAIN_CHARS: Final = 200
# Hidden from screen readers only: icons and doubled formulas are; a page behind a dialog is, too.
_HIDDEN_LIMIT_CHARS: Final = 200
_LINK_SHARE: Final = 0.8
_HEADING_TAG: Final = re.compile(r"<(/?)h([1-5])\b", re.IGNORECASE)
# Elements that nobody has to close, or that cannot hold others, do not count.
_CLOSED_TAG: Final = re.compile(
    r"<(/?)(?!(?:p|li|d[dt]|t[dhr]|thead|tbody|tfoot|colgroup|col|option|optgroup|r[tpb]|rtc|br|hr|"
    r"img|input|meta|link|area|base|embed|param|source|track|wbr|title|textarea|script|style)\b)[a-z][^<>]*(?<!/)>",
    re.IGNORECASE,
)
# 10,000 take 0.3 s, 100,000 half a minute.
_DEPTH_LIMIT: Final = 10_000
TITLE: Final = '<h1 class="title">'
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


def deepened(html: str) -> str:
    """Move headings one level down, to make room for a title above them."""
    return _HEADING_TAG.sub(lambda tag: f"<{tag[1]}h{int(tag[2]) + 1}", html)


def below_title(html: str) -> str:
    """Put the headings of a document that begins with a title below it.

    Office programs keep titles apart from headings; the title then stands above every passage.

    Args:
        html: A document whose title, if it has one, is marked by ``TITLE``.
    """
    before, title, rest = html.partition(TITLE)
    return html if _HEADING_TAG.search(before) else before + title + deepened(rest)


def read_html(html: str, *, keep_links: bool = False) -> str:
    """Render an HTML document as Markdown.

    Args:
        html: The document.
        keep_links: Write links as ``[words](target)`` instead of their words alone.

    Returns:
        Its main part if it marks one, else all of it; its title first when that has no ``h1``.

    Raises:
        Reject: Its elements lie deeper in one another than any page's do; code ``too_large``.
    """
    _check_depth(html)
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError as error:
        raise MissingExtra("selectolax", "documents") from error
    tree = LexborHTMLParser(html)
    root = _main_part(tree)
    if root is None:
        return ""
    writer = MarkdownWriter(keep_links=keep_links)
    if root.css_first("h1") is None:
        title = tree.css_first("h1") or tree.css_first("head > title")
        if title is not None:
            writer.write_title(title.text())
    skipped = {node.mem_id for node in _link_lists(root)}
    for node, entering in _walk(root, skipped):
        if node.is_text_node:
            writer.text(node.text_content or "")
        elif entering:
            writer.enter(node)
        else:
            writer.leave(node)
    return writer.finish()


def _check_depth(html: str) -> None:
    """Refuse what the parser would need minutes for: its time grows with the square of the depth.

    Counted without parsing, so only among elements that have to be closed.
    """
    depth = 0
    for tag in _CLOSED_TAG.finditer(html):
        depth = max(0, depth - 1) if tag[1] else depth + 1
        if depth > _DEPTH_LIMIT:
            raise Reject(
                f"more than {_DEPTH_LIMIT:,} elements lie in one another: no page for people",
                "too_large",
            )


def _main_part(tree: Any) -> Any:
    mains = tree.css("main, [role=main]")
    if len(mains) == 1 and len(mains[0].text().strip()) >= _LEAST_MAIN_CHARS:
        return mains[0]
    return tree.root


def _link_lists(root: Any) -> Iterator[Any]:
    """Yield the lists in headers and footers that hold links only: menus, languages, imprints."""
    for node in root.css("header ul, header ol, footer ul, footer ol")[:1000]:
        link_chars = sum(len(link.text(deep=True).strip()) for link in node.css("a"))
        if link_chars >= _LINK_SHARE * len("".join(node.text().split())):
            yield node


def _walk(root: Any, skipped: set[int]) -> Iterator[tuple[Any, bool]]:
    """Yield each element as it is entered and left, and each text once, in document order."""
    path: list[Any] = []
    node = root
    while True:
        if node.is_text_node:
            yield node, True
        elif node.is_element_node and not _is_noise(node, skipped):
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


def _is_noise(node: Any, skipped: set[int]) -> bool:
    if node.tag in _SKIPPED or node.mem_id in skipped:
        return True
    attributes = node.attributes
    if not attributes:
        return False
    if attributes.get("aria-hidden") == "true":
        return len(node.text()) < _HIDDEN_LIMIT_CHARS
    return (
        "hidden" in attributes
        or attributes.get("role") == "navigation"
        or "display:none" in (attributes.get("style") or "").replace(" ", "").lower()
    )
