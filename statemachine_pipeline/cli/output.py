"""What the command line writes: data on stdout, talk on stderr, nothing a terminal would obey."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Controls, invisible marks that reorder text, halves of characters, unusual line ends."""

_GOOD, _BAD, _RESTING = "green", "red", "yellow"
_COLOURS = {
    "complete": _GOOD,
    "dead_letter": _BAD,
    "refused": _BAD,
    "duplicate": _RESTING,
    "cancelled": _RESTING,
    "ok": _GOOD,
    "warn": _RESTING,
    "fail": _BAD,
    "alive": _GOOD,
    "silent": _BAD,
}


def plain(text: object) -> str:
    r"""Return text on one line in which no terminal finds an order.

    White space of any kind becomes one blank; other control characters are shown as escapes.

    >>> plain("two\nlines and \x1b[31mred")
    'two lines and \\x1b[31mred'
    """
    words = " ".join(str(text).split())
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _HARMFUL else c
        for c in words
    )


_speaker = ""
_listener: Callable[[str, bool], None] | None = None


def speak_as(name: str) -> None:
    """Begin what this process says with a name, because others share its stderr."""
    global _speaker  # noqa: PLW0603 - one process, one name
    _speaker = f"{name}: "


def speaker() -> str:
    """Return what begins a line of this process."""
    return _speaker


def say_through(listener: Callable[[str, bool], None]) -> None:
    """Hand from now on to a log what would be said to people, because programs read stderr.

    Args:
        listener: Takes a text, and whether it tells of a failure.
    """
    global _listener  # noqa: PLW0603 - one process, one stderr
    _listener = listener


def say(text: str, *, fails: bool = False) -> None:
    """Tell people something, on stderr; ``fails`` where it tells of a failure."""
    if _listener is not None:
        _listener(plain(text), fails)
        return
    words = _speaker + plain(text)
    with contextlib.suppress(OSError, ValueError):  # nobody listens any more
        print(words, file=sys.stderr, flush=True)  # noqa: T201 - this is where printing is done


def line(text: str = "") -> None:
    """Write a line of data, which has to be `plain` already."""
    print(text)  # noqa: T201


def raw(text: str) -> None:
    """Write what a terminal shall obey, and nothing else."""
    print(text, end="")  # noqa: T201


def paragraph(text: str, indent: str) -> None:
    """Write text in lines that fit the terminal, or 100 characters."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    for part in textwrap.wrap(plain(text), width, initial_indent=indent, subsequent_indent=indent):
        line(part)


def emit(value: object) -> None:
    """Write a value as one line of JSON, in ASCII."""
    line(json.dumps(jsonable(value)))


def jsonable(value: object) -> Any:
    """Return records as JSON values: field by field, times as ISO 8601, ids as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(one) for key, one in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [jsonable(one) for one in value]
    return value


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, state: int = -1) -> None:
    """Write rows in columns; the last column may be as long as it likes.

    Args:
        headings: One per column.
        rows: Cells; numbers stand to the right.
        state: Index of the column to be coloured on a terminal; -1 for none.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    columns = list(zip(headings, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [
        bool(rows) and all(isinstance(row[index], int) for row in rows)
        for index in range(len(headings))
    ]

    def shown(row: Sequence[str]) -> list[str]:
        return [
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(row, widths, right, strict=True)
        ]

    if not sys.stdout.isatty():
        for row in [list(headings), *cells]:
            line("  ".join(shown(row)).rstrip())
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    console.print(Text("  ".join(shown(headings)).rstrip(), style="bold"))
    for row in cells:
        styled = [Text(cell) for cell in (*shown(row)[:-1], row[-1])]
        if state >= 0:
            styled[state].stylize(_COLOURS.get(row[state], ""))
        console.print(Text("  ").join(styled))
