"""Assertions on one document, whose failures say what happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from fix_pipelines import Hooks, pipeline_with

from statemachine_pipeline import Reject
from statemachine_pipeline.errors import DocumentNotFound
from statemachine_pipeline.testing import assert_history, assert_state, drain

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


async def test_a_state_that_is_another_is_explained(engine: AsyncEngine) -> None:
    """'It does not; the message explains where it stands and why.'."""
    hooks = Hooks()
    hooks.finish_parse.raises(Reject("encrypted with a password"))
    pipeline = pipeline_with(engine, hooks)
    bad = (await pipeline.submit(b"secret", name="secret.pdf")).document_id
    await drain(pipeline)
    good = (await pipeline.submit(b"text")).document_id
    await drain(pipeline)
    await assert_state(pipeline, good, "complete")
    await assert_state(pipeline, bad, "dead_letter")
    with pytest.raises(AssertionError) as failed:
        await assert_state(pipeline, bad, "complete")
    said = str(failed.value)
    assert f"document 'secret.pdf' ({bad}) should be 'complete' and is 'dead_letter'" in said
    assert (await pipeline.explain(bad)).sentence in said
    assert "encrypted with a password" in said


async def test_a_state_that_does_not_exist_is_a_mistake_of_the_test(engine: AsyncEngine) -> None:
    """'The lifecycle has no such state': it would fail with whatever document."""
    pipeline = pipeline_with(engine)
    document = (await pipeline.submit(b"text")).document_id
    with pytest.raises(ValueError, match="has no state 'completed'; it has uploaded, "):
        await assert_state(pipeline, document, "completed")
    with pytest.raises(DocumentNotFound):
        await assert_state(pipeline, UUID(int=0), "complete")


async def test_a_history_is_compared_by_triggers_or_by_edges(engine: AsyncEngine) -> None:
    """'Triggers, or edges as ``state>trigger>state``, oldest first.'."""
    pipeline = pipeline_with(engine)
    document = (await pipeline.submit(b"text", name="a.txt")).document_id
    await pipeline.apply("cancel", document, reason="a mistake")
    await assert_history(pipeline, document, ["submit", "cancel"])
    await assert_history(pipeline, document, [">submit>uploaded", "cancel"])
    await assert_history(pipeline, document, ["submit", "uploaded>cancel>cancelled"])


@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        (["submit", "queue_parse", "cancel"], ["  submit", "- queue_parse", "  cancel"]),
        (["submit"], ["  submit", "+ uploaded>cancel>cancelled"]),
        (["submit", "cancel", "requeue"], ["  submit", "  cancel", "- requeue"]),
        (
            ["submit", "uploaded>cancel>deleted"],
            ["  submit", "- uploaded>cancel>deleted", "+ uploaded>cancel>cancelled"],
        ),
    ],
)
async def test_another_history_is_shown_beside_the_expected_one(
    engine: AsyncEngine, expected: list[str], shown: list[str]
) -> None:
    """'It came by others; the message shows both ways side by side.'."""
    pipeline = pipeline_with(engine)
    document = (await pipeline.submit(b"text")).document_id
    await pipeline.apply("cancel", document, reason="a mistake")
    with pytest.raises(AssertionError) as failed:
        await assert_history(pipeline, document, expected)
    first, *ways, last = str(failed.value).splitlines()
    assert first == f"document {document} came another way (- expected, + taken):"
    assert ways == [f"  {line}" for line in shown]
    assert last.startswith("  cancelled: a mistake")
