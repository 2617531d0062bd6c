"""`ingest --dry-run` and `submit --dry-run`: what would be handed over, with nothing written."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import FAILED, OK, Failed
from statemachine_pipeline.cli.handing import Item, show, stored, summed
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.walking import walk
from statemachine_pipeline.database.arrivals import prepare
from statemachine_pipeline.errors import SchemaMissing, SourceRefused
from statemachine_pipeline.graph import DELETED

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from statemachine_pipeline.cli.handing import Asked
    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.cli.walking import Found
    from statemachine_pipeline.records import Document


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A path that was read as it would be handed over; without an id where it is refused."""

    path: Path
    id: UUID | None = None
    source_uri: str | None = None
    sha256: str | None = None
    reason: str | None = None


async def rehearse(target: Target, asked: Asked, verb: str, *, as_json: bool) -> int:
    """Print what a verb would hand over.

    Returns:
        0, or 1 when a path would be refused.
    """
    asked.check()
    read = [await asyncio.to_thread(_read, found, asked) for found in walk(asked.paths)]
    known: dict[UUID, Document] = {}
    try:
        async with opened(target, "stored") as pipeline:
            known = await stored(pipeline, [one.id for one in read if one.id is not None])
    except (Failed, SchemaMissing):  # it would be made
        pass
    items = [_item(one, known) for one in read]
    show(items, known, as_json=as_json)
    output.say(f"{verb} would hand over: {summed(items)}")
    return FAILED if any(one.id is None for one in items) else OK


def _read(found: Found, asked: Asked) -> Read:
    if found.refused is not None:
        return Read(path=found.path, reason=found.refused)
    try:
        made = prepare(asked.incoming(found.path), asked.tenant)
    except SourceRefused as error:
        return Read(path=found.path, reason=error.reason)
    return Read(path=found.path, id=made.id, source_uri=made.source_uri, sha256=made.content_sha256)


def _item(one: Read, known: dict[UUID, Document]) -> Item:
    return Item(
        path=one.path,
        outcome=_outcome(one, known),
        id=one.id,
        source_uri=one.source_uri,
        reason=one.reason,
    )


def _outcome(one: Read, known: dict[UUID, Document]) -> str:
    if one.id is None:
        return "refused"
    stood = known.get(one.id)
    if stood is None:
        return "new"
    is_same = stood.content_sha256 == one.sha256 and stood.state != DELETED
    return "unchanged" if is_same else "changed"
