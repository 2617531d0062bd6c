"""Publishers: make a document's passages visible to readers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.records import Publication

if TYPE_CHECKING:
    from statemachine_pipeline.hooks import Claim


class PgVectorPublisher:
    """Publishes into this pipeline's own tables, searched with pgvector.

    It moves no data itself: the product it returns is written by the settle of its stage, so that
    passages, vectors and the document's last step become visible in one commit.
    """

    fingerprint = "pgvector-publisher/1"
    stores_elsewhere = False

    async def publish(self, claim: Claim) -> Publication:
        """Return the product that makes the buffered passages and vectors the visible ones."""
        return Publication()

    async def withdraw(self, claim: Claim) -> None:
        """Return nothing: deleting removes the rows itself, in its own transaction."""
