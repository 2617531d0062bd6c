"""Publish into a vector store outside PostgreSQL: LanceDB, whose tables are files in a folder.

Shows a publisher with ``publish`` and ``withdraw``: what is deleted here disappears there, though
no transaction spans both stores. Run it from the folder that holds ``examples``:

    pip install lancedb
    python examples/external_store.py
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa

from statemachine_pipeline import Claim, Pipeline
from statemachine_pipeline.adapters.embedders import WordLlamaEmbedder
from statemachine_pipeline.records import Publication

FOLDER = Path("examples/documents")
TABLE = "passages"


class LancePublisher:
    """Keeps the passages of complete documents in a LanceDB table.

    Args:
        folder: Where the store lies; made if missing.
        dimensions: Length of the embedder's vectors.
    """

    fingerprint = "lance-publisher/1"

    def __init__(self, folder: Path, dimensions: int) -> None:
        self._folder = folder
        columns: list[tuple[str, Any]] = [
            ("id", pa.string()),
            ("document_id", pa.string()),
            ("sequence", pa.int64()),
            ("name", pa.string()),
            ("text", pa.string()),
            ("vector", pa.list_(pa.float32(), dimensions)),
        ]
        self._schema = pa.schema(columns)
        self._opened: Any = None

    async def publish(self, claim: Claim) -> Publication:
        """Replace what the store holds of the document, in one commit of the store.

        May run again after a crash: the same chunks have the same ids, so nothing is doubled.
        """
        pairs = zip(await claim.chunks(), await claim.vectors(), strict=True)
        rows = [
            {
                "id": str(chunk.id),
                "document_id": str(claim.document.id),
                "sequence": claim.sequence,
                "name": claim.document.name,
                "text": chunk.text,
                "vector": vector,
            }
            for chunk, vector in pairs
        ]
        table = await self._table()
        await (
            table.merge_insert("id")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .when_not_matched_by_source_delete(earlier(claim))
            .execute(pa.Table.from_pylist(rows, schema=self._schema))
        )
        return Publication()

    async def withdraw(self, claim: Claim) -> None:
        """Remove what the store holds of the document; there may be nothing."""
        await (await self._table()).delete(earlier(claim))

    async def nearest(self, vector: Sequence[float], limit: int) -> list[dict[str, Any]]:
        """Return the rows nearest to a vector, nearest first."""
        query = (await self._table()).vector_search(list(vector)).distance_type("cosine")
        found: list[dict[str, Any]] = await query.limit(limit).to_list()
        return found

    async def prepare(self) -> None:
        """Make the table if it is missing: once, before any worker, as with migrations.

        Two that make it at the same time could overwrite each other's rows.
        """
        await (await self._store()).create_table(TABLE, schema=self._schema, exist_ok=True)

    async def _table(self) -> Any:
        if self._opened is None:
            self._opened = await (await self._store()).open_table(TABLE)
        return self._opened

    async def _store(self) -> Any:
        # Without an interval of zero a handle goes on reading the version it has opened.
        return await lancedb.connect_async(self._folder, read_consistency_interval=timedelta(0))


def earlier(claim: Claim) -> str:
    """Select what earlier calls wrote: one that comes late must not undo a later one."""
    return f"document_id = '{claim.document.id}' AND sequence < {claim.sequence}"


async def main() -> None:
    embedder = WordLlamaEmbedder()
    publisher = LancePublisher(Path("passages"), embedder.dimensions)
    await publisher.prepare()
    hooks = {"store_embeddings": embedder, "finalize": publisher}
    async with Pipeline("embedded", hooks=hooks) as pipeline:
        report = await pipeline.submit(FOLDER / "annual-report-2024.pdf")
        await pipeline.submit(FOLDER / "board-minutes-2025-03.md")
        await pipeline.runner().run_until_idle()
        question = await embedder.embed_query("Who approved the budget?")
        print("nearest:", (await publisher.nearest(question, limit=1))[0]["name"])

        await pipeline.apply("delete", report.document_id, reason="superseded")
        print("waiting:", *(one.documents for one in await pipeline.withdrawals.waiting()))
        await pipeline.runner().run_until_idle()
        print("nearest:", (await publisher.nearest(question, limit=1))[0]["name"])


if __name__ == "__main__":
    asyncio.run(main())
