"""Hooks of a child process that log; in a module of their own, since a child imports them."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from loguru import logger

from statemachine_pipeline import ParsedText, Source, configure_logging, correlation_headers
from statemachine_pipeline.runner import telling
from statemachine_pipeline.runner.errands import IS_LINE
from statemachine_pipeline.runner.wire import LENGTH

SECRET = "hunter2-plum"


class Parser:
    """Says much about what it reads."""

    fingerprint = "logging/1"

    def parse(self, source: Source) -> ParsedText:
        """Log by loguru, by logging, from a thread, and an exception that quotes the document."""
        text = source.read().decode()
        logger.bind(page=3).info("loguru in a child, api_key={}", SECRET)
        logging.getLogger("lib.child").warning("logging in a child")
        thread = threading.Thread(target=logger.info, args=("a thread in a child",))
        thread.start()
        thread.join()
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("failed in a child")
        return ParsedText(text + repr(sorted(correlation_headers().items())))


def chatter(count: int) -> int:
    """Log many lines."""
    for number in range(count):
        logger.info("line {}", number)
    return count


def forge(length: int, content: bytes) -> None:
    """Write a line on the pipe of answers, as whoever has taken a child over could."""
    os.write(_pipe(), LENGTH.pack(length | IS_LINE) + content)


def _pipe() -> int:
    """Find the descriptor on which this child answers."""
    import gc

    (teller,) = (one for one in gc.get_objects() if isinstance(one, telling.Teller))
    return teller._answers


def configure_anew(path: str) -> None:
    """Do what the module of an application does, which a child imports."""
    configure_logging(sink=Path(path))
    logger.info("once")


def log_and_die() -> None:
    """Log, and take the child down."""
    logger.error("about to die")
    os._exit(3)


def log_in_a_fork() -> int:
    """Log in a fork, in whose hands the pipe is another's."""
    child = os.fork()
    if not child:
        logger.info("in a fork")
        os._exit(0)
    logger.info("in its parent")
    return os.waitpid(child, 0)[1]
