"""Books: order, titles and headings, and pages that are XML."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest
from fix_archives import parse, rejection, zipped

from statemachine_pipeline.adapters.media_types import EPUB

CONTAINER = '<container><rootfiles><rootfile full-path="book/p.opf"/></rootfiles></container>'
NAVIGATION = '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'


def book(
    pages: dict[str, str],
    *,
    metadata: str = "",
    items: str = "",
    order: tuple[str, ...] = (),
    **parts: str,
) -> bytes:
    """Zip a book; the names of pages are their ids, other parts by name with ``_`` for a dot."""
    html = 'media-type="application/xhtml+xml"'
    listed = "".join(f'<item id="{name}" href="{quote(name)}.xhtml" {html}/>' for name in pages)
    places = "".join(f'<itemref idref="{name}"/>' for name in order or pages)
    return zipped(
        {
            "META-INF/container.xml": CONTAINER,
            "book/p.opf": f"<package><metadata>{metadata}</metadata>"
            f"<manifest>{listed}{items}</manifest><spine>{places}</spine></package>",
            **{f"book/{name}.xhtml": page for name, page in pages.items()},
            **{f"book/{name.replace('_', '.')}": part for name, part in parts.items()},
        }
    )


def page(body: str, title: str = "The whole book") -> str:
    """Return a chapter."""
    return (
        '<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "x.dtd">'
        f"<html><head><title>{title}</title></head><body>{body}</body></html>"
    )


def test_chapters_come_in_reading_order_below_the_title() -> None:
    """Their chapters in reading order; its title first."""
    content = book(
        {"b": page("<h1>Two</h1><p>second</p>"), "a": page("<h1>One</h1><p>first</p>")},
        metadata="<title>Tales &amp; more</title><creator>Eleni</creator><creator>Tomas</creator>",
        order=("a", "b", "a", "gone"),
    )
    assert parse(content, EPUB).text == (
        "# Tales & more\n\nEleni, Tomas\n\n## One\n\nfirst\n\n## Two\n\nsecond\n"
    )


def test_a_title_page_makes_the_title_once() -> None:
    """Unless the book begins with a title page of its own."""
    content = book(
        {"a": page("<h1>Tales</h1><p>by Eleni</p>"), "b": page("<h2>One</h2>")},
        metadata="<title>Tales</title>",
    )
    assert parse(content, EPUB).text == "# Tales\n\nby Eleni\n\n## One\n"


@pytest.mark.parametrize("version", [2, 3])
def test_the_table_of_contents_names_chapters_without_heading(version: int) -> None:
    """A chapter without a heading is given its name in the table of contents."""
    pages = {"a b": page("<p>first</p>"), "c": page("<h1>Own</h1><p>second</p>")}
    target = "a%20b.xhtml#start"
    if version == 2:
        items = '<item id="n" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
        table = (
            f"<ncx><navMap><navPoint><navLabel><text>The bell</text></navLabel><content "
            f'src="{target}"/></navPoint></navMap></ncx>'
        )
        content = book(pages, items=items, toc_ncx=table)
    else:
        table = page(
            f'<nav epub:type="landmarks"><a href="{target}">Begin</a></nav>'
            f'<nav epub:type="toc"><ol><li><a href="{target}">The <i>bell</i></a></li></ol></nav>'
        ).replace("<html>", '<html xmlns:epub="http://www.idpf.org/2007/ops">')
        content = book(pages, items=NAVIGATION, order=("nav", *pages), nav_xhtml=table)
    assert parse(content, EPUB).text == "# The bell\n\nfirst\n\n# Own\n\nsecond\n"


def test_elements_that_end_where_they_begin_swallow_nothing() -> None:
    """To an HTML parser a ``<title/>`` has no end."""
    head = "<head><title/><script src='x'/></head>"
    html = f"<html>{head}<body><a id='x'/><p/><div/>a<br/>b</body></html>"
    assert parse(book({"a": html}), EPUB).text == "a\nb\n"


def test_what_is_missing_is_told() -> None:
    """Warnings name what could not be read."""
    content = book(
        {"a": page("<p>first</p>")},
        items='<item id="b" href="b.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="c" href="c.svg" media-type="image/svg+xml"/>',
        order=("a", "b", "c"),
    )
    parsed = parse(content, EPUB)
    assert parsed.text == "first\n"
    assert parsed.warnings == (
        "1 of 2 chapters are missing",
        "left out 1 pages that are not HTML",
    )


def test_a_copy_protected_book_is_refused() -> None:
    """Obfuscated fonts are common and hide nothing; locked chapters do."""
    locked = (
        "<encryption><EncryptedData><CipherData><CipherReference URI='{}'/></CipherData>"
        "</EncryptedData></encryption>"
    )
    parts = {"META-INF/container.xml": CONTAINER}
    package = (
        '<package><manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>'
        '</manifest><spine><itemref idref="a"/></spine></package>'
    )
    for uri, refused in (("book/font.otf", False), ("book/a.xhtml", True)):
        content = zipped(
            {
                **parts,
                "META-INF/encryption.xml": locked.format(uri),
                "book/p.opf": package,
                "book/a.xhtml": page("a"),
            }
        )
        if refused:
            assert rejection(content, EPUB) == (
                "encrypted",
                "copy-protected: 1 of 1 chapters are encrypted",
            )
        else:
            assert parse(content, EPUB).text == "a\n"


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"a": "b"}, "damaged: it has no part META-INF/container.xml"),
        ({"META-INF/container.xml": CONTAINER}, "damaged: it has no part book/p.opf"),
        (
            {"META-INF/container.xml": CONTAINER, "book/p.opf": "<package/>"},
            "damaged: none of its 0 chapters is there",
        ),
    ],
)
def test_damage_is_named(parts: dict[str, str], reason: str) -> None:
    """Damaged: the sentence names what is missing."""
    assert rejection(zipped(parts), EPUB) == ("damaged", reason)


def test_limits_hold() -> None:
    """Over a limit."""
    content = book({"a": page("<p>first words</p>"), "b": page("<p>second words</p>")})
    assert rejection(content, EPUB, pages=1)[1] == "2 chapters are more than the limit of 1"
    assert rejection(content, EPUB, text_chars=20)[0] == "too_large"


@pytest.mark.parametrize("piece", ["<title>", "<title ", "<body ", "<a ", "<a/", "</title"])
def test_no_page_makes_the_looking_slow(piece: str) -> None:
    """Every pattern is linear in the page."""
    content = book({"a": piece * 50_000})
    began = time.process_time()
    parse(content, EPUB, inflation_ratio=10_000)
    assert time.process_time() - began < 2.0
