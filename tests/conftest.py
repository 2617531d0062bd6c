"""Options, and the fixtures that every kind of test shares: ``fix_*``."""

from __future__ import annotations

import gc
import os
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXTURES = [
    *("fix_postgres", "fix_blobs", "fix_embedding_server", "fix_proxy", "fix_pgbouncer"),
    "fix_logs",
]
# Pytest finds the package's own plugin by its entry point, unless the package was installed for
# development before it had one.
INSTALLED = entry_points(group="pytest11", name="statemachine_pipeline")
pytest_plugins = FIXTURES if INSTALLED else ["statemachine_pipeline.testing.plugin", *FIXTURES]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that rewrites the golden files."""
    parser.addoption(
        "--update-sql",
        action="store_true",
        help="rewrite tests/sql from the statements, for review as a diff",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave benchmarks out unless they are asked for by ``-m``."""
    if config.option.markexpr:
        return
    measured = [item for item in items if item.get_closest_marker("benchmark")]
    if measured:
        config.hook.pytest_deselected(items=measured)
        items[:] = [item for item in items if item not in measured]


def pytest_collection_finish() -> None:
    """Take what is imported by now out of the collector's rounds: most of it stays to the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one process more than there are cores: much of a test is waiting for others."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """Collect what a module left behind, so that a leak is told of here and not by chance later."""
    yield
    gc.collect()
