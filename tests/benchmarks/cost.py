"""What it costs to be watched: ``make cost CORPUS=folder``.

The same documents through one worker, again and again: with nothing that tells of it (no log, no
number counted), and with everything (a JSON log to a file, metrics, probes, a scrape each second),
in turn. Then the same with hooks that do nothing, where a document costs little else. Wall time is
between the first and the last transition by the database's clock; processor time is the worker's
and its children's, whose start counts the same in both. On a machine that is faster at one time
than at another, look at the median of pairs: the two of a pair run one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import noop
import psycopg
from watched import free_port

from statemachine_pipeline import Pipeline, configure_logging
from statemachine_pipeline.cli import collector
from statemachine_pipeline.database.embedded import EmbeddedServer
from statemachine_pipeline.observability.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Watched = Literal["nothing", "everything"]
NOTHING: Watched = "nothing"
EVERYTHING: Watched = "everything"
SCRAPE_SECONDS = 1.0
IN_HAND = 600
LASTED = (
    "SELECT extract(epoch FROM max(at) - min(at)) FROM smp.transition WHERE trigger <> 'submit'"
)


async def work(pipeline: Pipeline, in_hand: int | None, port: int) -> None:
    """Be one worker until nothing is left; with probes, unless the port is 0."""
    async with pipeline:
        runner = pipeline.runner(documents=in_hand)
        if not port:
            return await runner.run_until_idle()
        async with pipeline.operations.oversight.probes(runner, port=port):
            await runner.run_until_idle()
        return None


def work_here(url: str, port: int, log: str, hooks: str) -> None:
    """Do what the process of one run does, and print its processor time."""
    collector.spare()  # as the verb `worker` does
    if port:
        configure_logging(sink=Path(log))
    else:
        Metrics.add = Metrics.set = Metrics.observe = uncounted  # type: ignore[assignment,method-assign]
    noop_hooks = hooks == "noop"
    pipeline = noop.pipeline(url, IN_HAND) if noop_hooks else Pipeline(url)
    asyncio.run(work(pipeline, IN_HAND if noop_hooks else None, port))
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps(sum(one.ru_utime + one.ru_stime for one in spent)))


def uncounted(*_: object, **__: object) -> None:
    """Count nothing."""


async def submit(url: str, paths: list[Path]) -> None:
    """Hand documents over without running anything."""
    async with Pipeline(url) as pipeline:
        await pipeline.migrate()
        await pipeline.operations.submit_many(paths)


async def prepare_noop(url: str, documents: int) -> None:
    """Load documents for hooks that do nothing."""
    async with noop.pipeline(url, 1) as pipeline:
        await pipeline.migrate()
    await asyncio.to_thread(noop.load, url, documents)


def scrape(port: int, process: subprocess.Popen[bytes]) -> int:
    """Read a worker's numbers every second until it ends, much more often than anyone would."""
    count = 0
    while process.poll() is None:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page,
        ):
            count += bool(page.read())
        time.sleep(SCRAPE_SECONDS)
    return count


class Runs:
    """Runs on fresh databases of one server.

    Args:
        place: A folder for logs.
        server: Where the databases are made.
    """

    def __init__(self, place: Path, server: EmbeddedServer) -> None:
        self._place, self._server, self._made = place, server, 0

    def run(
        self, prepare: Callable[[str], None], watched: Watched, hooks: str
    ) -> tuple[float, float, int]:
        """Return the seconds, the seconds of a processor, and the lines of the log of one run."""
        self._made += 1
        name, log = f"cost_{self._made}", self._place / f"{self._made}.log"
        plain = self._server.url.replace("+psycopg", "")
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
            connection.execute("CHECKPOINT")
        url = self._server.url.replace("/postgres?", f"/{name}?")
        prepare(url)
        port = free_port() if watched == EVERYTHING else 0
        words = [sys.executable, __file__, "--worker", url, str(port), str(log), hooks]
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        scraped = scrape(port, process) if port else 1
        said, _ = process.communicate()
        if process.returncode or not scraped:
            raise RuntimeError(f"the worker ended with {process.returncode}, scraped {scraped}")
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            row = connection.execute(LASTED).fetchone()
        assert row is not None
        lines = len(log.read_text().splitlines()) if log.exists() else 0
        return float(row[0]), float(said), lines


def compare(
    runs: Runs, what: str, documents: int, prepare: Callable[[str], None], hooks: str, times: int
) -> None:
    """Run both kinds in turn, and print their medians."""
    runs.run(prepare, NOTHING, hooks)  # what is read from disk the first time is counted nowhere
    figures: dict[Watched, list[tuple[float, float, int]]] = {NOTHING: [], EVERYTHING: []}
    for number in range(times):
        order = (NOTHING, EVERYTHING) if number % 2 == 0 else (EVERYTHING, NOTHING)
        for watched in order:
            figures[watched].append(runs.run(prepare, watched, hooks))
    print(f"{what}, {documents} documents, median of {times} alternating runs")
    for watched, measured in figures.items():
        seconds, cpu, lines = zip(*measured, strict=True)
        print(
            f"  {watched:11} {spread(seconds)} s, processor {spread(cpu)} s, "
            f"{statistics.median(lines):.0f} lines"
        )
    for kind, name in enumerate(["time", "processor time"]):
        before, after = ([one[kind] for one in figures[watched]] for watched in figures)
        middle = statistics.median(before)
        more = statistics.median(after) - middle
        pairs = statistics.median(late / early for early, late in zip(before, after, strict=True))
        print(
            f"  {name}: {more / middle:+.1%} between the medians, {pairs - 1:+.1%} the median of "
            f"pairs; {more / documents * 1e6:+.0f} us a document"
        )


def spread(figures: tuple[float, ...]) -> str:
    """Return the median with the least and the most."""
    return f"{statistics.median(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})"


def paths_of(corpus: Path | None) -> Iterator[Path]:
    """Yield the files of a folder."""
    if corpus is not None:
        yield from sorted(path for path in corpus.rglob("*") if path.is_file())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--documents", type=int, default=3_000, help="for hooks that do nothing")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        url, port, log, hooks = given.worker
        return work_here(url, int(port), log, hooks)
    with tempfile.TemporaryDirectory() as place, EmbeddedServer(Path(place) / "server") as server:
        runs = Runs(Path(place), server)
        if paths := list(paths_of(given.corpus)):

            def hand_over(url: str) -> None:
                asyncio.run(submit(url, paths))

            compare(runs, "shipped hooks", len(paths), hand_over, "shipped", given.runs)

        def load(url: str) -> None:
            asyncio.run(prepare_noop(url, given.documents))

        compare(runs, "hooks that do nothing", given.documents, load, "noop", given.runs)
    return None


if __name__ == "__main__":
    main()
