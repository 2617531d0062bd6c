"""`top`: each stage as it does now, the slowest of them, and what limits it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import OK
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.times import duration_of

if TYPE_CHECKING:
    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.database.load import StageLoad
    from statemachine_pipeline.oversight.top import Top

CLEAR = "\x1b[H\x1b[2J"
"""Puts the cursor in the upper left corner of an empty screen."""

HEADINGS = ("STAGE", "READY", "DEFERRED", "CLAIMED", "SLOTS", "WORKERS", "OLDEST", "PER S", "RUN S")


async def top(target: Target, *, every: str, once: bool, as_json: bool) -> int:
    """Print a table, or an object with JSON: again and again on a terminal, else once."""
    pause = duration_of(every, "--every").total_seconds()
    is_live = sys.stdout.isatty() and not once
    async with opened(target, "stored") as pipeline:
        while True:
            seen = await pipeline.operations.oversight.top()
            if as_json:
                output.emit(seen)
            else:
                _draw(seen, clears=is_live)
            if not is_live:
                return OK
            await asyncio.sleep(pause)


def _draw(seen: Top, *, clears: bool) -> None:
    if clears:
        output.raw(CLEAR)
    output.table(HEADINGS, [_row(one) for one in seen.stages])
    output.line()
    output.paragraph(seen.slowest.sentence, "")


def _row(load: StageLoad) -> tuple[object, ...]:
    return (
        load.stage,
        load.ready,
        load.deferred,
        load.claimed,
        "-" if load.slots is None else load.slots,
        load.workers,
        "-" if load.ready_seconds is None else f"{load.ready_seconds:,.1f} s",
        f"{load.per_second:.2f}",
        "-" if load.run_seconds is None else f"{load.run_seconds:.2f}",
    )
