"""The command line: verbs over `Pipeline`, nothing that a library user could not do.

stdout carries data, stderr talk. What a verb needs is imported when the verb runs, so that `--help`
is quick. This package holds no SQL and decides nothing about documents.

An exec probe is answered before typer is imported.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.cli import asking

if TYPE_CHECKING:
    from statemachine_pipeline.cli.verbs import app

__all__ = ["app", "main"]

_FULL = {errno.ENOSPC, errno.EDQUOT}


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from statemachine_pipeline.cli.verbs import app

    return app


def main() -> None:
    """Run the command line and leave with its exit code."""
    if probe := asking.asked_for(sys.argv[1:]):
        asking.ask(*probe)
    from statemachine_pipeline.cli.verbs import app

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a poor locale is no reason to fail
    try:
        app(prog_name="statemachine-pipeline")
    except OSError as error:
        _leave(error)
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            _leave(error)


def _leave(error: OSError) -> None:
    """End when our output goes nowhere; the interpreter must not flush to it again.

    Whoever read it may have gone, which is no failure; or the disk may be full.
    """
    if not isinstance(error, BrokenPipeError) and error.errno not in _FULL:
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        raise SystemExit(0)
    print(f"error: cannot write: {error.strerror}", file=sys.stderr)  # noqa: T201
    raise SystemExit(1)
