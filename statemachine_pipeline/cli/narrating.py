"""What the package logs, said by a worker's process: with the time, on stderr."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC
from typing import TYPE_CHECKING, Final

from loguru import logger

from statemachine_pipeline.cli.output import say
from statemachine_pipeline.obstacles import TIME
from statemachine_pipeline.redaction import frames

if TYPE_CHECKING:
    from loguru import Message

PACKAGE: Final = "statemachine_pipeline"
LOGURUS_OWN: Final = 0


def narrate() -> None:
    """Say from now on what the package logs: pauses, outages, providers that are down.

    loguru's own handler would show the values of variables with an exception, text of documents
    among them, so it is left everything but that. An app that has removed it has handlers of its
    own: they get these messages, and nothing is said twice.
    """
    with contextlib.suppress(ValueError):
        logger.remove(LOGURUS_OWN)
        logger.add(sys.stderr, filter=lambda record: not _is_ours(record["name"]))
        logger.add(_tell, level="INFO", filter=lambda record: _is_ours(record["name"]), format="")
    logger.enable(PACKAGE)


def _is_ours(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == PACKAGE


def _tell(message: Message) -> None:
    record = message.record
    say(f"{record['time'].astimezone(UTC):{TIME}}: {record['message']}")
    error = record["exception"]
    if error is not None and error.value is not None:
        # Never what it says, which may quote a document.
        for line in frames(error.value).splitlines():
            say(f"  {line}")
