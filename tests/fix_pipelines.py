"""Pipelines with cheap hooks that do as they are told, and workers that are moved by hand."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from statemachine_pipeline import Pipeline
from statemachine_pipeline.adapters.publishers import PgVectorPublisher
from statemachine_pipeline.batching import Batch
from statemachine_pipeline.database.reader import ContentReader
from statemachine_pipeline.database.store import Store
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.database.turns import Turns
from statemachine_pipeline.database.workers import Workers
from statemachine_pipeline.decide import Decision, Outcome, Succeeded
from statemachine_pipeline.hooks import Claim, Done
from statemachine_pipeline.liveness import Liveness
from statemachine_pipeline.records import (
    Accepted,
    Chunk,
    Chunks,
    Facts,
    ParsedText,
    Validated,
    sha256_hex,
)
from statemachine_pipeline.runner.proposing import Proposer
from statemachine_pipeline.stages import Bound, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.proposal import Proposal
    from statemachine_pipeline.database.settling import Answer

PATIENCE = timedelta(seconds=30)
UNHURRIED = Liveness(dead_after=timedelta(minutes=5))
"""How long locks outlast a worker that was frozen in a transaction."""

BRIEFLY = timedelta(seconds=60)
"""Longest wait for what happens at once unless something is broken, however busy the machine is."""


class Told:
    """A hook that keeps its claims, and does what it was told before it does its work.

    Attributes:
        claims: What it was called with, in order.
        fingerprint: What it says of itself; change it and its output counts as another.
    """

    def __init__(self, work: Callable[[Claim], Awaitable[Any]]) -> None:
        self._work = work
        self.claims: list[Claim] = []
        self.fingerprint = f"told/{getattr(work, '__name__', 'hook')}"
        self._faults: deque[BaseException] = deque()
        self._open = asyncio.Event()
        self._open.set()
        self._begun = asyncio.Event()

    def raises(self, *faults: BaseException) -> None:
        """Raise these, one a call, before working again."""
        self._faults.extend(faults)

    def does(self, work: Callable[[Claim], Awaitable[Any]]) -> None:
        """Do something else from now on."""
        self._work = work

    def block(self) -> None:
        """Stop in every call until ``go_on``."""
        self._open.clear()

    def go_on(self) -> None:
        """Let every call go on."""
        self._open.set()

    async def begun(self) -> Claim:
        """Return the newest claim, once there is one."""
        await asyncio.wait_for(self._begun.wait(), BRIEFLY.total_seconds())
        return self.claims[-1]

    async def __call__(self, claim: Claim) -> Any:
        self.claims.append(claim)
        self._begun.set()
        await self._open.wait()
        if self._faults:
            raise self._faults.popleft()
        return await self._work(claim)


class HashEmbedder:
    """Vectors made of a text's hash; remembers every text it was given."""

    dimensions = 4
    batch_size = 2

    def __init__(self, fingerprint: str = "hash/1") -> None:
        self.fingerprint = fingerprint
        self.texts: list[str] = []
        self.faults: deque[BaseException] = deque()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        if self.faults:
            raise self.faults.popleft()
        self.texts += texts
        return [_vector(text) for text in texts]

    async def embed_query(self, text: str) -> list[float]:
        return _vector(text)


def _vector(text: str) -> list[float]:
    return [byte + 1.0 for byte in hashlib.sha256(text.encode()).digest()[:4]]


async def accept(claim: Claim) -> Accepted:
    """Take any bytes for text."""
    return Accepted(media_type="text/plain", sha256=claim.document.content_sha256)


async def read(claim: Claim) -> ParsedText:
    """Decode the bytes; what follows a line of dashes is no text."""
    source = await claim.source()
    return ParsedText(source.read().decode().split("\n---\n")[0])


async def validate(claim: Claim) -> Validated:
    """Give the text its hash."""
    return Validated(text_sha256=sha256_hex((await claim.text()).text))


async def split(claim: Claim) -> Chunks:
    """Cut at empty lines."""
    text = (await claim.text()).text
    chunks, start = [], 0
    for number, part in enumerate(text.split("\n\n")):
        chunks.append(Chunk(index=number, text=part, start=start, end=start + len(part)))
        start += len(part) + 2
    return Chunks(tuple(chunks))


class Hooks:
    """The cheap hooks of one pipeline, by name."""

    def __init__(self) -> None:
        self.queue_parse = Told(accept)
        self.finish_parse = Told(read)
        self.accept_parse = Told(validate)
        self.store_chunks = Told(split)
        self.store_embeddings = HashEmbedder()
        self.finalize: Any = PgVectorPublisher()

    def told(self) -> dict[str, int]:
        """How often each hook was called."""
        called = {
            name: len(hook.claims) for name, hook in vars(self).items() if isinstance(hook, Told)
        }
        return called | {"store_embeddings": len(self.store_embeddings.texts)}

    def forget(self) -> None:
        """Count from zero again."""
        for hook in vars(self).values():
            if isinstance(hook, Told):
                hook.claims.clear()
        self.store_embeddings.texts.clear()


def pipeline_with(
    engine: AsyncEngine,
    hooks: Hooks | None = None,
    /,
    *,
    schema: str = "smp",
    blobs: object | None = None,
    **own: Any,
) -> Pipeline:
    """Return a pipeline of cheap hooks, but for the triggers named in ``own``."""
    cheap = vars(hooks or Hooks())
    # Nothing waits for company: most tests have one document.
    at_once = Stage(cheap["store_embeddings"], batch=Batch(age=timedelta(0)))
    return Pipeline(
        engine, hooks={**cheap, "store_embeddings": at_once, **own}, schema=schema, blobs=blobs
    )


