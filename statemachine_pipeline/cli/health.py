"""`health` without a port: ask the database, and everything that is known there."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import FAILED, OK, UNREACHABLE, UsageError
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.errors import DatabaseUnavailable, DatabaseUnusable
from statemachine_pipeline.oversight.health import BRISK, unwell
from statemachine_pipeline.oversight.status import Health

if TYPE_CHECKING:
    from statemachine_pipeline.cli.opening import Target


def refuse(*, live: bool, ready: bool, port: int | None, host: str | None) -> None:
    """Refuse what ``asking`` did not take, with the reason.

    Raises:
        UsageError: Always with a port, and for what only a worker itself knows.
    """
    if live and ready:
        raise UsageError("--live and --ready ask different questions; give one of them")
    if live or ready:
        raise UsageError("only a worker knows this of itself; give its --port")
    if port is None and host is not None:
        raise UsageError("--host is where a worker's --port is asked; give that too")
    if port is not None:
        raise UsageError(
            "--port asks a worker, and takes --host, --live, --ready and --json after the verb, "
            "nothing else"
        )


async def health(target: Target, *, as_json: bool) -> int:
    """Print how each part does; return 0, 1 where one failed, or 5 without a database."""
    from sqlalchemy.exc import SQLAlchemyError

    target = dataclasses.replace(target, timeouts=BRISK)  # nobody waits for a probe for long
    try:
        async with opened(target, "stored") as pipeline:
            found = await pipeline.operations.oversight.health()
    except (DatabaseUnusable, SQLAlchemyError) as error:
        part = "database" if isinstance(error, DatabaseUnavailable) else "schema"
        found = Health((unwell(part, error),))
    if as_json:
        output.emit({"status": found.status, "components": found.components})
    else:
        _show(found)
    down = [one.name for one in found.components if one.status == "failed"]
    return UNREACHABLE if "database" in down else FAILED if down else OK


def _show(found: Health) -> None:
    rows = [(one.name, one.status, one.says) for one in found.components]
    output.table(("PART", "STATUS", "WHAT IS KNOWN"), rows)
    for one in found.components:
        if one.fix:
            output.say(f"{one.name}: {one.fix}")
