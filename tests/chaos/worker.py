"""One worker as a program, to be killed and stopped: ``python worker.py URL MODE``.

``MODE`` is ``shipped`` for real documents, or ``counted`` for hooks that do nothing but one, whose
product writes a row that shows how often it was written. Ends when nothing is left to do.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from statemachine_pipeline import Done, Lifecycle, Pipeline, Stage, State
from statemachine_pipeline.runner.loop import Liveness

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline import Claim

LIVENESS = Liveness(
    beat=timedelta(seconds=0.4), dead_after=timedelta(seconds=2), grace=timedelta(seconds=5)
)
COUNTER = "CREATE TABLE counter (document uuid, stage text, claim_seq bigint)"
TRIGGERS = (
    "queue_parse",
    "finish_parse",
    "accept_parse",
    "store_chunks",
    "queue_embedding",
    "start_embedding",
    "store_embeddings",
    "finalize",
)


class CountedLifecycle(Lifecycle):
    """The shipped main line, without guards."""

    uploaded = State(initial=True)
    parse_queued, parse_complete, parse_validated = State(), State(), State()
    chunks_stored = State()
    embedding_queued, embedding_in_progress, embeddings_stored = State(), State(), State()
    complete = State(final=True)

    queue_parse = uploaded.to(parse_queued)
    finish_parse = parse_queued.to(parse_complete)
    accept_parse = parse_complete.to(parse_validated)
    store_chunks = parse_validated.to(chunks_stored)
    queue_embedding = chunks_stored.to(embedding_queued)
    start_embedding = embedding_queued.to(embedding_in_progress)
    store_embeddings = embedding_in_progress.to(embeddings_stored)
    finalize = embeddings_stored.to(complete)


class Count:
    """A product that leaves one row each time it is written."""

    async def write(self, connection: AsyncConnection, claim: Claim) -> None:
        """Insert the row; nothing makes it unique, so that a second one would show."""
        await connection.execute(
            sa.text("INSERT INTO counter VALUES (:document, :stage, :seq)"),
            {"document": claim.document.id, "stage": claim.stage, "seq": claim.sequence},
        )


async def count(claim: Claim) -> Done:
    """Return a product that counts."""
    return Done(Count())


async def nothing(claim: Claim) -> Done:
    """Earn a stage without doing anything."""
    return Done()


def pipeline(url: str, mode: str) -> Pipeline:
    """Return the pipeline of a mode."""
    if mode == "shipped":
        return Pipeline(url)
    hooks: dict[str, object] = {t: Stage(nothing, concurrency=50) for t in TRIGGERS}
    hooks |= {"queue_embedding": None, "start_embedding": None}
    hooks["finish_parse"] = Stage(count, concurrency=50)
    return Pipeline(url, lifecycle=CountedLifecycle, hooks=hooks)


async def work(url: str, mode: str) -> None:
    """Be one worker until nothing is left."""
    async with pipeline(url, mode) as own:
        await own.runner(liveness=LIVENESS).run_until_idle()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2]))
