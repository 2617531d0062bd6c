"""Crashes at every point of the shipped lifecycle and of others, and mistakes that are found."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from fix_pipelines import Hooks
from fix_postgres import connect

from statemachine_pipeline import Claim, Lifecycle, Pipeline, Reject, Stage, State
from statemachine_pipeline.batching import Batch
from statemachine_pipeline.database.store import Store
from statemachine_pipeline.errors import PipelineError
from statemachine_pipeline.testing import crash_everywhere
from statemachine_pipeline.testing.crashing import everywhere, trials

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

pytestmark = pytest.mark.timeout(300)


class OneStepLifecycle(Lifecycle):
    """One stage of work."""

    received = State(initial=True)
    finished = State(final=True)

    finish = received.to(finished)


class TwoStepLifecycle(Lifecycle):
    """Two stages: a settle of the first one brings a claim on the second."""

    received, checked = State(initial=True), State()
    finished = State(final=True)

    check = received.to(checked)
    finish = checked.to(finished)


class Noted:
    """A product that is one more row each time it is written."""

    async def write(self, connection: AsyncConnection, claim: Claim) -> None:
        note = sa.text("INSERT INTO note VALUES (:document)")
        await connection.execute(note, {"document": claim.document.id})


class Letters:
    """Sends a letter from within the hook, and keeps no key by which to know it again."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()

    async def send(self, claim: Claim) -> None:
        self.sent[claim.document.name] += 1

    async def forget(self, _: Pipeline) -> None:
        self.sent.clear()

    async def once(self, _: Pipeline) -> None:
        assert set(self.sent.values()) == {1}, f"letters sent: {dict(self.sent)}"


@pytest.fixture
def first_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first point that fails be the last one that is tried."""
    monkeypatch.setattr(everywhere, "MOST_STORIES", 1)


def cheap(**own: Any) -> dict[str, Any]:
    """Return cheap hooks, new ones each time; nothing waits for company."""
    hooks = vars(Hooks())
    at_once = Stage(hooks["store_embeddings"], batch=Batch(age=timedelta(0)))
    return {**hooks, "store_embeddings": at_once, **own}


def one_step(url: str, hook: Any) -> Callable[[], Pipeline]:
    """Return what makes a pipeline of one stage."""
    return lambda: Pipeline(url, lifecycle=OneStepLifecycle, hooks={"finish": hook})


async def submit_one(pipeline: Pipeline) -> None:
    """Submit a document with an address in it."""
    await pipeline.submit(b"write to\n\nsomebody@example.org", name="a.txt")


async def submit_twins(pipeline: Pipeline) -> None:
    """Submit two documents with the same words."""
    await pipeline.submit(b"one\n\ntwo", name="a.txt")
    await pipeline.submit(b"one\n\ntwo\n---\nno text", name="b.txt")


async def finish(claim: Claim) -> None:
    """Do nothing."""


async def test_documents_and_twins_survive_a_crash_anywhere(database_url: str) -> None:
    """'Kill a process at each of its steps': nothing is lost, doubled, different or stuck."""
    crashes = await crash_everywhere(
        lambda: Pipeline(database_url, hooks=cheap()), submit_twins, most=12
    )
    assert len(crashes.points) == 12
    assert crashes.untried > 25
    harms = {"killed before", "killed after", "answer lost after"}
    assert {point.harm for point in crashes.points} == harms
    assert {"submitting", "claiming", "settling"} & {point.doing for point in crashes.points}
    assert 0 < crashes.repeats < len(crashes.points)


async def test_what_a_settle_writes_is_written_once(empty_url: str) -> None:
    """'After each step its answer is lost, though it was done': a plain INSERT is not repeated."""
    with connect(empty_url) as psql:
        psql.execute("CREATE TABLE note (document uuid)")

        async def note(claim: Claim) -> Noted:
            return Noted()

        async def forget(_: Pipeline) -> None:
            psql.execute("DELETE FROM note")

        async def noted_once(_: Pipeline) -> None:
            assert psql.execute("SELECT count(*) FROM note").fetchone() == (1,)

        crashes = await crash_everywhere(
            one_step(empty_url, note), submit_one, check=noted_once, reset=forget
        )
    assert crashes.untried == 0
    assert crashes.repeats


@pytest.mark.usefixtures("first_only")
async def test_what_a_hook_does_outside_and_twice_is_found(empty_url: str) -> None:
    """'What a hook does outside the database has to bear that' it is called again."""
    letters = Letters()
    # Which point is the first after the hook was called depends on what else goes on meanwhile.
    with pytest.raises(AssertionError, match=r"killed (before|after) '.*', occurrence \d+:\n.*: 2"):
        await crash_everywhere(
            one_step(empty_url, letters.send),
            submit_one,
            check=letters.once,
            reset=letters.forget,
        )


@pytest.mark.usefixtures("first_only")
async def test_a_hook_that_makes_something_else_of_it_again_is_found(empty_url: str) -> None:
    """'Texts, passages and vectors are those of a clean run', and so are the ends."""
    seen: Counter[str] = Counter()

    async def finish_once(claim: Claim) -> None:
        seen[claim.document.name] += 1
        if seen[claim.document.name] > 1:
            raise Reject("was here before")

    async def forget(_: Pipeline) -> None:
        seen.clear()

    with pytest.raises(AssertionError, match="missing: 1 document in 'finished'"):
        await crash_everywhere(one_step(empty_url, finish_once), submit_one, reset=forget)


@pytest.mark.usefixtures("first_only")
async def test_a_settle_that_is_believed_to_be_still_to_do_is_found(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'Everything rests': a claim that the library takes for its own, and is gone."""

    async def holds(*_: object) -> bool:
        return True

    monkeypatch.setattr(Store, "holds", holds)
    # As short as may be without taking a slow machine's run for one that hangs.
    monkeypatch.setattr(trials, "PATIENCE", 10.0)
    with pytest.raises(AssertionError, match="answer lost after 'settling'"):
        await crash_everywhere(
            lambda: Pipeline(
                empty_url, lifecycle=TwoStepLifecycle, hooks={"check": finish, "finish": finish}
            ),
            submit_one,
        )


async def test_a_scenario_that_differs_by_itself_is_refused(empty_url: str) -> None:
    """'No process was harmed, and yet': what is compared with has to be the same each time."""
    numbers = itertools.count()

    async def submit_another(pipeline: Pipeline) -> None:
        await pipeline.submit(b"text", source_uri=f"upload:{next(numbers)}", name="a.txt")

    with pytest.raises(AssertionError, match=r"no process was harmed, and yet:\nno document"):
        await crash_everywhere(one_step(empty_url, finish), submit_another)


async def test_documents_that_are_there_are_left_alone(empty_url: str) -> None:
    """'The schema has to be of this test alone': nobody's documents are removed."""
    async with one_step(empty_url, finish)() as pipeline:
        await pipeline.migrate()
        sent = await pipeline.submit(b"text", name="a.txt")
        with pytest.raises(PipelineError, match="has 1 documents"):
            await crash_everywhere(pipeline, submit_one)
        assert (await pipeline.get(sent.document_id)).name == "a.txt"
