"""`submit`: hand files over and leave the rest to workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import FAILED, OK
from statemachine_pipeline.cli.handing import Item, show, stored, summed
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.walking import walk
from statemachine_pipeline.records import Refused

if TYPE_CHECKING:
    from pathlib import Path

    from statemachine_pipeline.cli.handing import Asked
    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.records import Submitted


async def submit(target: Target, asked: Asked, *, as_json: bool) -> int:
    """Hand files over.

    Returns:
        0, or 1 when a path was refused.
    """
    asked.check()
    found = await asyncio.to_thread(list, walk(asked.paths))
    taken = (asked.incoming(one.path) for one in found if one.refused is None)
    async with opened(target, "new") as pipeline:
        answers = await pipeline.operations.submit_many(taken, tenant=asked.tenant)
        came = iter(answers)
        items = [
            Item(path=one.path, outcome="refused", reason=one.refused)
            if one.refused is not None
            else _item(one.path, next(came))
            for one in found
        ]
        known = await stored(pipeline, [one.id for one in items if one.id is not None])
    show(items, known, as_json=as_json)
    output.say(f"handed over: {summed(items)}; workers take them from here")
    return FAILED if any(one.id is None for one in items) else OK


def _item(path: Path, answer: Submitted | Refused) -> Item:
    if isinstance(answer, Refused):
        return Item(path=path, outcome="refused", reason=answer.reason)
    return Item(path=path, outcome=answer.outcome, id=answer.document_id)
