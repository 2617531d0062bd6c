"""Pauses: what nobody claims for now, why, until when, and who said so.

A claim looks at them itself, so a pause holds from its commit on. What is with a worker then is
finished at its stage, and handed back before the next one that is paused.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.obstacles import to_pause
from statemachine_pipeline.database.statements import pauses
from statemachine_pipeline.errors import PauseRefused
from statemachine_pipeline.sources import tenant_problem

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.obstacles import Pause
    from statemachine_pipeline.stages import Stages

PIPELINE = "pipeline"
"""Who pauses a stage that is at fault."""


class Pauses:
    """The pauses of one schema.

    Args:
        engine: An async engine.
        t: The pipeline's tables.
        stages: Which stages there are to pause.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, stages: Stages) -> None:
        self._engine, self._t, self._stages = engine, t, stages
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def pause(
        self,
        *,
        stage: str | None,
        tenant: str | None,
        reason: str,
        by: str,
        until: datetime | None = None,
        duration: timedelta | None = None,
    ) -> Pause:
        """Stop claims, as a person says; see ``Operations.pause``.

        Raises:
            PauseRefused: It cannot be made like this; nothing was written.
        """
        self._check(stage, tenant)
        for name, text in (("reason", reason), ("by", by)):
            if not text.strip() or "\x00" in text:
                raise PauseRefused(f"{name}={text!r} tells nobody anything", f"say {name}=")
        if until is not None and duration is not None:
            raise PauseRefused("both until= and for_= were given", "give one of them, or neither")
        if duration is not None and duration <= timedelta(0):
            raise PauseRefused(f"for_={duration} is no time", "give a longer one")
        if until is not None and until.utcoffset() is None:
            raise PauseRefused(f"until={until} has no time zone", "give it one")
        return await self._pause(
            stage=stage,
            tenant=tenant,
            fault=False,
            reason=reason,
            by=by,
            until=until,
            for_seconds=None if duration is None else duration.total_seconds(),
        )

    async def fault(self, stage: str, reason: str, duration: timedelta) -> Pause:
        """Stop claims for a stage that is at fault; what a person said of it stays as it is."""
        return await self._pause(
            stage=stage,
            tenant=None,
            fault=True,
            reason=reason,
            by=PIPELINE,
            until=None,
            for_seconds=duration.total_seconds(),
        )

    async def _pause(self, **values: Any) -> Pause:
        with answering("pausing"):
            async with self._engine.begin() as connection:
                row = (await connection.execute(pauses.pause(self._t), values)).one()
                if not row.in_force:  # by the clock that claims go by
                    raise PauseRefused(
                        f"it would have ended at {row.until:%Y-%m-%d %H:%M:%S} UTC already",
                        "give a later time, or none to pause until somebody resumes",
                    )
        return to_pause(row)

    async def resume(self, *, stage: str | None, tenant: str | None) -> list[Pause]:
        """Lift what was paused under exactly these names, and wake the workers.

        Returns:
            What is in force no more; empty when nothing was.

        Raises:
            PauseRefused: There is no such stage; nothing was written.
        """
        self._check(stage, tenant)
        with answering("resuming"):
            async with self._autocommit.connect() as connection:
                given = {"stage": stage, "tenant": tenant}
                found = await connection.execute(pauses.resume(self._t), given)
                return [to_pause(row) for row in found]

    async def current(self) -> list[Pause]:
        """Return the pauses in force, oldest first."""
        with answering("looking at pauses"):
            async with self._autocommit.connect() as connection:
                found = await connection.execute(pauses.current(self._t))
                return [to_pause(row) for row in found]

    def _check(self, stage: str | None, tenant: str | None) -> None:
        if stage is None and tenant is None:
            raise PauseRefused("neither a stage nor a tenant was named", "name one, or both")
        known = self._stages.earned
        if stage is not None and stage not in known:
            raise PauseRefused(f"no stage {stage!r}", f"there are {', '.join(known) or 'none'}")
        problem = None if tenant is None else tenant_problem(tenant)
        if problem:
            raise PauseRefused(problem, "name a tenant as submit does")
