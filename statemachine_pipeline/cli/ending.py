"""How a verb ends: its exit code, and one clear line instead of a traceback."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NoReturn

import typer

from statemachine_pipeline import errors
from statemachine_pipeline.cli.output import plain, say

if TYPE_CHECKING:
    from collections.abc import Coroutine

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
REFUSED: Final = 4
UNREACHABLE: Final = 5
TIMED_OUT: Final = 124
"""As timeout(1) has it."""
SIGNALLED: Final = 128
"""Added to a signal's number: 130 for SIGINT, 143 for SIGTERM."""
INTERRUPTED: Final = 130

_CODES: tuple[tuple[type[errors.PipelineError], int], ...] = (
    (errors.DatabaseUnavailable, UNREACHABLE),
    (errors.BlobsUnavailable, UNREACHABLE),
    (errors.EmbeddedServerError, UNREACHABLE),
    (errors.DocumentNotFound, NOT_FOUND),
    (errors.TransitionRefused, REFUSED),
    (errors.PruneRefused, REFUSED),
    (errors.RightsMissing, REFUSED),
    (errors.DefinitionError, USAGE),
    (errors.SearchRefused, USAGE),
    (errors.PauseRefused, USAGE),
    (errors.RoleRefused, USAGE),
    (errors.PipelineError, FAILED),
)


class UsageError(typer.BadParameter):
    """The command was given something it cannot work with; exit code 2."""

    def format_message(self) -> str:
        """Return the sentence as it is, made harmless for a terminal."""
        return plain(self.message)


class Failed(errors.PipelineError):
    """The command could not do what it was asked for; exit code 1."""


def run(work: Coroutine[None, None, int]) -> NoReturn:
    """Run a verb to its end and leave with its exit code.

    Raises:
        UsageError: As the verb raised it; typer prints it.
        typer.Exit: Always else.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from statemachine_pipeline.database.cures import told

    # Libraries stay silent, unless an app of the user's has set logging up.
    logging.lastResort = logging.NullHandler()
    try:
        code = asyncio.run(work)
    except (errors.PipelineError, SQLAlchemyError) as error:
        say(f"error: {told(error)}", fails=True)
        code = next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)
    except KeyboardInterrupt:
        code = INTERRUPTED
    raise typer.Exit(code)
