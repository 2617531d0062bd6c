"""Bad input through the shipped hooks: each ends by its true reason, and none harms another."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fix_archives import docx
from fix_pipelines import completed, path_of

from statemachine_pipeline import Pipeline
from statemachine_pipeline.adapters.media_types import DOCX
from statemachine_pipeline.errors import SourceRefused
from statemachine_pipeline.sources import BLOB_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    Psql = psycopg.Connection[Any]

DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"
REPORT, GOOD = DOCUMENTS / "annual-report-2024.pdf", DOCUMENTS / "repair-workshop.txt"
LARGE_BYTES = 50 * 1024 * 1024
BOMB = docx("<w:p/>" * 1_000_000)
SECRET = "The key lies under the third flower pot."
NUL_BYTE = "\x00"

STRAIGHT = [
    "submit",
    "queue_parse",
    "finish_parse",
    "accept_parse",
    "store_chunks",
    "queue_embedding",
    "start_embedding",
    "store_embeddings",
    "finalize",
]
"""The history of a document that met no trouble."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What ``submit`` refuses, and how it says so."""

    make: Callable[[Path], str | Path | bytes]
    says: str
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """A file that ends as a dead letter, with its code and reason."""

    file: str
    content: Callable[[], bytes]
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A file that is read after all: as what, with what text, and what is said about it."""

    file: str
    content: Callable[[], bytes]
    media_type: str
    text: str
    warnings: tuple[str, ...] = ()
    name: str | None = None
    shown: str


def _folder(home: Path) -> Path:
    (home / "folder").mkdir()
    return home / "folder"


def _missing(home: Path) -> Path:
    return home / "missing.txt"


def _loop(home: Path) -> Path:
    (home / "round.txt").symlink_to(home / "there.txt")
    (home / "there.txt").symlink_to(home / "round.txt")
    return home / "round.txt"


def _nul_in_path(home: Path) -> str:
    return f"{home}/a{NUL_BYTE}.txt"


def _named_with_nul(home: Path) -> Path:
    (home / "plain.txt").write_text("A plain text.")
    return home / "plain.txt"


def _large() -> bytes:
    line = b"All work and no play makes Jack a dull boy.\n"
    return (line * (LARGE_BYTES // len(line) + 1))[:LARGE_BYTES]


REFUSED = {
    "folder": Refused(make=_folder, says=r"/folder': it is a folder; submit the files in it$"),
    "missing": Refused(make=_missing, says=r"/missing\.txt': there is no such file; check the"),
    # The second is what Python says from 3.13 on.
    "loop": Refused(make=_loop, says="its links form a loop|Too many levels of symbolic links"),
    "nul-in-path": Refused(
        make=_nul_in_path, says=r"a\\x00\.txt': its path holds control characters; rename it$"
    ),
    "nul-in-name": Refused(
        make=_named_with_nul,
        name=f"a{NUL_BYTE}.txt",
        says=r"'a\\x00\.txt': its name holds control characters; rename it$",
    ),
}

DEAD = {
    "empty": Dead(file="empty.txt", content=bytes, code="empty", reason="the file is empty"),
    "truncated": Dead(
        file="truncated.pdf",
        content=lambda: REPORT.read_bytes()[: REPORT.stat().st_size // 2],
        code="damaged",
        reason="damaged PDF: it cannot be opened (data format error)",
    ),
    "binary": Dead(
        file="unknown.bin",
        content=lambda: bytes(range(256)) * 16,
        code="unknown_type",
        reason="unknown binary content: neither text nor a known type",
    ),
    "bomb": Dead(
        file="bomb.docx",
        content=lambda: BOMB,
        code="too_large",
        reason=f"its {len(BOMB):,} bytes inflate to more than the limit of 200 times as many",
    ),
    "entities": Dead(
        file="laughs.docx",
        content=lambda: docx("", comments='<!DOCTYPE a [<!ENTITY b "ha">]><a>&b;</a>'),
        code="unsafe_xml",
        reason="word/comments.xml declares XML entities, which documents do not need "
        "and attacks do",
    ),
    "nuls": Dead(
        file="nuls.txt",
        content=lambda: b"Holes \x00 everywhere.\n" * 50,
        code="unknown_type",
        reason="unknown binary content: neither text nor a known type",
    ),
    # The limit of a text, not of a file: that one is at 100 MiB.
    "large": Dead(
        file="large.txt",
        content=_large,
        code="too_large",
        reason=f"{LARGE_BYTES:,} characters are more than the limit of 20,000,000",
    ),
}

READ = {
    "pdf-named-txt": Read(
        file="report.txt",
        content=REPORT.read_bytes,
        media_type="application/pdf",
        text="Annual Report 2024",
        shown="report.txt",
    ),
    "word": Read(
        file="agreement.docx",
        content=(DOCUMENTS / "library-of-things.docx").read_bytes,
        media_type=DOCX,
        text="| Telescope | 150 | 3 |",
        warnings=("left out 1 comment",),
        shown="agreement.docx",
    ),
    "text-named-pdf": Read(
        file="letter.pdf",
        content=lambda: b"Dear neighbours, the gate will be painted on Friday.",
        media_type="text/plain",
        text="Dear neighbours, the gate will be painted on Friday.",
        shown="letter.pdf",
    ),
    "name-with-parents": Read(
        file="note.txt",
        content=lambda: b"The attic is to be cleared before winter.",
        media_type="text/plain",
        text="The attic is to be cleared before winter.",
        name="../secret.txt",
        shown="secret.txt",
    ),
    # Long, because a text of less than 1,000 bytes with a NUL counts as binary: one control
    # character in so many bytes is the most that the sniffer takes for a blemish.
    "nul-in-text": Read(
        file="nul.txt",
        content=lambda: b"The ladder \x00stands behind the shed. " + b"It is long. " * 200,
        media_type="text/plain",
        text="The ladder stands behind the shed.",
        warnings=("removed 1 control character",),
        shown="nul.txt",
    ),
    "invalid-utf8": Read(
        file="latin.txt",
        content=lambda: "Das Café schließt während der Ferien früher.".encode("latin-1"),
        media_type="text/plain",
        text="Das Café schließt während der Ferien früher.",
        warnings=("not UTF-8; read as cp1252, which is a guess",),
        shown="latin.txt",
    ),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder; above it lies what nobody handed over."""
    (tmp_path / "secret.txt").write_text(SECRET)
    made = tmp_path / "home"
    made.mkdir()
    monkeypatch.chdir(made)
    yield made
    # pytest keeps the folders of its last three sessions.
    (made / "large.txt").unlink(missing_ok=True)


