"""Word documents: what python-docx writes, and what other programs write."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import docx as python_docx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import OxmlElement
from docx.shared import RGBColor
from fix_archives import WORD, docx, parse, rejection, zipped

from statemachine_pipeline.adapters.media_types import DOCX, sniff

if TYPE_CHECKING:
    from statemachine_pipeline.records import ParsedText


def written(document: Any) -> ParsedText:
    """Save a document of python-docx and read it."""
    content = io.BytesIO()
    document.save(content)
    assert sniff("a", content.getvalue()) == DOCX
    return parse(content.getvalue(), DOCX)


def run(text: str) -> str:
    """Return a run of text."""
    return f"<w:r><w:t>{text}</w:t></w:r>"


def math(formula: str) -> str:
    """Return a paragraph with a formula; letters outside tags become runs."""
    return f"<w:p>{run('so ')}<m:oMath>{formula}</m:oMath></w:p>"


def r(text: str) -> str:
    """Return a run of a formula."""
    return f"<m:r><m:t>{text}</m:t></m:r>"


def e(text: str, name: str = "e") -> str:
    """Return an operand of a formula."""
    return f"<m:{name}>{r(text)}</m:{name}>"


class TestStructure:
    def test_headings_lists_and_tables(self) -> None:
        """Mended parts, Mammoth's HTML, then as any HTML."""
        document = python_docx.Document()
        document.add_heading("The roof", level=0)  # the style called Title
        document.add_heading("Offers", level=1)
        document.add_paragraph("Three firms wrote.")
        for text in ("Hollis", "Dachwerk"):
            document.add_paragraph(text, style="List Bullet")
        for text in ("ask", "sign"):
            document.add_paragraph(text, style="List Number")
        table = document.add_table(2, 2)
        for cell, text in zip(table._cells, ("Firm", "Price", "Hollis", "38,000"), strict=True):
            cell.text = text
        document.add_paragraph("Cheap is dear.", style="Quote")
        assert written(document).text == (
            "# The roof\n\n## Offers\n\nThree firms wrote.\n\n- Hollis\n- Dachwerk\n\n"
            "1. ask\n2. sign\n\n"
            "| Firm | Price |\n| --- | --- |\n| Hollis | 38,000 |\n\n> Cheap is dear.\n"
        )

    def test_a_style_of_ones_own_is_a_heading_by_its_outline_level(self) -> None:
        """A style is a heading when it, or one that it is based on, has an outline level."""
        styles = (
            f"<w:styles {WORD}>"
            '<w:style w:type="paragraph" w:styleId="Part">'
            '<w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>'
            '<w:style w:type="paragraph" w:styleId="Red"><w:basedOn w:val="Part"/></w:style>'
            '<w:style w:type="paragraph" w:styleId="Loop"><w:basedOn w:val="Loop"/></w:style>'
            "</w:styles>"
        )
        body = (
            "".join(
                f'<w:p><w:pPr><w:pStyle w:val="{name}"/></w:pPr>{run(name)}</w:p>'
                for name in ("Part", "Red", "Loop")
            )
            + f'<w:p><w:pPr><w:outlineLvl w:val="0"/></w:pPr>{run("By hand")}</w:p>'
        )
        parsed = parse(docx(body, styles=styles), DOCX)
        assert parsed.text == "## Part\n\n## Red\n\nLoop\n\n# By hand\n"
        assert parsed.warnings == ()

    def test_tables_of_contents_are_left_out(self) -> None:
        """Not read are tables of contents."""
        document = python_docx.Document()
        document.styles.add_style("toc 1", WD_STYLE_TYPE.PARAGRAPH)
        for name in ("TOC Heading", "toc 1"):
            document.add_paragraph("Offers 3", style=name)
        document.add_heading("Offers", level=1)
        assert written(document).text == "# Offers\n"

    def test_links_are_kept_when_asked_for(self) -> None:
        """keep_links: Write links as ``[words](target)``; else their words alone."""
        code = ' HYPERLINK "https://x.org/" '
        body = (
            '<w:p><w:r><w:fldChar w:fldCharType="begin"/></w:r>'
            f"<w:r><w:instrText>{code}</w:instrText></w:r>"
            f'<w:r><w:fldChar w:fldCharType="separate"/></w:r>{run("our page")}'
            '<w:r><w:fldChar w:fldCharType="end"/></w:r></w:p>'
        )
        assert parse(docx(body), DOCX).text == "our page\n"
        assert parse(docx(body), DOCX, keep_links=True).text == "[our page](https://x.org/)\n"

    def test_changes_are_read_as_accepted(self) -> None:
        """Changes are read as accepted."""
        body = (
            f"<w:p>{run('The roof ')}<w:del><w:r><w:delText>leaks</w:delText></w:r></w:del>"
            f"<w:ins>{run('is dry')}</w:ins></w:p>"
        )
        assert parse(docx(body), DOCX).text == "The roof is dry\n"

    def test_the_strict_kind_is_read_like_the_other(self) -> None:
        """The strict and the transitional kind differ in their namespaces only."""
        body = math(f"<m:sSup>{e('x')}{e('2', 'sup')}</m:sSup>")
        content = f"<w:document {WORD}><w:body>{body}</w:body></w:document>"
        for plain, strict in (("wordprocessingml/2006", "wordprocessingml"), ("2006/math", "math")):
            content = content.replace(
                f"http://schemas.openxmlformats.org/{plain}",
                f"http://purl.oclc.org/ooxml/{strict}",
            ).replace(
                f"http://schemas.openxmlformats.org/officeDocument/{plain}",
                f"http://purl.oclc.org/ooxml/officeDocument/{strict}",
            )
        assert "purl.oclc.org" in content
        parts = {"[Content_Types].xml": "<Types/>", "word/document.xml": content}
        assert parse(zipped(parts), DOCX).text == "so x^2\n"


