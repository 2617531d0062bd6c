"""The plugin's server and databases under the names that these tests have for them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fix_folders import reachable
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import LRUCache

from statemachine_pipeline.database import place
from statemachine_pipeline.database.embedded import EmbeddedServer
from statemachine_pipeline.testing.databases import Databases, connect
from statemachine_pipeline.testing.plugin import SERVER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import psycopg

SERVERS = ("server", ".statemachine-pipeline")
"""What tests call the folders of their servers."""
_versions: list[str] = []
_compiled: LRUCache[Any, Any] = LRUCache(500)
"""Shared by the engines of all tests: compiling the statements anew takes most of a short test.

As large as that of an engine: each entry keeps 200 objects, and 9,000 of them would have the
collector busy for two seconds after each module."""


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


@pytest.fixture(scope="session")
def smp_server(pytestconfig: pytest.Config) -> Iterator[str]:
    """The plugin's, but that a server of the session's own is in memory where there is room."""
    given = pytestconfig.getoption("--smp-server") or os.environ.get(SERVER)
    if given:
        yield given
        return
    with reachable() as folder, EmbeddedServer(folder / "server", throwaway=True) as server:
        yield server.url


@pytest.fixture(scope="session")
def server(smp_server: str) -> URL:
    """The URL of a database on a running server, whose role may create databases."""
    with connect(smp_server) as connection:
        _versions.append(str(connection.execute("SELECT version()").fetchone()[0]))
    return make_url(smp_server).set(drivername="postgresql+psycopg")


@pytest.fixture
def empty_url(server: URL, smp_databases: Databases) -> Iterator[str]:
    """The URL of an empty database of this test's own."""
    url = smp_databases.make(None)
    yield url
    smp_databases.drop(url)


@pytest.fixture
def database_url(server: URL, smp_database: str) -> str:
    """The URL of a migrated database of this test's own."""
    return smp_database


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
