"""The pytest plugin: a database per test, a clock that moves, coverage of lifecycles.

Loaded by every pytest of an environment that has this package, so it imports nothing but pytest
until a fixture or option of it is used, and changes nothing for sessions that use none.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from statemachine_pipeline.lifecycle import Lifecycle
    from statemachine_pipeline.pipeline import Pipeline
    from statemachine_pipeline.testing.clock import Clock
    from statemachine_pipeline.testing.databases import Databases

SERVER = "SMP_TEST_DATABASE"
"""The environment variable that names a server of yours."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("statemachine_pipeline", "statemachine_pipeline")
    group.addoption(
        "--smp-server",
        metavar="URL",
        help="PostgreSQL server for smp_ fixtures, with a role that may create databases; by "
        f"default ${SERVER}, else an embedded server of the session's own",
    )
    group.addoption(
        "--lifecycle-cov",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="report which states, edges and guards of this lifecycle the tests exercise",
    )
    group.addoption(
        "--lifecycle-cov-fail-under",
        type=float,
        metavar="PERCENT",
        help="fail if less of the edges and verdicts of a lifecycle was exercised",
    )
    group.addoption(
        "--lifecycle-cov-json", metavar="PATH", help="write what was exercised to this file too"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and watch lifecycles if any are named."""
    config.addinivalue_line(
        "markers",
        "smp_pipeline(lifecycle=DocumentLifecycle, schema='smp', hooks=None): what the test's "
        "database is migrated for",
    )
    if names := config.getoption("--lifecycle-cov"):
        from statemachine_pipeline.testing.watching import Watching

        config.pluginmanager.register(Watching(config, names), "statemachine_pipeline_watching")


@pytest.fixture(scope="session")
def smp_server(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a database on a running server, whose role may create databases."""
    given = pytestconfig.getoption("--smp-server") or os.environ.get(SERVER)
    if given:
        yield given
        return
    from statemachine_pipeline.database.embedded import EmbeddedServer

    # One for each process of pytest-xdist: connections and crashes of one are not another's.
    server = EmbeddedServer(tmp_path_factory.mktemp("postgres") / "server", throwaway=True)
    try:
        yield server.start()
    finally:
        server.erase()


@pytest.fixture(scope="session")
def smp_databases(smp_server: str) -> Iterator[Databases]:
    """Makes databases for the session: ``smp_databases.make(MyLifecycle)`` returns a URL.

    For fixtures of any scope; what is not dropped before is dropped in the end.
    """
    from statemachine_pipeline.testing.databases import Databases

    with Databases(smp_server) as databases:
        yield databases


@pytest.fixture
def smp_database(smp_databases: Databases, _smp_asked: Mapping[str, Any]) -> Iterator[str]:
    """The URL of a migrated database of this test's own.

    Migrated as ``@pytest.mark.smp_pipeline(lifecycle=MyLifecycle)`` says, on the test, its class or
    its module, else for DocumentLifecycle.
    """
    url = smp_databases.make(**_smp_asked)
    yield url
    smp_databases.drop(url)


@pytest.fixture
def smp_clock(smp_database: str, _smp_asked: Mapping[str, Any]) -> Clock:
    """The clock of this test's pipeline: ``await smp_clock.advance(hours=1)``."""
    from statemachine_pipeline.testing.clock import Clock

    return Clock(smp_database, schema=_smp_asked["schema"])


@pytest.fixture
def smp_pipeline(smp_database: str, _smp_asked: Mapping[str, Any]) -> Callable[..., Pipeline]:
    """Makes pipelines on this test's database, to be entered by ``async with``.

    Takes the options of ``Pipeline``; lifecycle, schema and hooks are those of the marker.
    """
    from statemachine_pipeline.pipeline import Pipeline

    def make(*, hooks: Mapping[str, Any] | None = None, **options: Any) -> Pipeline:
        both = {**(_smp_asked["hooks"] or {}), **(hooks or {})}
        return Pipeline(smp_database, **{**_smp_asked, **options, "hooks": both})

    return make


@pytest.fixture
def _smp_asked(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    marker = request.node.get_closest_marker("smp_pipeline")
    return _asked(*marker.args, **marker.kwargs) if marker else _asked()


def _asked(
    # By name only: pytest takes a mark with nothing but a class for one on that class.
    *,
    lifecycle: type[Lifecycle] | None = None,
    schema: str = "smp",
    hooks: Mapping[str, Any] | None = None,
) -> Mapping[str, Any]:
    from statemachine_pipeline.lifecycle import DocumentLifecycle

    return {"lifecycle": lifecycle or DocumentLifecycle, "schema": schema, "hooks": hooks}