FORMULAS = {
    "fraction": (f"<m:f>{e('a+b', 'num')}{e('2', 'den')}</m:f>", "(a+b)/2"),
    "binomial": (
        f'<m:f><m:fPr><m:type m:val="noBar"/></m:fPr>{e("n", "num")}{e("k", "den")}</m:f>',
        "n¦k",
    ),
    "scripts": (f"<m:sSubSup>{e('x')}{e('i', 'sub')}{e('10', 'sup')}</m:sSubSup>", "x_i^10"),
    "root": (f"<m:rad>{e('3', 'deg')}{e('x+1')}</m:rad>", "3√(x+1)"),
    "sum": (
        (
            f'<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr>{e("k=0", "sub")}{e("n", "sup")}'
            f"{e('k')}</m:nary>"
        ),
        "∑_(k=0)^n k",
    ),
    "integral": (f"<m:nary><m:naryPr/>{e('x')}</m:nary>", "∫ x"),
    "brackets": (
        f'<m:d><m:dPr><m:begChr m:val="["/><m:endChr m:val=""/></m:dPr>{e("a")}{e("b")}</m:d>',
        "[a|b",
    ),
    "brackets once": (
        f"<m:sSup><m:e><m:d>{e('a+b')}</m:d></m:e>{e('2', 'sup')}</m:sSup>",
        "(a+b)^2",
    ),
    "two brackets": (
        f"<m:sSup><m:e><m:d>{e('a')}</m:d><m:d>{e('b')}</m:d></m:e>{e('2', 'sup')}</m:sSup>",
        "((a)(b))^2",
    ),
    "function": (f"<m:func>{e('log', 'fName')}<m:e><m:d>{e('x')}</m:d></m:e></m:func>", "log(x)"),
    "function of a name": (f"<m:func>{e('sin', 'fName')}{e('x')}</m:func>", "sin x"),
    "limit": (f"<m:limLow>{e('lim')}{e('n→∞', 'lim')}</m:limLow>", "lim_(n→∞)"),
    "matrix": (
        f"<m:m><m:mr>{e('a')}{e('b')}</m:mr><m:mr>{e('c')}{e('d')}</m:mr></m:m>",
        "a, b; c, d",
    ),
    "anything else": (f"<m:box>{e('y')}</m:box>{r('=z')}", "y=z"),
}


