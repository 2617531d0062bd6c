"""What the log and the metrics say of an attempt is what history says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fix_pipelines import Told, completed, pipeline_with

from statemachine_pipeline import ParsedText, Stage
from statemachine_pipeline.hooks import Done
from statemachine_pipeline.observability import instruments

if TYPE_CHECKING:
    from fix_logs import Log
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from statemachine_pipeline.hooks import Claim


class Unwritable:
    """A product that cannot be written."""

    async def write(self, connection: AsyncConnection, claim: Claim) -> None:
        """Fail."""
        raise ValueError("no room")


async def unwritable(_: Claim) -> Done:
    """Return what cannot be written."""
    return Done(Unwritable())


async def nothing(_: Claim) -> ParsedText:
    """Find no text, which the guard of the next stage does not let through."""
    return ParsedText(text="")


async def test_a_product_that_is_refused_is_no_success(engine: AsyncEngine, log: Log) -> None:
    """'Attempts that ended, by what came of them': the hook succeeded, and the stage did not."""
    pipeline = pipeline_with(engine, finalize=Stage(Told(unwritable), attempts=1))
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    (line,) = log.of("stage.failed")
    assert (line["stage"], line["error.code"]) == ("finalize", "ValueError")
    assert not [line for line in log.of("stage.succeeded") if line["stage"] == "finalize"]
    ended = {"stage": "finalize", "outcome": "failed", "code": "ValueError"}
    assert pipeline.metrics.value(instruments.ATTEMPTS, **ended) == 1


async def test_what_no_guard_lets_through_is_no_success(engine: AsyncEngine, log: Log) -> None:
    """As in history, where it fails with the guard for a code."""
    pipeline = pipeline_with(engine, finish_parse=Told(nothing))
    sent = await pipeline.submit(b"text")
    assert await completed(pipeline, sent.document_id) == ["dead_letter"]
    (line,) = log.of("stage.failed")
    (letter,) = await pipeline.operations.dead_letters()
    assert (line["stage"], line["error.code"]) == (letter.stage, letter.code)
    ended = {"stage": letter.stage, "outcome": "failed", "code": letter.code}
    assert pipeline.metrics.value(instruments.ATTEMPTS, **ended) == 1
    assert letter.code.startswith("guard_refused")
