"""`ingest --dry-run`: what handing files over would do, with nothing written."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import FAILED, OK, Failed
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.walking import walk
from statemachine_pipeline.database.arrivals import prepare
from statemachine_pipeline.errors import SchemaMissing, SourceRefused
from statemachine_pipeline.graph import DELETED
from statemachine_pipeline.records import Incoming

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from uuid import UUID

    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.cli.walking import Found
    from statemachine_pipeline.records import Document

PAGE = 500


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A path that was read as `ingest` reads it; without an id where it is refused."""

    path: Path
    id: UUID | None = None
    source_uri: str | None = None
    sha256: str | None = None
    reason: str | None = None


async def rehearse(target: Target, paths: Sequence[Path], *, tenant: str, as_json: bool) -> int:
    """Print what `ingest` would hand over.

    Returns:
        0, or 1 when a path would be refused.
    """
    read = [await asyncio.to_thread(_read, found, tenant) for found in walk(paths)]
    try:
        async with opened(target, "stored") as pipeline:
            known: dict[UUID, Document] = {}
            for start in range(0, len(read), PAGE):
                ids = [one.id for one in read[start : start + PAGE] if one.id is not None]
                known |= {one.id: one for one in await pipeline.documents(ids=ids)}
    except (Failed, SchemaMissing):  # it would be made
        known = {}
    told = [(one, _outcome(one, known)) for one in read]
    _print(told, known, as_json=as_json)
    counts = {name: sum(1 for _, outcome in told if outcome == name) for _, name in told}
    output.say(f"ingest would hand over: {', '.join(f'{n} {name}' for name, n in counts.items())}")
    return FAILED if "refused" in counts else OK


def _read(found: Found, tenant: str) -> Read:
    if found.refused is not None:
        return Read(path=found.path, reason=found.refused)
    try:
        made = prepare(Incoming(found.path), tenant)
    except SourceRefused as error:
        return Read(path=found.path, reason=error.reason)
    return Read(path=found.path, id=made.id, source_uri=made.source_uri, sha256=made.content_sha256)


def _outcome(one: Read, known: dict[UUID, Document]) -> str:
    if one.id is None:
        return "refused"
    stored = known.get(one.id)
    if stored is None:
        return "new"
    is_same = stored.content_sha256 == one.sha256 and stored.state != DELETED
    return "unchanged" if is_same else "changed"


def _print(told: Sequence[tuple[Read, str]], known: dict[UUID, Document], *, as_json: bool) -> None:
    stood = [None if one.id is None else known.get(one.id) for one, _ in told]
    if as_json:
        for (one, outcome), document in zip(told, stood, strict=True):
            output.emit(
                {
                    "document_id": one.id,
                    "parent_id": None,
                    "source_uri": one.source_uri or str(one.path),
                    "name": document.name if document else one.path.name,
                    "outcome": outcome,
                    "state": document.state if document else None,
                    "reason": one.reason,
                    "chunks": document.chunk_count if document else 0,
                }
            )
        return
    rows = [
        (
            one.id or "-",
            outcome,
            document.state if document else "-",
            f"{one.path}: {one.reason}" if one.reason else one.path,
        )
        for (one, outcome), document in zip(told, stood, strict=True)
    ]
    output.table(("DOCUMENT", "OUTCOME", "STATE", "PATH"), rows, state=2)
