"""A lifecycle with the shipped one's eight transitions, hooks that do nothing, and bulk loading.

Run as a program it is one worker: ``python noop.py URL SLOTS``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import psycopg

from statemachine_pipeline import Done, Lifecycle, Pipeline, Stage, State
from statemachine_pipeline.cli import collector

if TYPE_CHECKING:
    from statemachine_pipeline import Claim

SCHEMA = "smp"


class PlainLifecycle(Lifecycle):
    """The shipped main line without guards, since nothing is parsed, chunked or embedded."""

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


EARNED = (
    "queue_parse",
    "finish_parse",
    "accept_parse",
    "store_chunks",
    "store_embeddings",
    "finalize",
)


async def nothing(claim: Claim) -> Done:
    """Earn a stage without doing anything."""
    return Done()


def hooks(slots: int) -> dict[str, object]:
    """Return hooks that do nothing, ``slots`` at a time in each stage."""
    plain: dict[str, object] = dict.fromkeys(PlainLifecycle.graph.forward_triggers())
    return plain | {trigger: Stage(nothing, concurrency=slots) for trigger in EARNED}


def pipeline(url: str, slots: int) -> Pipeline:
    """Return a pipeline of such hooks."""
    return Pipeline(url, lifecycle=PlainLifecycle, hooks=hooks(slots), schema=SCHEMA)


LOAD = """
WITH n AS (SELECT gen_random_uuid() AS id, g FROM generate_series(1, %(count)s) AS g),
born AS (
    INSERT INTO smp.document (id, tenant, source_uri, name, state, version, life, generation,
        size_bytes, content_sha256, input_sha256, correlation_id)
    SELECT id, 'bench', 'bench:' || g, 'bench', 'uploaded', 1, 1, 1, 0, md5(g::text), md5(g::text),
        'x'
    FROM n RETURNING id),
told AS (
    INSERT INTO smp.transition (document_id, version, life, generation, trigger, to_state,
        correlation_id)
    SELECT id, 1, 1, 1, 'submit', 'uploaded', 'x' FROM n)
INSERT INTO smp.work (document_id, tenant, state, lane)
SELECT id, 'bench', 'uploaded', 'ready' FROM n
"""


def load(url: str, count: int) -> None:
    """Submit ``count`` documents in one statement."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(LOAD, {"count": count})
        connection.execute("ANALYZE")


async def work(url: str, slots: int) -> None:
    """Be one worker until nothing is left."""
    async with pipeline(url, slots) as own:
        await own.runner(documents=slots).run_until_idle()


if __name__ == "__main__":
    collector.spare()  # as the verb `worker` does
    asyncio.run(work(sys.argv[1], int(sys.argv[2])))
