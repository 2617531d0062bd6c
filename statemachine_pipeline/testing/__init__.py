"""Proof for a lifecycle of one's own: lint, paths, state machines, model checks, crashes.

Needs the extra ``testing``. Names in the order in which one reaches for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.errors import MissingExtra

_HOME: dict[str, tuple[str, ...]] = {
    "linting.lint": ("assert_lint_clean", "assert_precedes", "lint"),
    "linting.findings": ("Finding",),
    "assertions": ("drain", "assert_state", "assert_history"),
    "clock": ("Clock",),
    "databases": ("Databases",),
    "machines.paths": ("Path", "paths", "every_transition", "walk"),
    "machines.machine": ("lifecycle_machine", "LifecycleMachine"),
    "machines.faults": ("Fault",),
    "coverage": ("Coverage",),
    "modelling.model": (
        "model_check",
        "assert_mutants_killed",
        "Report",
        "Violation",
        "ModelViolated",
    ),
    "modelling.protocol": ("MUTANTS",),
    "modelling.situations": ("Row",),
    "replay": ("Replayed", "assert_database_replays", "assert_replays"),
}
_EXTRA = ("hypothesis", "networkx", "pytest")
_MODULES = {name: module for module, names in _HOME.items() for name in names}

if TYPE_CHECKING:
    from statemachine_pipeline.testing.assertions import assert_history, assert_state, drain
    from statemachine_pipeline.testing.clock import Clock
    from statemachine_pipeline.testing.coverage import Coverage
    from statemachine_pipeline.testing.modelling.model import (
        ModelViolated,
        Report,
        Violation,
        assert_mutants_killed,
        model_check,
    )
    from statemachine_pipeline.testing.modelling.protocol import MUTANTS
    from statemachine_pipeline.testing.modelling.situations import Row
    from statemachine_pipeline.testing.replay import (
        Replayed,
        assert_database_replays,
        assert_replays,
    )
    from statemachine_pipeline.testing.machines.faults import Fault
    from statemachine_pipeline.testing.machines.machine import LifecycleMachine, lifecycle_machine
    from statemachine_pipeline.testing.machines.paths import Path, every_transition, paths, walk

__all__ = [
    "MUTANTS",
    from statemachine_pipeline.testing.linting.lint.findings import Finding
    from statemachine_pipeline.testing.linting.lint import assert_lint_clean, assert_precedes, lint

__all__ = [  # noqa: RUF022 - as one reaches for them
    "lint",
    "assert_lint_clean",
    "assert_precedes",
    "Finding",
    "Coverage",
    "ModelViolated",
    "Replayed",
    "Report",
    "Row",
    "Violation",
    "assert_database_replays",
    "assert_mutants_killed",
    "assert_replays",
    "model_check",
    from statemachine_pipeline.testing.databases import Databases

__all__ = [
    "Clock",
    "Coverage",
    "Databases",
    "assert_history",
    "assert_state",
    "drain",
    "Fault",
    "LifecycleMachine",
    "Path",
    "every_transition",
    "lifecycle_machine",
    "paths",
    "walk",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: Hypothesis and networkx are heavy."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise MissingExtra(error.name, "testing") from error
    return getattr(module, name)
