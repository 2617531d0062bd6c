"""Verbs that stop workers from taking documents, and let them go on."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import OK, UsageError
from statemachine_pipeline.cli.moving import who
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.times import duration_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.obstacles import Pause


async def pause(
    target: Target,
    *,
    stage: str | None,
    tenant: str | None,
    reason: str,
    duration: str | None,
    until: datetime | None,
    as_json: bool,
) -> int:
    """Pause a stage, a tenant, or a stage for a tenant."""
    if duration is not None and until is not None:
        raise UsageError("--for and --until were both given; give one of them, or neither")
    for_ = None if duration is None else duration_of(duration)
    # A time without a zone is what the clock on this wall says.
    end = until.astimezone(UTC) if until else None
    async with opened(target, "stored") as pipeline:
        before = await pipeline.operations.pauses()
        made = await pipeline.operations.pause(
            stage=stage, tenant=tenant, reason=reason, until=end, for_=for_, by=who()
        )
    _print([made], as_json=as_json)
    for one in before:
        if (one.stage, one.tenant, one.fault) == (stage, tenant, False):
            output.say(f"it replaces a pause of {one.by} until {_end(one)}: {one.reason}")
    return OK


async def resume(target: Target, *, stage: str | None, tenant: str | None, as_json: bool) -> int:
    """Lift the pauses of exactly this stage and tenant."""
    async with opened(target, "stored") as pipeline:
        lifted = await pipeline.operations.resume(stage=stage, tenant=tenant)
        left = [] if lifted else await pipeline.operations.pauses()
    if as_json:
        for one in lifted:
            output.emit(one)
    for one in lifted:
        output.say(f"resumed: {one.place}, paused by {one.by}: {one.reason}")
    if not lifted:
        others = ", ".join(one.place for one in left)
        output.say(f"nothing was paused under this name{f'; paused: {others}' if others else ''}")
    return OK


async def pauses(target: Target, *, as_json: bool) -> int:
    """Print what is paused."""
    async with opened(target, "stored") as pipeline:
        current = await pipeline.operations.pauses()
    _print(current, as_json=as_json)
    if not current:
        output.say("nothing is paused")
    return OK


def _end(pause: Pause) -> str:
    return f"{pause.until:%Y-%m-%d %H:%M:%S}" if pause.until else "resumed"


def _print(found: Sequence[Pause], *, as_json: bool) -> None:
    if as_json:
        for one in found:
            output.emit(one)
    elif found:
        rows = [
            (
                one.stage or "every stage",
                one.tenant or "everybody",
                f"{one.since:%Y-%m-%d %H:%M:%S}",
                _end(one),
                one.by,
                one.reason,
            )
            for one in found
        ]
        headings = ("STAGE", "TENANT", "SINCE (UTC)", "UNTIL (UTC)", "BY", "REASON")
        output.table(headings, rows)
