"""Hooks that do what no hook should: the document ends with a reason, and no claim is orphaned."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import pipeline_with, until

from statemachine_pipeline import Claim, Done, Lifecycle, ParsedText, Pipeline, Reject, Stage, State
from statemachine_pipeline.errors import DocumentNotFound
from statemachine_pipeline.records import Source, document_id

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine


class OneStepLifecycle(Lifecycle):
    """One stage of work."""

    received = State(initial=True)
    finished = State(final=True)

    finish = received.to(finished)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Hashless:
    @property
    def sha256(self) -> str:
        raise RuntimeError("no hash")

    async def write(self, connection: object, claim: Claim) -> None:
        """Write nothing."""


def _raising(error: BaseException) -> Callable[[Claim], Any]:
    async def hook(claim: Claim) -> Done:
        raise error

    return hook


async def _hashless(claim: Claim) -> Done:
    return Done(Hashless())


one_step = pytest.mark.smp_pipeline(
    lifecycle=OneStepLifecycle, schema="odd", hooks={"finish": _hashless}
)
"""Its database is a copy of one that was migrated once."""


def _pipeline(engine: AsyncEngine, hook: Callable[[Claim], Any]) -> Pipeline:
    stage = Stage(hook, attempts=1)
    return Pipeline(engine, lifecycle=OneStepLifecycle, hooks={"finish": stage}, schema="odd")


@one_step
@pytest.mark.parametrize(
    ("hook", "named"),
    [
        (_raising(Mute()), "Mute"),
        (_raising(asyncio.CancelledError()), "cancelled"),
        (_raising(SystemExit(3)), "end the process"),
        (_raising(GeneratorExit()), "GeneratorExit"),
        (_raising(Reject("a hole \x00 and a half \ud800")), "a hole \ufffd and a half ?"),
        (_hashless, "RuntimeError"),
    ],
    ids=["mute", "cancelled", "exit", "generator", "unstorable", "hashless"],
)
async def test_an_odd_hook_fails_its_document_with_a_reason(
    engine: AsyncEngine, hook: Callable[[Claim], Any], named: str
) -> None:
    """Whatever a hook raises becomes an outcome."""
    pipeline = _pipeline(engine, hook)
    sent = await pipeline.submit(b"text", name="a")

    assert await pipeline.runner().run_until_idle() == {"dead_letter": 1}

    assert named in str((await pipeline.get(sent.document_id)).last_error)


async def _text(claim: Claim) -> Any:
    return "a text"


class Telling:
    """A parser that returns what it may not."""

    def __init__(self, answer: Any) -> None:
        self.fingerprint, self._answer = "telling/1", answer

    def parse(self, source: Source) -> Any:
        """Return it."""
        return self._answer


class Cutting:
    """A chunker that returns what it may not."""

    def __init__(self, answer: Any) -> None:
        self.fingerprint, self._answer = "cutting/1", answer

    def split(self, text: ParsedText) -> Any:
        """Return it."""
        return self._answer


async def _infinite(claim: Claim) -> Done:
    return Done(ratio=float("inf"))


@one_step
@pytest.mark.parametrize(
    ("hook", "named"),
    [
        (_text, "returned str"),
        (_infinite, "no JSON"),
        (Telling("a text"), "returned str"),
        (Telling(None), "the parser returned NoneType"),
    ],
    ids=["hook", "report", "parser", "parser without a text"],
)
async def test_a_hook_that_returns_nonsense_pauses_its_stage(
    engine: AsyncEngine,
    psql: psycopg.Connection[Any],
    hook: Callable[[Claim], Any],
    named: str,
) -> None:
    """A wrong value is the stage's fault: no document is charged."""
    pipeline = _pipeline(engine, hook)
    sent = await pipeline.submit(b"text", name="a")
    async with pipeline.runner():
        await until(psql, "SELECT last_error IS NOT NULL FROM odd.document")

    assert named in str((await pipeline.get(sent.document_id)).last_error)
    assert [row.trigger for row in await pipeline.history(sent.document_id)] == ["submit"]


@pytest.mark.parametrize(
    ("answer", "named"), [(None, "returned NoneType"), (["a text"], "returned str")]
)
async def test_a_chunker_that_returns_nonsense_pauses_its_stage(
    engine: AsyncEngine, psql: psycopg.Connection[Any], answer: Any, named: str
) -> None:
    """As any hook."""
    pipeline = pipeline_with(engine, store_chunks=Cutting(answer))
    sent = await pipeline.submit(b"text", name="a.txt")
    async with pipeline.runner():
        await until(psql, "SELECT last_error IS NOT NULL FROM document")

    found = await pipeline.get(sent.document_id)
    assert (found.state, named in str(found.last_error)) == ("parse_validated", True)
    (pause,) = await pipeline.operations.pauses()
    assert (pause.stage, pause.fault) == ("store_chunks", True)


@one_step
async def test_apply_writes_nothing_when_one_of_many_is_unknown(engine: AsyncEngine) -> None:
    """'One of the ids is not there; nothing was written', however many there are."""
    pipeline = _pipeline(engine, _hashless)
    sent = [
        (await pipeline.submit(str(n).encode(), source_uri=f"n:{n}")).document_id for n in range(3)
    ]
    with pytest.raises(DocumentNotFound):
        await pipeline.apply("cancel", *sent, document_id("default", "n:none"), reason="test")
    assert await pipeline.counts() == {"received": 3}
