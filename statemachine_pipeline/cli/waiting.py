"""`wait`: return once documents rest, and say by the exit code how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import FAILED, OK, TIMED_OUT
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.times import duration_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from statemachine_pipeline.cli.opening import Target


async def wait(target: Target, documents: Sequence[UUID], *, timeout: str, as_json: bool) -> int:  # noqa: ASYNC109 - polls
    """Wait until all documents rest.

    Returns:
        0 when each ended well, 1 when one did not, 124 when time ran out.
    """
    patience = duration_of(timeout, "--timeout")
    async with opened(target, "stored") as pipeline:
        try:
            found = await pipeline.wait(*documents, timeout=patience)
            code = OK
        except TimeoutError as error:
            output.say(f"error: {error}")
            found = await pipeline.documents(ids=documents)
            code = TIMED_OUT
        ends = pipeline.graph.ends
    if as_json:
        for one in found:
            output.emit({"id": one.id, "name": one.name, "state": one.state})
    else:
        output.table(
            ("DOCUMENT", "STATE", "NAME"), [(d.id, d.state, d.name) for d in found], state=1
        )
    if code == OK and any(one.state not in ends for one in found):
        return FAILED
    return code
