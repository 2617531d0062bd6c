"""What is counted from zero, before it first happens: a rate of what just appeared is unknown."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.observability import instruments
from statemachine_pipeline.resilience.counting import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.observability.metrics import Metrics
    from statemachine_pipeline.stages import Bound

_ONCE: Final = (instruments.EMPTY_CLAIMS, instruments.RESCUED, instruments.DATABASE_ERRORS)
_OF_STAGES: Final = (instruments.CLAIMED, instruments.STALE, instruments.SLOTS_BUSY)


def begin(metrics: Metrics, graph: Graph, served: Sequence[Bound]) -> None:
    """Count from zero what a runner may count; of failures the codes are not known before."""
    told = {"version": version("statemachine-pipeline"), "python": platform.python_version()}
    metrics.set(instruments.BUILD, 1, **told)
    for metric in _ONCE:
        metrics.add(metric, 0)
    for state in sorted(graph.resting):
        metrics.add(instruments.ENDED, 0, state=state)
    for bound in served:
        _begin_stage(metrics, bound)
    for name in {bound.stage.provider.name for bound in served if bound.stage.provider}:
        metrics.add(instruments.TOKENS, 0, provider=name)
        for outcome in OUTCOMES:
            metrics.add(instruments.REQUESTS, 0, provider=name, outcome=outcome)


def _begin_stage(metrics: Metrics, bound: Bound) -> None:
    stage = bound.trigger
    metrics.add(instruments.ATTEMPTS, 0, stage=stage, outcome="succeeded", code="")
    for metric in _OF_STAGES:
        metrics.add(metric, 0, stage=stage)
    metrics.set(instruments.SLOTS, bound.stage.slots, stage=stage)
    if bound.stage.kind == "embedder":
        metrics.add(instruments.TEXTS, 0, stage=stage)
    if bound.stage.stores_elsewhere:
        metrics.add(instruments.WITHDRAWALS_FAILED, 0, stage=stage)
