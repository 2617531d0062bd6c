"""What a child logged, in its worker: data, from whoever may have taken the child over.

A line is as long as ``wire`` lets it be, is logged by the worker's own logger with what the worker
knows of the attempt, and cannot say that it is about something else.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any, Final

from loguru import logger

from statemachine_pipeline.observability.lines import CHILD, SEVERITIES, SOMETIMES
from statemachine_pipeline.observability.protection import protect
from statemachine_pipeline.runner.wire import Malformed

if TYPE_CHECKING:
    from loguru import Record

_NAME: Final = re.compile(r"[A-Za-z_][\w.]{0,99}")
_OWN: Final = frozenset({*SOMETIMES, CHILD}) - {"error_type", "stacktrace"}
_HIGHEST: Final = 100


def retell(content: bytes, child: int) -> None:
    """Log what a child said, as a line of the attempt in whose context this is called.

    Args:
        content: What came up the pipe.
        child: The child's process id.

    Raises:
        Malformed: It is not what ``Teller`` says.
    """
    try:
        said = json.loads(content)
        level, message, place = said["level"], said["message"], said["place"]
        values = {name: value for name, value in said["extra"].items() if _is_tellable(name, value)}
        if not (isinstance(message, str) and isinstance(place, str)):
            raise TypeError("texts are missing")
        if level not in SEVERITIES and not (type(level) is int and 0 <= level <= _HIGHEST):
            raise ValueError("no level")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Malformed(f"a line of its log: {type(error).__name__}") from None

    def sign(record: Record) -> None:
        record["name"], record["function"], record["line"] = place, "", 0
        record["extra"] |= {**values, CHILD: child}

    with contextlib.suppress(Exception):  # a sink that fails is not the child's fault
        logger.patch(sign).patch(protect).log(level, message)


def _is_tellable(name: Any, value: Any) -> bool:
    plain = value is None or isinstance(value, str | int | float)
    return plain and name not in _OWN and _NAME.fullmatch(name) is not None
