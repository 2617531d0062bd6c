"""Commands of ours that a file tells somebody to run, or runs: do verb and options exist?"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import typer.main

from statemachine_pipeline.cli.verbs import app

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAM = "statemachine-pipeline"
EVERYWHERE = {"--app", "--database", "--schema", "--blobs"}
_COMMAND = re.compile(rf"(?:^|[\s`/]){PROGRAM} (?P<rest>[^`|>#\n]*)", re.MULTILINE)


def known() -> dict[str, set[str]]:
    """Return the options of every verb."""
    group = typer.main.get_command(app)
    verbs = group.commands  # type: ignore[attr-defined]
    return {
        name: {flag for one in verb.params for flag in (*one.opts, *one.secondary_opts)}
        for name, verb in verbs.items()
    }


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in a text, without the program's own name."""
    for found in _COMMAND.finditer(text):
        words = shlex.split(found["rest"].replace("…", ""), comments=True)
        if words:
            yield words


def mistaken(words: Sequence[str]) -> str | None:
    """Return what is wrong with a command; None for nothing."""
    rest = list(words)
    while rest and rest[0] in EVERYWHERE:
        rest = rest[2:]
    verbs = known()
    if not rest or rest[0] not in verbs:
        return f"no verb: {' '.join(words)}"
    flags = {word.partition("=")[0] for word in rest[1:] if word.startswith("--")}
    unknown = flags - verbs[rest[0]] - EVERYWHERE
    return f"{rest[0]} has no {', '.join(sorted(unknown))}" if unknown else None
