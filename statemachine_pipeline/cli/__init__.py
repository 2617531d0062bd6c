"""The command line: verbs over `Pipeline`, nothing that a library user could not do.

stdout carries data, stderr talk. What a verb needs is imported when the verb runs, so that `--help`
is quick. This package holds no SQL and decides nothing about documents.

An exec probe is answered before typer is imported.
"""

from __future__ import annotations

import errno
import io
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
    _prepare_streams()
    if probe := asking.asked_for(sys.argv[1:]):
        asking.ask(*probe)
    from statemachine_pipeline.cli.verbs import app

    try:
        app(prog_name="statemachine-pipeline")
    except OSError as error:
        _leave(error)
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            _leave(error)


class _Unread(io.FileIO):
    """Output whose reader may go before its end: that is no failure, and no other exit code."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


def _prepare_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a poor locale is no reason to fail
    told = sys.stdout
    if isinstance(told, io.TextIOWrapper) and not told.isatty():
        unread = _Unread(told.fileno(), "w", closefd=False)
        sys.stdout = io.TextIOWrapper(
            unread if told.write_through else io.BufferedWriter(unread),  # as `python -u` has it
            encoding=told.encoding,
            errors=told.errors,
            line_buffering=told.line_buffering,
            write_through=told.write_through,
        )


def _leave(error: OSError) -> None:
    """End when the disk is full that our output goes to; the interpreter must not flush again."""
    if error.errno not in _FULL:
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(f"error: cannot write: {error.strerror}", file=sys.stderr)  # noqa: T201
    raise SystemExit(1)
