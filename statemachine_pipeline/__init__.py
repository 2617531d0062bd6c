"""A document's life, from raw bytes to searchable chunks, as a state machine on PostgreSQL.

Names in the order of the story: declare a lifecycle, write hooks, open a pipeline, run it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statemachine import State

    from statemachine_pipeline.adapters.fallback import first_of
    from statemachine_pipeline.batching import Batch
    from statemachine_pipeline.errors import PipelineError
    from statemachine_pipeline.hooks import (
        Claim,
        Done,
        RateLimited,
        Reject,
        Retry,
        StageFault,
        Wait,
    )
    from statemachine_pipeline.lifecycle import (
        DocumentLifecycle,
        Lifecycle,
        all_chunks_stored,
        all_embeddings_stored,
        has_text,
        is_duplicate,
        is_unique,
        same_bytes,
    )
    from statemachine_pipeline.limits import ProcessLimits
    from statemachine_pipeline.observability.logs import configure_logging
    from statemachine_pipeline.observability.outbound import correlation_headers
    from statemachine_pipeline.pipeline import Pipeline
    from statemachine_pipeline.providers import Breaker, Budget, Provider, report
    from statemachine_pipeline.records import Child, Chunk, Facts, Incoming, ParsedText, Source
    from statemachine_pipeline.stages import Stage, by_hand

_HOME = {
    "statemachine": ("State",),
    "statemachine_pipeline.lifecycle": (
        "Lifecycle",
        "DocumentLifecycle",
        "same_bytes",
        "is_duplicate",
        "is_unique",
        "has_text",
        "all_chunks_stored",
        "all_embeddings_stored",
    ),
    "statemachine_pipeline.records": (
        "Facts",
        "Source",
        "ParsedText",
        "Child",
        "Chunk",
        "Incoming",
    ),
    "statemachine_pipeline.hooks": (
        "Claim",
        "Done",
        "Retry",
        "Reject",
        "RateLimited",
        "StageFault",
        "Wait",
    ),
    "statemachine_pipeline.stages": ("Stage", "by_hand"),
    "statemachine_pipeline.batching": ("Batch",),
    "statemachine_pipeline.limits": ("ProcessLimits",),
    "statemachine_pipeline.providers": ("Provider", "Budget", "Breaker", "report"),
    "statemachine_pipeline.adapters.fallback": ("first_of",),
    "statemachine_pipeline.observability.outbound": ("correlation_headers",),
    "statemachine_pipeline.observability.logs": ("configure_logging",),
    "statemachine_pipeline.pipeline": ("Pipeline",),
    "statemachine_pipeline.errors": ("PipelineError",),
}
_MODULES = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # noqa: RUF022 - in story order
    "State",
    "Lifecycle",
    "DocumentLifecycle",
    "same_bytes",
    "is_duplicate",
    "is_unique",
    "has_text",
    "all_chunks_stored",
    "all_embeddings_stored",
    "Facts",
    "Source",
    "ParsedText",
    "Child",
    "Chunk",
    "Claim",
    "Done",
    "Retry",
    "Reject",
    "RateLimited",
    "StageFault",
    "Wait",
    "Stage",
    "by_hand",
    "Batch",
    "ProcessLimits",
    "Provider",
    "Budget",
    "Breaker",
    "report",
    "first_of",
    "correlation_headers",
    "Pipeline",
    "Incoming",
    "configure_logging",
    "PipelineError",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the drivers behind some are heavy."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
