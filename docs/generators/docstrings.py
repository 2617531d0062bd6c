"""Docstrings in Google's form as Markdown, read without importing what they describe."""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import griffe

PACKAGE = "statemachine_pipeline"
LINE = 88
ROOT = Path(__file__).resolve().parents[2]
_REFERENCE = re.compile(r"``([^`]+)``")
_TITLES = {
    "parameters": "Takes",
    "attributes": "Attributes",
    "returns": "Returns",
    "yields": "Yields",
    "raises": "Raises",
}


@functools.cache
def package() -> griffe.Module:
    """Read the whole package from its source."""
    found = griffe.load(PACKAGE, search_paths=[ROOT], docstring_parser="google")
    if not isinstance(found, griffe.Module):
        raise TypeError(f"{PACKAGE} is no package")
    return found


def member(path: str) -> Any:
    """Return what stands at a dotted path below the package."""
    found: Any = package()[path]
    return found.final_target if found.is_alias else found


def tidy(note: str, lines: Iterable[str]) -> str:
    """Join a page's lines, with one blank line at most between two."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join([note, *lines])) + "\n"


def first_line(thing: Any) -> str:
    """Return what a thing does, in one line."""
    text = thing.docstring.value if thing.docstring else ""
    return inline(text.strip().split("\n\n", 1)[0])


def inline(text: str) -> str:
    """Return text on one line with Markdown's code marks, fit for a table."""
    return _REFERENCE.sub(r"`\1`", " ".join(text.split())).replace("|", "\\|")


def described(thing: Any) -> Iterator[str]:
    """Yield a docstring's parts as Markdown: text, then a list for each section."""
    if thing.docstring is None:
        return
    for section in thing.docstring.parse("google"):
        kind = section.kind.value
        if kind == "text":
            yield from _text(section.value)
        elif kind == "examples":
            yield from _examples(section.value)
        elif kind == "admonition":
            yield f"\n{section.title}: {inline(section.value.description)}"
        elif kind in _TITLES:
            yield f"\n{_TITLES[kind]}:\n"
            yield from (f"* {_item(kind, item)}" for item in section.value)


def _text(text: str) -> Iterator[str]:
    if ">>>" in text:
        yield f"\n```pycon\n{textwrap.dedent(text).strip()}\n```"
        return
    yield ""
    yield _REFERENCE.sub(r"`\1`", text).strip()


def _examples(parts: Any) -> Iterator[str]:
    for kind, text in parts:
        shown = text.strip()
        yield f"\n```pycon\n{shown}\n```" if kind.value == "examples" else f"\n{inline(shown)}"


def _item(kind: str, item: Any) -> str:
    meaning = inline(item.description)
    name = getattr(item, "name", "")
    if kind == "raises":
        return f"`{item.annotation}`: {meaning}"
    if kind in {"returns", "yields"}:
        return meaning if not name else f"{name}: {meaning}"
    return f"`{name}`: {meaning}"


def signature(function: Any, name: str) -> str:
    """Return how a function is called, over several lines when it is long."""
    shown = [_parameter(p) for p in function.parameters if p.name not in {"self", "cls"}]
    starred = _with_marks([p for p in function.parameters if p.name not in {"self", "cls"}], shown)
    returns = f" -> {function.returns}" if function.returns and name != "" else ""
    prefix = "async " if "async" in function.labels else ""
    line = f"{prefix}{name}({', '.join(starred)}){returns}"
    if len(line) <= LINE:
        return line
    inner = "".join(f"    {one},\n" for one in starred)
    return f"{prefix}{name}(\n{inner}){returns}"


def _with_marks(parameters: list[Any], shown: list[str]) -> list[str]:
    marked: list[str] = []
    keywords = False
    for parameter, text in zip(parameters, shown, strict=True):
        kind = parameter.kind.value
        if kind == "keyword-only" and not keywords:
            if not any(p.kind.value == "variadic positional" for p in parameters):
                marked.append("*")
            keywords = True
        marked.append(text)
        if kind == "variadic positional":
            keywords = True
    return marked


def _parameter(parameter: Any) -> str:
    stars = {"variadic positional": "*", "variadic keyword": "**"}.get(parameter.kind.value, "")
    text = f"{stars}{parameter.name}"
    if parameter.annotation is not None:
        text += f": {parameter.annotation}"
    if parameter.default is not None and not stars:
        text += f" = {parameter.default}" if parameter.annotation is not None else "..."
    return text
