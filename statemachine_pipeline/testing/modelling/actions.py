"""What may happen, as values: an action, whose doing it is, and what is then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from statemachine_pipeline.graph import Edge
    from statemachine_pipeline.testing.modelling.choices import Choice
    from statemachine_pipeline.testing.modelling.situations import Situation

Action = Literal[
    "claim",
    "settle",
    "settle twice",
    "settle unheard",
    "settle unsent",
    "refused",
    "ask",
    "release",
    "leave",
    "die",
    "rescue",
    "rescue late",
    "promote",
    "apply",
    "submit",
]
Cause = Literal["worker", "fault", "person"]


class Step(NamedTuple):
    """One thing that happens.

    Attributes:
        action: What.
        cause: A worker that does its work, something that goes wrong, or somebody's wish.
        worker: Whose action it is, by its place; None when it is anybody's.
        after: What is then; the workers in their old places.
        words: What was settled or asked for.
        choice: What was settled, if anything.
        edges: History it writes.
        is_own: A worker wrote it under the claim that it holds.
        repeats: A product was written under its key for the second time.
        robs: A claim was taken from a worker that lives, within its deadline.
        is_idle: It should have changed nothing.
    """

    action: Action
    cause: Cause
    worker: int | None
    after: Situation
    words: str = ""
    choice: Choice | None = None
    edges: tuple[Edge, ...] = ()
    is_own: bool = True
    repeats: bool = False
    robs: bool = False
    is_idle: bool = False
