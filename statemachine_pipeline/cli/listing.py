"""`list`: documents that match, or how many there are of each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import OK
from statemachine_pipeline.cli.looking import check_stage, check_state
from statemachine_pipeline.cli.opening import opened

if TYPE_CHECKING:
    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.database.listings import GroupKey, Which
    from statemachine_pipeline.records import Document

PAGE = 500


async def listing(target: Target, which: Which, *, limit: int, as_json: bool) -> int:
    """Print documents in the order they came."""
    async with opened(target, "stored") as pipeline:
        if which.state is not None:
            check_state(pipeline, which.state)
        ask = pipeline.operations.oversight.documents
        found: list[Document] = []
        while len(found) <= limit:  # one more than wanted tells whether there are more
            after = found[-1].id if found else None
            page = await ask(which, after=after, limit=min(PAGE, limit + 1 - len(found)))
            found += page
            if not page:
                break
        check_stage(pipeline, which.stage, found)
    if as_json:
        for document in found[:limit]:
            output.emit(document)
    else:
        rows = [
            (
                one.id,
                one.state,
                one.chunk_count,
                f"{one.updated_at:%Y-%m-%d %H:%M:%S}",
                f"{one.name}: {one.last_error}" if one.last_error else one.name,
            )
            for one in found[:limit]
        ]
        output.table(("DOCUMENT", "STATE", "CHUNKS", "UPDATED (UTC)", "NAME"), rows, state=1)
    if len(found) > limit:
        output.say(f"there are more than these {limit}; --limit shows them")
    if not found:
        output.say("no document matches")
    return OK


async def groups(target: Target, which: Which, by: GroupKey, *, as_json: bool) -> int:
    """Print how many documents match, by kind."""
    async with opened(target, "stored") as pipeline:
        if which.state is not None:
            check_state(pipeline, which.state)
        found = await pipeline.operations.oversight.groups(by, which)
        check_stage(pipeline, which.stage, found.groups)
    if as_json:
        output.emit({"by": by} | output.jsonable(found))
    else:
        rows = [(one.key or "-", one.count) for one in found.groups]
        rows.append(("total", sum(one.count for one in found.groups)))
        output.table((by.upper(), "DOCUMENTS"), rows, state=0 if by == "state" else -1)
    if found.is_capped:
        output.say("there may be more: only the newest 100,000 that match were counted")
    return OK
