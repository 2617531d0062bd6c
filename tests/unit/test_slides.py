"""PPTX: each slide a page, its title a heading; what is broken costs no more than itself."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.opc.package import Part
from pptx.opc.packuri import PackURI
from pptx.oxml import parse_xml
from pptx.util import Emu

from statemachine_pipeline.adapters.media_types import PPTX, sniff
from statemachine_pipeline.adapters.parsers import DocumentParser
from statemachine_pipeline.adapters.reading import Reading
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import ParsedText, Source

if TYPE_CHECKING:
    from collections.abc import Callable

TITLE_AND_CONTENT, BLANK = 1, 6
BOX = (Emu(0), Emu(0), Emu(900_000), Emu(900_000))
# One pixel.
PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c020000000b4944415478da63fcff1f"
    "0003030200efbfa7db0000000049454e44ae426082"
)


def parse(content: bytes, **limits: int) -> ParsedText:
    """Parse a presentation."""
    source = Source(name="a", media_type=PPTX, size_bytes=len(content), data=content)
    return DocumentParser(Reading(**limits)).parse(source)


def saved(presentation: Any) -> bytes:
    """Return a presentation's bytes."""
    stream = io.BytesIO()
    presentation.save(stream)
    return stream.getvalue()


def presentation(*fill: Callable[[Any], object], layout: int = BLANK) -> bytes:
    """Make a presentation with one slide for each function that fills one."""
    made = Presentation()
    for one in fill:
        one(made.slides.add_slide(made.slide_layouts[layout]))
    return saved(made)


