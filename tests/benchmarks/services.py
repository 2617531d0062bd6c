"""A folder of real documents through services: ``make services CORPUS=folder``.

Bytes lie on a real S3 server, vectors come from an OpenAI-shaped server of which every twentieth
answer is 429 or 500; both on loopback. The only worker is killed while it embeds, and another one
goes on: what readers see, and which documents end how, must be the same as without services.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chaos"))

import corpus
import fix_blobs
import fix_embedding_server as service
import proof
import psycopg
import worker

from statemachine_pipeline.testing import EmbeddingServer

FAIL_EVERY = 20
ENDS = "SELECT name, state FROM smp.document"
PASSAGES = "SELECT c.text FROM smp.chunk c JOIN smp.chunk_vector v ON v.chunk_id = c.id"


async def submit(url: str, folder: Path, mode: str) -> None:
    """Hand the folder over, its bytes to where the mode keeps them."""
    async with worker.pipeline(url, mode) as pipeline:
        await pipeline.migrate()
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        await pipeline.operations.submit_many(paths)


def seen(psql: psycopg.Connection[object]) -> tuple[collections.Counter[object], ...]:
    """Return how many documents end how, and which passages have a vector."""
    ends = collections.Counter(state for _, state in psql.execute(ENDS).fetchall())
    return ends, collections.Counter(psql.execute(PASSAGES).fetchall())


def run_plain(url: str, folder: Path) -> None:
    """Run everything with the shipped hooks, undisturbed."""
    asyncio.run(submit(url, folder, "shipped"))
    proof.end(proof.start(url, "shipped"), 600)


def run_killed(url: str, folder: Path, server: EmbeddingServer) -> str:
    """Run with services and kill the worker once a third of the passages was embedded."""
    begun = time.monotonic()
    asyncio.run(submit(url, folder, "services"))
    submitted = time.monotonic() - begun
    victim = proof.start(url, "services")
    proof.until(lambda: len(server.texts) > 600, 600, "the middle")
    victim.kill()
    victim.wait()
    before = len(server.texts)
    begun = time.monotonic()
    proof.end(proof.start(url, "services"), 600)
    resumed = time.monotonic() - begun
    return (
        f"submitted to S3 in {submitted:.1f} s; killed after {before} texts, resumed and ended in "
        f"{resumed:.1f} s; {len(server.texts)} texts asked for in all"
    )


def main() -> int:
    """Run and print; 1 when anything differs from the run without services."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    with (
        tempfile.TemporaryDirectory() as place,
        corpus.EmbeddedServer(Path(place, "pg")) as postgres,
        tempfile.TemporaryDirectory() as home,
        fix_blobs.serving(Path(home)) as s3,
        EmbeddingServer(service.wordllama()) as server,
    ):
        service.fail_sometimes(server, FAIL_EVERY)
        os.environ.update(s3.environment | {"SERVICE": f"{server.address}/v1"})
        plain, services = corpus.fresh(postgres, "plain"), corpus.fresh(postgres, "services")
        run_plain(plain, folder)
        print(run_killed(services, folder, server))
        with psycopg.connect(corpus.plain(plain)) as psql:
            expected = seen(psql)
        with psycopg.connect(corpus.plain(services)) as psql:
            found, faults = seen(psql), proof.faults(psql)
            elsewhere = proof.one(psql, "SELECT count(*) FROM smp.blob WHERE key IS NOT NULL")
        print(f"  ends: {dict(found[0])}; without services: {dict(expected[0])}")
        print(f"  passages with vectors: {found[1].total()}; bytes of {elsewhere} documents on S3")
        print(f"  the same passages: {found[1] == expected[1]}; faults: {faults or 'none'}")
    return int(found != expected or bool(faults))


if __name__ == "__main__":
    sys.exit(main())
