"""A clock that tests move: all waits of a pipeline, shortened together.

Only the database's clock decides in this library, and nobody may turn that one. So time passes by
moving what is compared with it into the past.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import sql

from statemachine_pipeline.liveness import USUAL
from statemachine_pipeline.testing.databases import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from psycopg import Connection

MOVED = {
    "blob_object": ("seen_at",),
    "breaker": ("until", "probe_until"),
    "budget": ("levels_at", "blocked_until", "taken_until"),
    "pause": ("until",),
    "placement": ("writing_until", "run_at"),
    "work": ("run_at", "entered_at", "deadline_at"),
    "worker": ("beat_at", "settled_at"),
}
"""Columns that some statement compares with the clock, by table."""

PATIENCE_SECONDS = 20
"""How long a move waits for rows that somebody has locked."""

_MOMENT = timedelta(milliseconds=1)
"""What is due at a time is so after it."""

_WAITS = """
SELECT clock_timestamp(), min(at) FROM (
    SELECT run_at AS at FROM {work} WHERE lane = 'deferred'
    UNION ALL SELECT w.deadline_at + %(grace)s FROM {work} w WHERE w.lane = 'claimed'
    UNION ALL SELECT k.beat_at + k.dead_after_seconds * interval '1 s' FROM {worker} k
        WHERE EXISTS (SELECT FROM {work} w WHERE w.worker = k.id)
    UNION ALL SELECT run_at FROM {placement} WHERE withdraw_at IS NOT NULL
    UNION ALL SELECT until FROM {pause}
    UNION ALL SELECT unnest(ARRAY[until, probe_until]) FROM {breaker}
    UNION ALL SELECT unnest(ARRAY[blocked_until, taken_until]) FROM {budget}
) AS waits
WHERE at > coalesce(%(since)s, clock_timestamp())
  AND (EXISTS (SELECT FROM {work} WHERE lane <> 'held')
       OR EXISTS (SELECT FROM {placement} WHERE withdraw_at IS NOT NULL))
"""


def move(
    connection: Connection[Any], schema: str, by: timedelta, *, spare: int | None = None
) -> None:
    """Let time pass for one pipeline, but for the worker ``spare``."""
    with connection.transaction():
        for table, columns in MOVED.items():
            sets = [sql.SQL("{0} = {0} - %(by)s").format(sql.Identifier(c)) for c in columns]
            moved = sql.SQL("UPDATE {} SET {} WHERE {}").format(
                sql.Identifier(schema, table),
                sql.SQL(", ").join(sets),
                sql.SQL("id IS DISTINCT FROM %(spare)s" if table == "worker" else "true"),
            )
            connection.execute(moved, {"by": by, "spare": spare})


class Look(NamedTuple):
    """What was seen of the waits of a pipeline.

    Attributes:
        at: When, by the database's clock.
        wait: How long nothing can be done; None if nothing waits for a time.
    """

    at: datetime
    wait: timedelta | None


class Clock:
    """The time of one pipeline.

    Move it while no worker runs: to whoever watches, one that does has been silent for as long.

    Args:
        database: URL of the pipeline's database.
        schema: The schema of the pipeline.

    Attributes:
        passed: By how much it was moved so far; what tests really took comes on top.
    """

    def __init__(self, database: str, *, schema: str = "smp") -> None:
        self._database, self._schema = database, schema
        self.passed = timedelta(0)

    async def advance(self, **duration: float) -> None:
        """Let time pass: ``await clock.advance(hours=1)``.

        What waits becomes due, deadlines pass, pauses end, budgets refill, and workers that beat no
        more count as dead. History and the times that people read stay as they are.

        Args:
            **duration: As for ``timedelta``.

        Raises:
            ValueError: Time does not go back.
        """
        # In a thread: whoever has rows locked may need this loop to go on.
        await asyncio.to_thread(self.advance_blocking, **duration)

    def advance_blocking(self, **duration: float) -> None:
        """Do as ``advance``, for tests without an event loop."""
        by = timedelta(**duration)
        if by < timedelta(0):
            raise ValueError(f"a clock cannot be moved by {by}; time does not go back")
        self._move(by)

    async def skip(self, wait: timedelta, *, spare: int | None) -> None:
        """Let a wait pass and be over, while the worker ``spare`` lives and holds nothing."""
        await asyncio.to_thread(self._move, wait + _MOMENT, spare)

    def look(self, since: datetime | None = None) -> Look:
        """Look for the next time at which something can be done; blocks.

        Args:
            since: When was looked before: what came due in the meantime counts too, since whoever
                worked then may have come too early for it.
        """
        names = {table: sql.Identifier(self._schema, table) for table in MOVED}
        given = {"grace": USUAL.grace, "since": since}
        with self._connected() as connection:
            ((now, due),) = connection.execute(sql.SQL(_WAITS).format(**names), given).fetchall()
        return Look(now, None if due is None else max(due - now, timedelta(0)))

    def _move(self, by: timedelta, spare: int | None = None) -> None:
        with self._connected() as connection:
            move(connection, self._schema, by, spare=spare)
        self.passed += by

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection[Any]]:
        with connect(self._database) as connection:
            connection.execute(f"SET lock_timeout = '{PATIENCE_SECONDS}s'")
            yield connection
