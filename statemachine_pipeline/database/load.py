"""What waits and runs at each stage now, and what stands in the way of all of it: one look."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.obstacles import to_closed, to_pause
from statemachine_pipeline.database.statements import load, pauses, providers, workers
from statemachine_pipeline.database.statements.rows import leading

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.obstacles import Pause
    from statemachine_pipeline.stages import Stages

WITHIN_SECONDS = 30.0
"""Of what time rates and mean times are."""
NEWEST_ROWS = 5_000
"""Of history, however much of that time they cover: a look takes some milliseconds."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StageLoad:
    """One stage as it does now.

    Attributes:
        stage: The trigger that it earns.
        ready: Documents that a worker could take; where ways part, those of several stages.
        suspects: Those of them that took a worker down: one takes them that has nothing else in
            hand, and until then takes nothing new.
        deferred: Those that wait for a time.
        claimed: Those that a worker is at.
        ready_seconds: How long the oldest of the ready has been that, whatever keeps workers from
            it; None when none is.
        per_second: Attempts that ended, of the last seconds.
        run_seconds: How long these took on average; None when there were none.
        workers: Live workers that take it and do not drain.
        alone: Those of them that are at a document which took a worker down, of whatever stage, and
            take nothing else until that ends.
        slots: Attempts that these may make at a time; None where its hook is not known here.
        pauses: Those of the whole stage, oldest first.
        closed: A sentence for each of its providers that is not asked now.
        used_up: The same for each whose budget is used up.
    """

    stage: str
    ready: int = 0
    suspects: int = 0
    deferred: int = 0
    claimed: int = 0
    ready_seconds: float | None = None
    per_second: float = 0.0
    run_seconds: float | None = None
    workers: int = 0
    alone: int = 0
    slots: int | None = None
    pauses: tuple[Pause, ...] = ()
    closed: tuple[str, ...] = ()
    used_up: tuple[str, ...] = ()


async def look(engine: AsyncEngine, t: Tables, stages: Stages) -> list[StageLoad]:
    """Return every stage in the order of the lifecycle."""
    window: dict[str, Any] = {"within": WITHIN_SECONDS, "limit": NEWEST_ROWS}
    with answering("looking at the load"):
        async with engine.connect() as connection:
            places = await _places(connection, t, stages)
            served = leading(_leading(stages, places))
            lanes = {row.stage: row for row in await connection.execute(load.lanes(t), served)}
            found = await connection.execute(load.recent(t), served | window)
            recent = {row.stage: row for row in found}
    return [
        dataclasses.replace(
            place, **_waiting(lanes.get(place.stage)), **_speed(recent.get(place.stage))
        )
        for place in places
    ]


async def _places(connection: AsyncConnection, t: Tables, stages: Stages) -> list[StageLoad]:
    """Return who serves each stage and what stands in the way there."""
    fleet = await _fleet(connection, t)
    paused = [to_pause(row) for row in await connection.execute(pauses.current(t))]
    asked = (await connection.execute(providers.standings(t))).all()
    slots = {bound.trigger: bound.stage.slots for bound in stages}
    return [
        StageLoad(
            stage=stage,
            **_served(stage, fleet, slots.get(stage), asked),
            pauses=tuple(one for one in paused if one.tenant is None and one.stage == stage),
        )
        for stage in stages.earned
    ]


def _leading(stages: Stages, places: Sequence[StageLoad]) -> Iterator[tuple[str, str]]:
    """Tell of each state where what stands there goes on.

    Where ways part it is any stage that takes it now, and all of them when none does: nothing is
    in the way of a document as long as one of them is free.
    """
    free = {one.stage for one in places if one.workers and not (one.pauses or one.closed)}
    for state in stages.graph.states:
        awaited = stages.awaited_at(state)
        for stage in [one for one in awaited if one in free] or awaited:
            yield state, stage


async def _fleet(connection: AsyncConnection, t: Tables) -> list[Any]:
    return [
        row for row in await connection.execute(workers.known(t)) if row.lives and not row.draining
    ]


def _waiting(row: Any) -> dict[str, Any]:
    names = ("ready", "suspects", "deferred", "claimed", "ready_seconds")
    return {} if row is None else {name: getattr(row, name) for name in names}


def _speed(row: Any) -> dict[str, Any]:
    if row is None:
        return {}
    is_cut = row.rows >= NEWEST_ROWS and row.covered < WITHIN_SECONDS
    covered = max(row.covered, 0.001) if is_cut else WITHIN_SECONDS
    return {"per_second": row.attempts / covered, "run_seconds": row.run_seconds}


def _served(
    stage: str, fleet: Sequence[Any], slots: int | None, asked: Sequence[Any]
) -> dict[str, Any]:
    mine = [worker for worker in fleet if stage in worker.serves]
    named = {worker.serves[stage] for worker in mine}
    said = [
        (one, sentence) for one in asked if one.provider in named for sentence in to_closed(one)
    ]
    return {
        "workers": len(mine),
        "alone": sum(1 for worker in mine if worker.alone),
        "slots": None if slots is None else slots * len(mine),
        "closed": tuple(text for one, text in said if one.state != "closed" or one.blocked_until),
        "used_up": tuple(
            text for one, text in said if one.state == "closed" and not one.blocked_until
        ),
    }
