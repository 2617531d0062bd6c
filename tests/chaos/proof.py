"""What must hold after any fault, asked of the database; for the tests and ``make corpus``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

WORKER = Path(__file__).with_name("worker.py")

BROKEN_HISTORIES = """
SELECT count(*) FROM smp.transition n LEFT JOIN smp.transition p
    ON p.document_id = n.document_id AND p.version = n.version - 1
WHERE (n.version > 1 AND p.to_state IS DISTINCT FROM n.from_state)
   OR (n.version = 1 AND n.trigger <> 'submit')
"""
STANDING_ELSEWHERE = """
SELECT count(*) FROM smp.document d WHERE NOT EXISTS (
    SELECT FROM smp.transition t WHERE t.document_id = d.id AND t.version = d.version
    AND t.to_state = d.state AND NOT EXISTS (
        SELECT FROM smp.transition n WHERE n.document_id = d.id AND n.version > d.version))
"""
TAKEN_TWICE = """
SELECT count(*) FROM (
    SELECT FROM smp.transition WHERE trigger NOT IN ('retry', 'submit')
    GROUP BY document_id, life, trigger, from_state HAVING count(*) > 1) AS twice
"""
STUCK = """
SELECT count(*) FROM smp.document d LEFT JOIN smp.work w ON w.document_id = d.id
WHERE (w.document_id IS NULL) <> (d.state IN
    ('complete', 'duplicate', 'dead_letter', 'cancelled', 'deleted'))
"""
LEFT_OVER = {
    "chunk_buffer": "SELECT count(*) FROM smp.chunk_buffer b JOIN smp.document d "
    "ON d.id = b.document_id WHERE d.state = 'complete'",
    "vector_buffer": "SELECT count(*) FROM smp.vector_buffer b JOIN smp.document d "
    "ON d.id = b.document_id WHERE d.state = 'complete'",
    "work": "SELECT count(*) FROM smp.work",
}
# Of two files with the same words the one that comes first is published, and they may differ in
# their marks: a docx and its Markdown. So of twins it is compared who they are, not what is shown.
PUBLISHED = """
SELECT d.name, c.text, c.index, c.start, c.end, c.page, c.headings::text, md5(v.vector::text)
FROM smp.chunk c JOIN smp.document d ON d.id = c.document_id
LEFT JOIN smp.chunk_vector v ON v.chunk_id = c.id
WHERE NOT EXISTS (SELECT FROM smp.duplicate_of o WHERE o.owner = d.id)
ORDER BY d.name, c.index, c.text, d.id
"""
TWINS = """
SELECT DISTINCT names FROM (
    SELECT array_agg(d.name ORDER BY d.name) AS names FROM smp.document d
    LEFT JOIN smp.duplicate_of o ON o.document_id = d.id
    GROUP BY coalesce(o.owner, d.id) HAVING count(*) > 1) AS twins
ORDER BY names
"""


# Not before the server's start: a worker that was not heard of since then costs nobody a crash.
BURIED = """
UPDATE smp.worker
SET beat_at = greatest(pg_postmaster_start_time(), clock_timestamp() - interval '1 hour')
WHERE pid = ANY(%s) AND dead_at IS NULL
"""


class Broken(AssertionError):
    """A promise does not hold.

    Attributes:
        promise: Which one.
    """

    def __init__(self, promise: str, detail: object = "") -> None:
        self.promise = promise
        super().__init__(f"{promise}\n{detail}" if detail else promise)


def demand(holds: bool, promise: str, detail: object = "") -> None:
    """Raise unless a promise holds."""
    if not holds:
        raise Broken(promise, detail)


def one(connection: psycopg.Connection[Any], sql: str) -> Any:
    """Return the only value of a query."""
    row = connection.execute(sql).fetchone()  # type: ignore[arg-type]
    return row[0] if row else None


def bury(connection: psycopg.Connection[Any], *processes: int) -> None:
    """Have those that were killed or stopped count as dead at once.

    So that the dead limit may be long, and no loaded machine calls anybody dead who is not. Again
    and again, because what a process had sent before it died may be a beat.
    """
    connection.execute(BURIED, [list(processes)])


def faults(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Return how many rows break each promise; empty when all hold and everything rests."""
    checks = {
        "broken histories": BROKEN_HISTORIES,
        "documents beside their history": STANDING_ELSEWHERE,
        "edges taken twice in a life": TAKEN_TWICE,
        "documents neither at rest nor at work": STUCK,
    } | LEFT_OVER
    found = {name: one(connection, sql) for name, sql in checks.items()}
    return {name: count for name, count in found.items() if count}


def published(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Return every text and vector that readers see, in one order, and who are twins."""
    return connection.execute(PUBLISHED).fetchall() + connection.execute(TWINS).fetchall()


def start(url: str, mode: str) -> subprocess.Popen[bytes]:
    """Start a worker in a process group of its own."""
    command = [sys.executable, str(WORKER), url, mode]
    return subprocess.Popen(command, start_new_session=True)


def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Poll until a condition holds; return how long it took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise Broken(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - begun


def end(process: subprocess.Popen[bytes], seconds: float = 60) -> int:
    """Wait for a worker to end by itself; kill it when it does not."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
