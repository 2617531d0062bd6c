"""A dump of a live schema, restored elsewhere, goes on to the end."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import Hooks, completed, pipeline_with, running
from fix_postgres import connect, program
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from statemachine_pipeline.database.embedded import EmbeddedServer
from statemachine_pipeline.errors import HistoryAhead, MissingExtra
from statemachine_pipeline.testing import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    Psql = psycopg.Connection[Any]

TEXTS = [b"%d\n\nand\n\nmore of %d" % (number, number) for number in range(6)]


def run(name: str, url: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs on a database to its end."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    command = [program(name), "--dbname", plain, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if "server version mismatch" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[str]:
    """The URL of a role on another server, whose transactions count from the start.

    Its database is prepared as the page says: with the extension, and a role that may do no more
    than make its own schema.
    """
    server = EmbeddedServer(tmp_path / "server", throwaway=True)
    try:
        url = server.start()
        with connect(url) as superuser:
            superuser.execute("CREATE EXTENSION vector")
            superuser.execute("CREATE ROLE pipeline_owner LOGIN")
            superuser.execute("GRANT CREATE ON DATABASE postgres TO pipeline_owner")
        yield make_url(url).set(username="pipeline_owner").render_as_string(hide_password=False)
    except MissingExtra as error:
        pytest.skip(str(error))
    finally:
        server.stop()


async def test_a_dump_of_a_live_schema_goes_on_on_another_server(
    engine: AsyncEngine, psql: Psql, other_server: str, tmp_path: Path
) -> None:
    """Claims of the old life are rescued, nothing is lost or doubled, and cursors stay good."""
    dump, pipeline = str(tmp_path / "dump"), pipeline_with(engine)
    for _ in range(3000):  # so that this server is ahead of a fresh one
        psql.execute("SELECT pg_current_xact_id()")
    ended = (await pipeline.submit(TEXTS[0])).document_id
    await completed(pipeline)
    seen = (await pipeline.operations.events(limit=1000))[-1].cursor
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    hooks.store_chunks.block()
    await pipeline.operations.submit_many(TEXTS[1:])
    async with running(pipeline):
        await hooks.store_chunks.begun()
        how = "--schema=smp", "--format=custom", f"--file={dump}"
        await asyncio.to_thread(run, "pg_dump", _url(engine), *how)
        hooks.store_chunks.go_on()
    how = "--exit-on-error", "--no-owner", "--no-privileges", dump
    await asyncio.to_thread(run, "pg_restore", other_server, *how)

    restored = create_async_engine(other_server)
    try:
        after = pipeline_with(restored)
        with connect(other_server) as there:
            held = there.execute("SELECT count(*) FROM smp.work WHERE lane = 'claimed'").fetchone()
            assert held is not None
            assert held[0] > 0
            with pytest.raises(HistoryAhead):
                await after.operations.events(after=seen)
            await after.migrate()
            await Clock(other_server).advance(minutes=5)  # as long as a restore takes
            everything = [one.id for one in await after.documents()]
            assert len(everything) == len(TEXTS)
            assert set(await completed(after, *everything)) == {"complete"}
            assert there.execute(_DOUBLED).fetchone() == (0, 3 * len(TEXTS), 3 * len(TEXTS))
            assert there.execute(_DEAD).fetchone() == (held[0],)
        events = await after.operations.events(after=seen, limit=1000)
        told = [one.transition.document_id for one in events]
        assert ended not in told
        assert set(told) == set(everything) - {ended}
        done = [one for one in events if one.name == "DocumentCompleted"]
        assert len(done) == len(TEXTS) - 1
        findings = await after.operations.oversight.doctor()
        well = {one.id for one in findings if one.status == "ok"}
        assert {"guards", "indexes", "event_order", "claim", "stuck_claims"} <= well
    finally:
        await restored.dispose()


_DOUBLED = """
SELECT (SELECT count(*) FROM (SELECT FROM smp.transition GROUP BY document_id, life, trigger
        HAVING count(*) > 1 AND trigger NOT IN ('retry')) AS twice),
       (SELECT count(*) FROM smp.chunk), (SELECT count(*) FROM smp.chunk_vector)
"""

_DEAD = "SELECT count(*) FROM smp.transition WHERE trigger = 'retry' AND attempt = 1"


def _url(engine: AsyncEngine) -> str:
    return engine.url.render_as_string(hide_password=False)
