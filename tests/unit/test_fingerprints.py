"""A shipped hook's fingerprint changes when its output does, and only then.

If an output below changed, every document that was ever read would come out differently: raise the
number in that hook's fingerprint, here and there, so that ``reprocess`` runs it again.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from statemachine_pipeline.adapters.chunkers import MarkdownChunker
from statemachine_pipeline.adapters.embedders import WordLlamaEmbedder
from statemachine_pipeline.adapters.intake import Intake
from statemachine_pipeline.adapters.media_types import sniff
from statemachine_pipeline.adapters.normalise import normalise
from statemachine_pipeline.adapters.parsers import DocumentParser
from statemachine_pipeline.adapters.publishers import PgVectorPublisher
from statemachine_pipeline.adapters.reading import Reading
from statemachine_pipeline.adapters.validation import Validation
from statemachine_pipeline.records import Chunks, ParsedText, Source, sha256_hex

DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"

# name: what the parser, the chunker and the normal form make of it, as the first digits of sha256
OUTPUTS = {
    "annual-report-2024.pdf": ("edc0d4807f77", "71337a96d367", "017a9bf828f7"),
    "board-minutes-2025-03.md": ("0a4d3294c71c", "84eeaf68e6ce", "9c76c083430f"),
    "library-of-things.docx": ("e34e802072d5", "c0cb2f3e4f3e", "51bf245135c1"),
    "questions-and-answers.html": ("eb549e6985b3", "74bd199cb8f5", "09452f0d5bab"),
    "reading-garden.odt": ("71ed3076ea46", "38d08a494076", "628eb20725f5"),
    "repair-workshop.txt": ("965dcab1251b", "be5220d496a6", "764289ba42dc"),
    "roof-contract.eml": ("8815519501ba", "92bf593ddb42", "ed5c1082e380"),
    "scanned-letter.pdf": ("8d71d136baa7", "e3b0c44298fc", "01ba4719c80b"),
    "staff-handbook-lending.md": ("a50970e0862b", "e9891200c5bf", "1232518543ef"),
    "tales-of-the-valley.epub": ("a79682395555", "64a00fc043eb", "d049ad31801f"),
}
VECTOR = [0.0187, -0.0069, 0.0122, 0.0048]


def test_fingerprints_are_pinned() -> None:
    """A shipped hook's fingerprint changes only when its output does."""
    hooks = (Intake(), DocumentParser(), Validation(), MarkdownChunker(), WordLlamaEmbedder())
    assert [hook.fingerprint for hook in (*hooks, PgVectorPublisher())] == [
        "intake/2",
        "document-parser/1",
        "validation/1",
        "markdown-chunker/1:cl100k_base,max=400,overlap=0",
        "wordllama/1:l2_supercat,256",
        "pgvector-publisher/1",
    ]


def test_settings_that_change_the_output_change_the_fingerprint() -> None:
    """Identity of the hook and its settings."""
    assert DocumentParser(Reading(keep_links=True)).fingerprint == "document-parser/1,links"
    assert DocumentParser(Reading(pages=1, text_chars=1)).fingerprint == "document-parser/1"
    assert Intake(size_limit_bytes=1).fingerprint == "intake/2"
    assert MarkdownChunker(max_tokens=9, overlap_tokens=2).fingerprint == (
        "markdown-chunker/1:cl100k_base,max=9,overlap=2"
    )


def parse(name: str) -> ParsedText:
    """Parse an example document."""
    data = (DOCUMENTS / name).read_bytes()
    media_type = sniff(name, data)
    parsed = DocumentParser().parse(
        Source(name=name, media_type=media_type, size_bytes=len(data), data=data)
    )
    if isinstance(parsed, ParsedText):
        return parsed
    assert isinstance(parsed.product, ParsedText)
    return parsed.product


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_behind_the_fingerprints_are_pinned(name: str) -> None:
    """A shipped hook's fingerprint changes when its output does."""
    parsed = parse(name)
    chunks = Chunks(tuple(MarkdownChunker().split(parsed)))
    normal = sha256_hex(normalise(parsed.text))
    assert (parsed.sha256[:12], chunks.sha256[:12], normal[:12]) == OUTPUTS[name]


async def test_vectors_behind_the_fingerprint_are_pinned() -> None:
    """A shipped hook's fingerprint changes when its output does."""
    vector = await WordLlamaEmbedder().embed_query("Who approved the library's budget?")
    assert [round(value, 4) for value in vector[:4]] == VECTOR
