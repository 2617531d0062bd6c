"""Bad input ends in a clear error or a dead letter with its reason; nothing else is affected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from statemachine_pipeline import Pipeline
from statemachine_pipeline.errors import SourceRefused

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

EXAMPLES = Path(__file__).parents[2] / "examples" / "documents"
GOOD = "# Lending\n\nThe library lent out twelve thousand books in March.\n"


def _pdf() -> bytes:
    return max(EXAMPLES.glob("*.pdf"), key=lambda path: path.stat().st_size).read_bytes()


# Name, content, end, and what its reason or warning must name.
STORED = [
    ("empty.md", b"", "dead_letter", "empty"),
    ("cut.pdf", _pdf()[:700], "dead_letter", "damaged"),
    ("a-pdf.txt", _pdf(), "complete", None),
    ("a-text.pdf", b"This is text, whatever its name says.\n" * 5, "complete", None),
    ("nul.txt", b"One hole \x00 only.\n" + b"A plain line.\n" * 200, "complete", "control"),
    ("nuls.txt", b"Holes \x00 everywhere.\n" * 50, "dead_letter", "binary"),
    (
        "latin.txt",
        "Füße, Größe, Straße, Äpfel und Öl.\n".encode("latin-1") * 9,
        "complete",
        "not UTF-8",
    ),
    ("noise.bin", bytes(range(256)) * 8, "dead_letter", "binary"),
]


@pytest.mark.timeout(120)
async def test_bad_documents_end_with_their_reason_beside_a_good_one(
    engine: AsyncEngine, psql: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """Each ends where it must, says why, and the good one between them is complete."""
    large = tmp_path / "large.txt"
    large.write_bytes(b"All work and no play makes a long text. " * (50 * 2**20 // 40))
    async with Pipeline(engine) as pipeline:
        sent = {}
        for name, content, _, _ in STORED:
            path = tmp_path / name
            path.write_bytes(content)
            sent[name] = (await pipeline.submit(path)).document_id
        sent["large.txt"] = (await pipeline.submit(large)).document_id
        sent["good.md"] = (await pipeline.submit(GOOD.encode(), name="good.md")).document_id

        await pipeline.runner().run_until_idle()

        for name, _, state, named in [
            *STORED,
            ("large.txt", b"", "dead_letter", "20,000,000"),
            ("good.md", b"", "complete", None),
        ]:
            document = await pipeline.get(sent[name])
            assert (name, document.state) == (name, state), document.last_error
            said = str(document.last_error)
            if state == "complete":
                warnings = "SELECT warnings::text FROM parsed_document WHERE document_id = %s"
                said = psql.execute(warnings, [document.id]).fetchone()[0]
            assert named is None or named in said
        good = await pipeline.get(sent["good.md"])
        assert (good.chunk_count, good.vector_count) == (1, 1)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("missing.md", "there is no such file"),
        (".", "it is a folder"),
        ("loop", "links"),
        ("nul\0.md", "control characters"),
    ],
)
async def test_what_cannot_be_read_is_refused_before_anything_is_written(
    engine: AsyncEngine, tmp_path: Path, name: str, found: str
) -> None:
    """The message names what was asked, what was found and what to do."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    async with Pipeline(engine) as pipeline:
        with pytest.raises(SourceRefused, match=found):
            await pipeline.submit(f"{tmp_path}/{name}")
        assert await pipeline.counts() == {}


async def test_a_name_that_climbs_is_only_shown(engine: AsyncEngine) -> None:
    """A name is never opened: of a path only its last part is kept."""
    async with Pipeline(engine) as pipeline:
        sent = await pipeline.submit(GOOD.encode(), name="../../etc/passwd")
        assert (await pipeline.get(sent.document_id)).name == "passwd"
        with pytest.raises(SourceRefused, match="control characters"):
            await pipeline.submit(GOOD.encode(), name="a\0b")
