"""What waits, what runs and who serves it, as health looks at it: one look, in numbers."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.statements import gauges
from statemachine_pipeline.database.statements.rows import parameters

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.stages import Stages

STATEMENT_SECONDS = 10
"""Longest that one statement of a look may take: who watches must not be the load."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What stands before one stage, or where ways part, before several.

    Attributes:
        stages: The triggers that they earn; a worker of any of them takes what stands here.
        due: How many documents a worker would claim now, or take over from one that lives no more:
            not those behind a pause, nor those for a provider that is not asked.
        due_seconds: How long the first of them has been due.
        running: How many attempts run within their deadline.
    """

    stages: tuple[str, ...]
    due: int
    due_seconds: float
    running: int

    @property
    def place(self) -> str:
        """Where that is, for people."""
        return " or ".join(self.stages)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One worker that lives.

    Attributes:
        serves: The triggers of its stages.
        idle_seconds: How long ago it brought a document on; since its start, if it never did.
    """

    serves: frozenset[str]
    idle_seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits and who serves it.

    Attributes:
        queues: Of the stages before which anything stands.
        members: The workers that live and take work.
    """

    queues: tuple[Queue, ...]
    members: tuple[Member, ...]


async def look(engine: AsyncEngine, t: Tables, stages: Stages) -> Backlog:
    """Look at what waits and who serves it.

    Raises:
        DatabaseUnavailable: It did not answer in time.
    """
    with answering("looking at what waits"):
        async with engine.begin() as connection:
            await bound(connection)
            waiting = (await connection.execute(gauges.backlog(t), served(stages))).all()
            fleet = (await connection.execute(gauges.fleet(t))).all()
    members = (_member(row) for row in fleet if row.lives and not row.draining)
    return Backlog(queues=tuple(_queues(waiting, stages)), members=tuple(members))


async def bound(connection: AsyncConnection) -> None:
    """Bound the statements of this transaction."""
    limit = f"{STATEMENT_SECONDS}s"
    await connection.execute(sa.select(sa.func.set_config("statement_timeout", limit, True)))


def served(stages: Stages) -> dict[str, str]:
    """Return the parameter ``served``: where every state leads to."""
    asked = {one.trigger: one.stage.provider.name for one in stages if one.stage.provider}
    return parameters(
        "served",
        (
            {"state": state, "stage": stage, "provider": asked.get(stage)}
            for state in stages.graph.states
            for stage in stages.awaited_at(state)
        ),
    )


def age(row: Any, then: datetime) -> float:
    """Return the seconds since a time, by the database's clock when a row was read."""
    seconds: float = (row.now - then).total_seconds()
    return max(seconds, 0.0)


def _member(row: Any) -> Member:
    since = row.settled_at or row.started_at
    return Member(serves=frozenset(row.serves), idle_seconds=age(row, since))


def _queues(rows: Any, stages: Stages) -> list[Queue]:
    by_stages: dict[tuple[str, ...], list[Any]] = {}
    for row in rows:
        if awaited := stages.awaited_at(row.state):
            by_stages.setdefault(awaited, []).append(row)
    return [
        Queue(
            stages=awaited,
            due=sum(row.due for row in found),
            due_seconds=max(age(row, row.due_at or row.now) for row in found),
            running=sum(row.running for row in found),
        )
        for awaited, found in by_stages.items()
    ]
