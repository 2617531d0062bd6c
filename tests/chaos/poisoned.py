"""One worker as a program, which one document kills: ``python poisoned.py URL``.

Its hook runs on its loop, and the document reads what is not there. Ends when nothing is left.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import harm
import noop
import patient

from statemachine_pipeline import Done, Pipeline, Stage

if TYPE_CHECKING:
    from uuid import UUID

    from statemachine_pipeline import Claim

POISON = "bench:1"
BYSTANDERS = 50


_in_hand: set[UUID] = set()
_all_are = asyncio.Event()


async def kill(claim: Claim) -> Done:
    """Take the worker down for one document; the others are in hand when it first does."""
    if not claim.crashes:
        _in_hand.add(claim.document.id)
        if len(_in_hand) > BYSTANDERS:
            _all_are.set()
        await _all_are.wait()
    if claim.document.source_uri == POISON:
        harm.fault()
    if not claim.crashes:
        await asyncio.Event().wait()
    return Done()


def pipeline(url: str) -> Pipeline:
    """Return the pipeline of the program."""
    killing = Stage(kill, concurrency=BYSTANDERS + 1, deadline=timedelta(minutes=1))
    hooks = noop.hooks(BYSTANDERS + 1) | {"finish_parse": killing}
    return Pipeline(url, lifecycle=noop.PlainLifecycle, hooks=hooks)


async def work(url: str) -> None:
    """Be one worker until nothing is left."""
    async with pipeline(url) as own:
        await own.runner(liveness=patient.LIVENESS).run_until_idle()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
