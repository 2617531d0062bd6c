"""One line of the log: ``note``. A library says nothing until its user asks for it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from loguru import logger

from statemachine_pipeline.errors import PipelineError
from statemachine_pipeline.observability.protection import protect
from statemachine_pipeline.redaction import type_name

if TYPE_CHECKING:
    from statemachine_pipeline.observability.log_events import LogEvent

PACKAGE: Final = "statemachine_pipeline"

logger.disable(PACKAGE)

_logger = logger.patch(protect).opt(depth=1)


def note(
    event: LogEvent,
    message: str,
    *values: object,
    error: BaseException | None = None,
    **fields: object,
) -> None:
    """Log one event of the closed list; nothing happens unless the package's log was asked for.

    Never raises, whatever sinks the application has: what is told is done already, and who tells it
    still has to give back a slot, a claim or a fence.

    Args:
        event: Which one; it knows its level.
        message: For people, with a ``{}`` for each of ``values``. Never text of a document.
        *values: What stands in the message; of an exception that is not the package's, its type.
        error: Shown as types and frames, never as what it says.
        **fields: Beside those of the attempt that is being made, if one is.
    """
    bound = _logger.bind(event_name=event.name, **fields)
    if error is not None:
        bound = bound.opt(depth=1, exception=error)
    with contextlib.suppress(Exception):
        bound.log(event.level, message, *map(_sayable, values))


def _sayable(value: object) -> object:
    if isinstance(value, BaseException) and not isinstance(value, PipelineError):
        return type_name(type(value))
    return value
