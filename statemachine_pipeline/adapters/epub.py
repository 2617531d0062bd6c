"""Books (EPUB 2 and 3) to Markdown: their chapters in reading order, each as any HTML.

Source: EPUB 3.3 (W3C Recommendation); Open Packaging Format 2.0.1 for its forerunner.
"""

from __future__ import annotations

import dataclasses
import html
import io
import posixpath
import re
import zipfile
from collections import Counter
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urldefrag

from statemachine_pipeline.adapters import xmlparts
from statemachine_pipeline.adapters.decoding import clean, decode
from statemachine_pipeline.adapters.markup import declared_encoding, deepened, read_html
from statemachine_pipeline.adapters.xmlparts import attribute, local_name
from statemachine_pipeline.adapters.zipped import check
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import ParsedText

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from statemachine_pipeline.adapters.reading import Reading
    from statemachine_pipeline.records import Source

_CONTAINER: Final = "META-INF/container.xml"
_ENCRYPTION: Final = "META-INF/encryption.xml"
_MOST_KINDS: Final = 20  # of warnings: each chapter may have one of its own
_CHAPTERS: Final = frozenset(("application/xhtml+xml", "text/html", "text/x-oeb1-document"))
_BODY: Final = re.compile(r"<body\b[^<>]*>", re.IGNORECASE)
_HEADING: Final = re.compile(r"<h[1-6]\b", re.IGNORECASE)
# Often the title of the whole book, in every chapter.
_TITLE_START: Final = re.compile(r"<title\b", re.IGNORECASE)
_TITLE_END: Final = re.compile(r"</title\s*>", re.IGNORECASE)
# XML lets every element end where it begins; to an HTML parser a <title/> has no end.
_EMPTY: Final = re.compile(r"<([a-zA-Z][\w:.-]*)(\s[^<>]*)?/>")
_VOID: Final = frozenset(
    (
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param"),
        *("source", "track", "wbr"),
    )
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Book:
    """What a package says of its book; every path is one within the archive.

    Attributes:
        title: Empty when it has none.
        authors: As they are to be shown.
        chapters: Paths in reading order, without the table of contents.
        others: How many places in the reading order are no HTML, as pages drawn in SVG.
        contents: Paths of tables of contents.
    """

    title: str
    authors: tuple[str, ...]
    chapters: tuple[str, ...]
    others: int
    contents: tuple[str, ...]


def read_epub(source: Source, reading: Reading) -> ParsedText:
    """Turn a book into Markdown, its title first.

    A chapter without a heading is given its name in the table of contents.

    Raises:
        Reject: Encrypted, damaged, unsafe, or over a limit.
    """
    content = source.read()
    check(content, reading)
    archive = zipfile.ZipFile(io.BytesIO(content))
    book = _book(archive)
    names = set(archive.namelist())
    reading.check_pages(len(book.chapters), "chapters")
    chapters = [name for name in book.chapters if name in names]
    if not chapters:
        raise Reject(f"damaged: none of its {len(book.chapters):,} chapters is there", "damaged")
    _check_unlocked(archive, chapters)
    headings = _headings(archive, book)
    title = _title(book, archive.read(chapters[0]))
    texts = list(title)
    text_chars = 0
    warnings: Counter[str] = Counter()
    for name in chapters:
        chapter = archive.read(name)
        reading.check_bytes(len(chapter))
        page, guessed = _page(chapter, headings.get(name, ""))
        page = deepened(page) if title else page
        text, lost = clean(read_html(page, keep_links=reading.keep_links))
        warnings.update([*guessed, *lost])
        texts.append(text.strip())
        text_chars += len(text)
        reading.check_chars(text_chars)
    text = "\n\n".join(filter(None, texts))
    missing = len(book.chapters) - len(chapters)
    notes = (
        (missing, f"{missing:,} of {len(book.chapters):,} chapters are missing"),
        (book.others, f"left out {book.others:,} pages that are not HTML"),
        *(
            (count, warning if count == 1 else f"{warning} ({count:,} chapters)")
            for warning, count in warnings.most_common(_MOST_KINDS)
        ),
    )
    return ParsedText(text + "\n" * bool(text), (), tuple(note for count, note in notes if count))


def _title(book: _Book, first: bytes) -> tuple[str, ...]:
    """Write title and authors, unless the book begins with a title page of its own."""
    page, _ = _page(first, "")
    if not book.title or read_html(page).startswith(f"# {book.title}\n"):
        return ()
    return (f"# {book.title}", ", ".join(book.authors))


def _book(archive: zipfile.ZipFile) -> _Book:
    container = xmlparts.parse_part(archive, _CONTAINER)
    roots = (attribute(part, "full-path") for part in container.iter())
    path = next(filter(None, roots), "")
    package = xmlparts.parse_part(archive, path)
    items: dict[str, Element] = {}
    places: list[str] = []
    contents: list[str] = []
    said: dict[str, list[str]] = {}
    for part in package.iter():
        match local_name(part):
            case "item":
                items[attribute(part, "id")] = part
            case "itemref":
                places.append(attribute(part, "idref"))
            case "title" | "creator" as kind:
                said.setdefault(kind, []).append(xmlparts.words(part))
    chapters = []
    others = 0
    for place in dict.fromkeys(places):
        item = items.get(place)
        if item is None or "nav" in attribute(item, "properties").split():
            continue
        if attribute(item, "media-type") in _CHAPTERS:
            chapters.append(_path(path, attribute(item, "href")))
        else:
            others += 1
    for item in items.values():
        is_navigation = "nav" in attribute(item, "properties").split()
        if is_navigation or attribute(item, "media-type") == "application/x-dtbncx+xml":
            contents.append(_path(path, attribute(item, "href")))
    title = next(iter(said.get("title", ())), "")
    return _Book(title, tuple(said.get("creator", ())), tuple(chapters), others, tuple(contents))


def _path(base: str, target: str) -> str:
    """Resolve a reference against the part that it stands in."""
    relative = unquote(urldefrag(target).url)
    return posixpath.normpath(posixpath.join(posixpath.dirname(base), relative))


def _check_unlocked(archive: zipfile.ZipFile, chapters: list[str]) -> None:
    """Refuse a book whose text is locked; obfuscated fonts are common and hide nothing."""
    if _ENCRYPTION not in archive.namelist():
        return
    parts = xmlparts.parse_part(archive, _ENCRYPTION).iter()
    locked = {_path("", attribute(part, "URI")) for part in parts if attribute(part, "URI")}
    if count := len(locked.intersection(chapters)):
        reason = f"copy-protected: {count:,} of {len(chapters):,} chapters are encrypted"
        raise Reject(reason, "encrypted")


def _headings(archive: zipfile.ZipFile, book: _Book) -> dict[str, str]:
    """Return what the tables of contents call each chapter."""
    headings: dict[str, str] = {}
    for name in book.contents:
        try:
            root = xmlparts.parse_part(archive, name)
        except Reject:  # without it the book can be read all the same
            continue
        for target, words in _entries(root):
            if target and words:
                headings.setdefault(_path(name, target), words)
    return headings


def _entries(root: Element) -> list[tuple[str, str]]:
    """Return targets and labels of a navigation document, or of EPUB 2's NCX."""
    found = []
    for part in root.iter():
        if local_name(part) == "nav" and attribute(part, "type") == "toc":
            links = (link for link in part.iter() if local_name(link) == "a")
            found += [(attribute(link, "href"), xmlparts.words(link)) for link in links]
        elif local_name(part) == "navPoint":
            own = {local_name(child): child for child in part}
            if "content" in own and "navLabel" in own:
                target = attribute(own["content"], "src")
                found.append((target, xmlparts.words(own["navLabel"])))
    return found


def _page(content: bytes, heading: str) -> tuple[str, list[str]]:
    """Return a chapter as HTML, with a heading in any case, and what was guessed of it."""
    page, warnings = decode(content, declared_encoding(content))
    page = _EMPTY.sub(_spelled_out, page)
    title = _TITLE_START.search(page)
    if title and (end := _TITLE_END.search(page, title.end())):
        page = page[: title.start()] + page[end.end() :]
    if heading and not _HEADING.search(page):
        page = _BODY.sub(lambda body: f"{body[0]}<h1>{html.escape(heading)}</h1>", page, count=1)
    return page, warnings


def _spelled_out(tag: re.Match[str]) -> str:
    name, rest = tag[1], tag[2] or ""
    return tag[0] if name.lower() in _VOID else f"<{name}{rest}></{name}>"
