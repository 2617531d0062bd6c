"""Progress of an ingest on stderr: a live bar on a terminal, else a line now and then.

When nothing moves it says what is waited for, so that a silence is not taken for a hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

from statemachine_pipeline.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.cli.batch import Batch

LIVE_SECONDS, LINE_SECONDS = 0.2, 3.0


@contextlib.contextmanager
def reporting(batch: Batch) -> Iterator[None]:
    """Show how far a batch is for as long as this context lasts."""
    show = _live(batch) if sys.stderr.isatty() else _lines(batch)
    tasks = [asyncio.create_task(one) for one in (show, _standstills(batch))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


def _sentence(batch: Batch) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in batch.counts.items())
    return counts or "reading"


async def _lines(batch: Batch) -> None:
    said = ""
    while True:
        await asyncio.sleep(LINE_SECONDS)
        now = f"{batch.total - batch.moving} of {batch.total} at rest: {_sentence(batch)}"
        if now != said:
            say(now)
            said = now


async def _standstills(batch: Batch) -> None:
    said: str | None = None
    while True:
        await asyncio.sleep(LIVE_SECONDS)
        if batch.standstill is not None and batch.standstill != said:
            say(batch.standstill)
        said = batch.standstill


async def _live(batch: Batch) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        # As much as there is room for; the numbers before it always stand.
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task("", total=None)
        while True:
            total = None if batch.is_submitting and not batch.total else batch.total
            bar.update(
                task,
                total=total,
                completed=batch.total - batch.moving,
                description=_sentence(batch),
            )
            await asyncio.sleep(LIVE_SECONDS)
