"""Reads the fenced blocks of a page and runs them as a reader would, in one folder, in order.

``python`` blocks are run; one that begins with a comment naming a file, ``# hooks.py``, is saved
under that name instead, for the blocks after it. ``bash`` blocks are run too. What a block prints
on stdout is compared with a ``text output`` block straight after it: ids, times, users, workers and
numbers with decimals may differ, and a line of ``...`` stands for any lines. Other languages are
only shown.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from forking import Forking

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_SECONDS = 180

# A reader types all blocks into one shell, so variables last.
_SAME_SHELL = """set -a; if [ -f .variables ]; then . ./.variables; fi
trap 'export -p > .variables' EXIT
"""

_FENCE = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_SAVED_AS = re.compile(r"# (?P<name>[\w-]+\.py)\n")
_VARIES = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # an id
    r"|\d{4}-\d\d-\d\d[ T]?|\d\d:\d\d:\d\d(?:[.,]\d+)?(?:\+\d\d:\d\d| UTC|Z)?"
    r"|-?\d+\.\d+"
    r"|cli:\w+|worker \d+"
)


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: First word after the fence.
        body: Its text.
        line: 1-based line of its fence.
        output: What the page says it prints; None when the page does not say.
    """

    language: str
    body: str
    line: int
    output: str | None = None


def pages() -> list[Path]:
    """Return the README and every page below ``docs``."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in order, each with the output that follows it."""
    text = page.read_text()
    found = list(_FENCE.finditer(text))
    for match, after in zip_longest(found, found[1:]):
        follows = after is not None and after["info"].strip() == "text output"
        yield Block(
            language=match["info"].split()[0],
            body=match["body"],
            line=text.count("\n", 0, match.start()) + 1,
            output=after["body"] if after is not None and follows else None,
        )


def is_run(block: Block) -> bool:
    """Tell whether a block is a program or a command."""
    return block.language in {"python", "bash"}


def run_page(
    page: Path, folder: Path, forking: Forking, extra: Mapping[str, str] | None = None
) -> None:
    """Run every block of a page in ``folder``; raise with page and line when one fails."""
    environment = environment_of_a_reader() | dict(extra or {})
    environment["PATH"] = f"{forking.commands}{os.pathsep}{environment['PATH']}"
    for block in filter(is_run, blocks(page)):
        saved = _SAVED_AS.match(block.body) if block.language == "python" else None
        if saved:
            (folder / saved["name"]).write_text(block.body)
            continue
        where = f"{page.relative_to(ROOT)}:{block.line}"
        printed = _run(block, folder, environment, where, forking)
        if block.output is not None and not agrees(block.output, printed):
            raise AssertionError(f"{where} prints\n{printed}\nbut the page says\n{block.output}")


def environment_of_a_reader() -> dict[str, str]:
    """Return an environment in which the package is installed and nothing of ours is set."""
    ours = ("SMP_", "DATABASE_URL", "PYTEST", "PYTHONPATH", "COV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept["COLUMNS"] = "100"  # as wide as the pages show it, whatever the terminal
    kept["CI"] = "true"  # where Hypothesis draws the same examples in every run
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"}


def _run(
    block: Block, folder: Path, environment: dict[str, str], where: str, forking: Forking
) -> str:
    if block.language == "python":
        done = forking.run(block.body, folder, environment)
    else:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", _SAME_SHELL + block.body],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        raise AssertionError(
            f"{where} ended with {done.returncode}\n{block.body}\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout


def agrees(expected: str, actual: str) -> bool:
    """Compare line by line, leaving out what differs from run to run."""
    wanted, got = _lines(expected), _lines(actual)
    pattern = "\n".join(".*" if line == "..." else re.escape(line) for line in wanted)
    return re.fullmatch(pattern, "\n".join(got), re.DOTALL) is not None


def _lines(text: str) -> list[str]:
    shown = (" ".join(_VARIES.sub("<varies>", line).split()) for line in text.splitlines())
    return [line for line in shown if line]
