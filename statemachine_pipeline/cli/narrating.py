"""What a process that runs on logs: as the command line asks, or else as its app has said."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import Final, Literal

from loguru import logger

from statemachine_pipeline.cli import output
from statemachine_pipeline.observability.interception import catch_strays
from statemachine_pipeline.observability.logs import configure_logging
from statemachine_pipeline.observability.noting import PACKAGE
from statemachine_pipeline.observability.protection import protect

LOGURUS_OWN: Final = 0

Format = Literal["text", "json"]
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


@dataclasses.dataclass(frozen=True, slots=True)
class Narration:
    """What the command line, or the environment, said about the log; None where it said nothing."""

    format: Format | None = None
    level: Level | None = None

    @property
    def is_asked(self) -> bool:
        """Whether it said anything."""
        return self.format is not None or self.level is not None

    def variables(self) -> dict[str, str]:
        """Return the environment in which a worker is told the same."""
        told = {"SMP_LOG_FORMAT": self.format, "SMP_LOG_LEVEL": self.level}
        return {name: value for name, value in told.items() if value}


def narrate(asked: Narration) -> None:
    """Log on stderr from now on: pauses, outages, what becomes of documents.

    An app that has removed loguru's own sink, or called ``configure_logging``, has said where its
    lines go: unless the command line says otherwise, the package's go there too. As JSON, what the
    verb says to people becomes lines of the log, so that stderr holds nothing else.
    """
    if not asked.is_asked:
        try:
            logger.remove(LOGURUS_OWN)
        except ValueError:
            logger.enable(PACKAGE)
            return
    is_for_people = asked.format != "json"
    sink: Literal["stderr"] | _Voice = _Voice() if is_for_people else "stderr"
    configure_logging(format=asked.format or "text", level=asked.level or "INFO", sink=sink)
    catch_strays()
    if not is_for_people:
        output.say_through(_log)


def _log(text: str, fails: bool) -> None:
    with contextlib.suppress(Exception):  # whatever sinks the app has, as with any other line
        logger.opt(depth=1).patch(protect).log("ERROR" if fails else "INFO", text)


class _Voice:
    """This process's stderr, which others share: each line begins with who speaks."""

    def write(self, text: str, /) -> None:
        said = "".join(output.speaker() + line for line in text.splitlines(keepends=True))
        sys.stderr.write(said)
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()
