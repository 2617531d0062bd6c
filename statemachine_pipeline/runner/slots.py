"""How many attempts of each stage one runner makes at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.observability import instruments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from statemachine_pipeline.observability.metrics import Metrics
    from statemachine_pipeline.stages import Bound


class Slots:
    """Counts free slots by the state a stage leaves; a claimed document always has one.

    Args:
        served: The stages of this runner.
        on_free: Called when a slot becomes free.
        metrics: Where it is counted how many are taken.

    Attributes:
        paused: States whose stages are paused: no walk goes on there.
        shut: States whose stages ask a provider that is down or used up: none goes on there either.
        alone: The document in hand took a worker down. It makes one step alone; what comes after is
            for anybody, so that many such documents are soon looked through.
        paused_for: Tenants with such states, paused for their documents alone.
    """

    def __init__(
        self, served: Sequence[Bound], on_free: Callable[[], None], metrics: Metrics
    ) -> None:
        self._free = {bound.state: bound.stage.slots for bound in served}
        self._stages = {bound.state: bound.trigger for bound in served}
        self._on_free, self._metrics = on_free, metrics
        self._closed = False
        self.alone = False
        self.paused: frozenset[str] = frozenset()
        self.shut: frozenset[str] = frozenset()
        self.paused_for: frozenset[tuple[str, str]] = frozenset()

    def close(self) -> None:
        """Let nobody go on: documents are left ready at their next stage for other runners."""
        self._closed = True

    @property
    def free(self) -> dict[str, int]:
        """Free slots, by the state a stage leaves."""
        return {state: max(0, count) for state, count in self._free.items()}

    def take(self, states: Iterable[str], tenant: str) -> frozenset[str]:
        """Take a slot at each state that is served, has one and is not paused; return those."""
        if self._closed or self.alone:
            return frozenset()
        taken = frozenset(s for s in states if self._is_open(s, tenant))
        for state in taken:
            self.claim(state)
        return taken

    def _is_open(self, state: str, tenant: str) -> bool:
        is_paused = state in self.paused | self.shut or (tenant, state) in self.paused_for
        return not is_paused and self._free.get(state, 0) > 0

    def claim(self, state: str) -> None:
        """Take a slot that a claim was made for.

        Several states may lead to one stage, so a claim can be one too many; then the count goes
        below zero and no more is claimed until it rises.
        """
        self._use(state, 1)

    def give_back(self, states: Iterable[str]) -> None:
        """Free a slot at each of ``states``."""
        for state in states:
            self._use(state, -1)
        self._on_free()

    def _use(self, state: str, count: int) -> None:
        self._free[state] -= count
        self._metrics.add(instruments.SLOTS_BUSY, count, stage=self._stages[state])
