"""A real PostgreSQL for the session, and a database of its own for each test.

The server is the embedded one, or the one that SMP_TEST_DATABASE names by a URL whose role may
create databases. A migrated template is made once; a test's database is a copy of it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from statemachine_pipeline import Pipeline
from statemachine_pipeline.database import place
from statemachine_pipeline.database.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

GIVEN = "SMP_TEST_DATABASE"
SERVERS = ("server", ".statemachine-pipeline")
"""What tests call the folders of their servers."""
_numbers = itertools.count(1)
_versions: list[str] = []
_compiled: dict[Any, Any] = {}
"""Shared by the engines of all tests: compiling the statements anew takes most of a short test."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which server the tests ran on; the header would start one for unit tests too."""
    for version in _versions:
        terminalreporter.write_line(f"database: {version}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove what servers of this session's folders keep elsewhere: root's are not in tmp_path."""
    factory = getattr(session.config, "_tmp_path_factory", None)
    if os.geteuid() != 0 or factory is None:
        return
    for folder, _, _ in os.walk(factory.getbasetemp()):
        if folder.count(os.sep) > factory.getbasetemp().as_posix().count(os.sep) + 3:
            continue
        for name in SERVERS:
            shutil.rmtree(place._SYSTEM_DATA / place._digest(Path(folder) / name), True)


def connect(url: str | URL) -> psycopg.Connection[psycopg.rows.TupleRow]:
    """Open a plain connection in autocommit, outside any engine."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """The URL of a database on a running server, whose role may create databases."""
    given = os.environ.get(GIVEN)
    if given:
        yield _known(make_url(given).set(drivername="postgresql+psycopg"))
        return
    with EmbeddedServer(tmp_path_factory.mktemp("postgres") / "server", throwaway=True) as own:
        yield _known(make_url(own.url))


def _known(url: URL) -> URL:
    with connect(url) as connection:
        _versions.append(str(connection.execute("SELECT version()").fetchone()[0]))
    return url


class Databases:
    """Databases made on the way and dropped in the end."""

    def __init__(self, server: URL, template: str | None = None) -> None:
        self._server, self._template = server, template

    def make(self) -> str:
        """Return the URL of a new database: a migrated one, if there is a template."""
        name = f"smp_test_{os.getpid()}_{next(_numbers)}"
        source = f' TEMPLATE "{self._template}"' if self._template else ""
        with connect(self._server) as connection:
            connection.execute(f'CREATE DATABASE "{name}"{source}')
        return self._server.set(database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is still connected."""
        with connect(self._server) as connection:
            name = make_url(url).database
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def template(server: URL) -> Iterator[str]:
    """The name of a database that was migrated for DocumentLifecycle; nobody connects to it."""
    databases = Databases(server)
    url = databases.make()

    async def migrate() -> None:
        async with Pipeline(url) as pipeline:
            await pipeline.migrate()

    asyncio.run(migrate())
    yield str(make_url(url).database)
    databases.drop(url)


@pytest.fixture
def empty_url(server: URL) -> Iterator[str]:
    """The URL of an empty database of this test's own."""
    databases = Databases(server)
    url = databases.make()
    yield url
    databases.drop(url)


@pytest.fixture
def database_url(server: URL, template: str) -> Iterator[str]:
    """The URL of a migrated database of this test's own."""
    databases = Databases(server, template)
    url = databases.make()
    yield url
    databases.drop(url)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An async engine on this test's database."""
    made = create_async_engine(
        database_url, pool_size=10, execution_options={"compiled_cache": _compiled}
    )
    yield made
    await made.dispose()


@pytest.fixture
def psql(database_url: str) -> Iterator[psycopg.Connection[psycopg.rows.TupleRow]]:
    """A plain connection in autocommit, as somebody at psql would have."""
    with connect(database_url) as connection:
        connection.execute("SET search_path TO smp, public")
        yield connection
