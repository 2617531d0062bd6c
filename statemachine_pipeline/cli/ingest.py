"""`ingest`: hand files over, run them in this process until they rest, say what became of each."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.batch import Batch, together
from statemachine_pipeline.cli.ending import FAILED, OK
from statemachine_pipeline.cli.handing import check_tenant, emit
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.progress import reporting
from statemachine_pipeline.cli.signals import stopping
from statemachine_pipeline.cli.walking import walk
from statemachine_pipeline.counting import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from statemachine_pipeline.cli.batch import Item
    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.cli.signals import Stops
    from statemachine_pipeline.pipeline import Pipeline
    from statemachine_pipeline.runner.loop import Runner


async def ingest(target: Target, paths: Sequence[Path], *, tenant: str, as_json: bool) -> int:
    """Ingest files and folders.

    Returns:
        0 when every document ended well and all that was found in them, 1 when one did not or a
        path was refused, 130 or 143 after a signal.
    """
    check_tenant(tenant)
    async with opened(target, "new") as pipeline:
        runner, began = pipeline.runner(), time.monotonic()
        batch = Batch(pipeline, runner, tenant)
        stops = await _until_at_rest(runner, batch, paths)
        if stops:
            await batch.look_at_all()
        await batch.give_reasons()
        _print(batch, as_json=as_json)
        _summarise(batch, time.monotonic() - began, stops)
        if stops:
            return stops.exit_code
        # As run_until_idle does after a load.
        await pipeline._after_load()
        return OK if all(_went_well(pipeline, item) for item in batch.items) else FAILED


async def _until_at_rest(runner: Runner, batch: Batch, paths: Sequence[Path]) -> Stops:
    def stop() -> None:
        batch.give_up()
        runner.stop()

    with stopping(stop) as stops, reporting(batch):
        running = asyncio.create_task(runner.run())
        both = together(batch.submit(walk(paths)), batch.watch(), stop=batch.give_up)
        following = asyncio.create_task(both)
        await asyncio.wait({running, following}, return_when=asyncio.FIRST_COMPLETED)
        batch.give_up()  # not cancelled, which would break off its queries
        await asyncio.wait({following})
        if not stops:  # a second stop would break off the drain that a signal began
            runner.stop()
        await asyncio.wait({running})
        # Both are asked, the runner first: what ended it ended the other too.
        for error in filter(None, [running.exception(), following.exception()]):
            raise error
    return stops


def _went_well(pipeline: Pipeline, item: Item) -> bool:
    return item.document is not None and item.document.state in pipeline.graph.ends


def _print(batch: Batch, *, as_json: bool) -> None:
    if as_json:
        for item in batch.items:
            emit(item, item.document, parent_id=item.parent_id)
        return
    rows = [
        (
            item.id or "-",
            item.outcome,
            item.document.state if item.document else "-",
            item.document.chunk_count if item.document else 0,
            f"{item.path}: {item.reason}" if item.reason else item.path,
        )
        for item in batch.items
    ]
    output.table(("DOCUMENT", "OUTCOME", "STATE", "CHUNKS", "PATH"), rows, state=2)


def _summarise(batch: Batch, seconds: float, stops: Stops) -> None:
    counts = ", ".join(f"{count} {state}" for state, count in batch.counts.items())
    refused, rested = len(batch.items) - batch.total, batch.total - batch.moving
    also = f"; {counted(refused, 'path')} refused" if refused else ""
    rate = f" ({rested / seconds:.1f} documents/s)" if rested else ""
    output.say(f"ingested in {seconds:.1f} s{rate}: {counts or 'no documents'}{also}")
    if not stops:
        return
    if batch.moving:
        output.say(
            f"stopped early with {counted(batch.moving, 'document')} on the way; nothing of "
            "it is lost, and the next ingest or worker goes on with it"
        )
    if batch.has_left_some:
        output.say("not every file was handed over; the same ingest again takes the others too")
