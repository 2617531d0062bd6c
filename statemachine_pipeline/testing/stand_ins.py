"""Hooks for lifecycles whose hooks do not matter: they stand where nobody gave one. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.hooks import Done
from statemachine_pipeline.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.hooks import Claim


class StandIn:
    """A hook that makes nothing; what guards should see of it is said elsewhere."""

    fingerprint = "stand-in/1"

    async def __call__(self, claim: Claim) -> Done:
        """Succeed."""
        return Done()


STAND_IN = Stage(StandIn())


def with_stand_ins(graph: Graph, hooks: Mapping[str, Any]) -> dict[str, Any]:
    """Return a hook for every trigger: those given, and one stand-in for each state without any.

    A state all of whose triggers are given, as None, keeps nothing to earn. Given ones ask their
    services without a ``Provider``: breakers and budgets wait in real time, which passes nowhere
    here, so that one that opened would keep documents from ever coming to rest.
    """
    made: dict[str, Any] = {trigger: _unbound(hook) for trigger, hook in hooks.items()}
    for state in graph.states:
        triggers = graph.forward(state)
        if all(trigger in made for trigger in triggers):
            continue
        if not any(made.get(trigger) is not None for trigger in triggers):
            # The last one is the main way more often than not: what precedes it is guarded.
            free = [t for t in triggers if t not in made and not _elsewhere(graph, made, t)]
            made |= dict.fromkeys(free[-1:], STAND_IN)
        made |= {trigger: None for trigger in triggers if trigger not in made}
    return made


def is_stand_in(hook: object) -> bool:
    """Tell whether nobody gave this hook."""
    return isinstance(hook, StandIn)


def _unbound(hook: object) -> object:
    return dataclasses.replace(hook, provider=None) if isinstance(hook, Stage) else hook


def _elsewhere(graph: Graph, made: Mapping[str, Any], trigger: str) -> bool:
    """Tell whether a hook under this trigger would be the second one of some state."""
    return any(
        made.get(other) is not None
        for state in graph.sources(trigger)
        for other in graph.forward(state)
    )