def rewritten(content: bytes, part: str, change: Callable[[bytes], bytes | None]) -> bytes:
    """Return an archive with one part changed, or without it."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            kept = change(data) if entry.filename == part else data
            if kept is not None:
                new.writestr(entry, kept)
    return out.getvalue()


def text_box(words: str) -> Callable[[Any], object]:
    """Return what puts words on a slide."""

    def fill(slide: Any) -> None:
        slide.shapes.add_textbox(*BOX).text_frame.text = words

    return fill


def test_slides_are_pages_and_titles_headings() -> None:
    """A slide is a page; its title is a heading; bodies are lists; notes are read."""
    made = Presentation()
    slide = made.slides.add_slide(made.slide_layouts[TITLE_AND_CONTENT])
    slide.shapes.title.text = "The budget\vfor 2025"
    body = slide.placeholders[1].text_frame
    body.text = "Approved in November"
    deeper = body.add_paragraph()
    deeper.text, deeper.level = "by the town council", 1
    slide.notes_slide.notes_text_frame.text = "Thank the Friends."
    made.slides.add_slide(made.slide_layouts[BLANK])
    text_box("# 1 in the county")(made.slides.add_slide(made.slide_layouts[BLANK]))

    parsed = parse(saved(made))

    first, second, third = (parsed.text[span.start : span.end] for span in parsed.spans)
    assert first == (
        "# The budget for 2025\n\n- Approved in November\n  - by the town council\n\n"
        "Notes: Thank the Friends."
    )
    assert (second, third) == ("", "\\# 1 in the county")
    assert [span.page for span in parsed.spans] == [1, 2, 3]
    assert parsed.warnings == ("no text on 1 of 3 slides: pictures?",)


def test_tables_charts_groups_and_descriptions_are_read() -> None:
    """Read titles, text, tables, charts, diagrams, descriptions of pictures, and notes."""

    def fill(slide: Any) -> None:
        table = slide.shapes.add_table(2, 3, *BOX).table
        for column, words in enumerate(("room", "seats", "")):
            table.cell(0, column).text = words
        table.cell(1, 0).text, table.cell(1, 1).text = "Hall", "40"
        table.cell(0, 1).merge(table.cell(0, 2))
        data = CategoryChartData()
        data.categories = ["May", "June"]
        data.add_series("loans", (0.1 + 0.2, 4))
        chart = slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *BOX, data).chart
        chart.has_title = True
        chart.chart_title.text_frame.text = "Loans"
        group = slide.shapes.add_group_shape().shapes.add_group_shape()
        group.shapes.add_textbox(*BOX).text_frame.text = "deep in a group"
        for words in ("A reading room", "IMG_0042.jpeg"):
            picture = slide.shapes.add_picture(io.BytesIO(PICTURE), 0, 0)
            picture._element.nvPicPr.cNvPr.set("descr", words)

    content = presentation(fill)
    chart = next(n for n in zipfile.ZipFile(io.BytesIO(content)).namelist() if "charts/chart" in n)
    # python-pptx knows no chart in three dimensions.
    content = rewritten(content, chart, lambda xml: xml.replace(b"c:barChart", b"c:bar3DChart"))
    assert parse(content).text == (
        "| room | seats |\n| --- | --- |\n| Hall | 40 |\n\n"
        "Loans\n\n|  | loans |\n| --- | --- |\n| May | 0.3 |\n| June | 4 |\n\n"
        "deep in a group\n\n[image: A reading room]"
    )


SMART_ART = b"""<p:graphicFrame xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"
 xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"
 xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">
 <p:nvGraphicFramePr><p:cNvPr id="9" name="Diagram"/><p:cNvGraphicFramePr/><p:nvPr/>
 </p:nvGraphicFramePr><p:xfrm><a:off x="0" y="0"/><a:ext cx="1" cy="1"/></p:xfrm>
 <a:graphic><a:graphicData uri="http://schemas.openxmlformats.org/drawingml/2006/diagram">
 <dgm:relIds xmlns:dgm="http://schemas.openxmlformats.org/drawingml/2006/diagram" r:dm="%s"/>
 </a:graphicData></a:graphic></p:graphicFrame>"""
DIAGRAM = b"""<dgm:dataModel xmlns:dgm="http://schemas.openxmlformats.org/drawingml/2006/diagram"
 xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"><dgm:ptLst>
 <dgm:pt><dgm:t><a:p><a:r><a:t>Order</a:t></a:r></a:p></dgm:t></dgm:pt><dgm:pt/>
 <dgm:pt><dgm:t><a:p><a:r><a:t>Deliver</a:t></a:r></a:p></dgm:t></dgm:pt>
 </dgm:ptLst></dgm:dataModel>"""


def test_diagrams_are_lists() -> None:
    """The texts of a SmartArt diagram, whose parts python-pptx does not know."""

    def fill(slide: Any) -> None:
        part = Part(
            PackURI("/ppt/diagrams/data1.xml"), "application/xml", slide.part.package, DIAGRAM
        )
        relation = slide.part.relate_to(part, "http://example.org/diagramData")
        slide.shapes._spTree.append(parse_xml(SMART_ART % relation.encode()))

    assert parse(presentation(fill)).text == "- Order\n- Deliver"


ALTERNATIVE = b"""<mc:AlternateContent
 xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><mc:Choice Requires="x">
 %s</mc:Choice>%s</mc:AlternateContent>"""


@pytest.mark.parametrize("fallback", [b"", b"<mc:Fallback/>", b"<mc:Fallback>%s</mc:Fallback>"])
def test_a_shape_in_several_versions_is_read_once(fallback: bytes) -> None:
    """Put one of several versions of a shape where python-pptx looks; it skips the whole choice."""

    def choose(xml: bytes) -> bytes:
        begin, end = xml.index(b"<p:sp>"), xml.index(b"</p:sp>") + len(b"</p:sp>")
        shape = xml[begin:end]
        versions = (shape, fallback.replace(b"%s", shape))
        return xml[:begin] + ALTERNATIVE % versions + xml[end:]

    content = presentation(text_box("an equation"))
    assert parse(rewritten(content, "ppt/slides/slide1.xml", choose)).text == "an equation"


def with_picture(slide: Any) -> None:
    """Put a picture with a description on a slide, and words."""
    slide.shapes.add_picture(io.BytesIO(PICTURE), 0, 0)._element.nvPicPr.cNvPr.set("descr", "a cat")
    text_box("words")(slide)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("ppt/media/image1.png", lambda _: b"no picture"),
        ("ppt/slides/slide1.xml", lambda xml: xml.replace(b"r:embed", b"r:lost")),
        ("ppt/slides/slide1.xml", lambda xml: xml.replace(b'r:embed="rId2"', b'r:embed="rId9"')),
    ],
)
def test_a_broken_picture_costs_nothing(part: str, change: Callable[[bytes], bytes]) -> None:
    """Of a picture only its description is read."""
    parsed = parse(rewritten(presentation(with_picture), part, change))
    assert parsed == ParsedText("[image: a cat]\n\nwords", parsed.spans)


def test_a_broken_shape_costs_itself() -> None:
    """What is broken is counted, and the rest of the slide is read."""
    content = presentation(lambda slide: slide.shapes.add_table(1, 1, *BOX), text_box("words"))
    broken = rewritten(
        content,
        "ppt/slides/slide1.xml",
        lambda xml: (
            xml.replace(b"<a:tblGrid>", b"<a:lost>")
            .replace(b"</a:tblGrid>", b"</a:lost>")
            .replace(b"<a:tbl>", b"<a:gone>")
            .replace(b"</a:tbl>", b"</a:gone>")
        ),
    )
    parsed = parse(broken)
    assert parsed.text == "words"
    assert parsed.warnings[-1] == "1 shape cannot be read: damaged?"


def test_a_broken_slide_costs_itself_and_keeps_its_place() -> None:
    """Page numbers stay right."""
    content = presentation(text_box("one"), text_box("two"))
    for part, old, new in (
        ("ppt/presentation.xml", b'r:id="rId7"', b'r:id="rId99"'),
        ("ppt/_rels/presentation.xml.rels", b"slides/slide1", b"slides/gone"),
    ):
        parsed = parse(
            rewritten(content, part, lambda xml, old=old, new=new: xml.replace(old, new))
        )
        assert [(span.page, span.end - span.start) for span in parsed.spans] == [(1, 0), (2, 3)]
        assert parsed.warnings == ("1 of 2 slides cannot be read: damaged?",)


def rejection(content: bytes, **limits: int) -> tuple[str, str]:
    """Return the code and the sentence with which a presentation is rejected."""
    with pytest.raises(Reject) as caught:
        parse(content, **limits)
    return caught.value.code, caught.value.reason


MAIN = b"application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml"


@pytest.mark.parametrize(
    "kind",
    [
        b"application/vnd.openxmlformats-officedocument.presentationml.slideshow.main+xml",
        b"application/vnd.openxmlformats-officedocument.presentationml.template.main+xml",
        b"application/vnd.ms-powerpoint.presentation.macroEnabled.main+xml",
    ],
)
def test_shows_templates_and_files_with_macros_are_read(kind: bytes) -> None:
    """Macros are not read and never run."""
    content = presentation(text_box("words"))
    other = rewritten(content, "[Content_Types].xml", lambda xml: xml.replace(MAIN, kind))
    assert sniff("a.pptm", other) == PPTX
    assert parse(other).text == "words"


def test_a_slide_that_is_left_out_of_the_show_is_read() -> None:
    """Hidden slides are read: whoever opens the file sees them."""
    content = presentation(lambda slide: (slide._element.set("show", "0"), text_box("a")(slide)))
    assert parse(content).text == "a"


def test_what_cannot_be_read_is_refused_with_a_reason() -> None:
    """Damaged, unsafe, or over a limit."""
    content = presentation(text_box("one"), text_box("two"))
    assert rejection(content[:-40])[0] == "damaged"
    assert rejection(rewritten(content, "ppt/presentation.xml", lambda _: b"<a"))[0] == "damaged"
    assert rejection(rewritten(content, "ppt/presentation.xml", lambda _: None))[0] == "damaged"
    assert rejection(content, pages=1) == ("too_large", "2 slides are more than the limit of 1")
    assert rejection(content, text_chars=4) == (
        "too_large",
        "slide 2 takes the text over the limit of 4 characters",
    )
    assert rejection(content, inflated_bytes=1000)[0] == "too_large"
