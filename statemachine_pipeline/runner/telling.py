"""A child's end of its log: lines go up the pipe on which it answers, while a call is made.

loguru is imported only for a worker that logs.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.observability.outbound import carried
from statemachine_pipeline.runner import wire
from statemachine_pipeline.runner.errands import IS_LINE, LINE_BYTES, LINES, Errand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loguru import Message

_MESSAGE_CHARS: Final = 4_000
_NAME_CHARS: Final = 300
_VALUE_CHARS: Final = 500
_STACK_CHARS: Final = 6_000
_EXTRAS: Final = 20


class Teller:
    """Writes lines and answers, of which threads of a hook make several at a time.

    Args:
        answers: The pipe.
    """

    def __init__(self, answers: int) -> None:
        self._answers, self._process = answers, os.getpid()
        self._lock = threading.Lock()
        self._left = 0
        self._level: int | None = None
        self._handler: int | None = None

    @contextlib.contextmanager
    def during(self, errand: Errand) -> Iterator[None]:
        """Tell what is logged meanwhile, as far as the worker asked for it; nothing after it."""
        token = carried.set(errand.carried)
        if errand.level is not None and errand.level != self._level:
            self._listen(errand.level)
        self._left = 0 if errand.level is None else LINES
        try:
            yield
        finally:
            with self._lock:  # a thread that the call left behind may be at it
                self._left = 0
            carried.reset(token)

    def answer(self, content: bytes) -> None:
        """Write an answer."""
        with self._lock:
            self._write(wire.LENGTH.pack(len(content)) + content)

    def _listen(self, level: int) -> None:
        from loguru import logger

        from statemachine_pipeline.observability.interception import intercept
        from statemachine_pipeline.observability.logs import leave_to_worker
        from statemachine_pipeline.observability.noting import PACKAGE

        leave_to_worker()
        if self._handler is not None:
            with contextlib.suppress(ValueError):  # the hook removed it
                logger.remove(self._handler)
        self._level = level
        self._handler = logger.add(
            self._tell, level=level, format=lambda _: "", diagnose=False, backtrace=False
        )
        logger.enable(PACKAGE)
        intercept(level)

    def _tell(self, message: Message) -> None:
        if os.getpid() != self._process:
            return  # a fork of the hook's, in whose hands the pipe is another's
        content = _encoded(message.record)
        with self._lock:
            if self._left:
                self._left -= 1
                self._write(wire.LENGTH.pack(len(content) | IS_LINE) + content)

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._answers, rest) :]


def _encoded(record: Any) -> bytes:
    from statemachine_pipeline.observability.lines import SEVERITIES
    from statemachine_pipeline.observability.protection import protected

    shown = protected(record)
    extra = {
        name[:_NAME_CHARS]: value[:_VALUE_CHARS] if isinstance(value, str) else value
        for name, value in list(shown["extra"].items())[:_EXTRAS]
    }
    if shown["exception"] is not None:
        extra["stacktrace"] = str(shown["exception"].value)[:_STACK_CHARS]
    level = shown["level"]
    said: dict[str, Any] = {
        "level": level.name if level.name in SEVERITIES else level.no,
        "message": shown["message"][:_MESSAGE_CHARS],
        "place": (shown["name"] or "")[:_NAME_CHARS],
        "extra": extra,
    }
    content = json.dumps(said).encode()
    if len(content) > LINE_BYTES:
        content = json.dumps(said | {"extra": {}, "message": "a line that is too long"}).encode()
    return content
