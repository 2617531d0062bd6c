"""What an application calls to see the log: ``configure_logging``."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TextIO, get_args

from loguru import logger

from statemachine_pipeline.observability.interception import intercept
from statemachine_pipeline.observability.lines import as_json, as_text
from statemachine_pipeline.observability.noting import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from loguru import Message, Record

Level = Literal["TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL"]
_LOGURUS_OWN: Final = 0


class Stream(Protocol):
    """Where lines can be written."""

    def write(self, text: str, /) -> object:
        """Take a line with its end."""


@dataclasses.dataclass(slots=True)
class _Standing:
    """What ``configure_logging`` was asked for last."""

    handler: int | None = None
    file: _File | None = None
    level: int | None = None
    is_left: bool = False


_standing: Final = _Standing()


def configure_logging(
    *,
    format: Literal["json", "text"] = "json",  # noqa: A002 - as logging.basicConfig names it
    level: Level = "INFO",
    sink: Literal["stderr", "stdout"] | Path | Stream = "stderr",
    alone: bool = False,
) -> None:
    """Log what the pipeline does, and what hooks and libraries log meanwhile; one line each.

    Until it is called the package says nothing. Called again it replaces what it did before, so
    that no line comes twice. loguru's own sink, which shows the values of variables, is removed;
    sinks and handlers that the application added stay, and are told the package's lines too.

    What the standard library's ``logging`` is told comes along under its own name: the root logger
    gets a handler and this level.

    On every line secrets are masked by their shape, exceptions are types and frames without what
    they say, and control characters are escaped. The fields are in docs/reference/logs.md.

    In a child process of a stage nothing happens: its worker writes its lines.

    Args:
        format: ``json``, a flat object on each line; or ``text`` for people, coloured on a terminal
            unless ``NO_COLOR`` is set.
        level: The lowest that is logged. Stages begin at DEBUG and end at INFO.
        sink: ``"stderr"`` or ``"stdout"``, as they are when a line is written; a file, which is
            opened again after it was moved away; or what has a ``write``.
        alone: Remove every other sink of loguru's and handler of the root logger.

    Raises:
        ValueError: There is no such format, level or sink.
        OSError: The file cannot be opened; nothing was changed.
    """
    number = _number(level)
    if format not in {"json", "text"}:
        raise ValueError(f"format={format!r} is neither 'json' nor 'text'")
    if _standing.is_left:
        return
    file = _File(sink) if isinstance(sink, Path) else None
    stream = file or _stream(sink)
    if alone:
        logger.remove()
        logging.getLogger().handlers.clear()
    _forget()
    write = _Writer(stream, as_json if format == "json" else _for_people(stream))
    # Its format is never used; a function, so that loguru adds no exception to it.
    handler = logger.add(
        write, level=number, format=lambda _: "", diagnose=False, backtrace=False, catch=False
    )
    _standing.handler, _standing.file, _standing.level = handler, file, number
    intercept(number)
    logger.enable(PACKAGE)


def leave_to_worker() -> None:
    """Write nothing in this process, whatever is configured: a child's lines are its worker's.

    A child imports the module of its hook, and that may configure the log for the application.
    """
    _forget()
    _standing.is_left = True


def level_asked() -> int | None:
    """Return the lowest level that is logged; None where ``configure_logging`` was not called."""
    return _standing.level


def _forget() -> None:
    for handler in (_LOGURUS_OWN, _standing.handler):
        if handler is not None:
            with contextlib.suppress(ValueError):  # somebody removed it
                logger.remove(handler)
    if _standing.file is not None:
        _standing.file.close()
    _standing.handler = _standing.file = _standing.level = None


def _stream(sink: Any) -> Stream:
    if sink in ("stderr", "stdout"):
        return _Standard(sink)
    if not hasattr(sink, "write"):
        raise ValueError(f"sink={sink!r} is neither 'stderr', 'stdout', a Path nor a stream")
    stream: Stream = sink
    return stream


def _number(level: str) -> int:
    try:
        return logger.level(level).no
    except (ValueError, TypeError):
        known = ", ".join(get_args(Level))
        raise ValueError(f"level={level!r} is none of {known}") from None


class _Standard:
    """One of the process's own streams, whichever it is by then."""

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, text: str, /) -> None:
        stream: TextIO = getattr(sys, self._name)
        try:
            stream.write(text)
        except UnicodeEncodeError:  # a terminal that knows few characters
            stream.write(text.encode("ascii", "backslashreplace").decode())
        stream.flush()

    def isatty(self) -> bool:
        stream: TextIO = getattr(sys, self._name)
        return stream.isatty()


class _File:
    """A file that is appended to, and opened again where it was moved or removed."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._open()

    def _open(self) -> None:
        self._stream = self._path.open("a", encoding="utf-8")
        self._status = os.fstat(self._stream.fileno())

    def write(self, text: str, /) -> None:
        if not self._is_there():
            moved = self._stream
            # Where none can be made now, as in a folder that is gone, the next line tries again.
            with contextlib.suppress(OSError):
                self._open()
                moved.close()
        self._stream.write(text)
        self._stream.flush()

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), self._status)
        except OSError:
            return False

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a full disk; it is closed all the same
            self._stream.close()


class _Writer:
    """Writes each record as a line. One that cannot be written is lost: the work goes on."""

    def __init__(self, stream: Stream, line: Callable[[Record], str]) -> None:
        self._stream, self._line = stream, line

    def __call__(self, message: Message) -> None:
        with contextlib.suppress(Exception):
            self._stream.write(self._line(message.record))


def _for_people(stream: Stream) -> Callable[[Record], str]:
    try:
        is_terminal = bool(getattr(stream, "isatty", bool)())
    except (ValueError, AttributeError):  # closed, or not there: a daemon may have no stderr
        is_terminal = False
    return functools.partial(as_text, coloured=is_terminal and not os.environ.get("NO_COLOR"))
