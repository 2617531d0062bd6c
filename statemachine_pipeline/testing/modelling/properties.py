"""What must be true whatever happens: of each step, of each situation, of all of them together."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from statemachine_pipeline.testing.modelling.actions import Step
    from statemachine_pipeline.testing.modelling.choices import Choices
    from statemachine_pipeline.testing.modelling.situations import Row, Situation

PROPERTIES: Mapping[str, str] = MappingProxyType(
    {
        "legal_history": "each step of history is an edge of the graph and follows the one before",
        "written_once": "no product is written twice under its key",
        "own_claim": "a worker changes a document only under the claim that it holds",
        "bystanders": "no claim is taken from a worker that lives and is in time",
        "same_bytes": "the same bytes again change nothing",
        "one_holder": "at most one worker holds a document",
        "new_fence": "whoever lost its claim has a fence that counts no more",
        "in_place": "what works is claimable, held or waits for its time; what rests is none of it",
        "attempts_counted": "each attempt that was made counts once, and no other",
        "crashes_counted": "each crash counts once",
        "bounded": "attempts and crashes never exceed the policy of their stage",
        "can_rest": "from everywhere workers alone bring a document to rest, or to a person",
        "no_endless_cycle": "no document is worked on for ever under finitely many faults",
    }
)
"""Every property that is checked by itself, with what it says."""


class Safety:
    """Judges single steps and situations.

    Args:
        choices: For the graph, the hooks and the policies.
        always: What users want to be true of every document, by name.
    """

    def __init__(self, choices: Choices, always: Mapping[str, Callable[[Row], object]]) -> None:
        self._choices, self._always = choices, always
        self._stages, self._graph = choices.stages, choices.stages.graph
        self._codes = frozenset(self._graph.codes())

    def of_step(self, before: Situation, step: Step) -> str | None:
        """Return the property that a step breaks, if any."""
        if step.edges and not self._is_legal(before, step):
            return "legal_history"
        if step.repeats:
            return "written_once"
        if not step.is_own:
            return "own_claim"
        if step.robs:
            return "bystanders"
        return "same_bytes" if step.is_idle else None

    def _is_legal(self, before: Situation, step: Step) -> bool:
        state: str | None = before.row.state
        for edge in step.edges:
            if edge.from_state != state or edge.code not in self._codes:
                return False
            state = edge.to_state
        return state == step.after.row.state

    def of_situation(self, at: Situation) -> str | None:
        """Return the property that a situation breaks, if any."""
        row = at.row
        fences = sum(worker.is_current for worker in at.workers)
        is_claimed = row.lane == "claimed"
        policy = self._choices.policy_at(row.state)
        broken = (
            ("one_holder", fences > 1 and is_claimed),
            ("new_fence", fences and not is_claimed),
            ("in_place", not self._is_in_place(row)),
            ("attempts_counted", row.attempt != row.tried + is_claimed),
            ("crashes_counted", row.crashes != row.lost),
            ("bounded", row.attempt > policy.attempts or row.crashes > policy.crashes),
        )
        for name, is_broken in broken:
            if is_broken:
                return name
        return next((name for name, holds in self._always.items() if not holds(row)), None)

    def _is_in_place(self, row: Row) -> bool:
        if self._graph.is_resting(row.state):
            return row.lane is None
        return row.lane is not None and (row.lane == "held") == self._stages.is_by_hand(row.state)
