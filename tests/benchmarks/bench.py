"""How fast the engine is, as ratios within one run: ``make bench``.

Documents/s through all eight transitions, hooks that do nothing, on the embedded PostgreSQL with
fsync on: one worker, two workers, and a psycopg script of the same statements in batches of 100,
with the checks on history and without. Rates are taken from the database's clock, between the first
and the last transition, so that starting a process does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import noop
import psycopg
from sqlalchemy.dialects.postgresql import psycopg as dialects

from statemachine_pipeline.database.embedded import EmbeddedServer
from statemachine_pipeline.database.statements import claims
from statemachine_pipeline.database.statements.rows import parameters
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

BATCH = 100
IN_HAND = 600
"""Documents that the workers hold together; what waits in them is what a settle can merge."""
UNCHECK = """
ALTER TABLE smp.document DROP CONSTRAINT document_stands_at_its_newest_transition;
ALTER TABLE smp.transition DROP CONSTRAINT transition_continues_its_predecessor;
ALTER TABLE smp.transition DROP CONSTRAINT transition_edge_is_declared;
ALTER TABLE smp.document DISABLE TRIGGER USER;
ALTER TABLE smp.transition DISABLE TRIGGER USER;
"""
RATE = """
SELECT count(DISTINCT document_id) / extract(epoch FROM max(at) - min(at))
FROM smp.transition WHERE trigger <> 'submit'
"""


def plain(url: str) -> str:
    """Return the URL as psycopg takes it."""
    return url.replace("+psycopg", "")


def fresh(server: EmbeddedServer, name: str, *, checked: bool) -> str:
    """Make a database with the tables in it."""
    with psycopg.connect(plain(server.url), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
        connection.execute("CHECKPOINT")
    url = server.url.replace("/postgres?", f"/{name}?")
    asyncio.run(_migrate(url))
    if not checked:
        with psycopg.connect(plain(url), autocommit=True) as connection:
            connection.execute(UNCHECK)
    return url


async def _migrate(url: str) -> None:
    async with noop.pipeline(url, 1) as pipeline:
        await pipeline.migrate()


def rate(url: str) -> float:
    """Return documents/s from first to last transition."""
    with psycopg.connect(plain(url)) as connection:
        row = connection.execute(RATE).fetchone()
        states = connection.execute("SELECT DISTINCT state FROM smp.document").fetchall()
    if states != [("complete",)] or row is None:
        raise RuntimeError(f"not all documents are complete: {states}")
    return float(row[0])


def workers(
    server: EmbeddedServer, name: str, count: int, documents: int, *, checked: bool
) -> float:
    """Measure ``count`` worker processes."""
    url = fresh(server, name, checked=checked)
    noop.load(url, documents)
    program = str(Path(__file__).with_name("noop.py"))
    running = [
        subprocess.Popen([sys.executable, program, url, str(IN_HAND // count)])
        for _ in range(count)
    ]
    for process in running:
        if process.wait() != 0:
            raise RuntimeError("a worker failed")
    return rate(url)


def script(server: EmbeddedServer, name: str, documents: int, *, checked: bool) -> float:
    """Measure one psycopg connection that sends the same statements in batches of 100."""
    url = fresh(server, name, checked=checked)
    noop.load(url, documents)
    t = tables(noop.SCHEMA)
    stages = Stages(noop.PlainLifecycle.graph, noop.hooks(1))
    (first, *_) = stages.served(["queue_parse"])
    claim = claims.claim(t, [(first.trigger, stages.leading_to(first))], alone=False).compile(
        dialect=dialects.dialect()
    )
    settle = str(claims.settle(t, skip_locked=True).compile(dialect=dialects.dialect()))
    bound = claims.settle(t, skip_locked=True).compile(dialect=dialects.dialect()).params
    with psycopg.connect(plain(url), autocommit=True) as connection:
        worker = connection.execute(
            "INSERT INTO smp.worker (host, pid, version) VALUES ('bench', 1, '0') RETURNING id"
        ).fetchone()
        assert worker is not None
        taken = {"free_0": BATCH, "documents": BATCH, "deadline_0": 600.0, "worker": worker[0]}
        while rows := connection.execute(str(claim), claim.params | taken).fetchall():  # type: ignore[arg-type]
            held = {row[0]: row[1] for row in rows}
            for values in _walk():
                given = bound | values(held) | {"worker": worker[0]}
                answers = connection.execute(settle, given)  # type: ignore[arg-type]
                held = {row[0]: row[1] for row in answers}
    return rate(url)


def _walk() -> Iterator[Callable[[dict[UUID, int]], dict[str, Any]]]:
    """Return what makes the parameters of six settles, which are eight transitions, from fences."""
    graph = noop.PlainLifecycle.graph
    main = [edge for edge in graph.edges if edge.trigger in graph.forward_triggers()]
    fused = [main[0:1], main[1:2], main[2:3], main[3:6], main[6:7], main[7:8]]
    for edges in fused:
        state = edges[-1].to_state
        steps = [
            {
                "offset": number,
                "trigger": edge.trigger,
                "from_state": edge.from_state,
                "to_state": edge.to_state,
                "hop": number > 1,
            }
            for number, edge in enumerate(edges, start=1)
        ]
        given = {
            "state": state,
            "steps": steps,
            "step_count": len(edges),
            "lane": None if graph.is_resting(state) else "claimed",
            "after": 0.0,
            "give_back": 0,
            "crashed": 0,
            "deadline": 600.0,
            "stage": edges[0].trigger,
            "input_sha256": "x",
            "fingerprint": "x",
            "output_sha256": "x",
            "kind": "none",
            "reported": {},
            "facts": {},
        }
        yield lambda held, given=given: parameters(
            "given", ({"id": i, "seq": seq} | given for i, seq in held.items())
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=12_000)
    count = parser.parse_args().documents
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        started = time.monotonic()
        figures = {
            "script, checks off": script(server, "script_off", count, checked=False),
            "script, checks on": script(server, "script_on", count, checked=True),
            "1 worker, checks off": workers(server, "one_off", 1, count, checked=False),
            "1 worker, checks on": workers(server, "one_on", 1, count, checked=True),
            "2 workers, checks on": workers(server, "two_on", 2, count, checked=True),
        }
        base = figures["script, checks on"]
        print(f"{count} documents, 8 transitions each, embedded PostgreSQL, fsync on")
        for name, figure in figures.items():
            print(f"  {name:22} {figure:7,.0f} documents/s   {figure / base:5.2f} of the script")
        print(f"measured in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
