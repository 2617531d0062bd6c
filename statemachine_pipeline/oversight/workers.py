"""Who works for a pipeline: every worker that is known, and how it stands."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.statements import workers as statements

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.stages import Stages

Condition = Literal["alive", "draining", "silent", "dead"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStanding:
    """How one worker stands.

    Attributes:
        id: Its number, which no other worker ever has.
        condition: ``alive`` takes work, ``draining`` takes no more, ``silent`` missed two beats
            of its own, ``dead`` was declared so within the last hour, or still holds claims, or
            its process goes on under another number.
        host: The machine it runs on.
        pid: Its process there.
        version: Of the library.
        is_lifecycle_known: Whether the database was migrated to the lifecycle that it runs; None
            when it did not say.
        serves: Its stages by their triggers, each with the provider that it asks or None.
        claims: How many documents it holds.
        oldest_at: Since when the one that it holds longest stands at its stage; None without one.
        settled: How many outcomes it has written.
        settled_at: When it wrote the last of them, as its newest beat says (UTC); None without one.
        started_at: When it was registered (UTC).
        silent_seconds: Since its last sign of life.
        dead_at: When it was declared dead (UTC); None when it was not.
        goes_on_as: The number under which its process goes on, which was only out of reach; None
            when that is not known of it.
    """

    id: int
    condition: Condition
    host: str
    pid: int
    version: str
    is_lifecycle_known: bool | None
    serves: Mapping[str, str | None]
    claims: int
    oldest_at: datetime | None
    settled: int
    settled_at: datetime | None
    started_at: datetime
    silent_seconds: float
    dead_at: datetime | None
    goes_on_as: int | None

    @property
    def name(self) -> str:
        """What people find it by."""
        return f"worker {self.id} ({self.host}, pid {self.pid})"


async def standings(engine: AsyncEngine, t: Tables, stages: Stages) -> list[WorkerStanding]:
    """Return every worker that is known, the oldest first; who ended well is not any more.

    What each serves is in the order of the lifecycle, and then what that has no more.
    """
    with answering("looking at workers"):
        async with engine.connect() as connection:
            rows = (await connection.execute(statements.standings(t))).all()
    order = {stage: number for number, stage in enumerate(stages.earned)}
    return [_standing(row, order) for row in rows]


def _standing(row: Any, order: Mapping[str, int]) -> WorkerStanding:
    served = sorted(row.serves, key=lambda stage: (order.get(stage, len(order)), stage))
    return WorkerStanding(
        id=row.id,
        condition=_condition(row),
        host=row.host,
        pid=row.pid,
        version=row.version,
        is_lifecycle_known=row.is_lifecycle_known,
        serves=MappingProxyType({stage: row.serves[stage] for stage in served}),
        claims=row.claims,
        oldest_at=row.oldest_at,
        settled=row.settled,
        settled_at=row.settled_at,
        started_at=row.started_at,
        silent_seconds=row.silent_seconds,
        dead_at=row.dead_at,
        goes_on_as=row.goes_on_as,
    )


def _condition(row: Any) -> Condition:
    if row.dead_at is not None or row.goes_on_as is not None:
        return "dead"
    if row.is_silent:
        return "silent"
    return "draining" if row.draining else "alive"
