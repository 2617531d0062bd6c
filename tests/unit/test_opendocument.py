"""OpenDocument texts: structure, what stands aside, and what is refused."""

from __future__ import annotations

import pytest
from fix_archives import OPEN_DOCUMENT, odt, parse, rejection, zipped

from statemachine_pipeline.adapters.media_types import ODT

NUMBERED = (
    '<text:list-style style:name="L"><text:list-level-style-number text:level="1"/>'
    '<text:list-level-style-bullet text:level="2"/></text:list-style>'
)


def p(text: str, style: str = "Standard") -> str:
    """Return a paragraph."""
    return f'<text:p text:style-name="{style}">{text}</text:p>'


def item(*inside: str) -> str:
    """Return an item of a list."""
    return f"<text:list-item>{''.join(inside)}</text:list-item>"


CASES = {
    "headings": (
        (
            '<text:h text:outline-level="1">A</text:h><text:h text:outline-level="9">B</text:h>'
            "<text:h>C</text:h>"
        ),
        "# A\n\n###### B\n\n# C\n",
    ),
    "a title stands above": (
        p("T", "Title") + '<text:h text:outline-level="1">A</text:h>',
        "# T\n\n## A\n",
    ),
    "a style of the document's own": (p("T", "P1"), "# T\n"),
    "blanks": (p("a<text:s text:c='3'/>b<text:tab/>c<text:line-break/>d"), "a b c\nd\n"),
    "lists count by the level of their style": (
        '<text:list text:style-name="L">'
        + item(p("a"), "<text:list>", item(p("b")), "</text:list>")
        + item(p("c"))
        + "</text:list>",
        "1. a\n   - b\n2. c\n",
    ),
    "tables": (
        (
            "<table:table><table:table-column/><table:table-header-rows><table:table-row>"
            f"<table:table-cell>{p('a')}</table:table-cell><table:table-cell>{p('b')}"
            "</table:table-cell></table:table-row></table:table-header-rows><table:table-row>"
            f'<table:table-cell table:number-columns-spanned="2">{p("c")}</table:table-cell>'
            f"<table:covered-table-cell>{p('d')}</table:covered-table-cell></table:table-row>"
            "</table:table>"
        ),
        "| a | b |\n| --- | --- |\n| c |  |\n",
    ),
    "listings": (
        p("if a:", "Preformatted_20_Text") + p("&lt;b&gt;", "Preformatted_20_Text"),
        "```\nif a:\n<b>\n```\n",
    ),
    "quotations": (p("a", "Quotations"), "> a\n"),
    "notes stand at the end": (
        p(
            "a<text:note><text:note-citation>1</text:note-citation><text:note-body>"
            f"{p('first')}{p('second')}</text:note-body></text:note> b"
        )
        + p("c"),
        "a[1] b\n\nc\n\n[1] first\n\nsecond\n",
    ),
    "text boxes and pictures": (
        p(
            f"a<draw:frame><draw:text-box>{p('boxed')}</draw:text-box></draw:frame>"
            "<draw:frame><draw:image/><svg:title>title</svg:title><svg:desc>a cat</svg:desc>"
            "</draw:frame>"
        ),
        "a\n\nboxed\n\n[image: a cat]\n",
    ),
    "changes are read as accepted": (
        f"<text:tracked-changes><text:deletion>{p('old')}</text:deletion></text:tracked-changes>"
        + p("new"),
        "new\n",
    ),
    "tables of contents are left out": (
        f"<text:table-of-content>{p('A 3')}</text:table-of-content>" + p("a"),
        "a\n",
    ),
    "markup in the text is text": (p("&lt;b&gt; &amp;amp;"), "<b> &amp;\n"),
}


@pytest.mark.parametrize(("body", "text"), CASES.values(), ids=CASES.keys())
def test_what_a_reader_reads_is_kept(body: str, text: str) -> None:
    """Written as HTML, then as any HTML."""
    styles = NUMBERED + '<style:style style:name="P1" style:parent-style-name="Title"/>'
    parsed = parse(odt(body, styles=styles), ODT)
    assert parsed.text == text
    assert parsed.warnings == ()


