"""Small lifecycles that several files of tests need."""

from __future__ import annotations

from typing import Any, Final

from statemachine import State

from statemachine_pipeline import Lifecycle


class Short(Lifecycle):
    """One step."""

    uploaded = State(initial=True)
    looked_at = State(final=True)

    look = uploaded.to(looked_at)


class Longer(Lifecycle):
    """The same with a step between."""

    uploaded = State(initial=True)
    checked = State()
    looked_at = State(final=True)

    check = uploaded.to(checked)
    look = checked.to(looked_at)


class ForkLifecycle(Lifecycle):
    """Two ways out of one waiting state."""

    uploaded = State(initial=True)
    waiting, left, right = State(), State(), State()
    ended = State(final=True)

    look = uploaded.to(waiting)
    go_left = waiting.to(left)
    go_right = waiting.to(right)
    end_left = left.to(ended)
    end_right = right.to(ended)


async def _nothing(_: object) -> None:
    """Earn an edge."""


FORK_HOOKS: Final[dict[str, Any]] = {
    **dict.fromkeys(("look", "end_left", "end_right"), _nothing),
    **dict.fromkeys(("go_left", "go_right"), None),
}
"""Nothing is to be earned where the ways of a ``ForkLifecycle`` part."""
