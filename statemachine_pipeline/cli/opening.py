"""Which pipeline a verb works on: whose lifecycle and hooks, and in which database.

An explicit ``--database`` or ``SMP_DATABASE`` always wins. ``DATABASE_URL`` is what a platform sets
for everybody, so it only fills in where an app names no database of its own. ``--schema`` and
``SMP_SCHEMA``, and ``--blobs`` and ``SMP_BLOBS``, win over the app's.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from typing import TYPE_CHECKING, Any, Literal

from statemachine_pipeline.cli.ending import Failed, UsageError
from statemachine_pipeline.cli.output import say
from statemachine_pipeline.cli.userapp import find_app, load
from statemachine_pipeline.errors import DefinitionError, PipelineError, SchemaMissing
from statemachine_pipeline.lifecycle import DocumentLifecycle
from statemachine_pipeline.pipeline import EMBEDDED, Pipeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from statemachine_pipeline.database.embedded import EmbeddedServer
    from statemachine_pipeline.database.timeouts import Timeouts
    from statemachine_pipeline.graph import Graph

CONNECT_SECONDS = "5"
"""How long one try to connect may take; libpq's own answer would be minutes."""

Need = Literal["stored", "hooks", "new", "migrate", "doctor"]
"""What a verb needs without an app: the stored graph, hooks, hooks and (embedded) tables made for
them, hooks without asking for tables, or hooks without asking for a database that answers."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the command line said about app and database; None where it said nothing.

    Attributes:
        app: Which.
        database: Which.
        schema: Which.
        blobs: Which object store.
        timeouts: How long the verb waits for the database, if not as long as others.
    """

    app: str | None = None
    database: str | None = None
    schema: str | None = None
    blobs: str | None = None
    timeouts: Timeouts | None = None

    @property
    def explicit_database(self) -> str | None:
        """The database asked for by our own option or variable."""
        return self.database or os.environ.get("SMP_DATABASE") or None

    @property
    def explicit_schema(self) -> str | None:
        """The schema asked for."""
        return self.schema or os.environ.get("SMP_SCHEMA") or None

    @property
    def explicit_blobs(self) -> str | None:
        """The object store asked for."""
        return self.blobs or os.environ.get("SMP_BLOBS") or None


@contextlib.asynccontextmanager
async def opened(target: Target, need: Need) -> AsyncIterator[Pipeline]:
    """Open the pipeline that a verb works on, and say on stderr where it is.

    Raises:
        UsageError: The app or the database URL cannot be used.
        PipelineError: The database cannot be reached, or is not ready.
    """
    os.environ.setdefault("PGCONNECT_TIMEOUT", CONNECT_SECONDS)
    async with contextlib.AsyncExitStack() as stack:
        name = find_app(target.app)
        try:
            if name:
                pipeline = await stack.enter_async_context(_of_app(target, name))
            else:
                pipeline = await _shipped(target, need, stack)
        except DefinitionError as error:
            raise UsageError(str(error)) from error
        yield pipeline


@contextlib.asynccontextmanager
async def _of_app(target: Target, name: str) -> AsyncIterator[Pipeline]:
    pipeline = load(name)
    database = target.explicit_database
    if database is None and pipeline.is_embedded:
        database = os.environ.get("DATABASE_URL") or None
    asked = {"schema": target.explicit_schema, "blobs": target.explicit_blobs}
    if database or target.timeouts or any(asked.values()):
        url = None if database is None else _url(database)
        pipeline = pipeline.at(url, **asked, timeouts=target.timeouts)
    async with pipeline:
        if pipeline.server is not None:
            say(f"database: embedded PostgreSQL in {pipeline.server.directory}")
        else:
            say(f"database: {_shown(pipeline.engine.url)}, schema {pipeline.schema}")
        try:
            yield pipeline
        finally:
            # The app's own engine too: this process has no other use for it.
            await pipeline.engine.dispose()


async def _shipped(target: Target, need: Need, stack: contextlib.AsyncExitStack) -> Pipeline:
    from sqlalchemy.exc import SQLAlchemyError

    database = target.explicit_database or os.environ.get("DATABASE_URL") or EMBEDDED
    url, schema = _url(database), target.explicit_schema or "smp"
    is_embedded = url == EMBEDDED
    if is_embedded:
        url = await stack.enter_async_context(_embedded(need))
    else:
        from sqlalchemy.engine import make_url

        say(f"database: {_shown(make_url(url))}, schema {schema}")
    if need in {"hooks", "new", "doctor"}:
        try:
            await _prepare(url, schema, creates=is_embedded and need == "new")
        except (PipelineError, SQLAlchemyError):
            if need != "doctor":  # whose checks tell of it
                raise
    lifecycle = None if need == "stored" else DocumentLifecycle
    pipeline = Pipeline(
        url,
        lifecycle=lifecycle,
        schema=schema,
        blobs=target.explicit_blobs,
        timeouts=target.timeouts,
    )
    try:
        return await stack.enter_async_context(pipeline)
    except SchemaMissing as error:
        if is_embedded:
            raise Failed("nothing was ingested yet in this schema") from error
        raise


@contextlib.asynccontextmanager
async def _embedded(need: Need) -> AsyncIterator[str]:
    from statemachine_pipeline.database.embedded import EmbeddedServer

    server = EmbeddedServer()
    if need in {"stored", "hooks", "doctor"} and not _exists(server):
        raise Failed(
            f"nothing was ingested yet: there is no embedded database in {server.directory}; "
            "`statemachine-pipeline ingest PATH` makes one, --database names another"
        )
    url = await asyncio.to_thread(server.start)
    try:
        say(f"database: embedded PostgreSQL in {server.directory}")
        yield url
    finally:
        await asyncio.to_thread(server.stop)


def _exists(server: EmbeddedServer) -> bool:
    return (server.directory / "postgres").is_dir()


async def _prepare(url: str, schema: str, *, creates: bool) -> None:
    """Refuse somebody's own lifecycle and, on an embedded server, make the tables.

    Who forgets ``--app`` would else send documents past stages that the app insists on.
    """
    shipped, stored = DocumentLifecycle.graph, await _stored_graph(url, schema)
    if stored is not None and stored.name != shipped.name:
        raise UsageError(
            f"this database holds the lifecycle {stored.name}, not the shipped one; "
            "name its pipeline with --app module:pipeline, or use another --schema"
        )
    if creates and (stored is None or stored.fingerprint != shipped.fingerprint):
        async with Pipeline(url, schema=schema) as pipeline:
            await pipeline.migrate()


async def _stored_graph(url: str, schema: str) -> Graph | None:
    try:
        async with Pipeline(url, lifecycle=None, schema=schema) as pipeline:
            return pipeline.graph
    except SchemaMissing:
        return None


def _url(database: str) -> str:
    """Return a URL for the driver we use; other drivers' names are what other libraries need."""
    if database == EMBEDDED:
        return database
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    advice = "it looks like postgresql://user@host:5432/name, or is `embedded`"
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):  # their messages quote the URL, password included
        raise UsageError(f"the database URL cannot be read; {advice}") from None
    if url.drivername.partition("+")[0] not in {"postgresql", "postgres"}:
        raise UsageError(f"the database URL is for {url.drivername!r}; {advice}")
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _shown(url: Any) -> str:
    """Return what tells databases apart, leaving out everything that may be secret."""
    host = url.host or url.query.get("host") or "local socket"
    port = f":{url.port}" if url.port else ""
    return f"{url.database or 'default'} on {host}{port}"
