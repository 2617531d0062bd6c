"""The SQL of every statement, as files to be read and reviewed: ``tests/sql``.

``pytest tests/unit/test_statements.py --update-sql`` writes them anew.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.dialects.postgresql.psycopg import dialect

from statemachine_pipeline.database import statements
from statemachine_pipeline.database.tables import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SQL = Path(__file__).resolve().parents[1] / "sql"
T = tables("smp")

# Two stages, the second of which is led to by a state where nothing is to be earned.
PLACES = [("queue_parse", ("uploaded",)), ("store_chunks", ("parse_validated", "pii_redacted"))]
ASKING = {"store_chunks": "somebody"}
NEAREST = {"embedder": 1, "dimensions": 256}
NARROW = ("contains", "matches", "groups", "documents", "chunk_contains", "chunk_matches")
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "claims.claim": {
        "": {"stages": PLACES, "alone": False},
        ".alone": {"stages": PLACES, "alone": True},
        ".provider": {"stages": PLACES, "alone": False, "providers": ASKING},
        ".probing": {"stages": PLACES[1:], "alone": False, "providers": ASKING, "probing": True},
    },
    "claims.extend": {"": {"skip_locked": False}, ".skip_locked": {"skip_locked": True}},
    "claims.hold": {"": {"skip_locked": False}, ".skip_locked": {"skip_locked": True}},
    "claims.settle": {"": {"skip_locked": False}, ".skip_locked": {"skip_locked": True}},
    "search.matching": {"": {}, ".narrow": {"narrow": NARROW}},
    "search.nearest": {
        "": NEAREST,
        ".exact": NEAREST | {"exact": True},
        ".narrow": NEAREST | {"narrow": NARROW},
    },
    "search.size": {"": {}, ".narrow": {"narrow": NARROW}},
    "listings.groups": {f".{by}": {"by": by} for by in ("state", "stage", "tenant", "code")},
    "usage.spent": {f".{by}": {"by": by} for by in ("tenant", "day", "stage", "document")},
    "keys.owners": {"": {"lock": False}, ".lock": {"lock": True}},
}
NO_STATEMENTS = {"levels", "rows", "turns"}
_CLAUSES = re.compile(
    r"(?<!DELETE)(?<!OUTER)(?<!DO UPDATE) "
    r"(?=(?:FROM|WHERE|ORDER BY|GROUP BY|LIMIT|FOR NO KEY|FOR SHARE|FOR UPDATE|SET|VALUES|"
    r"SELECT|RETURNING|ON CONFLICT|UNION ALL|LEFT OUTER JOIN|JOIN)\b)"
)


def _functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for found in pkgutil.iter_modules(statements.__path__):
        if found.name in NO_STATEMENTS:
            continue
        module = importlib.import_module(f"{statements.__name__}.{found.name}")
        for name, function in inspect.getmembers(module, inspect.isroutine):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                yield f"{found.name}.{name}", function


def _compiled(statement: Any) -> str:
    text = str(statement.compile(dialect=dialect()))
    lines = [line.strip() for line in _CLAUSES.sub("\n", text).splitlines()]
    return "\n".join(line for line in lines if line) + ";\n"


def _statements() -> dict[str, list[Any]]:
    """Return what every file should hold, by name."""
    files = {}
    for name, function in _functions():
        for variant, options in VARIANTS.get(name, {"": {}}).items():
            made = function(T, **options)
            files[f"{name}{variant}.sql"] = made if isinstance(made, list) else [made]
    return files


STATEMENTS = _statements()
FILES = {name: "\n".join(map(_compiled, several)) for name, several in STATEMENTS.items()}


@pytest.fixture(scope="module", autouse=True)
def _updated(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--update-sql"):
        return
    SQL.mkdir(exist_ok=True)
    for old in SQL.glob("*.sql"):
        old.unlink()
    for name, text in FILES.items():
        (SQL / name).write_text(text)


@pytest.mark.parametrize("name", FILES)
def test_a_statement_is_the_one_that_was_reviewed(name: str) -> None:
    """Each statement's compiled text is a golden file, so that changes show as diffs of SQL."""
    assert (SQL / name).exists(), f"{name} is missing: run with --update-sql"
    assert (SQL / name).read_text() == FILES[name], "run with --update-sql and review the diff"


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_is_compiled_once(name: str) -> None:
    """Without a cache key SQLAlchemy compiles it anew each time: a claim for 8 ms."""
    assert all(one._generate_cache_key() is not None for one in STATEMENTS[name])


def test_no_file_is_left_of_a_statement_that_has_gone() -> None:
    """``tests/sql`` holds the statements there are, and nothing else."""
    assert {path.name for path in SQL.iterdir()} == set(FILES)


def test_every_variant_belongs_to_a_statement() -> None:
    """A renamed statement takes its variants along."""
    assert set(VARIANTS) <= {name for name, _ in _functions()}


@pytest.mark.parametrize("name", FILES)
def test_a_limit_or_a_lock_of_many_rows_comes_with_an_order(name: str) -> None:
    """One written lock order: rows are locked in an order, and a LIMIT says which rows."""
    for part in re.split(r"\n(?=WITH|SELECT|INSERT|UPDATE|DELETE)", FILES[name]):
        if re.search(r"\bFOR (?:NO KEY )?(?:UPDATE|SHARE)\b", part):
            assert "ORDER BY" in part


@pytest.mark.parametrize("name", FILES)
def test_the_predicate_of_a_partial_index_is_a_literal(name: str) -> None:
    """A bound parameter in place of a lane would lose the index under a generic plan."""
    if name.startswith(("claims.settle", "documents.")):
        return  # these find work by its key, and compare lanes of what they were given
    assert not re.search(r"\blane = %\(", FILES[name])


def test_a_statement_does_not_depend_on_the_size_of_its_batch() -> None:
    """Batches travel as arrays, so that each statement is prepared once."""
    assert not any("POSTCOMPILE" in text for text in FILES.values())