async def _refuse(pipeline: Pipeline, home: Path, bad: Refused) -> None:
    with pytest.raises(SourceRefused, match=bad.says) as refusal:
        await pipeline.submit(bad.make(home), name=bad.name)
    assert NUL_BYTE not in str(refusal.value)


async def _submit(pipeline: Pipeline, home: Path, bad: Dead | Read) -> UUID:
    file = home / bad.file
    await asyncio.to_thread(file.write_bytes, bad.content())
    sent = await pipeline.submit(file, name=bad.name if isinstance(bad, Read) else None)
    return sent.document_id


async def _check_dead(pipeline: Pipeline, psql: Psql, document: UUID, bad: Dead) -> None:
    found = await pipeline.get(document)
    assert (found.state, found.last_error) == ("dead_letter", bad.reason)
    (*_, last) = await pipeline.history(document)
    # Permanent: no attempt is wasted on what cannot change.
    assert (last.trigger, last.error, last.reason, last.attempt) == (
        "fail",
        bad.code,
        bad.reason,
        1,
    )
    assert "retry" not in path_of(psql, document)
    chunks = psql.execute("SELECT count(*) FROM chunk WHERE document_id = %s", [document])
    assert chunks.fetchone() == (0,)


async def _check_read(pipeline: Pipeline, psql: Psql, document: UUID, bad: Read) -> None:
    found = await pipeline.get(document)
    assert (found.state, found.last_error) == ("complete", None)
    assert (found.name, found.media_type) == (bad.shown, bad.media_type)
    text, warnings = _parsed(psql, document)
    assert bad.text in text
    assert tuple(warnings) == bad.warnings
    assert (await pipeline.explain(document)).warnings == bad.warnings
    assert path_of(psql, document) == STRAIGHT


def _parsed(psql: Psql, document: UUID) -> tuple[Any, ...]:
    query = "SELECT text, warnings FROM parsed_document WHERE document_id = %s"
    return psql.execute(query, [document]).fetchone() or ()


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_is_no_document_is_refused_with_the_reason(
    engine: AsyncEngine, psql: Psql, home: Path, kind: str
) -> None:
    """'It cannot be read; nothing was written', and the message says what to do."""
    await _refuse(Pipeline(engine), home, REFUSED[kind])
    assert psql.execute("SELECT count(*) FROM document").fetchone() == (0,)


async def test_bad_documents_leave_a_good_one_alone(
    engine: AsyncEngine, psql: Psql, home: Path
) -> None:
    """All of them at once: each ends by its own reason, and the good one is whole.

    ``Reject`` is permanent, with code and sentence. What only looks bad is read by its bytes; what
    is repaired is told, and a name is neither trusted nor opened.
    """
    pipeline = Pipeline(engine)
    dead = {kind: await _submit(pipeline, home, bad) for kind, bad in DEAD.items()}
    good = (await pipeline.submit(GOOD)).document_id
    read = {kind: await _submit(pipeline, home, bad) for kind, bad in READ.items()}
    for refused in REFUSED.values():
        await _refuse(pipeline, home, refused)
    large = "SELECT path, size_bytes FROM document WHERE path IS NOT NULL"
    assert BLOB_LIMIT_BYTES < LARGE_BYTES
    assert psql.execute(large).fetchall() == [(str(home / "large.txt"), LARGE_BYTES)]

    assert await completed(pipeline, good) == ["complete"]

    assert path_of(psql, good) == STRAIGHT
    kept = await pipeline.get(good)
    assert kept.chunk_count == kept.vector_count > 0
    assert _parsed(psql, good) == (GOOD.read_text(), [])
    (hit, *_) = await pipeline.search("who brings the toaster to the repair workshop?", limit=1)
    assert hit.document.id == good
    for kind, document in dead.items():
        await _check_dead(pipeline, psql, document, DEAD[kind])
    for kind, document in read.items():
        await _check_read(pipeline, psql, document, READ[kind])
        assert SECRET not in _parsed(psql, document)[0]
    assert await pipeline.counts() == {"complete": len(READ) + 1, "dead_letter": len(DEAD)}