def plain(hook: Any, **numbers: Any) -> Stage:
    """Return a stage of a hook with other numbers."""
    return Stage(hook, **numbers)


class Hand:
    """One registered worker that claims and settles when a test says so."""

    def __init__(self, pipeline: Pipeline, worker: int, workers: Workers) -> None:
        self.pipeline, self.worker, self.workers = pipeline, worker, workers
        self.stages = pipeline.stages
        t = tables(pipeline.schema)
        self.store = Store(
            pipeline.engine,
            t,
            self.stages,
            ContentReader(pipeline.engine, t, pipeline._blobs),
            patience=PATIENCE,
        )
        # Proposals are those of the runner; nothing is performed or settled by it.
        self.proposer = Proposer(self.store, self.stages)

    async def claim(
        self, *triggers: str, slots: int = 100, alone: bool = False, turns: Turns | None = None
    ) -> list[tuple[Claim, Bound]]:
        """Claim for the stages that earn ``triggers``, or for all."""
        served = self.stages.served(triggers or None)
        free = {bound.state: slots for bound in served}
        turns = turns or Turns()
        found = await self.store.claim(
            *(self.worker, free, served, turns.after), documents=sum(free.values()), alone=alone
        )
        turns.taken((bound.state, claim.document.tenant) for claim, bound in found)
        return found

    async def claim_one(self, *triggers: str) -> tuple[Claim, Bound]:
        """Claim the only document there is to claim."""
        (found,) = await self.claim(*triggers)
        return found

    async def earn(self, claim: Claim, bound: Bound, *, admitted: tuple[str, ...] = ()) -> Proposal:
        """Run a stage's hook and return what is to be settled, as the runner makes it."""
        done = await bound.stage.hook(claim)
        done = done if isinstance(done, Done) else Done(done)
        outcome = Succeeded(product=done.product, children=done.children, reported=done.reported)
        facts = await self.proposer.facts_with_key(claim, bound, outcome)
        return self.proposer.propose(claim, bound, outcome, facts, frozenset(admitted), 0.0)

    def propose(self, claim: Claim, bound: Bound, outcome: Outcome) -> Proposal:
        """Return an outcome, ready to be settled; with no delay after a failure."""
        facts = self.proposer.facts(claim, bound)
        made = self.proposer.propose(claim, bound, outcome, facts, frozenset(), 0.0)

        def decide(seen: Facts) -> Decision:
            return dataclasses.replace(made.decide(seen), after=timedelta(0))

        return dataclasses.replace(made, decide=decide)

    async def settle(self, *proposals: Proposal, alone: bool = False) -> list[Answer]:
        """Settle in one batch."""
        return await self.store.settle(proposals, self.worker, alone=alone)

    async def rescue(self, grace: float = 3600) -> int:
        """Look for claims of the dead and of those past their deadline."""
        return len(await self.store.rescue(self.worker, grace=timedelta(seconds=grace)))


async def hand(pipeline: Pipeline) -> Hand:
    """Register a worker and return it. It never beats, so it lives for as long as tests take."""
    workers = Workers(pipeline.engine, tables(pipeline.schema), liveness=UNHURRIED)
    return Hand(pipeline, await workers.register(), workers)


async def completed(pipeline: Pipeline, *documents: UUID) -> list[str]:
    """Run until nothing is left to do; return the states of ``documents``."""
    await asyncio.wait_for(pipeline.runner().run_until_idle(), BRIEFLY.total_seconds())
    return [(await pipeline.get(document)).state for document in documents]


@contextlib.asynccontextmanager
async def running(pipeline: Pipeline, **options: Any) -> AsyncIterator[None]:
    """Run a worker in the background."""
    async with pipeline.runner(**options):
        yield


async def until(psql: psycopg.Connection[Any], query: str, *values: Any) -> Any:
    """Ask until the answer's first column is true; return it."""
    async with asyncio.timeout(BRIEFLY.total_seconds()):
        while True:
            row = psql.execute(query, values).fetchone()
            if row and row[0]:
                return row[0]
            await asyncio.sleep(0.01)


def leap(seconds: float) -> None:
    """Let the running loop's clock leap forward: what waits there for so long is over.

    Until its test ends, whose loop is its own. Threads and the database keep their time, and two
    minutes are too far: as long as that nobody waits for an answer of the database.
    """
    loop = asyncio.get_running_loop()
    plain = loop.time
    loop.time = lambda: plain() + seconds  # type: ignore[method-assign]


async def write(psql: psycopg.Connection[Any], query: str, *values: Any) -> None:
    """Execute beside the loop: what it waits for may be a transaction that the loop has to end."""
    await asyncio.to_thread(psql.execute, query, values)


async def until_blocked(psql: psycopg.Connection[Any], count: int = 1) -> None:
    """Wait until ``count`` connections of this database wait for a lock."""
    waiting = (
        "SELECT count(*) >= %s FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    await until(psql, waiting, count)


def path_of(psql: psycopg.Connection[Any], document: UUID) -> list[str]:
    """Return the triggers of a document's history, in order."""
    rows = psql.execute(
        "SELECT trigger FROM smp.transition WHERE document_id = %s ORDER BY version", [document]
    )
    return [row[0] for row in rows]
