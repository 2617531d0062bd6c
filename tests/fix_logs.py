"""What the package logs, caught line by line, and the process left as it was."""

from __future__ import annotations

import json
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from loguru import logger

from statemachine_pipeline import configure_logging
from statemachine_pipeline.observability import interception, logs
from statemachine_pipeline.observability.noting import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterator


class Log:
    """Takes lines as a stream does."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def write(self, text: str) -> None:
        self.texts.append(text)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Each line as what it says."""
        return [json.loads(text) for text in self.texts]

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event."""
        return [line for line in self.lines if line.get("event_name") == event]

    def by(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of one logger."""
        return [line for line in self.lines if line["logger"] == name]


@pytest.fixture
def quiet() -> Iterator[None]:
    """Nothing logs, and after the test nothing does again, whatever it configured."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    logger.remove()
    yield
    logs._forget()
    logs._standing.is_left = False
    logger.remove()
    logger.disable(PACKAGE)
    root.handlers[:] = [one for one in handlers if one is not interception._ours]
    root.setLevel(level)


@pytest.fixture
def log(quiet: None) -> Log:
    """Everything from DEBUG on, as JSON."""
    caught = Log()
    configure_logging(level="DEBUG", sink=caught)
    return caught


@pytest.fixture
def strays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What Python prints by itself is logged."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    interception.catch_strays()
    yield
    logging.captureWarnings(False)
