"""Questions about a whole pipeline: ``pipeline.operations.oversight``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.stages import Stages


class Oversight:
    """Looks at a whole pipeline; changes nothing. Made by ``Pipeline.operations``.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
        stages: The lifecycle and its hooks.
        ready: Awaited before the first statement: checks the schema.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        t: Tables,
        stages: Stages,
        ready: Callable[[], Awaitable[None]],
    ) -> None:
        self._engine, self._t, self._stages, self._ready = engine, t, stages, ready
