"""The runner's copy of the pauses, so that walks stop where nobody would claim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.obstacles import TIME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.database.pauses import Pauses
    from statemachine_pipeline.obstacles import Pause
    from statemachine_pipeline.runner.slots import Slots
    from statemachine_pipeline.stages import Bound


class Pausing:
    """Tells the slots of one runner what is paused, and the log what that changes.

    Args:
        pauses: What nobody claims for now.
        served: The stages of this runner.
    """

    def __init__(self, pauses: Pauses, served: Sequence[Bound]) -> None:
        self._pauses, self._served = pauses, served
        self._known: frozenset[Pause] = frozenset()

    async def look(self, slots: Slots) -> None:
        """Read the pauses and let ``slots`` know."""
        current = frozenset(await self._pauses.current())
        paused, paused_for = set[str](), set[tuple[str, str]]()
        for pause in current:
            states = [b.state for b in self._served if pause.stage in {None, b.trigger}]
            if pause.tenant is None:
                paused |= set(states)
            else:
                paused_for |= {(pause.tenant, state) for state in states}
        slots.paused, slots.paused_for = frozenset(paused), frozenset(paused_for)
        self._tell(current)

    def _tell(self, current: frozenset[Pause]) -> None:
        for pause in sorted(current - self._known, key=lambda one: one.since):
            until = "somebody resumes it" if pause.until is None else f"{pause.until:{TIME}}"
            what = (pause.place, pause.by, until, pause.reason)
            note(log_events.PAUSE_BEGAN, "{} is paused by {} until {}: {}", *what)
        places = {pause.place for pause in current}
        for place in sorted({pause.place for pause in self._known} - places):
            note(log_events.PAUSE_ENDED, "{} is no longer paused", place)
        self._known = current
