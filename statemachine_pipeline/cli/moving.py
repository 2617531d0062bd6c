"""Verbs that move documents by hand: requeue, reprocess, cancel, delete. And migrate, sweep."""

from __future__ import annotations

import getpass
from datetime import timedelta
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import OK, REFUSED, UsageError
from statemachine_pipeline.cli.looking import check_stage, check_state
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.counting import counted
from statemachine_pipeline.graph import DEAD_LETTER, REQUEUE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.letters import Matching
    from statemachine_pipeline.records import Applied


_UNSAID = "asked for on the command line"


async def move(
    target: Target,
    trigger: str,
    documents: Sequence[UUID],
    *,
    state: str | None,
    tenant: str | None,
    reason: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Apply a trigger to the documents named, or to all in a state.

    Returns:
        0, or 4 when a document may not take the trigger.
    """
    if bool(documents) == bool(state):
        more = ", or --stage, --code or --since" if trigger == REQUEUE else ""
        raise UsageError(f"{trigger} wants document IDs, or else --state{more}")
    if tenant is not None and state is None:
        raise UsageError("--tenant narrows --state down; IDs need none")
    async with opened(target, "stored") as pipeline:
        if state is not None:
            check_state(pipeline, state)
        applied = await pipeline.apply(
            trigger,
            *documents,
            state=state,
            tenant=tenant,
            reason=reason or _UNSAID,
            by=who(),
            dry_run=dry_run,
        )
    _print(trigger, applied, dry_run=dry_run, as_json=as_json)
    return REFUSED if applied.refused else OK


def _print(trigger: str, applied: Applied, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        output.emit({"trigger": trigger, "dry_run": dry_run} | output.jsonable(applied))
    else:
        done = f"would {trigger}" if dry_run else trigger
        rows: list[tuple[object, ...]] = [(one, done, "") for one in applied.moved]
        rows += [(one.document_id, "refused", one.reason) for one in applied.refused]
        if rows:
            output.table(("DOCUMENT", "DONE", "REASON"), rows, state=1)
    moved = counted(len(applied.moved), "document")
    would = "would be moved" if dry_run else "moved"
    output.say(f"{trigger}: {moved} {would}, {len(applied.refused):,} refused")


async def requeue(
    target: Target,
    documents: Sequence[UUID],
    *,
    which: Matching,
    state: str | None,
    reason: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Requeue the documents named, all in a state, or the dead letters that match.

    Beside what has to match, the state of dead letters says nothing new.

    Returns:
        0, or 4 when a document may not be requeued.
    """
    named = which.stage or which.code or which.since
    if not named:
        return await move(
            target,
            REQUEUE,
            documents,
            state=state,
            tenant=which.tenant,
            reason=reason,
            dry_run=dry_run,
            as_json=as_json,
        )
    if documents:
        raise UsageError("--stage, --code and --since are for dead letters; leave the IDs")
    async with opened(target, "stored") as pipeline:
        if state is not None:
            check_state(pipeline, state)
        if state not in {None, DEAD_LETTER}:
            raise UsageError(
                f"--stage, --code and --since are for dead letters, not for what is {state}; "
                "leave --state"
            )
        applied = await pipeline.operations.requeue(
            **which.parameters(), reason=reason or _UNSAID, by=who(), dry_run=dry_run
        )
        check_stage(pipeline, which.stage, applied.matched)
    _print(REQUEUE, applied, dry_run=dry_run, as_json=as_json)
    return REFUSED if applied.refused else OK


async def migrate(
    target: Target, pairs: Sequence[str], app_role: str | None, *, dry_run: bool, as_json: bool
) -> int:
    """Create or update the tables, register the lifecycle, and move documents to new states."""
    states: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (old and equals and new) or states.setdefault(old, new) != new:
            raise UsageError(f"--map wants OLD=NEW, each OLD once; got {', '.join(pairs)}")
    async with opened(target, "migrate") as pipeline:
        done = await pipeline.migrate(states, app_role=app_role, dry_run=dry_run)
    if as_json:
        output.emit({"dry_run": dry_run} | output.jsonable(done))
    else:
        output.line(output.plain(done))
    return OK


async def sweep(target: Target, hours: float, *, dry_run: bool, as_json: bool) -> int:
    """Erase objects that no document refers to and nobody submitted for ``hours``."""
    age = timedelta(hours=hours)
    async with opened(target, "stored") as pipeline:
        erased = await pipeline.operations.sweep(older_than=age, dry_run=dry_run)
    if as_json:
        output.emit({"dry_run": dry_run, "erased": erased})
    else:
        would = "would erase" if dry_run else "erased"
        output.line(f"{would} {counted(erased, 'object')}")
    return OK


def who() -> str:
    """Return who works at the command line, for histories."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # an account without a name
        return "cli"
