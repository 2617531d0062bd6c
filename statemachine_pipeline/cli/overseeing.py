"""Verbs that look at the pipeline as a whole: doctor, workers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import FAILED, OK, UNREACHABLE
from statemachine_pipeline.cli.opening import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.oversight.doctor import Diagnosis
    from statemachine_pipeline.oversight.workers import WorkerStanding

_MENDED = ("warn", "fail")
_DATABASE = "database"
"""The check that fails where the database does not answer."""


async def doctor(target: Target, *, as_json: bool) -> int:
    """Print what each check found, and how what is wrong can be mended.

    Returns:
        1 when a check failed, 5 when that was because the database does not answer; else 0.
    """
    async with opened(target, "doctor") as pipeline:
        made = await pipeline.operations.oversight.doctor()
    if as_json:
        for one in made:
            output.emit(one)
    else:
        rows = [(one.status, one.id, one.message) for one in made]
        output.table(("STATUS", "CHECK", "FOUND"), rows, state=0)
        _print_fixes([one for one in made if one.status in _MENDED])
    counts = Counter(one.status for one in made)
    said = ", ".join(f"{counts[status]} {status}" for status in ("ok", "warn", "fail", "skip"))
    output.say(f"doctor: {said}")
    failed = {one.id for one in made if one.status == "fail"}
    if failed:
        return UNREACHABLE if _DATABASE in failed else FAILED
    return OK


def _print_fixes(found: Sequence[Diagnosis]) -> None:
    for one in found:
        output.line()
        output.line(f"{one.id}: see {one.docs}")
        output.paragraph(one.message, "  ")
        output.paragraph(f"to mend it: {one.fix}", "  ")


async def workers(target: Target, *, as_json: bool) -> int:
    """Print how the workers stand."""
    async with opened(target, "stored") as pipeline:
        found = await pipeline.operations.oversight.workers()
    if as_json:
        for one in found:
            output.emit(one)
        return OK
    headings = (
        *("WORKER", "IS", "HOST", "PID", "VERSION", "LIFECYCLE", "CLAIMS", "OLDEST (UTC)"),
        *("SETTLED", "STARTED (UTC)", "SERVES"),
    )
    output.table(headings, [_row(one) for one in found], state=1)
    if not found:
        output.say("no worker is known; `statemachine-pipeline worker` starts one")
    return OK


def _row(one: WorkerStanding) -> tuple[object, ...]:
    known = {True: "known", False: "unknown", None: "-"}[one.is_lifecycle_known]
    oldest = f"{one.oldest_at:%Y-%m-%d %H:%M:%S}" if one.oldest_at else "-"
    started = f"{one.started_at:%Y-%m-%d %H:%M:%S}"
    is_now = one.condition if one.goes_on_as is None else f"now {one.goes_on_as}"
    own = (one.id, is_now, one.host, one.pid, one.version, known, one.claims, oldest)
    return (*own, one.settled, started, ", ".join(one.serves))
