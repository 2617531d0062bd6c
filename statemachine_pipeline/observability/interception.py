"""What others log or would print, brought to loguru: the standard library's ``logging`` first."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from loguru import logger

from statemachine_pipeline.observability.protection import protect
from statemachine_pipeline.redaction import type_name

if TYPE_CHECKING:
    from loguru import Record

_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_CHATTY: Final = ("alembic", "httpx", "httpcore")
"""Say at INFO what they are doing: the latter two each request, with its whole URL."""
_LEVELS: Final = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


class Interception(logging.Handler):
    """Hands on to loguru what reaches the root logger."""

    def __init__(self) -> None:
        super().__init__()
        self._busy = threading.local()

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """Have none: it would be taken before loguru's by some, and after it by others."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; nothing happens for one that a sink of loguru's logs meanwhile.

        Where a sink fails, the record is lost: what ``logging`` does then is to print its
        arguments, whatever they are.
        """
        if getattr(self._busy, "is_set", False):
            return
        self._busy.is_set = True
        try:
            with contextlib.suppress(Exception):
                self._hand_on(record)
        finally:
            self._busy.is_set = False

    def _hand_on(self, record: logging.LogRecord) -> None:
        def name(told: Record) -> None:
            told["name"], told["function"] = record.name, record.funcName
            told["line"], told["module"] = record.lineno, record.module

        # By its key: an application may name an extra as bind() names an argument.
        extra: dict[str, Any] = {k: v for k, v in vars(record).items() if k not in _PLAIN}
        told = logger.patch(name).patch(lambda one: one["extra"].update(extra)).patch(protect)
        told.opt(exception=record.exc_info).log(
            _LEVELS.get(record.levelno, record.levelno), _message(record)
        )


def _message(record: logging.LogRecord) -> str:
    """Return the message; where its arguments do not fit, without them."""
    try:
        return _formatted(record)
    except Exception as error:  # noqa: BLE001 - an argument may not even have a text
        told = record.msg if isinstance(record.msg, str) else type_name(type(record.msg))
        return f"{told} (its arguments do not fit: {type_name(type(error))})"


def _formatted(record: logging.LogRecord) -> str:
    """Return the message; of an exception among its arguments only the type."""
    arguments = record.args
    if isinstance(arguments, tuple) and any(isinstance(a, BaseException) for a in arguments):
        return str(record.msg) % tuple(map(_told, arguments))
    if isinstance(arguments, Mapping):
        return str(record.msg) % {name: _told(a) for name, a in arguments.items()}
    if isinstance(record.msg, BaseException):
        return type_name(type(record.msg))
    return record.getMessage()


def _told(argument: object) -> object:
    return type_name(type(argument)) if isinstance(argument, BaseException) else argument


_ours: Final = Interception()


def intercept(level: int) -> None:
    """Bring to loguru what the standard library logs from a level on."""
    root = logging.getLogger()
    if _ours not in root.handlers:
        root.addHandler(_ours)
    root.setLevel(level)
    for name in _CHATTY:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)


def catch_strays() -> None:
    """Log what Python would print by itself, with all that an exception says.

    Warnings, and exceptions that end a thread or are raised where nobody can catch them. For a
    process that is the package's own: an application may have its own way with them.
    """
    logging.captureWarnings(True)
    threading.excepthook = _thread_ended
    sys.unraisablehook = _unraisable


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
        name = ended.thread.name if ended.thread else "unknown"
        _tell(ended.exc_value, "the thread {} ended with an exception", name)


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    if found.exc_value is not None:
        _tell(found.exc_value, "an exception was ignored where it could not be raised")


def _tell(error: BaseException, message: str, *values: str) -> None:
    # Of a hook that raises Python prints both, in words.
    with contextlib.suppress(Exception):
        logger.patch(protect).opt(exception=error).error(message, *values)
