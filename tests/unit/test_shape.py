"""Limits that a machine keeps: sizes, where state names stand, what the package root may import."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import statemachine_pipeline
from statemachine_pipeline.graph import RESERVED
from statemachine_pipeline.lifecycle import DocumentLifecycle

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(statemachine_pipeline.__file__).parent
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.Match,
)
OTHER_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
HOLDS_BLOCKS = (ast.stmt, ast.excepthandler, ast.match_case)

MODULE_LINES = 350
# Measured when it was listed, with the reason; each may shrink and not grow.
LONG_MODULES = {
    "database/statements/claims.py": (560, "one function per statement, half of it is SQL"),
    "database/statements/content.py": (420, "one function per statement"),
    "database/statements/documents.py": (390, "one function per statement"),
    "database/documents.py": (370, "submit in its three forms, look, apply"),
    "database/tables.py": (670, "all tables of the schema"),
    "decide.py": (515, "one arrow of the flow with its values"),
    "graph.py": (455, "the compiled table and the compiler that fills it"),
    "operations.py": (416, "fourteen documented methods"),
    "pipeline.py": (600, "ten documented methods"),
    "runner/loop.py": (384, "one runner: what it makes, what it claims, how it ends"),
    "runner/wire.py": (375, "both directions of one protocol"),
    "stages.py": (430, "one documented value with its checks, and the table of them"),
    "records.py": (595, "values and their docstrings, no logic"),
}

FUNCTION_LINES = 55
LONG_FUNCTIONS = {
    "database/tables.py:_document": (57, "one table with its indexes"),
    "database/tables.py:_work": (58, "one table with its indexes"),
    "database/statements/claims.py:claim": (61, "one statement with its parameters"),
    "database/statements/documents.py:move": (95, "one statement with its comments"),
    "decide.py:_rest": (60, "one walk, whose every stop is a case of the design"),
}

PUBLIC_METHODS = 10
LARGE_CLASSES = {
    "database/documents.py:Documents": (11, "submit in its three forms, look, apply"),
    "operations.py:Operations": (14, "everything but a Pipeline's ten"),
    "graph.py:Graph": (16, "questions about one immutable table"),
    "pipeline.py:Pipeline": (12, "the ten of the design, migrate and at"),
}

NESTING = 3
DEEP_FUNCTIONS = {
    "adapters/chunkers.py:_passages": 4,
    "adapters/pdf.py:_pages": 4,
}

# A name of a state that is also the name of something else, or known to be for show.
OTHER_USES = {
    "cli/output.py": {"complete", "duplicate", "dead_letter", "cancelled"},  # their colours
    "database/tables.py": {"dead_letter"},  # the table of that name
    "decide.py": {"chunks_stored"},  # the field of Facts of that name
    "graph.py": {"dead_letter", "cancelled", "deleted"},  # reserved names, added around every class
}

PURE = {
    f"{name}.py"
    for name in (
        *("batching", "blobs", "counting", "decide", "errors", "events", "explain"),
        *("failpoints", "failures"),
        *("graph", "hooks", "letters", "lifecycle", "limits", "liveness", "obstacles", "providers"),
        *("pruning", "records", "redaction", "retry", "sources", "stages", "symptoms", "traces"),
        *("vectors", "waits"),
    )
}
IMPORTED_BY_THE_ROOT = {
    "__future__",
    "backoff",
    "builtins",
    "collections",
    "contextlib",
    "contextvars",
    "dataclasses",
    "datetime",
    "email",
    "errno",
    "functools",
    "hashlib",
    "inspect",
    "itertools",
    "json",
    "math",
    "pathlib",
    "re",
    "statemachine",
    "statemachine_pipeline",
    "string",
    "types",
    "typing",
    "uuid",
}


def within(
    found: dict[str, int], limit: int, exceptions: dict[str, tuple[int, str]]
) -> tuple[dict[str, int], set[str]]:
    """Return what is over its limit, and exceptions that are needed no more."""
    over = {
        name: size
        for name, size in found.items()
        if size > (exceptions[name][0] if name in exceptions else limit)
    }
    idle = {name for name in exceptions if found.get(name, 0) <= limit}
    return over, idle


def functions(tree: ast.AST) -> Iterator[Function]:
    """Walk every function and method."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def lines(node: Function) -> int:
    """Count the lines of a function, docstring and comments included."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def depth(node: ast.AST, level: int = 0) -> int:
    """Return how many blocks stand in one another; an ``elif`` is no deeper than its ``if``."""
    deepest = level
    for child in ast.iter_child_nodes(node):
        if isinstance(child, OTHER_SCOPES) or not isinstance(child, HOLDS_BLOCKS):
            continue
        chained = isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If)
        deeper = isinstance(child, BLOCKS) and not chained
        deepest = max(deepest, depth(child, level + deeper))
    return deepest


def public_methods(node: ast.ClassDef) -> int:
    """Count methods without an underscore; properties read like attributes."""
    return sum(
        isinstance(one, Function)
        and not one.name.startswith("_")
        and not any("property" in ast.unparse(decorator) for decorator in one.decorator_list)
        for one in node.body
    )


def imports(tree: ast.Module) -> set[str]:
    """Return the top-level packages a module imports when it runs, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_modules_stay_short() -> None:
    """'Module over 350 lines' is a smell; those that are longer are listed and do not grow."""
    sizes = {name: len((PACKAGE / name).read_text().splitlines()) for name in TREES}
    assert within(sizes, MODULE_LINES, LONG_MODULES) == ({}, set())


