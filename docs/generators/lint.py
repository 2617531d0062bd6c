"""The page of lint: its rules, how ways out of a state are judged, and what needs no rule."""

from __future__ import annotations

from collections.abc import Iterator

from generators.docstrings import described, inline, member, signature, tidy
from statemachine_pipeline.testing.linting.findings import CATALOGUE, REFUSED

EXPLAINED = {
    "How ways out are judged": "choices",
    "What guards can know": "knowledge",
    "What is seen of a guard": "purity",
    "How witnesses are found": "witnesses",
    "What is left out": "guards",
}
ASSERTS = ("assert_lint_clean", "lint", "assert_precedes")


def page(note: str) -> str:
    """Return the page."""
    return tidy(note, _page())


def _page() -> Iterator[str]:
    yield "# Lint\n"
    yield "A class that could be made may still lose documents: a branch nobody thought of, a guard"
    yield "that reads the clock. Lint finds it without a database, and says what to do.\n"
    yield "```python"
    yield "from statemachine_pipeline import DocumentLifecycle"
    yield "from statemachine_pipeline.testing import assert_lint_clean\n"
    yield "assert_lint_clean(DocumentLifecycle, hooks={})  # {} are the shipped ones"
    yield "```\n"
    yield "On the command line: `statemachine-pipeline lint module:Class`, or `--app"
    yield "module:pipeline` with its hooks. Both need the extra `testing`.\n"
    yield "| rule | what is wrong | looked for |"
    yield "|---|---|---|"
    for name, rule in CATALOGUE.items():
        asked = "when hooks are given" if rule.asks_hooks else "always"
        yield f"| [{name}](#{name.lower()}) | {rule.title} | {asked} |"
    for name, rule in CATALOGUE.items():
        yield f"\n## {name}\n"
        yield f"{rule.title}. {inline(rule.why)}\n"
        yield f"What to do: {inline(rule.advice)}"
    for title, module in EXPLAINED.items():
        text = member(f"testing.linting.{module}").docstring.value
        yield f"\n## {title}\n"
        # The first paragraph says what the module is, which is for readers of the code.
        yield text.split("\n\n", 1)[1].replace("``", "`")
    yield "\n## What needs no rule\n"
    yield "The class, or its hooks, are refused with a `DefinitionError`:\n"
    yield "| number | what cannot be |"
    yield "|---|---|"
    yield from (f"| {name} | {what} |" for name, what in REFUSED.items())
    yield "\nThat a graph changed is told when a pipeline opens, with the difference."
    for name in ASSERTS:
        thing = member(f"testing.linting.lint.{name}")
        yield f"\n## {name}\n"
        yield f"```text\n{signature(thing, name)}\n```"
        yield from described(thing)
