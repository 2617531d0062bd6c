"""Questions to one pipeline's published passages: ``Pipeline.search``, and what it stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.adapters.questions import embed_question
from statemachine_pipeline.database.ranking import reordered
from statemachine_pipeline.database.search import CANDIDATES, Near, Passages
from statemachine_pipeline.errors import DefinitionError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.filters import Scope
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.hooks import Rerank
    from statemachine_pipeline.records import Hit, SearchMode
    from statemachine_pipeline.stages import Bound, Stages


class Searching:
    """Searches the passages of one schema.

    Args:
        engine: An async engine.
        t: The pipeline's tables.
        stages: The lifecycle and its hooks, whose embedder embeds the questions too.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, stages: Stages) -> None:
        self._passages = Passages(engine, t)
        self._name = stages.graph.name
        self._embedders = [bound for bound in stages if bound.stage.kind == "embedder"]

    async def search(
        self, text: str, scope: Scope, *, limit: int, mode: SearchMode, rerank: Rerank | None
    ) -> list[Hit]:
        """Return the passages that fit a question best; see ``Pipeline.search``."""
        near = None
        if mode != "text":
            bound = self._embedder
            near = Near(vector=await embed_question(bound, text), embedder=bound.fingerprint)
        hits = await self._passages.search(
            scope,
            near=near,
            text=None if mode == "vector" else text,
            limit=limit if rerank is None else max(limit, CANDIDATES),
        )
        if rerank is None or not hits:
            return hits
        return reordered(hits, await rerank(text, hits))[:limit]

    async def check(self) -> None:
        """Check that no embedder has other dimensions than its vectors in the database.

        Raises:
            EmbedderMismatch: One has.
        """
        await self._passages.check(self._embedders)

    async def build_indexes(self) -> None:
        """Build the index of each embedder's vectors, where there are enough of them."""
        await self._passages.build_indexes(self._embedders)

    @property
    def _embedder(self) -> Bound:
        for bound in self._embedders:
            return bound
        raise DefinitionError(
            f"{self._name}: no stage has an embedder; only mode='text' can search"
        )