def test_functions_stay_short() -> None:
    """'Function over 50' is a smell; those over 55 are listed and do not grow."""
    sizes = {
        f"{name}:{one.name}": lines(one)
        for name, tree in TREES.items()
        for one in sorted(functions(tree), key=lines)
    }
    assert within(sizes, FUNCTION_LINES, LONG_FUNCTIONS) == ({}, set())


def test_classes_have_few_public_methods() -> None:
    """'No class over ten public methods'; those that have more are listed and do not grow."""
    sizes = {
        f"{name}:{node.name}": public_methods(node)
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    assert within(sizes, PUBLIC_METHODS, LARGE_CLASSES) == ({}, set())


def test_blocks_are_nested_three_deep_at_most() -> None:
    """'Nesting over 3' is a smell; the few functions with four are listed."""
    depths = {
        f"{name}:{one.name}": depth(one)
        for name, tree in TREES.items()
        for one in sorted(functions(tree), key=depth)
    }
    deep = {name: found for name, found in depths.items() if found > NESTING}
    assert deep == DEEP_FUNCTIONS


def test_only_the_lifecycle_writes_state_names() -> None:
    """'lifecycle.py alone writes state names', so that a state can be renamed in one place."""
    states = set(DocumentLifecycle.graph.states)
    written = {
        name: found
        for name, tree in TREES.items()
        if (
            found := {
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and node.value in states
            }
            - OTHER_USES.get(name, set())
        )
    }
    assert written == {}
    assert OTHER_USES["graph.py"] <= RESERVED


@pytest.mark.parametrize("module", sorted(PURE))
def test_the_package_root_does_no_io(module: str) -> None:
    """'The root imports no SQLAlchemy, asyncio, httpx or loguru', nor anything else unlisted."""
    assert imports(ast.parse((PACKAGE / module).read_text())) <= IMPORTED_BY_THE_ROOT


def test_every_module_of_the_root_is_known_as_pure_or_not() -> None:
    """'pipeline.py excepted' with its operations, the package itself and ``python -m``."""
    root = {name for name in TREES if "/" not in name}
    assert root - PURE == {
        *("__init__.py", "__main__.py"),
        *("blocking.py", "operations.py", "pipeline.py", "searching.py"),
    }


def test_importing_the_package_is_light() -> None:
    """'Public names in story order, lazy where heavy': its module imports nothing but importlib."""
    assert imports(ast.parse((PACKAGE / "__init__.py").read_text())) == {
        "__future__",
        "importlib",
        "typing",
    }


DEEP = """
def one(a):
    for b in a:
        if b:
            while b:
                with b: pass
        elif a: pass
        else: pass
"""


def test_the_measures_measure() -> None:
    """'Every test can fail': the rulers are right on a small example."""
    tree = ast.parse(DEEP)
    (one,) = functions(tree)
    assert (lines(one), depth(one)) == (7, 4)
    chain = ast.parse("def f(a):\n    if a: pass\n    elif b: pass\n    elif c: pass")
    assert depth(next(functions(chain))) == 1
    held = ast.parse(
        "class C:\n    def a(self): ...\n    @property\n    def b(self): ...\n    x = 1"
    )
    assert [public_methods(n) for n in ast.walk(held) if isinstance(n, ast.ClassDef)] == [1]
    guarded = ast.parse("import re\nif TYPE_CHECKING:\n    import sqlalchemy\nfrom a.b import c")
    assert imports(guarded) == {"re", "a"}
    over, idle = within({"x": 5, "y": 3, "z": 1}, 2, {"y": (3, "long"), "z": (9, "short by now")})
    assert (over, idle) == ({"x": 5}, {"z"})
