"""Tokens that requests were charged for: by tenant, by day, by stage, by document."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from statemachine_pipeline.database.mapping import answering, page_limit
from statemachine_pipeline.database.statements import usage
from statemachine_pipeline.database.statements.rows import leading, parameters

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.stages import Stages

UsageKey = Literal["tenant", "day", "stage", "document"]
"""What tokens are added up by; days are those of UTC."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one tenant, day, stage or document used.

    Attributes:
        key: Which: a tenant, a day as 2026-01-31, a trigger, or a document's id.
        tokens: What providers counted, and estimates where they did not say.
        cost: At the prices that were given; None where no stage has one.
    """

    key: str
    tokens: int
    cost: float | None


async def used(
    engine: AsyncEngine,
    t: Tables,
    stages: Stages,
    *,
    by: UsageKey,
    since: datetime | None,
    tenant: str | None,
    prices: Mapping[str, float],
    limit: int,
) -> list[Usage]:
    """Return what was used; see ``Oversight.usage``.

    Raises:
        ValueError: A price is for no stage, or ``since`` has no time zone.
    """
    if unknown := sorted(set(prices) - set(stages.earned)):
        raise ValueError(
            f"no stage earns {', '.join(unknown)}; there are {', '.join(stages.earned)}"
        )
    if since is not None and since.tzinfo is None:
        raise ValueError(f"since={since} has no time zone; datetime.now(UTC) has one")
    given = {"since": since, "tenant": tenant, "limit": page_limit(limit)}
    priced = ({"stage": stage, "price": price} for stage, price in prices.items())
    states = ((state, stages.awaited_at(state)) for state in stages.graph.states)
    served = leading((state, awaited[0]) for state, awaited in states if awaited)
    with answering("adding up tokens"):
        async with engine.connect() as connection:
            found = await connection.execute(
                usage.spent(t, by=by), given | served | parameters("priced", priced)
            )
            return [Usage(**row._mapping) for row in found]
