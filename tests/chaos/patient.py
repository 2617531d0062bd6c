"""One worker that nobody takes for dead: ``python patient.py URL MODE``.

``MODE`` is ``counted`` or ``shipped``, as of ``worker.py``, or ``waiting``, where a parse answers
only when it is asked again. Ends when nothing is left to do.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import noop
import worker

from statemachine_pipeline import Done, Pipeline, Stage, Wait
from statemachine_pipeline.liveness import Liveness

if TYPE_CHECKING:
    from uuid import UUID

    from statemachine_pipeline import Claim

LIVENESS = Liveness(
    beat=timedelta(seconds=0.5), dead_after=timedelta(seconds=60), grace=timedelta(seconds=60)
)
_asked: set[UUID] = set()


async def ask(claim: Claim) -> Done:
    """Be ready when asked for the second time."""
    if claim.document.id in _asked:
        return Done()
    _asked.add(claim.document.id)
    raise Wait(timedelta(milliseconds=200))


def pipeline(url: str, mode: str) -> Pipeline:
    """Return the pipeline of a mode."""
    if mode in {"counted", "shipped"}:
        return worker.pipeline(url, mode)
    parse = Stage(ask, concurrency=20, wait=timedelta(minutes=1), deadline=timedelta(minutes=1))
    hooks = noop.hooks(20) | {"finish_parse": parse}
    return Pipeline(url, lifecycle=noop.PlainLifecycle, hooks=hooks)


async def work(url: str, mode: str) -> None:
    """Be one worker until nothing is left."""
    async with pipeline(url, mode) as own:
        await own.runner(liveness=LIVENESS, documents=40).run_until_idle()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2]))
