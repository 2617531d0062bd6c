"""The page of public names: what can be imported from the package, and what it hands out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from generators.docstrings import PACKAGE, described, first_line, member, package, signature, tidy

HANDED_OUT = (
    *("operations", "blocking", "events", "records", "letters", "hooks", "stages"),
    *("failures", "retry", "blobs", "pruning", "observability.metrics"),
    *("oversight.oversight", "oversight.status", "oversight.probes"),
    *("oversight.doctor", "oversight.workers"),
    *("oversight.top", "oversight.bottleneck"),
    *("database.load", "database.listings", "database.usage", "database.migrated"),
)
"""Modules whose public classes are met as values, protocols and settings."""
SHIPPED = "adapters"
TESTING = "testing"
_INTERNAL = {
    "statemachine_pipeline.database.listings.Listings",
    "statemachine_pipeline.events.Place",
    "statemachine_pipeline.failures.Verdict",
    "statemachine_pipeline.letters.Matching",
    "statemachine_pipeline.pruning.Ties",
}
_SILENT = {"__init__", "__aenter__", "__aexit__"}


def page(note: str) -> str:
    """Return the page."""
    return tidy(note, _page())


def testing_page(note: str) -> str:
    """Return the page of what tests import."""
    return tidy(note, _testing())


def _testing() -> Iterator[str]:
    tested = member(TESTING)
    yield "# Testing names\n"
    yield f"What `{PACKAGE}.{TESTING}` is imported for; it needs the extra `testing`."
    yield "[Test your pipeline](../how-to/test-your-pipeline.md) shows each at work."
    for name in _exported(tested):
        yield from _entry(name, member(f"{TESTING}.{name}"))


def _exported(module: Any) -> list[str]:
    return [str(name).strip("'\"") for name in module["__all__"].value.elements]


def _page() -> Iterator[str]:
    yield "# Public names\n"
    yield f"What `{PACKAGE}` is imported for, then what it hands out and the hooks it ships."
    yield "A name that is not here may change without a word in the changelog."
    root = _exported(package())
    yield "\n## Imported from the package\n"
    seen = set()
    for name in root:
        if name == "State":
            yield "\n### State\n\n`State` of python-statemachine, for its states' declarations."
            continue
        thing = member(name)
        seen.add(thing.path)
        yield from _entry(name, thing)
    for module in HANDED_OUT:
        found = [t for t in _classes(member(module)) if t.path not in seen]
        if found:
            yield f"\n## From `{PACKAGE}.{module}`\n"
        for thing in found:
            yield from _entry(thing.name, thing)
    yield "\n## Hooks that are shipped\n"
    yield "| class | module | what it does |"
    yield "|---|---|---|"
    for module in member(SHIPPED).modules.values():
        for thing in _classes(module):
            if thing.docstring is not None:
                yield f"| `{thing.name}` | `{module.path}` | {first_line(thing)} |"


def _classes(module: Any) -> Iterator[Any]:
    for name, thing in module.members.items():
        is_internal = name.startswith("_") or thing.path in _INTERNAL
        if not thing.is_alias and thing.is_class and not is_internal:
            yield thing


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield f"\n### {name}\n"
    if thing.is_attribute:
        yield first_line(thing) or f"`{thing.value}`"
        return
    call = _call(name, thing)
    if call:
        yield f"```text\n{call}\n```"
    yield from described(thing)
    if thing.is_class:
        yield from _methods(thing)


def _call(name: str, thing: Any) -> str | None:
    if thing.is_function:
        return signature(thing, name)
    made = thing.members.get("__init__")
    if made is None or made.is_alias:
        return None
    return signature(made, "").replace("(", f"{name}(", 1)


def _methods(thing: Any) -> Iterator[str]:
    for name, method in thing.members.items():
        if name.startswith("_") or method.is_alias or name in _SILENT:
            continue
        if method.is_function:
            yield f"\n#### {thing.name}.{name}\n"
            yield f"```text\n{signature(method, name)}\n```"
            yield from described(method)
        elif "property" in method.labels:
            yield f"\n#### {thing.name}.{name}\n"
            yield from described(method)
