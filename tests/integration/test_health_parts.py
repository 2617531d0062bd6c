"""Health of the parts that can fail in ways of their own: it is told, and raises nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fix_pipelines import pipeline_with

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Pipeline

    Psql = psycopg.Connection[Any]


class Broken:
    """A store that takes everything, and then raises what no store should."""

    limit_bytes = 1_000

    async def put_if_absent(
        self, key: str, pieces: AsyncIterator[bytes], *, size_bytes: int
    ) -> None:
        """Take content."""
        async for _ in pieces:
            pass

    async def open(self, key: str, *, size_bytes: int) -> AsyncIterator[bytes]:
        """Fail."""
        raise RuntimeError("no session")
        yield b""

    async def delete(self, keys: Sequence[str]) -> None:
        """Keep it."""


async def _parts(pipeline: Pipeline) -> dict[str, tuple[str, str]]:
    health = await pipeline.operations.oversight.health()
    return {one.name: (one.status, one.says) for one in health.components}


async def test_bytes_that_were_never_stored_are_not_missed(
    engine: AsyncEngine, tmp_path: Path, psql: Psql
) -> None:
    """'Known before they are written': an upload that broke off leaves a key and no object."""
    pipeline = pipeline_with(engine, blobs=f"file://{tmp_path}")
    await pipeline.submit(b"text")
    psql.execute("INSERT INTO blob_object (key, content) VALUES ('0/0/0', '0/0')")
    assert (await _parts(pipeline))["blobs"] == ("ok", "an object can be read")


async def test_health_raises_nothing_for_what_it_finds(engine: AsyncEngine, psql: Psql) -> None:
    """'Never raises for what it finds': a store of one's own that breaks, a table of others."""
    pipeline = pipeline_with(engine, blobs=Broken())
    await pipeline.submit(b"text")
    psql.execute("ALTER TABLE budget RENAME COLUMN taken_until TO taken")
    parts = await _parts(pipeline)
    assert parts["blobs"] == ("failed", "the store cannot be read: no session")
    for name in ("providers", "progress"):
        status, says = parts[name]
        assert status == "failed"
        assert says.startswith("the database refused: column")
