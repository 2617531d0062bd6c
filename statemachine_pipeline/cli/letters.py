"""Dead letters as the command line shows them, and how it is told which are meant."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import OK
from statemachine_pipeline.cli.looking import check_stage
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.times import time_of
from statemachine_pipeline.letters import Matching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.cli.opening import Target


def matching(
    stage: str | None, code: str | None, tenant: str | None, since: str | None
) -> Matching:
    """Return which dead letters are meant.

    Raises:
        UsageError: ``since`` is no time.
    """
    when = None if since is None else time_of(since, datetime.now(UTC))
    return Matching(stage=stage, code=code, tenant=tenant, since=when)


async def show(target: Target, which: Matching, *, limit: int, as_json: bool) -> int:
    """Print dead letters, newest first."""
    async with opened(target, "stored") as pipeline:
        # One more than wanted tells whether there are more.
        found = await pipeline.operations.dead_letters(**which.parameters(), limit=limit + 1)
        check_stage(pipeline, which.stage, found)
    rows = [
        (one.document_id, _shown(one.at), one.stage, one.code, one.attempts, one.name, one.reason)
        for one in found[:limit]
    ]
    headings = ("DOCUMENT", "AT (UTC)", "STAGE", "CODE", "TRIES", "NAME", "REASON")
    _print(found[:limit], headings, rows, as_json=as_json)
    if len(found) > limit:
        output.say(f"there are more than these {limit}; --limit shows them")
    _say_none(found, which)
    return OK


async def show_groups(target: Target, which: Matching, *, as_json: bool) -> int:
    """Print how many dead letters there are of each stage and code."""
    async with opened(target, "stored") as pipeline:
        found = await pipeline.operations.dead_letter_groups(**which.parameters())
        check_stage(pipeline, which.stage, found)
    rows = [
        (one.count, one.stage, one.code, _shown(one.first_at), _shown(one.last_at), one.example)
        for one in found
    ]
    headings = ("COUNT", "STAGE", "CODE", "FIRST (UTC)", "LAST (UTC)", "EXAMPLE")
    _print(found, headings, rows, as_json=as_json)
    _say_none(found, which)
    return OK


def _say_none(found: Sequence[object], which: Matching) -> None:
    if found:
        return
    is_narrow = any(value is not None for value in which.parameters().values())
    output.say("no dead letter matches" if is_narrow else "there are no dead letters")


def _print(
    found: Sequence[object],
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    as_json: bool,
) -> None:
    if as_json:
        for one in found:
            output.emit(one)
        return
    output.table(headings, rows)


def _shown(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
