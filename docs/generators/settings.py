"""The page of settings: the environment, pyproject.toml, and the numbers of stages and workers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from generators.docstrings import PACKAGE, ROOT, first_line, inline, member, tidy

VARIABLES = {
    "SMP_DATABASE": "The database's URL, for the command line; before `DATABASE_URL`.",
    "DATABASE_URL": "The same, as hosts name it.",
    "SMP_SCHEMA": "The PostgreSQL schema, for the command line; `smp` without it.",
    "SMP_APP": "`module:pipeline`, your own Pipeline for the command line.",
    "SMP_BLOBS": "Where bytes are kept, for the command line: `s3://bucket/prefix` and the like.",
    "SMP_LOG_FORMAT": "How `worker` and `exporter` log: `text` or `json`.",
    "SMP_LOG_LEVEL": "The lowest level that they log: `DEBUG`, `INFO`, `WARNING` or `ERROR`.",
    "SMP_PG_USER": "The account under which root runs the embedded server.",
    "SMP_PG_BIN": "A folder of PostgreSQL programs to use instead of the wheel's.",
    "SMP_TEST_DATABASE": "The server of the pytest plugin; an embedded one without it.",
    "PGCONNECT_TIMEOUT": "Seconds to wait for a connection; 10 on the command line.",
    "LD_LIBRARY_PATH": "Handed on to the embedded server; nothing else of the environment is.",
}
"""Every variable the package reads; a new one without a sentence here stops the generator."""

SETTINGS = (
    "stages.Stage",
    "limits.ProcessLimits",
    "batching.Batch",
    "batching.Limits",
    "providers.Provider",
    "providers.Budget",
    "providers.Breaker",
    "retry.Exponential",
    "retry.Fibonacci",
    "retry.Constant",
    "failures.FailureRule",
    "liveness.Liveness",
    "database.timeouts.Timeouts",
    "oversight.probes.Patience",
    "adapters.reading.Reading",
)
_NAME = re.compile(r"(?:SMP|PG|PGCONNECT|LD)_[A-Z_]+|DATABASE_URL")
_OTHERS = {"PG_VERSION", "PG_GRANDPARENT_PID"}
"""A file of PostgreSQL's, and what the embedded server's own start sets for it."""


def page(note: str) -> str:
    """Return the page."""
    return tidy(note, _page())


def _page() -> Iterator[str]:
    yield "# Settings\n"
    yield "A program passes values; only the command line, the embedded server and the pytest"
    yield "plugin read the environment.\n"
    yield "## Environment\n"
    yield "| variable | meaning |"
    yield "|---|---|"
    read = _read()
    unknown, idle = read - set(VARIABLES), set(VARIABLES) - read
    if unknown or idle:
        raise ValueError(
            f"described but not read: {idle or '-'}; read but not described: {unknown}"
        )
    for name, meaning in VARIABLES.items():
        yield f"| `{name}` | {meaning} |"
    yield "\n## pyproject.toml\n"
    yield '`[tool.statemachine-pipeline]` with `app = "module:pipeline"` does what `SMP_APP` does,'
    yield "in the folder it stands in."
    for path in SETTINGS:
        yield from _fields(path)


def _fields(path: str) -> Iterator[str]:
    thing = member(path)
    module = thing.path.rpartition(".")[0]
    yield f"\n## {thing.name}\n"
    yield f"`{module}.{thing.name}`: {first_line(thing)}\n"
    yield "| setting | default | meaning |"
    yield "|---|---|---|"
    for section in thing.docstring.parse("google"):
        if section.kind.value != "attributes":
            continue
        for item in section.value:
            field = thing.members[item.name]
            is_given = not str(field.value or "").startswith("dataclasses.field(init=False")
            if is_given:
                default = f"`{field.value}`" if field.value is not None else ""
                yield f"| `{item.name}` | {default} | {inline(item.description)} |"


def _read() -> set[str]:
    """Find every name of an environment variable that stands in the package as a string."""
    found: set[str] = set()
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} if _NAME.fullmatch(node.value) else set()
    return found - _OTHERS