class TestWhatMammothPassesOver:
    @pytest.mark.parametrize(("formula", "text"), FORMULAS.values(), ids=FORMULAS.keys())
    def test_formulas_are_lines_of_text(self, formula: str, text: str) -> None:
        """Formulas as one line of text, close to how Word itself types them."""
        assert parse(docx(math(formula)), DOCX).text == f"so {text}\n"

    def test_formulas_side_by_side_are_lines(self) -> None:
        """Each in a line of its own, or they would read as one."""
        formulas = f"<m:oMath>{r('a=b')}</m:oMath><m:oMath>{r('c=d')}</m:oMath>"
        assert parse(docx(f"<w:p>{formulas}</w:p>"), DOCX).text == "a=b\nc=d\n"
        body = f"<w:p><m:oMathPara><m:oMathParaPr/>{formulas}</m:oMathPara></w:p>"
        assert parse(docx(body), DOCX).text == "a=b\nc=d\n"

    @pytest.mark.parametrize(
        "wrapped",
        [
            '<w:fldSimple w:instr="SEQ">{}</w:fldSimple>',
            "<w:bdo>{}</w:bdo>",
            (
                "<w:r><w:ruby><w:rubyPr/><w:rt><w:r><w:t>aloud</w:t></w:r></w:rt>"
                "<w:rubyBase>{}</w:rubyBase></w:ruby></w:r>"
            ),
            "<w:sdt><w:sdtContent>{}</w:sdtContent></w:sdt>",
        ],
    )
    def test_what_wraps_text_does_not_swallow_it(self, wrapped: str) -> None:
        """Elements that show what they hold and add nothing to it."""
        parsed = parse(docx(f"<w:p>{run('Figure ')}{wrapped.format(run('7'))}</w:p>"), DOCX)
        assert parsed.text == "Figure 7\n"
        assert parsed.warnings == ()

    @pytest.mark.parametrize(
        "drawing",
        [
            (
                "<mc:AlternateContent><mc:Choice><w:drawing><wps:txbx>{}</wps:txbx></w:drawing>"
                "</mc:Choice></mc:AlternateContent>"
            ),
            (
                "<mc:AlternateContent><mc:Choice><w:drawing><wps:txbx>{}</wps:txbx></w:drawing>"
                "</mc:Choice><mc:Fallback><w:pict><v:textbox>{}</v:textbox></w:pict></mc:Fallback>"
                "</mc:AlternateContent>"
            ),
            "<w:drawing><wps:txbx>{}</wps:txbx></w:drawing>",
            "<w:pict><v:oval><v:textbox>{}</v:textbox></v:oval></w:pict>",
        ],
    )
    def test_text_boxes_are_read_once_in_every_shape(self, drawing: str) -> None:
        """Take the text boxes out of a drawing, in whatever shape they are."""
        box = f"<w:txbxContent><w:p>{run('boxed')}</w:p></w:txbxContent>"
        body = f"<w:p>{run('before')}<w:r>{drawing.replace('{}', box)}</w:r></w:p>"
        parsed = parse(docx(body), DOCX)
        assert parsed.text == "before\n\nboxed\n"
        assert parsed.warnings == ()

    def test_check_boxes_show_whether_they_are_ticked(self) -> None:
        """Write check boxes as the characters that they show."""
        boxes = "".join(
            '<w:p><w:sdt><w:sdtPr><w14:checkbox xmlns:w14="http://schemas.microsoft.com/office/'
            f'word/2010/wordml"><w14:checked w14:val="{ticked}"/></w14:checkbox></w:sdtPr>'
            f"<w:sdtContent>{run('?')}</w:sdtContent></w:sdt>{run('tea')}</w:p>"
            for ticked in "10"
        )
        assert parse(docx(boxes), DOCX).text == "☒ tea\n\n☐ tea\n"

    def test_notes_stand_at_the_end(self) -> None:
        """Footnotes keep their number, and lose the arrow that leads back."""
        notes = (
            f'<w:footnotes {WORD}><w:footnote w:id="2"><w:p>{run("From 1781.")}</w:p></w:footnote>'
            "</w:footnotes>"
        )
        reference = '<w:r><w:footnoteReference w:id="{}"/></w:r>'
        body = f"<w:p>{run('A map')}{reference.format(2)}{reference.format(9)}</w:p>"
        for keep_links in (False, True):
            parsed = parse(docx(body, footnotes=notes), DOCX, keep_links=keep_links)
            assert parsed.text == "A map[1]\n\n1. From 1781.\n"

    def test_references_that_lead_nowhere_are_dropped(self) -> None:
        """Word opens such documents, too."""
        body = (
            f'<w:p><w:hyperlink r:id="gone">{run("a link")}</w:hyperlink>'
            '<w:r><w:pict><v:shape><v:imagedata r:id="gone"/></v:shape></w:pict></w:r></w:p>'
        )
        assert parse(docx(body), DOCX).text == "a link\n"


