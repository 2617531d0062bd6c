"""`prune`: remove documents that rest and are not complete, with their histories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import OK, UsageError
from statemachine_pipeline.cli.looking import check_state
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.times import duration_of
from statemachine_pipeline.counting import counted
from statemachine_pipeline.pruning import prunable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.pruning import Pruned


async def prune(
    target: Target,
    *,
    older_than: str,
    states: Sequence[str],
    tenant: str | None,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Prune, and print what went and what was left."""
    age = duration_of(older_than, "--older-than")
    async with opened(target, "stored") as pipeline:
        for state in states:
            check_state(pipeline, state)
            _check_rests(pipeline.graph, state)
        done = await pipeline.operations.prune(
            older_than=age, states=states, tenant=tenant, limit=limit, dry_run=dry_run
        )
    if as_json:
        output.emit({"dry_run": dry_run} | output.jsonable(done))
    else:
        _print(done, "would go" if dry_run else "pruned")
    gone = counted(len(done.pruned), "document")
    output.say(f"prune: {gone} {'would go' if dry_run else 'gone'}, {len(done.left):,} left")
    if done.forbidden is not None:
        output.say(f"prune: this role may not do it: {done.forbidden}")
    return OK


def _check_rests(graph: Graph, state: str) -> None:
    allowed = prunable(graph)
    if state not in allowed:
        raise UsageError(
            f"documents in {state} are complete or on their way; prune takes those in "
            f"{', '.join(sorted(allowed))}"
        )


def _print(done: Pruned, said: str) -> None:
    rows: list[tuple[object, ...]] = [(one, said, "") for one in done.pruned]
    rows += [(one.document_id, "left", f"{one.state}: {one.reason}") for one in done.left]
    if rows:
        output.table(("DOCUMENT", "DONE", "REASON"), rows)
