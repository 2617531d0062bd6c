"""The broad parser, where it belongs: in a child process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import completed, pipeline_with

from statemachine_pipeline import Stage
from statemachine_pipeline.adapters.intake import Intake
from statemachine_pipeline.adapters.media_types import PDF, RTF, sniff
from statemachine_pipeline.adapters.reading import Reading
from statemachine_pipeline.adapters.xberg import READ_BY_XBERG, XbergParser
from statemachine_pipeline.hooks import Parser, Reject
from statemachine_pipeline.records import ParsedText, Source
from statemachine_pipeline.runner.children import Children

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

REPORT = Path(__file__).parents[2] / "examples" / "documents" / "annual-report-2024.pdf"
LETTER = rb"{\rtf1 The roof of the {\b reading room} leaks.}"

pytest.importorskip("xberg", reason="the extra broad (xberg, 64 MB) is not installed")


@pytest.fixture
async def children() -> AsyncIterator[Children]:
    """A pool of one."""
    async with Children(1) as pool:
        yield pool


async def parse(children: Children, content: bytes, **settings: Any) -> ParsedText:
    """Parse in a child process."""
    parser = XbergParser(Reading(**settings))
    source = Source(name="a", media_type=sniff("a", content), size_bytes=len(content), data=content)
    return await children.call(parser.parse, source, timeout_seconds=60)


async def test_pages_are_spans_of_the_text(children: Children) -> None:
    """Turn the bytes into Markdown, with pages where xberg knows them."""
    parsed = await parse(children, REPORT.read_bytes())
    assert [span.page for span in parsed.spans] == [1, 2, 3]
    second = parsed.text[parsed.spans[1].start : parsed.spans[1].end]
    assert "14 November 2024" in second


@pytest.mark.parametrize(
    ("content", "settings", "told"),
    [
        (b"%PDF-1.4 junk", {}, ("damaged", "xberg cannot read it")),
        (REPORT.read_bytes(), {"pages": 2}, ("too_large", "over a limit of xberg's")),
        (
            REPORT.read_bytes().replace(
                b"/Root 1 0 R",
                b"/Root 1 0 R /ID [<41> <41>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <"
                + b"41" * 32
                + b"> /U <"
                + b"42" * 32
                + b"> >>",
            ),
            {},
            ("encrypted", "password-protected"),
        ),
    ],
)
async def test_what_it_cannot_read_is_refused_without_a_word_of_the_document(
    children: Children, content: bytes, settings: dict[str, int], told: tuple[str, str]
) -> None:
    """Its messages may quote the document, so they are not repeated."""
    with pytest.raises(Reject) as caught:
        await parse(children, content, **settings)
    assert (caught.value.code, caught.value.reason) == told


def test_its_version_is_part_of_its_fingerprint() -> None:
    """Identity of the parser, its settings and the library, whose versions differ in output."""
    parser = XbergParser(Reading(pages=1))
    assert isinstance(parser, Parser)
    assert parser.fingerprint == XbergParser().fingerprint
    assert parser.fingerprint.startswith("xberg/1:1.")
    spoken = XbergParser(ocr_languages=["eng", "deu"])
    assert spoken.fingerprint == f"{parser.fingerprint},eng,deu"


async def test_a_pipeline_reads_what_the_shipped_parser_does_not(engine: AsyncEngine) -> None:
    """Media types to let through intake for it: ``Intake(accepts=READ_BY_XBERG)``."""
    assert {PDF, RTF} <= set(READ_BY_XBERG)
    pipeline = pipeline_with(
        engine,
        queue_parse=Intake(accepts=READ_BY_XBERG),
        finish_parse=Stage(XbergParser(), run="process"),
    )
    sent = await pipeline.submit(LETTER, name="letter.rtf")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    (hit,) = await pipeline.search("roof", limit=1)
    assert hit.text == "The roof of the **reading room** leaks."
