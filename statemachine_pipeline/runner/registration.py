"""How a runner gets the id under which it works, and another one once that counts as dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.errors import DatabaseUnavailable, PipelineError
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.runner.chores import first_done
from statemachine_pipeline.runner.outages import backoff_seconds

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

    from statemachine_pipeline.database.workers import Workers
    from statemachine_pipeline.runner.outages import Outage
    from statemachine_pipeline.stages import Bound, Stages

AGAIN_SECONDS = 2.0
"""First pause before another id is asked for; each one after it is longer."""


class Registration:
    """Registers the workers of one runner, one after another.

    Args:
        prepare: Checks the schema; awaited under each new id.
        workers: Where they are known.
        stages: The lifecycle.
        served: The stages that this runner takes.
        outage: Told when the database does not answer.
    """

    def __init__(
        self,
        prepare: Callable[[], Awaitable[None]],
        workers: Workers,
        stages: Stages,
        served: Sequence[Bound],
        outage: Outage,
    ) -> None:
        self._prepare, self._workers, self._outage = prepare, workers, outage
        self._latest: int | None = None
        self._fingerprint = stages.graph.fingerprint
        self._serves = {
            b.trigger: b.stage.provider.name if b.stage.provider else None for b in served
        }

    async def register(self) -> int:
        """Get an id, then look at the schema: a migration ends only the workers that it finds."""
        worker = await self._workers.register(self._serves, self._fingerprint)
        try:
            await self._prepare()
            if self._latest is not None:
                await self._workers.go_on(self._latest, worker)
        except PipelineError:
            await self._workers.leave(worker)
            raise
        self._latest = worker
        stages = ", ".join(self._serves)
        note(log_events.WORKER_STARTED, "worker {} serves {}", worker, stages, worker_id=worker)
        return worker

    async def register_again(self, stopping: asyncio.Event) -> int | None:
        """Get another id once the database answers; None when told to stop meanwhile."""
        while not stopping.is_set():
            try:
                worker = await self.register()
            except DatabaseUnavailable as error:
                self._outage.goes_on("beat", error)
                wait = backoff_seconds(AGAIN_SECONDS, self._outage.failures("beat"))
                await first_done(stopping.wait(), seconds=wait)
            else:
                self._outage.ended("beat", "write")  # the worker before it has nothing to write
                return worker
        return None
