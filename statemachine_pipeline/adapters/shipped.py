"""The stages that come with the package, by the trigger they earn.

A lifecycle gets those whose triggers it declares; a user's hook under the same trigger wins.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.adapters.chunkers import MarkdownChunker
from statemachine_pipeline.adapters.embedders import WordLlamaEmbedder
from statemachine_pipeline.adapters.intake import Intake
from statemachine_pipeline.adapters.parsers import DocumentParser
from statemachine_pipeline.adapters.publishers import PgVectorPublisher
from statemachine_pipeline.adapters.validation import Validation
from statemachine_pipeline.stages import Stage, Stages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from statemachine_pipeline.graph import Graph


def shipped_hooks() -> Mapping[str, Any]:
    """Return the shipped hooks; None where there is nothing to earn."""
    cores = os.cpu_count() or 1
    return {
        "mark_duplicate": None,
        "queue_parse": Stage(Intake(), deadline=timedelta(minutes=2)),
        # pypdfium2 is not thread-safe, and a hostile file must not take the runner down.
        "finish_parse": Stage(DocumentParser(), run="process", concurrency=cores),
        "accept_parse": Stage(Validation(), deadline=timedelta(minutes=2)),
        "store_chunks": Stage(MarkdownChunker(), run="thread", concurrency=cores),
        "queue_embedding": None,
        "start_embedding": None,
        "store_embeddings": Stage(WordLlamaEmbedder()),
        "finalize": Stage(PgVectorPublisher()),
    }


def stages_of(graph: Graph, hooks: Mapping[str, Any]) -> Stages:
    """Bind the hooks of a lifecycle; where it names none, the shipped one of that trigger.

    Raises:
        DefinitionError: The hooks do not fit.
    """
    shipped = shipped_hooks()
    known = {t: shipped[t] for t in graph.forward_triggers() if t in shipped}
    return Stages(graph, known | dict(hooks))
