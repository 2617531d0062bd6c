"""The shipped parser on small documents of each type, whole and broken."""

from __future__ import annotations

import pickle
import runpy
from pathlib import Path
from typing import Any

import pytest

from statemachine_pipeline.adapters.media_types import HTML, MARKDOWN, PDF, PLAIN, SUPPORTED, sniff
from statemachine_pipeline.adapters.parsers import DocumentParser
from statemachine_pipeline.adapters.reading import Reading
from statemachine_pipeline.hooks import Done, Parser, Reject
from statemachine_pipeline.records import ParsedText, Source

DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"
REPORT = (DOCUMENTS / "annual-report-2024.pdf").read_bytes()
SCAN = (DOCUMENTS / "scanned-letter.pdf").read_bytes()


def parse(content: bytes | str, media_type: str, **settings: Any) -> ParsedText:
    """Parse bytes, or text as UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    source = Source(name="a", media_type=media_type, size_bytes=len(data), data=data)
    parsed = DocumentParser(Reading(**settings)).parse(source)
    text = parsed.product if isinstance(parsed, Done) else parsed
    assert isinstance(text, ParsedText)
    return text


def rejection(content: bytes | str, media_type: str, **settings: Any) -> tuple[str, str]:
    """Return the code and the sentence with which a document is rejected."""
    with pytest.raises(Reject) as caught:
        parse(content, media_type, **settings)
    return caught.value.code, caught.value.reason


def test_it_is_a_parser_that_can_be_sent_to_a_child() -> None:
    """It keeps nothing between calls and can be pickled."""
    parser = DocumentParser(Reading(pages=7, keep_links=True))
    assert isinstance(parser, Parser)
    assert vars(pickle.loads(pickle.dumps(parser))) == vars(parser)


class TestPdf:
    def test_pages_are_spans_of_the_text(self) -> None:
        """Text per page, pages joined by a blank line."""
        parsed = parse(REPORT, PDF)
        assert [span.page for span in parsed.spans] == [1, 2, 3]
        first, second, third = (parsed.text[span.start : span.end] for span in parsed.spans)
        assert first.startswith("Alder Vale Public Library\nAnnual Report 2024")
        assert "approved by the town\ncouncil on 14 November 2024" in second
        assert third.startswith("Plans for 2025")
        assert parsed.text == f"{first}\n\n{second}\n\n{third}"
        assert parsed.warnings == ()
        assert parsed.page_at(parsed.text.index("412,600")) == 2

    def test_a_path_gives_what_the_bytes_give(self) -> None:
        """A Source is read from memory or from its path."""
        path = DOCUMENTS / "annual-report-2024.pdf"
        source = Source(name="a", media_type=PDF, size_bytes=1, path=path)
        assert DocumentParser().parse(source) == parse(REPORT, PDF)

    def test_a_scan_keeps_its_empty_pages(self) -> None:
        """A PDF of scans gives an empty text and one empty span for each page."""
        parsed = parse(SCAN, PDF)
        assert parsed.text == ""
        assert [(span.page, span.start, span.end) for span in parsed.spans] == [(1, 0, 0)]
        assert parsed.warnings == ("no text on 1 of 1 pages: scans?",)

    def test_password_protection_is_named(self) -> None:
        """Password-protected -> Reject."""
        lock = (
            b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <" + b"41" * 32 + b"> /U <" + b"42" * 32
        ) + b"> >>"
        locked = REPORT.replace(b"/Root 1 0 R", b"/Root 1 0 R /ID [<41> <41>] /Encrypt " + lock)
        assert rejection(locked, PDF) == ("encrypted", "password-protected")

    @pytest.mark.parametrize("content", [b"%PDF-1.4\n", REPORT[:300], b"%PDF-" + bytes(500)])
    def test_damage_is_named(self, content: bytes) -> None:
        """Truncated or damaged -> Reject saying so."""
        code, reason = rejection(content, PDF)
        assert code == "damaged"
        assert reason.startswith("damaged PDF: it cannot be opened")

    def test_limits_name_both_figures(self) -> None:
        """Over a limit -> Reject with what was found and what is allowed."""
        assert rejection(REPORT, PDF, pages=2) == (
            "too_large",
            "3 pages are more than the limit of 2",
        )
        assert rejection(REPORT, PDF, text_chars=1_500) == (
            "too_large",
            "page 2 of 3 takes the text over the limit of 1,500 characters",
        )


class TestText:
    def test_markdown_is_kept_as_it_is(self) -> None:
        """Markdown is kept as is, after decoding."""
        text = (DOCUMENTS / "board-minutes-2025-03.md").read_text(encoding="utf-8")
        assert parse(text, MARKDOWN) == ParsedText(text)

    def test_line_ends_become_line_feeds(self) -> None:
        """Every line end is a line feed."""
        assert parse("a\r\nb\rc\u2028d", PLAIN).text == "a\nb\nc\nd"

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
    def test_a_byte_order_mark_decides(self, encoding: str) -> None:
        """A byte order mark decides."""
        parsed = parse("Größe".encode(encoding), PLAIN)
        assert parsed == ParsedText("Größe")

    @pytest.mark.parametrize(
        ("text", "encoding"),
        [
            ("Die Bücherei schließt früher.", "cp1252"),
            ("Le café de la médiathèque “Été” est fermé.", "cp1252"),
            ("Библиотека открыта ежедневно, кроме понедельника.", "cp1251"),
            ("Příliš žluťoučký kůň úpěl ďábelské ódy.", "cp1250"),
            ("図書館の年次報告書は予算を示しています。", "cp932"),
        ],
    )
    def test_legacy_encodings_are_guessed_and_the_guess_is_told(
        self, text: str, encoding: str
    ) -> None:
        """A warning names the encoding."""
        parsed = parse((text * 5).encode(encoding), PLAIN)
        assert parsed.text == text * 5
        assert parsed.warnings == (f"not UTF-8; read as {encoding}, which is a guess",)

    def test_utf8_with_a_broken_character_stays_utf8(self) -> None:
        """Bytes that remain invalid become U+FFFD."""
        parsed = parse("Größe für Bücher, Wörter, Türen, Schlüssel".encode() + b"\xff", PLAIN)
        assert parsed.text == "Größe für Bücher, Wörter, Türen, Schlüssel\ufffd"
        assert parsed.warnings[1] == "replaced 1 byte that are not utf-8"

    def test_what_no_database_can_hold_is_removed(self) -> None:
        """ParsedText.text holds no NUL character."""
        parsed = parse("a\x00b\x01c\td\n", PLAIN)
        assert parsed.text == "abc\td\n"
        assert parsed.warnings == ("removed 2 control characters",)

    def test_embedded_pictures_are_left_out(self) -> None:
        """Nobody reads base64, yet it would become many passages."""
        parsed = parse("![a](data:image/png;base64," + "QUJD" * 100 + ") b", MARKDOWN)
        assert parsed.text == "![a](data:,) b"
        assert parsed.warnings == ("left out 1 embedded file, 416 characters of base64",)

    def test_limits_name_both_figures(self) -> None:
        """Refused with a clear reason, before it is decoded where possible."""
        assert rejection("abcdef", PLAIN, text_chars=5)[1] == (
            "6 characters are more than the limit of 5"
        )
        assert rejection("a" * 21, PLAIN, text_chars=5)[1] == (
            "21 bytes of text are more than the limit of 5 characters can hold"
        )

    def test_other_types_are_refused_by_name(self) -> None:
        """Of another type -> Reject."""
        assert rejection("a", "image/png") == (
            "unsupported_type",
            f"no parser for image/png; supported: {', '.join(SUPPORTED.values())}",
        )


HTML_CASES = {
    "headings, paragraphs, breaks": (
        "<h1>A <b>b</b></h1><p>one\n two<br>three</p>four<h2>C</h2>",
        "# A b\n\none two\nthree\n\nfour\n\n## C\n",
    ),
    "the title stands first without h1": (
        "<title>T &amp; t</title><p>words",
        "# T & t\n\nwords\n",
    ),
    "noise goes": (
        "<nav>menu</nav><script>x</script><p hidden>z</p><p style='display: none'>u</p><p>words",
        "words\n",
    ),
    "lists nest": (
        "<ul><li>a<ul><li>b</ul><li><p>c</p><p>d</p></ul><ol start=3><li>e<li>f</ol>",
        "- a\n  - b\n- c\n\n  d\n\n3. e\n4. f\n",
    ),
    "tables are rows": (
        "<table><tr><th>a<th>b<tr><td rowspan=2>1 | 2<td>3<tr><td>4</table>",
        "| a | b |\n| --- | --- |\n| 1 \\| 2 | 3 |\n|  | 4 |\n",
    ),
    "layout tables are paragraphs": ("<table><tr><td>a<tr><td>b</table>", "a\n\nb\n"),
    "code keeps its lines": (
        "<pre><code class='language-py'>  if a:\n      b</code></pre>",
        "```py\nif a:\n    b\n```\n",
    ),
    "a fence is longer than what it holds": ("<pre>```</pre>", "````\n```\n````\n"),
    "quotes": ("<blockquote><p>a</p><p>b</p></blockquote>c", "> a\n\n> b\n\nc\n"),
    "definitions": ("<dl><dt>a<dd>b</dl>", "a\n: b\n"),
    "pictures give their description": ("<p><img alt='a cat' src=x> sat", "[image: a cat] sat\n"),
    "nothing gives nothing": ("", ""),
}


class TestHtml:
    @pytest.mark.parametrize(("html", "expected"), HTML_CASES.values(), ids=HTML_CASES.keys())
    def test_what_a_reader_reads_is_kept(self, html: str, expected: str) -> None:
        """What a reader would read, with headings, lists, tables and code."""
        assert parse(html, HTML).text == expected

    def test_the_main_part_is_read_if_there_is_one(self) -> None:
        """Its main part if it marks one, else all of it."""
        words = "words " * 50
        page = f"<header>top</header><main><p>{words}</p></main><footer>end</footer>"
        assert parse(page, HTML).text == words.strip() + "\n"
        assert "top" in parse("<header>top</header><main>short</main>", HTML).text

    def test_links_are_kept_when_asked_for(self) -> None:
        """keep_links: Write links as ``[words](target)``; else their words alone."""
        page = "<p>See <a href='https://x.org/'>the <b>page</b></a>."
        assert parse(page, HTML).text == "See the page.\n"
        assert parse(page, HTML, keep_links=True).text == "See [the page](https://x.org/).\n"

    @pytest.mark.parametrize(
        ("declared", "encoding"), [("iso-8859-1", "cp1252"), ("windows-1251", "cp1251")]
    )
    def test_the_declared_encoding_counts(self, declared: str, encoding: str) -> None:
        """Then what the document itself declares, as browsers read it."""
        text = "“äöü”" if encoding == "cp1252" else "библиотека"
        page = f"<meta charset='{declared}'><p>{text}".encode(encoding)
        assert parse(page, HTML) == ParsedText(text + "\n")

    @pytest.mark.parametrize("declared", ["hex", "undefined", "idna", "no-such", "utf-16"])
    def test_a_senseless_declaration_does_not(self, declared: str) -> None:
        """Codecs such as ``hex`` do not count."""
        page = f"<meta charset='{declared}'><p>Größe".encode("cp1252")
        assert "Größe" in parse(page, HTML).text or declared == "utf-16"

    def test_character_references_cannot_smuggle_controls(self) -> None:
        """ParsedText.text holds no NUL character."""
        assert parse("<p>a&#0;b&#1;c&#xd800;d", HTML).text == "a\ufffdbc\ufffdd\n"

    @pytest.mark.parametrize(
        "piece", ["<div>", "<ul><li>x", "<blockquote>x", "<table><tr><td>x", "<b>", "<pre>", "<a>"]
    )
    def test_depth_breaks_nothing(self, piece: str) -> None:
        """The tree is walked without recursion."""
        assert parse(piece * 1_000 + "end", HTML).text.rstrip("`\n |").endswith("end")

    def test_a_page_that_would_take_minutes_is_refused_at_once(self) -> None:
        """More elements in one another than any page has -> too_large."""
        code, sentence = rejection("<div>" * 100_000 + "words", HTML)
        assert (code, "10,000 elements" in sentence) == ("too_large", True)

    def test_elements_that_nobody_closes_are_no_depth(self) -> None:
        """A long list, table or drawing without closing tags is read."""
        items = "<ul>" + "<li>one" * 20_000 + "</ul><svg>" + "<path d='M0'/>" * 20_000 + "</svg>"
        assert parse(items, HTML).text.count("one") == 20_000


@pytest.mark.parametrize("path", sorted(DOCUMENTS.iterdir()), ids=lambda path: path.name)
def test_every_example_document_is_read(path: Path) -> None:
    """Text, and pages exactly for PDF."""
    content = path.read_bytes()
    media_type = sniff(path.name, content)
    assert media_type is not None
    parsed = parse(content, media_type)
    assert bool(parsed.text) == ("scan" not in path.name)
    assert bool(parsed.spans) == (media_type == PDF)


def test_the_example_documents_are_what_their_script_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run it again and the files come out byte for byte the same."""
    script = runpy.run_path(str(DOCUMENTS.parent / "make_documents.py"))
    monkeypatch.setitem(script["main"].__globals__, "FOLDER", tmp_path)
    script["main"]()
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in DOCUMENTS.iterdir()}
