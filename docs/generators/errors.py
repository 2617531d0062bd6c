"""The page of errors: what is raised on purpose, and what hooks raise to tell their outcome."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from generators.docstrings import described, member, tidy


def page(note: str) -> str:
    """Return the page."""
    return tidy(note, _page())


def _page() -> Iterator[str]:
    yield "# Errors\n"
    yield "Everything raised on purpose is a `PipelineError`; import them from"
    yield "`statemachine_pipeline.errors`."
    yield "A message says what was asked, what was found and what to do."
    yield "No error of a driver or library gets out unmapped, except from your own hooks, whose"
    yield "errors become outcomes of their stage.\n"
    errors = _classes(member("errors"))
    yield from _tree(errors)
    for error in errors:
        yield f"\n## {error.name}"
        yield from described(error)
    yield "\n## What a hook raises\n"
    yield "Signals are no errors: they tell the runner what came of an attempt."
    yield "Import them from the package itself."
    for signal in _classes(member("hooks")):
        if [str(base) for base in signal.bases] == ["Signal"]:
            yield f"\n### {signal.name}"
            yield from described(signal)


def _classes(module: Any) -> list[Any]:
    return [
        thing
        for name, thing in module.members.items()
        if not thing.is_alias and thing.is_class and not name.startswith("_")
    ]


def _tree(errors: list[Any]) -> Iterator[str]:
    yield "```text"
    yield from _branch("PipelineError", errors, 0)
    yield "```"


def _branch(name: str, errors: list[Any], depth: int) -> Iterator[str]:
    yield f"{'    ' * depth}{name}"
    for error in errors:
        if name in [str(base) for base in error.bases]:
            yield from _branch(error.name, errors, depth + 1)
