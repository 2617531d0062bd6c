"""What is disturbed: workers of one program, the database and the service they use, submitters."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Self

import program
import proof
import psutil
import psycopg
from sqlalchemy.engine import make_url

from statemachine_pipeline.database.embedded import EmbeddedServer
from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.testing import services as embedding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

OURS = "chaos"
"""The application name of connections that look on and are not disturbed."""
MARK = "CHAOS_FLEET"
TENANTS = ("north", "south")
PACE_SECONDS = 0.05
MOST_IN_FLIGHT = 30
"""No more are submitted while so many are at work, however slow the machine is."""


@dataclasses.dataclass(frozen=True)
class Sent:
    """One document that was accepted.

    Attributes:
        ends: States in which it may come to rest.
        texts: Its passages, should it complete.
        twin: What it shares with documents of the same bytes; None when it has none.
    """

    ends: frozenset[str]
    texts: tuple[str, ...]
    twin: str | None = None


class Stream:
    """Submits one document after another from a thread of its own, as an application does.

    What the database does not answer is submitted again under the same name.

    Args:
        url: The database.
        service: The address of the embedding service.
        crowded: Asked before each document, off the event loop; none is submitted while it says so.

    Attributes:
        sent: Every document that was accepted.
        failures: What ``submit`` raised and should not have.
    """

    def __init__(self, url: str, service: str, crowded: Callable[[], bool]) -> None:
        self._url, self._service, self._crowded = url, service, crowded
        self._numbers = itertools.count(1)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._extra: collections.deque[str] = collections.deque()
        self.sent: dict[uuid.UUID, Sent] = {}
        self.failures: list[BaseException] = []

    def start(self) -> None:
        """Begin to submit."""
        self._stop.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="stream")
        self._thread.start()

    def stop(self) -> None:
        """Submit no more; what was begun is accepted first."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def add(self, first_word: str, count: int) -> None:
        """Submit documents that begin with this word among the others."""
        self._extra.extend([first_word] * count)

    async def _run(self) -> None:
        try:
            async with program.pipeline(self._url, self._service) as pipeline:
                while not self._stop.is_set() or self._extra:
                    if self._extra or not await asyncio.to_thread(self._crowded):
                        await self._submit(pipeline, next(self._numbers))
                    await asyncio.sleep(PACE_SECONDS)
        except BaseException as error:
            self.failures.append(error)
            raise

    async def _submit(self, pipeline: Any, number: int) -> None:
        tenant, text, sent = self._next(number)
        while True:
            try:
                found = await pipeline.submit(
                    text.encode(), source_uri=f"stream:{number}", tenant=tenant
                )
            except DatabaseUnavailable:
                await asyncio.sleep(0.1)
            else:
                self.sent[found.document_id] = sent
                return

    def _next(self, number: int) -> tuple[str, str, Sent]:
        tenant = TENANTS[number // 2 % len(TENANTS)]
        dead = frozenset({"dead_letter"})
        if self._extra:
            return tenant, f"{self._extra.popleft()} {number}", Sent(dead, ())
        if number % 20 == 7:
            return tenant, f"{program.REFUSE} {number}", Sent(dead, ())
        name, twin = number, None
        if number % 10 in {4, 5}:  # of the same tenant, see above
            name = number // 2 * 2
            twin = f"{tenant}:{name}"
        texts = tuple(f"Passage {n} of document {name}." for n in range(1 + name % 6))
        ends = frozenset({"complete", "duplicate"} if twin else {"complete"})
        return tenant, "\n\n".join(texts), Sent(ends, texts, twin)


class Fleet:
    """Worker processes of ``program.py`` on a database and a service of their own.

    Args:
        place: A directory for the database server and the workers' logs.
        size: How many workers.

    Attributes:
        server: The PostgreSQL server, durable as in production.
        service: The embedding service.
        stream: Submits documents.
        workers: The running processes.
    """

    def __init__(self, place: Path, size: int) -> None:
        self._place, self._size = place, size
        self._stack = contextlib.ExitStack()
        self._names = itertools.count(1)
        self.mark = uuid.uuid4().hex
        self.server = EmbeddedServer(place / "server")
        self.service = embedding.EmbeddingServer(embedding.drawn(program.DIMENSIONS))
        self.workers: list[subprocess.Popen[bytes]] = []
        self.logs: list[Path] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.server)
            stack.enter_context(self.service)
            self.url = self.server.url
            asyncio.run(self._migrate())
            self.ask(program.LEDGER)
            self.stream = Stream(self.url, self.service.address, self._is_crowded)
            stack.callback(self._kill)
            stack.callback(self.stream.stop)
            for _ in range(self._size):
                self.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def _migrate(self) -> None:
        async with program.pipeline(self.url, self.service.address) as pipeline:
            await pipeline.migrate()

    def _is_crowded(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):  # away, which submit has to bear
            return bool(self.one("SELECT count(*) FROM smp.work") >= MOST_IN_FLIGHT)
        return False

    def _kill(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()

    def start(self) -> None:
        """Start one more worker."""
        log = self._place / f"worker-{next(self._names)}.log"
        self.logs.append(log)
        environment = {**os.environ, "SERVICE": self.service.address, MARK: self.mark}
        with log.open("wb") as errors:
            self.workers.append(
                subprocess.Popen(
                    [sys.executable, str(proof.WORKER), self.url, "audited"],
                    env=environment,
                    stderr=errors,
                    start_new_session=True,
                )
            )

    def replace(self, worker: subprocess.Popen[bytes]) -> None:
        """Start another worker in the place of one that has ended."""
        self.workers.remove(worker)
        self.start()

    def ask(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own and return its rows, if it has any."""
        with self.connection() as connection:
            cursor = connection.execute(sql, values)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a connection that no fault will hit."""
        plain = make_url(self.url).set(drivername="postgresql")
        return psycopg.connect(
            plain.render_as_string(hide_password=False), autocommit=True, application_name=OURS
        )

    def one(self, sql: str, *values: Any) -> Any:
        """Run one statement and return the only value of its answer."""
        ((value,),) = self.ask(sql, *values)
        return value

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 90) -> float:
        """Poll until a condition holds; return how long it took.

        Raises:
            proof.Broken: It does not in time, or a worker has ended by itself.
        """
        begun = time.monotonic()
        while not condition():
            ended = [worker.returncode for worker in self.workers if worker.poll() is not None]
            if ended:
                raise proof.Broken(f"a worker ended by itself with {ended}", self.said())
            if time.monotonic() - begun > seconds:
                raise proof.Broken(f"not within {seconds:.0f} s: {what}", self.said())
            time.sleep(0.05)
        return time.monotonic() - begun

    def held(self, worker: subprocess.Popen[bytes]) -> list[int]:
        """Return the claims of a process, by their fences."""
        found = self.ask(
            "SELECT w.claim_seq FROM smp.work w JOIN smp.worker k ON k.id = w.worker "
            "WHERE k.pid = %s AND w.lane = 'claimed' ORDER BY 1",
            worker.pid,
        )
        return [fence for (fence,) in found]

    def bury(self, worker: subprocess.Popen[bytes]) -> None:
        """Have a process that was killed or stopped count as dead at once, as ``proof.bury``."""
        with self.connection() as connection:
            proof.bury(connection, worker.pid)

    def is_whole(self) -> bool:
        """Tell whether each process is exactly one living worker, and nobody else is one."""
        alive = self.ask("SELECT pid FROM smp.worker WHERE dead_at IS NULL ORDER BY pid")
        return [pid for (pid,) in alive] == sorted(worker.pid for worker in self.workers)

    def strangers(self) -> list[str]:
        """Return processes that this fleet has left behind."""
        living = {worker.pid for worker in self.workers}
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                marked = process.environ().get(MARK) == self.mark
                family = {process.pid, *(parent.pid for parent in process.parents())}
                if marked and not family & living and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(f"{process.pid} {' '.join(process.cmdline())}")
        return left

    def said(self) -> str:
        """Return the end of what each worker said on stderr."""
        tails = [(log.name, log.read_text(errors="replace")[-1500:]) for log in self.logs]
        return "\n".join(f"{name}: {tail}" for name, tail in tails if tail)

    def drain(self) -> Sequence[int]:
        """Tell every worker to end, and return their exit codes."""
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        codes = [proof.end(worker, 60) for worker in self.workers]
        self.workers.clear()
        return codes
