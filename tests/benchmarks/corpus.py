"""A folder of real documents, run through and then disturbed: ``make corpus CORPUS=folder``.

First by the command line, undisturbed: every document's end, documents/s, chunks/s, peak memory.
Then three times by two workers of which one is killed in the middle, and once with one that is
stopped past the dead limit and goes on: each time what readers see must be the same as in the
undisturbed run, every history legal, every buffer empty.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "chaos"))

import proof
import worker

from statemachine_pipeline import Pipeline
from statemachine_pipeline.database.embedded import EmbeddedServer

FORWARD = "SELECT count(*) FROM smp.transition WHERE trigger <> 'submit'"


def plain(url: str) -> str:
    """Return the URL as psycopg takes it."""
    return url.replace("+psycopg", "")


def fresh(server: EmbeddedServer, name: str) -> str:
    """Make an empty database and return its URL."""
    with psycopg.connect(plain(server.url), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
    return server.url.replace("/postgres?", f"/{name}?")


def cli(url: str, *words: str) -> list[str]:
    """Return a command of this project's command line on a database."""
    return [sys.executable, "-m", "statemachine_pipeline", words[0], "--database", url, *words[1:]]


def undisturbed(url: str, folder: Path) -> tuple[list[dict[str, Any]], float, dict[str, float]]:
    """Ingest by the command line; return what it printed, the seconds, the peak memory in MB."""
    subprocess.run(cli(url, "migrate"), check=True, stdout=subprocess.DEVNULL)
    begun = time.monotonic()
    process = subprocess.Popen(
        cli(url, "ingest", "--json", str(folder)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    peak = {"worker": 0.0, "children": 0.0}
    own = psutil.Process(process.pid)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    printed = b""
    while process.poll() is None:
        printed += process.stdout.read() or b""
        try:
            peak["worker"] = max(peak["worker"], own.memory_info().rss / 2**20)
            children = sum(child.memory_info().rss for child in own.children()) / 2**20
            peak["children"] = max(peak["children"], children)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    seconds = time.monotonic() - begun
    printed += process.stdout.read() or b""
    return [json.loads(line) for line in printed.splitlines()], seconds, peak


async def submit(url: str, folder: Path) -> None:
    """Hand the folder over without running anything."""
    async with Pipeline(url) as pipeline:
        await pipeline.migrate()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            await pipeline.submit(path)


def disturbed(url: str, folder: Path, *, kill: bool, documents: int) -> str:
    """Run two workers, kill or stop one in the middle; return what happened."""
    asyncio.run(submit(url, folder))
    with psycopg.connect(plain(url), autocommit=True) as psql:
        victim, other = proof.start(url, "shipped"), proof.start(url, "shipped")
        middle = random.uniform(0.2, 0.6) * documents * 6
        held = (
            "SELECT coalesce(array_agg(w.claim_seq), '{}') FROM smp.work w JOIN smp.worker k "
            f"ON k.id = w.worker WHERE k.pid = {victim.pid} AND w.lane = 'claimed'"
        )
        proof.until(
            lambda: proof.one(psql, FORWARD) > middle and proof.one(psql, held), 600, "the middle"
        )
        os.kill(victim.pid, signal.SIGKILL if kill else signal.SIGSTOP)
        claims = proof.one(psql, held)
        begun = time.monotonic()
        lost = "SELECT count(*) FROM smp.work WHERE claim_seq = ANY(%s)"
        proof.until(lambda: psql.execute(lost, [claims]).fetchone() == (0,), 120, "the rescue")
        recovered = time.monotonic() - begun
        if kill:
            victim.wait()
        else:
            os.kill(victim.pid, signal.SIGCONT)
            proof.end(victim, 600)
        proof.end(other, 600)
    verb = "killed" if kill else "stopped"
    return f"{verb} while it held {len(claims)} documents, taken over after {recovered:.1f} s"


def report(documents: list[dict[str, Any]], seconds: float, peak: dict[str, float]) -> None:
    """Print the ends of an undisturbed run."""
    ends: collections.Counter[tuple[str, str]] = collections.Counter()
    for document in documents:
        ends[Path(document["source_uri"]).suffix, document["state"]] += 1
    for (suffix, state), count in sorted(ends.items()):
        print(f"  {suffix or 'none':8} {state:12} {count:4}")
    for document in documents:
        if document["state"] != "complete":
            name = Path(document["source_uri"]).name
            print(f"  {document['state']:12} {name}: {document['reason']}")
    chunks = sum(document["chunks"] for document in documents)
    print(
        f"  {len(documents)} documents in {seconds:.1f} s: "
        f"{len(documents) / seconds:.1f} documents/s, {chunks} chunks, "
        f"{chunks / seconds:.0f} chunks/s; peak memory {peak['worker']:.0f} MB, "
        f"children {peak['children']:.0f} MB"
    )


def main() -> int:
    """Run and print; 1 when anything differs from the undisturbed run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    failed = False
    with tempfile.TemporaryDirectory() as place, EmbeddedServer(Path(place)) as server:
        print(f"undisturbed, by the command line: {folder}")
        url = fresh(server, "undisturbed")
        documents, seconds, peak = undisturbed(url, folder)
        report(documents, seconds, peak)
        with psycopg.connect(plain(url), autocommit=True) as psql:
            expected, faults = proof.published(psql), proof.faults(psql)
        print(f"  {len(expected)} texts and vectors published; faults: {faults or 'none'}")
        for run, kill in enumerate([True, True, True, False], start=1):
            url = fresh(server, f"disturbed_{run}")
            said = disturbed(url, folder, kill=kill, documents=len(documents))
            with psycopg.connect(plain(url), autocommit=True) as psql:
                same = proof.published(psql) == expected
                faults = proof.faults(psql)
            failed |= not same or bool(faults)
            print(
                f"run {run}: one of two workers {said}; published "
                f"{'the same' if same else 'SOMETHING ELSE'}; faults: {faults or 'none'}"
            )
    return int(failed)


if __name__ == "__main__":
    _ = worker.LIVENESS  # the workers of the disturbed runs are called dead after seconds
    sys.exit(main())
