"""What tests ask of one document, with failures that say what happened to it."""

from __future__ import annotations

import asyncio
import difflib
from datetime import timedelta
from typing import TYPE_CHECKING

from statemachine_pipeline.testing import histories
from statemachine_pipeline.testing.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from statemachine_pipeline.pipeline import Pipeline

_SHOWN = 5
"""How many documents a failure tells of."""


async def drain(
    pipeline: Pipeline, *, clock: Clock | None = None, within: timedelta = timedelta(days=30)
) -> Mapping[str, int]:
    """Run until every document rests or waits for a person, without sleeping through waits.

    While nothing can be done the clock is moved to where something can: backoff, a poll, a pause,
    a breaker, a budget, the death of a worker. No other worker may run meanwhile.

    Args:
        pipeline: An open pipeline.
        clock: The one to move; by default one of the pipeline's own database.
        within: How long that may take by the clock that is moved.

    Returns:
        How many documents stand in each state.

    Raises:
        AssertionError: They do not rest ``within`` that time; the message says of some why.
    """
    address = pipeline.engine.url.render_as_string(hide_password=False)
    clock = clock or Clock(address, schema=pipeline.schema)
    end, runner = clock.passed + within, pipeline.runner()
    seen = await asyncio.to_thread(clock.look)

    async def skip() -> bool:
        nonlocal seen
        seen = await asyncio.to_thread(clock.look, seen.at)
        if seen.wait is None:
            return False
        if clock.passed + seen.wait > end:
            raise AssertionError(await _restless(pipeline, within))
        if seen.wait:
            await clock.skip(seen.wait, spare=runner.worker)
        return True

    return await runner.run_until_idle(while_waiting=skip)


async def assert_state(pipeline: Pipeline, document: UUID, state: str) -> None:
    """Require that a document stands in ``state``.

    Raises:
        AssertionError: It does not; the message explains where it stands and why.
        ValueError: The lifecycle has no such state, so that no document could be there.
        DocumentNotFound: There is no such document.
    """
    __tracebackhide__ = True
    if state not in pipeline.graph.states:
        known = ", ".join(pipeline.graph.states)
        raise ValueError(f"{pipeline.graph.name} has no state {state!r}; it has {known}")
    explained = await pipeline.explain(document)
    if explained.document.state != state:
        raise AssertionError(
            f"document {explained.document.name!r} ({document}) should be {state!r} and is "
            f"{explained.document.state!r}\n  {explained.sentence}"
        )


async def assert_history(pipeline: Pipeline, document: UUID, expected: Sequence[str]) -> None:
    """Require that a document came by these edges, from its first on.

    Args:
        pipeline: An open pipeline.
        document: Which one.
        expected: Triggers, or edges as ``state>trigger>state``, oldest first.

    Raises:
        AssertionError: It came by others; the message shows both ways side by side.
        DocumentNotFound: There is no such document.
    """
    __tracebackhide__ = True
    taken = await pipeline.history(document)
    pairs = zip(expected, taken, strict=False)
    # As it was asked for, so that only what differs differs.
    found = [histories.code(one) if ">" in asked else one.trigger for asked, one in pairs]
    found += [histories.code(one) for one in taken[len(expected) :]]
    if found == list(expected):
        return
    lines = difflib.ndiff(list(expected), found)
    ways = "\n".join(f"  {line.rstrip()}" for line in lines if not line.startswith("?"))
    stands = (await pipeline.explain(document)).sentence
    raise AssertionError(
        f"document {document} came another way (- expected, + taken):\n{ways}\n  {stands}"
    )


async def _restless(pipeline: Pipeline, within: timedelta) -> str:
    counts = await pipeline.counts()
    working = [state for state in counts if not pipeline.graph.is_resting(state)]
    pages = [await pipeline.documents(state=state, limit=_SHOWN) for state in working]
    some = [document for page in pages for document in page][:_SHOWN]
    lines = [f"  {one.name!r}: {(await pipeline.explain(one.id)).sentence}" for one in some]
    count = sum(counts[state] for state in working)
    return f"{count} document(s) do not rest within {within}:\n" + "\n".join(lines)
