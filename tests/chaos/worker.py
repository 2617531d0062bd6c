"""One worker as a program, to be killed and stopped: ``python worker.py URL MODE``.

``MODE`` is ``shipped`` for real documents, ``services`` for the same with bytes on S3 and vectors
from a service, which ``SERVICE`` and the variables of S3 name, ``counted`` for hooks that do
nothing but one, whose product writes a row that shows how often it was written, or ``audited`` for
``program.py``. Ends when nothing is left to do, the last one at SIGTERM.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import noop
import program
from loguru import logger

from statemachine_pipeline import Done, Pipeline, Stage
from statemachine_pipeline.adapters.openai import OpenAIEmbedder
from statemachine_pipeline.liveness import Liveness

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline import Claim

LIVENESS = Liveness(
    beat=timedelta(seconds=0.4), dead_after=timedelta(seconds=2), grace=timedelta(seconds=5)
)
STEADY = dataclasses.replace(LIVENESS, dead_after=timedelta(seconds=10))
"""For fleets that live on: on a loaded machine nobody is to be called dead who is not."""
GATE, EACH = "GATE", 14
"""The variable that names a file for which each so many-th document of ``counted`` waits."""

COUNTER = "CREATE TABLE counter (document uuid, stage text, claim_seq bigint)"


class Count:
    """A product that leaves one row each time it is written."""

    async def write(self, connection: AsyncConnection, claim: Claim) -> None:
        """Insert the row; nothing makes it unique, so that a second one would show."""
        await connection.execute(
            sa.text("INSERT INTO counter VALUES (:document, :stage, :seq)"),
            {"document": claim.document.id, "stage": claim.stage, "seq": claim.sequence},
        )


async def count(claim: Claim) -> Done:
    """Return a product that counts, in its time."""
    gate, number = os.environ.get(GATE), int(claim.document.source_uri.removeprefix("bench:"))
    # Another process makes the file.
    while gate and number % EACH == 0 and not Path(gate).exists():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return Done(Count())


def pipeline(url: str, mode: str) -> Pipeline:
    """Return the pipeline of a mode."""
    if mode == "shipped":
        return Pipeline(url)
    if mode == "services":
        embedder = OpenAIEmbedder("wordllama", dimensions=256, base_url=os.environ["SERVICE"])
        hooks = {"store_embeddings": Stage(embedder, concurrency=4)}
        return Pipeline(url, hooks=hooks, blobs="s3://documents/corpus")
    hooks = noop.hooks(50) | {"finish_parse": Stage(count, concurrency=50)}
    return Pipeline(url, lifecycle=noop.PlainLifecycle, hooks=hooks)


async def work(url: str, mode: str) -> None:
    """Be one worker until nothing is left, or until told to drain."""
    if mode == "audited":
        await serve(url)
        return
    async with pipeline(url, mode) as own:
        await own.runner(liveness=LIVENESS).run_until_idle()


async def serve(url: str) -> None:
    """Be a worker of the user's program; say on stderr what goes wrong."""
    logger.enable("statemachine_pipeline")
    async with program.pipeline(url) as own:
        runner = own.runner(liveness=STEADY)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, runner.stop)
        await runner.run()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2]))
