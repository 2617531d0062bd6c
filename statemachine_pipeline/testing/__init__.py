"""Proof for a lifecycle of one's own: lint, paths, state machines, model checks, crashes.

Needs the extra ``testing``. Names in the order in which one reaches for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME: dict[str, tuple[str, ...]] = {
    "linting.lint": ("lint", "assert_lint_clean", "assert_precedes"),
    "linting.findings": ("Finding",),
    "machines.paths": ("every_transition", "paths", "Path", "walk"),
    "machines.machine": ("lifecycle_machine", "LifecycleMachine"),
    "machines.faults": ("Fault",),
    "modelling.model": (
        "model_check",
        "Report",
        "Violation",
        "ModelViolated",
        "assert_mutants_killed",
    ),
    "modelling.protocol": ("MUTANTS",),
    "modelling.situations": ("Row",),
    "crashing.everywhere": ("crash_everywhere", "Crashes"),
    "services": ("EmbeddingServer", "Said", "Trouble", "drawn"),
    "assertions": ("drain", "assert_state", "assert_history"),
    "clock": ("Clock",),
    "databases": ("Databases",),
    "coverage": ("Coverage",),
    "replay": ("assert_replays", "assert_database_replays", "Replayed"),
}
_EXTRA = ("hypothesis", "networkx", "pytest")
_MODULES = {name: module for module, names in _HOME.items() for name in names}

if TYPE_CHECKING:
    from statemachine_pipeline.testing.assertions import assert_history, assert_state, drain
    from statemachine_pipeline.testing.clock import Clock
    from statemachine_pipeline.testing.coverage import Coverage
    from statemachine_pipeline.testing.crashing.everywhere import Crashes, crash_everywhere
    from statemachine_pipeline.testing.databases import Databases
    from statemachine_pipeline.testing.linting.findings import Finding
    from statemachine_pipeline.testing.linting.lint import assert_lint_clean, assert_precedes, lint
    from statemachine_pipeline.testing.machines.faults import Fault
    from statemachine_pipeline.testing.machines.machine import LifecycleMachine, lifecycle_machine
    from statemachine_pipeline.testing.machines.paths import Path, every_transition, paths, walk
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
    from statemachine_pipeline.testing.services import EmbeddingServer, Said, Trouble, drawn

__all__ = [  # noqa: RUF022 - as one reaches for them
    "lint",
    "assert_lint_clean",
    "assert_precedes",
    "Finding",
    "every_transition",
    "paths",
    "Path",
    "walk",
    "lifecycle_machine",
    "LifecycleMachine",
    "Fault",
    "model_check",
    "Report",
    "Violation",
    "ModelViolated",
    "assert_mutants_killed",
    "MUTANTS",
    "Row",
    "crash_everywhere",
    "Crashes",
    "EmbeddingServer",
    "Said",
    "Trouble",
    "drawn",
    "drain",
    "assert_state",
    "assert_history",
    "Clock",
    "Databases",
    "Coverage",
    "assert_replays",
    "assert_database_replays",
    "Replayed",
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
        from statemachine_pipeline.errors import (
            MissingExtra,
        )  # the plugin of pytest imports nothing

        raise MissingExtra(error.name, "testing") from error
    return getattr(module, name)
