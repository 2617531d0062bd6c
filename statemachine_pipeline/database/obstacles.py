"""What stands in a document's way beside its own row: pauses, providers, silent workers, stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.statements import pauses, placements, providers, workers
from statemachine_pipeline.obstacles import TIME, Obstacles, Pause, Withdrawal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from statemachine_pipeline.database.tables import Tables

    Read = Callable[[Any, dict[str, Any]], Awaitable[Sequence[Any]]]


async def look(read: Read, t: Tables, row: Any, awaited: Sequence[str]) -> Obstacles:
    """Look up what is in the way of one document.

    Args:
        read: Executes a statement.
        t: The tables.
        row: Its document with its work row.
        awaited: The stages it is at or waits for.
    """
    gone = [
        Withdrawal(stage=one.stage, since=one.withdraw_at, last_error=one.last_error)
        for one in await read(placements.pending(t), {"document": row.id})
    ]
    if row.lane is None:
        return Obstacles(withdrawals=tuple(gone))
    fleet = await read(workers.known(t), {})
    known = [one for one in fleet if one.dead_at is None]
    asked = {worker.serves.get(stage) for worker in known for stage in awaited}
    serving = [one for one in fleet if _serves(one, awaited)]
    holder = next((one for one in fleet if one.id == row.worker), None)
    return Obstacles(
        pauses=tuple(
            to_pause(one)
            for one in await read(pauses.current(t), {})
            if one.tenant in {None, row.tenant} and (one.stage is None or one.stage in awaited)
        ),
        closed=tuple(
            sentence
            for one in await read(providers.standings(t), {})
            if one.provider in asked
            for sentence in to_closed(one)
        ),
        alone=row.lane != "claimed" and row.alone,
        holder_silent_seconds=holder.silent if holder else None,
        holder_is_silent=holder is not None and holder.is_silent,
        holder_dead_after_seconds=holder.dead_after_seconds if holder else None,
        holder_is_dead=row.worker is not None and (holder is None or holder.dead_at is not None),
        serving=len(serving),
        all_are_alone=bool(serving) and all(one.alone for one in serving),
        silent_seconds=min((one.silent for one in known), default=None),
        all_are_silent=bool(known) and all(one.is_silent for one in known),
        withdrawals=tuple(gone),
    )


def _serves(worker: Any, awaited: Sequence[str]) -> bool:
    works = worker.lives and not worker.draining
    return works and not set(worker.serves).isdisjoint(awaited)


def to_closed(provider: Any) -> Iterator[str]:
    """Say why nobody asks a provider now."""
    name = provider.provider
    if provider.state == "half_open":
        yield f"provider {name!r} was down ({provider.reason}), and one request tries it again"
    elif provider.state == "open":
        yield f"provider {name!r} is not asked until {provider.until:{TIME}}: {provider.reason}"
    if provider.blocked_until is not None:
        yield f"provider {name!r} wants to be left alone until {provider.blocked_until:{TIME}}"
    elif provider.is_used_up:
        yield (
            f"the budget of provider {name!r} is used up: what was let through takes all of it "
            f"for {provider.ahead:.0f} s"
        )


def to_pause(row: Any) -> Pause:
    """Return a pause as it was read."""
    return Pause(
        stage=row.stage,
        tenant=row.tenant,
        fault=row.fault,
        reason=row.reason,
        by=row.by,
        until=row.until,
        since=row.at,
    )
