"""How each stage does now, and the sentence about the slowest of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from statemachine_pipeline.database.load import look
from statemachine_pipeline.oversight.bottleneck import bottleneck

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.load import StageLoad
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.oversight.bottleneck import Bottleneck
    from statemachine_pipeline.stages import Stages


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """All stages at one moment.

    Attributes:
        stages: In the order of the lifecycle.
        slowest: The stage that holds up the others, and what limits it.
    """

    stages: tuple[StageLoad, ...]
    slowest: Bottleneck


async def top(engine: AsyncEngine, t: Tables, stages: Stages) -> Top:
    """Return how each stage does now."""
    loads = await look(engine, t, stages)
    return Top(stages=tuple(loads), slowest=bottleneck(loads))
