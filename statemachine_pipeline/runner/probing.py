"""Closes stages whose provider is shut, and tries a provider that was down.

For such a try one document of the whole fleet is claimed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from statemachine_pipeline.database.store import Store
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.resilience.access import Access, Accesses
    from statemachine_pipeline.runner.slots import Slots
    from statemachine_pipeline.stages import Bound, Stages

    Begin = Callable[[Claim, Bound], asyncio.Task[None]]

PROBE_GRACE = timedelta(seconds=30)
"""Time past the stage's deadline after which a probe is another worker's to make."""


class Probing:
    """Watches the providers of one runner, and takes the fleet's probes.

    Args:
        store: Where documents are claimed.
        stages: The lifecycle.
        accesses: The ways to the providers.
        slots: A probe needs one.
        served: The stages of this runner.
        worker: Who claims.
    """

    def __init__(
        self,
        store: Store,
        stages: Stages,
        accesses: Accesses,
        slots: Slots,
        served: Sequence[Bound],
        worker: int,
    ) -> None:
        self._store, self._stages, self._accesses = store, stages, accesses
        self._slots, self._served, self._worker = slots, served, worker
        self._tried: dict[Access, asyncio.Task[None]] = {}

    async def look(self) -> list[Bound]:
        """Let no walk go on to stages that are shut; return those worth a look for documents."""
        shut = await self._accesses.look()
        asked = {b.state: b.stage.provider for b in self._served if b.stage.provider}
        self._slots.shut = frozenset(state for state, one in asked.items() if one.name in shut)
        due = {access.provider for access in self._accesses.due}
        is_open = [b for b in self._served if b.state not in self._slots.paused]
        return [b for b in is_open if b.state not in self._slots.shut or b.stage.provider in due]

    async def probe(self, begin: Begin, *, suspect: bool) -> bool:
        """Claim one document for a provider that is due, whose request is the one of the fleet.

        Args:
            begin: Drives a claim.
            suspect: Take a document that took a worker down: this one holds nothing else.

        Returns:
            Whether there was one.
        """
        await self._give_back()
        due, self._accesses.due = self._accesses.due, ()
        for access in due:
            if await self._probe(access, begin, suspect=suspect):
                return True
        return False

    async def _give_back(self) -> None:
        """Let others try where a document ended without a request, as one that was hopped over."""
        for access, task in list(self._tried.items()):
            if task.done():
                del self._tried[access]
                await access.breaker.give_probe_back()

    async def _probe(self, access: Access, begin: Begin, *, suspect: bool) -> bool:
        free = self._slots.free
        asking = [b for b in self._served if b.stage.provider == access.provider]
        asking = [b for b in asking if free[b.state]]
        if not asking:
            return False
        leads = [(state, b.trigger) for b in asking for state in self._stages.leading_to(b)]
        lease = max(bound.stage.deadline for bound in asking) + PROBE_GRACE
        if not await access.breaker.take_probe(leads, lease, suspect=suspect):
            return False
        try:
            claimed = await self._store.claim(
                self._worker,
                {bound.state: 1 for bound in asking},
                asking,
                {},
                documents=1,
                alone=suspect,
                probing=True,
            )
        except BaseException:
            await access.breaker.give_probe_back()
            raise
        for claim, bound in claimed:
            self._tried[access] = begin(claim, bound)
        if not claimed:
            await access.breaker.give_probe_back()
        return bool(claimed)