def test_links_are_kept_when_asked_for() -> None:
    """keep_links: Write links as ``[words](target)``; else their words alone."""
    link = (
        '<text:a xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="https://x.org/">a</text:a>'
    )
    assert parse(odt(p(link)), ODT).text == "a\n"
    assert parse(odt(p(link)), ODT, keep_links=True).text == "[a](https://x.org/)\n"


def test_formulas_are_the_words_of_their_author() -> None:
    """Write a formula in the words of its author; count other objects."""
    math = (
        '<math xmlns="http://www.w3.org/1998/Math/MathML"><semantics><mi>E</mi>'
        '<annotation encoding="StarMath 5.0">E = m c^2</annotation></semantics></math>'
    )
    chart = f"<office:document-content {OPEN_DOCUMENT}><office:chart/></office:document-content>"
    frame = (
        '<draw:frame><draw:object xmlns:xlink="http://www.w3.org/1999/xlink" '
        'xlink:href="./{}"/><draw:image/></draw:frame>'
    )
    body = p("".join(frame.format(name) for name in ("Formula", "Chart", "Gone")))
    parsed = parse(odt(body, Formula__content=math, Chart__content=chart), ODT)
    assert parsed.text == "E = m c^2\n"
    assert parsed.warnings == ("left out 1 chart", "left out 1 embedded object")


def test_what_is_left_out_is_counted() -> None:
    """Not read are comments, page headers and footers and charts, which warnings count."""
    styles = (
        f"<office:document-styles {OPEN_DOCUMENT}><style:master-page>"
        f"<style:header>{p('Alder Vale Public Library')}</style:header>"
        f"<style:header-first>{p('Alder Vale Public Library')}</style:header-first>"
        f"<style:footer>{p('Page 3 of 12')}</style:footer>"
        "</style:master-page></office:document-styles>"
    )
    parsed = parse(odt(p(f"a<office:annotation>{p('why?')}</office:annotation>"), styles=""), ODT)
    assert parsed.warnings == ("left out 1 comment",)
    content = odt(p("a"))
    assert parse(content, ODT).warnings == ()
    with_styles = zipped({"styles.xml": styles, "content.xml": content_of(p("a"))})
    assert parse(with_styles, ODT).warnings == ("left out 2 page headers",)


def content_of(body: str) -> str:
    """Return a content.xml."""
    return (
        f"<office:document-content {OPEN_DOCUMENT}><office:body><office:text>{body}"
        "</office:text></office:body></office:document-content>"
    )


def test_a_password_is_named() -> None:
    """A document with a password has encrypted entries inside a plain archive."""
    manifest = (
        '<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">'
        '<m:file-entry m:full-path="content.xml"><m:encryption-data/></m:file-entry></m:manifest>'
    )
    content = zipped({"META-INF/manifest.xml": manifest, "content.xml": b"\x00\x01\x02"})
    assert rejection(content, ODT) == ("encrypted", "password-protected")


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"a": "b"}, "damaged: it has no part content.xml"),
        ({"content.xml": "<a/>"}, "damaged: content.xml holds no text document"),
        ({"content.xml": "words"}, "damaged: content.xml is not XML (syntax error: line 1"),
    ],
)
def test_damage_is_named(parts: dict[str, str], reason: str) -> None:
    """Damaged: the sentence names the part."""
    code, said = rejection(zipped(parts), ODT)
    assert code == "damaged"
    assert said.startswith(reason)


def test_depth_and_length_are_limited() -> None:
    """Nested too deeply, or over a limit."""
    deep = "<text:section>" * 5_000 + "</text:section>" * 5_000
    assert rejection(odt(deep), ODT, inflation_ratio=1_000)[1] == (
        "damaged: its parts are nested too deeply to be read"
    )
    assert rejection(odt(p("words " * 10)), ODT, text_chars=20)[0] == "too_large"
