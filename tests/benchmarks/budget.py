"""How much of a provider's limits a fleet uses, and how often it is refused.

    python tests/benchmarks/budget.py --minute 60

starts workers as processes of their own, against a server on loopback that enforces requests and
tokens a minute as OpenAI does. Exit code 1 below 97 % of what flows in, or after any 429.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import os
import random
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx
from fix_limited_server import LimitedServer

from statemachine_pipeline import (
    Budget,
    Claim,
    Done,
    Incoming,
    Lifecycle,
    Pipeline,
    Provider,
    RateLimited,
    Stage,
    State,
    report,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS_A_SECOND, REQUESTS_A_SECOND = 6_000, 100
WORDS = 900, 1_100
ENOUGH = 0.97
START_SECONDS = 60
SETTLES = 0.5


class Asking(Lifecycle):
    """One step, for which the service is asked."""

    begun = State(initial=True)
    asked = State(final=True)
    ask = begun.to(asked)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What the server's books say of the time after the warm-up.

    Attributes:
        share: Tokens that were let through, of those that flowed in.
        refused: Requests that were answered with 429 after the warm-up.
        refused_at_first: Those within it.
    """

    share: float
    refused: int
    refused_at_first: int

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of the tokens that flowed in, {self.refused} requests refused "
            f"({self.refused_at_first} in the warm-up)"
        )


class Service:
    """Asks the server, as a hook would; the tokens of a document are not known before."""

    fingerprint = "service/1"

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = httpx.AsyncClient(timeout=30)

    async def __call__(self, claim: Claim) -> Done:
        source = await claim.source()
        body = {"model": "any", "input": source.read().decode()}
        answer = await self._client.post(f"{self._address}/v1/embeddings", json=body)
        usage = answer.json().get("usage", {})
        report(tokens=usage.get("total_tokens"), headers=answer.headers)
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise RateLimited(timedelta(seconds=float(answer.headers["retry-after"])))
        return Done()


def pipeline_of(url: str, address: str, minute: float) -> Pipeline:
    """Return a pipeline whose only stage asks the server at ``address``."""
    budget = Budget(
        tokens=int(TOKENS_A_SECOND * minute),
        requests=int(REQUESTS_A_SECOND * minute),
        per=timedelta(seconds=minute),
    )
    stage = Stage(Service(address), provider=Provider("limited", budget=budget), concurrency=3)
    return Pipeline(url, lifecycle=Asking, hooks={"ask": stage}, schema="asks")


async def submit(url: str, count: int) -> None:
    """Hand over documents of different sizes."""
    draw = random.Random(1)
    async with pipeline_of(url, "", 60) as pipeline:
        await pipeline.migrate()
        texts = (f"{n} " + "word " * draw.randint(*WORDS) for n in range(count))
        await pipeline.operations.submit_many(Incoming(text.encode()) for text in texts)


async def work(url: str, address: str, minute: float) -> None:
    """Serve until the process is ended."""
    async with pipeline_of(url, address, minute) as pipeline:
        await pipeline.runner().run()


@contextlib.contextmanager
def working(url: str, address: str, minute: float, count: int) -> Iterator[None]:
    """Run workers as processes."""
    command = [sys.executable, __file__, "--work", url, address, "--minute", str(minute)]
    workers = [subprocess.Popen(command, env=dict(os.environ)) for _ in range(count)]
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()


def measure(url: str, *, minute: float, minutes: float, workers: int = 4) -> Measured:
    """Let workers ask for ``minutes`` once they are warm, and read the server's books.

    They are warm when all that may be used at once has been, and a little later, when each worker
    knows how many tokens its requests take.
    """
    seconds = minute * minutes
    # What may be used at once, and what flows in until the end; some more than is needed.
    mean = sum(WORDS) / 2
    documents = int(TOKENS_A_SECOND * (minute + seconds) / mean * 2)
    asyncio.run(submit(url, documents))
    limits = {"tokens": TOKENS_A_SECOND * minute, "requests": REQUESTS_A_SECOND * minute}
    with LimitedServer(**limits, minute=minute) as server:
        with working(url, server.address, minute, workers):
            begun = time.monotonic()
            while not server.is_in_demand:
                if time.monotonic() > begun + START_SECONDS:
                    raise TimeoutError(f"less was asked for in {START_SECONDS} s than is allowed")
                time.sleep(0.01)
            since = time.monotonic() + minute * SETTLES
            time.sleep(minute * SETTLES + seconds)
        late = server.refused(since)
        return Measured(
            share=server.rate(since) / TOKENS_A_SECOND,
            refused=len(late),
            refused_at_first=len(server.refused()) - len(late),
        )


def main() -> int:
    """Measure, or be one of the workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minute", type=float, default=60.0, help="seconds that a minute has")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long, once warm")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--database", help="else an embedded server is started")
    parser.add_argument("--work", nargs=2, metavar=("URL", "ADDRESS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        asyncio.run(work(*given.work, given.minute))
        return 0
    with contextlib.ExitStack() as stack:
        url = given.database
        if url is None:
            import tempfile

            from statemachine_pipeline.database.embedded import EmbeddedServer

            folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "server"
            url = stack.enter_context(EmbeddedServer(folder, throwaway=True)).url
        found = measure(url, minute=given.minute, minutes=given.minutes, workers=given.workers)
    print(found)
    return int(found.share < ENOUGH or found.refused > 0)


if __name__ == "__main__":
    sys.exit(main())
