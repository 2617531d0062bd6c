"""The page of the log: the fields of a line, and the closed list of what happens."""

from __future__ import annotations

from collections.abc import Iterator

from generators.docstrings import tidy
from statemachine_pipeline.observability.lines import (
    ALWAYS,
    BODY_CHARS,
    EXTRAS,
    SOMETIMES,
    STACK_CHARS,
    VALUE_CHARS,
)
from statemachine_pipeline.observability.log_events import LOG_EVENTS
from statemachine_pipeline.runner.errands import LINES


def page(note: str) -> str:
    """Return the page."""
    return tidy(note, _page())


def _page() -> Iterator[str]:
    yield "# The log\n"
    yield "`configure_logging()` writes one line for each thing that happens; without it the"
    yield "package is silent. [Read the logs](../how-to/read-the-logs.md) shows how to use it.\n"
    yield "## Fields\n"
    yield 'With `format="json"` a line is one flat JSON object in ASCII. A field that is not known,'
    yield "or has no meaning for the line, is left out. No other fields are added but `extra.*`.\n"
    yield "On every line:\n"
    yield "| field | what it holds |"
    yield "|---|---|"
    for name, says in ALWAYS.items():
        yield f"| `{name}` | {says} |"
    yield "\nWhere it is known:\n"
    yield "| field | what it holds |"
    yield "|---|---|"
    for field, says in SOMETIMES.values():
        yield f"| `{field}` | {says} |"
    yield f"| `extra.*` | What a hook bound to its line, at most {EXTRAS} values. |"
    yield f"\nA `body` has at most {BODY_CHARS:,} characters, another text {VALUE_CHARS:,} and a"
    yield f"stack trace {STACK_CHARS:,}; of one call in a child process come at most {LINES:,}"
    yield "lines."
    yield "Values are texts, numbers, true and false; of anything else the line names the type.\n"
    yield "## Events\n"
    yield "The package's own lines have one of these as `event_name`, always with the same level;"
    yield "lines of hooks, of libraries and of the command line's talk have none.\n"
    yield "| event | level | when |"
    yield "|---|---|---|"
    for event in LOG_EVENTS:
        yield f"| `{event.name}` | {event.level} | {event.says} |"
