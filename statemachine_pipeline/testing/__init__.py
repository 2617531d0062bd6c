"""Proof for a lifecycle of one's own: lint, paths, state machines, model checks, crashes.

Needs the extra ``testing``. Names in the order in which one reaches for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME: dict[str, tuple[str, ...]] = {
    "coverage": ("Coverage",),
    "crashing.everywhere": ("Crashes", "crash_everywhere"),
    "services": ("EmbeddingServer", "Said", "Trouble", "drawn"),
}
_MODULES = {name: module for module, names in _HOME.items() for name in names}

if TYPE_CHECKING:
    from statemachine_pipeline.testing.coverage import Coverage
    from statemachine_pipeline.testing.crashing.everywhere import Crashes, crash_everywhere
    from statemachine_pipeline.testing.services import EmbeddingServer, Said, Trouble, drawn

__all__ = [
    "Coverage",
    "Crashes",
    "EmbeddingServer",
    "Said",
    "Trouble",
    "crash_everywhere",
    "drawn",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: Hypothesis and networkx are heavy."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