class TestWarnings:
    def test_what_is_left_out_is_counted(self) -> None:
        """Not read are comments, headers, footers, charts and diagrams, which warnings count."""
        document = python_docx.Document()
        paragraph = document.add_paragraph("The roof leaks.")
        document.add_comment(paragraph.runs, text="Again?", author="Ines")
        section = document.sections[0]
        section.header.paragraphs[0].text = "Alder Vale Public Library, Mill Lane"
        section.footer.paragraphs[0].text = "Page 1 of 3"
        paragraph.runs[0]._r.append(OxmlElement("c:chart"))
        parsed = written(document)
        assert parsed.text == "The roof leaks.\n"
        assert sorted(parsed.warnings) == [
            "left out 1 chart",
            "left out 1 comment",
            "left out 1 page header",
        ]

    def test_looks_are_no_loss(self) -> None:
        """What is about looks is no warning."""
        document = python_docx.Document()
        words = document.add_paragraph("Red words", style="Body Text").runs[0]
        words.font.color.rgb = RGBColor(255, 0, 0)
        words.style = document.styles["Subtle Emphasis"]
        assert written(document).warnings == ()

    def test_unknown_elements_with_text_are_told(self) -> None:
        """Text that no converter knows is told, once, with its count."""
        unknown = f"<w:future>{run('words')}</w:future>"
        parsed = parse(docx(f"<w:p>{run('a')}{unknown}{unknown}<w:empty/></w:p>"), DOCX)
        assert parsed.text == "a\n"
        assert parsed.warnings == ("left out 2 future elements with text",)

    def test_a_document_cannot_make_up_warnings_without_end(self) -> None:
        """A hostile document makes up as many kinds as it likes."""
        body = "".join(f"<w:p><w:x{n}>{run('a')}</w:x{n}></w:p>" for n in range(500))
        assert len(parse(docx(body), DOCX).warnings) == 20


class TestRefusals:
    def test_a_package_without_a_document_is_damaged(self) -> None:
        """Damaged, and it says what is missing."""
        content = zipped({"word/documents.txt": "words"})
        assert rejection(content, DOCX) == ("damaged", "damaged: it has no main part")

    def test_parts_that_make_no_sense_are_damaged(self) -> None:
        """Whose own words may be words of the document: the sentence holds none of them."""
        cell = '<w:tc><w:tcPr><w:gridSpan w:val="secret"/></w:tcPr></w:tc>'
        assert rejection(docx(f"<w:tbl><w:tr>{cell}</w:tr></w:tbl>"), DOCX) == (
            "damaged",
            "damaged: its parts are not what they should be (ValueError)",
        )

    def test_a_part_that_is_no_xml_is_named(self) -> None:
        """Damaged when it is no XML."""
        code, reason = rejection(docx("<w:p>"), DOCX)
        assert code == "damaged"
        assert reason.startswith("damaged: word/document.xml is not XML (mismatched tag")

    @pytest.mark.parametrize("pair", ["w:sdtContent", "m:e", "w:tbl", "w:txbxContent"])
    def test_depth_is_refused_and_crashes_nothing(self, pair: str) -> None:
        """Nested too deeply to be read."""
        body = f"<m:oMath>{f'<{pair}>' * 20_000}{f'</{pair}>' * 20_000}</m:oMath>"
        if not pair.startswith("m"):
            body = body.replace("m:oMath", "w:p")
        code, reason = rejection(docx(body), DOCX, inflation_ratio=10_000)
        assert (code, reason) == ("damaged", "damaged: its parts are nested too deeply to be read")

    def test_limits_hold(self) -> None:
        """Over a limit."""
        content = docx(f"<w:p>{run('words ' * 10)}</w:p>")
        assert rejection(content, DOCX, text_chars=20)[0] == "too_large"
        assert rejection(content, DOCX, entries=2)[0] == "too_large"
