"""A guided Hypothesis machine over any lifecycle: it covers all, and it finds planted faults."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redacted
import sqlalchemy as sa
from fix_pipelines import HashEmbedder, Hooks
from hypothesis import settings
from hypothesis.stateful import rule
from statemachine import State

from statemachine_pipeline import (
    Batch,
    DocumentLifecycle,
    Done,
    Lifecycle,
    Provider,
    Reject,
    Stage,
    by_hand,
)
from statemachine_pipeline.database.store import Store
from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.testing import Fault, lifecycle_machine
from statemachine_pipeline.testing.machines.stories import left_out
from statemachine_pipeline.testing.machines.times import silence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from statemachine_pipeline.database.proposal import Proposal
    from statemachine_pipeline.database.settling import Answer
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.records import Document
    from statemachine_pipeline.testing import Databases, LifecycleMachine

given: list[str] = []
"""The URL of this module's database; machines of a module are made before its fixtures."""


def database() -> str:
    """Say where machines make their schemas."""
    return given[-1]


@pytest.fixture(autouse=True, scope="module")
def _database(smp_databases: Databases) -> Iterator[None]:
    given.append(smp_databases.make(None))
    yield
    smp_databases.drop(given.pop())


class ReviewLifecycle(Lifecycle):
    """A short one: a guard on what was reported, a way for people, and a hop."""

    arrived = State(initial=True)
    scored, approved = State(), State()
    published, rejected = State(final=True), State(final=True)

    score = arrived.to(scored)
    approve = scored.to(approved)
    reject = scored.to(rejected)
    publish = approved.to(published)


async def score(claim: Claim) -> Done:
    """Say how long the document is."""
    return Done(length=len((await claim.source()).read()))


ReviewMachine = lifecycle_machine(
    ReviewLifecycle,
    hooks={"score": score, "approve": by_hand, "reject": by_hand},
    database=database,
)
ShippedMachine = lifecycle_machine(DocumentLifecycle, database=database)
CheapMachine = lifecycle_machine(
    DocumentLifecycle,
    hooks={
        **vars(Hooks()),
        "store_embeddings": Stage(HashEmbedder(), batch=Batch(age=timedelta(0))),
    },
    database=database,
)
RedactedMachine = lifecycle_machine(
    redacted.RedactedLifecycle, hooks={"queue_embedding": None}, database=database
)


def run(
    machine: type[LifecycleMachine], examples: int = 3, steps: int = 8
) -> tuple[BaseException | None, str]:
    """Run a machine's TestCase; return what it ended with and what stands beneath it."""
    case: Any = machine.TestCase
    case.settings = settings(
        machine.TestCase.settings, max_examples=examples, stateful_step_count=steps
    )
    error: BaseException | None = None
    try:
        case("runTest").debug()
    except AssertionError as failed:
        error = failed
    return error, "\n".join([str(error), *getattr(error, "__notes__", [])])


def test_the_shipped_lifecycle_is_covered_whole() -> None:
    """'Coverage 100 % of edges and both verdicts of every guard', every fault, and all rests."""
    error, told = run(ShippedMachine)
    assert error is None, told


def test_real_hooks_are_run_and_what_they_never_lead_to_is_steered() -> None:
    """'The user's graph, hooks and the real store': products are real, and kept over crashes."""
    with CheapMachine.replay() as state:
        state.submit()
        for fault in (Fault.CRASH_AFTER, Fault.ZOMBIE, Fault.COMMIT_UNKNOWN):
            state.disturb(document=0, fault=fault.value)
        state.walk(document=0, goal="embeddings_stored>finalize>complete", steps=50, goes_on=True)
        found = state.run(state.world.bench.documents.get(state.world.documents[0]))
        assert (found.state, found.chunk_count, found.vector_count) == ("complete", 1, 1)
        label = "has_text refuses at parse_complete>accept_parse>parse_validated"
        state.walk(document=0, goal=label, steps=50, goes_on=True)
        last = state.run(state.world.bench.documents.history(found.id))[-1]
        assert (last.trigger, last.error) == ("fail", "guard_refused:has_text")


def test_people_take_part() -> None:
    """'By-hand states may wait': what people decide is asked for, both ways."""
    error, told = run(ReviewMachine, examples=1)
    assert error is None, told


class UnfencedStore(Store):
    """Settles for whoever asks, whether the claim is still held or not: a planted fault."""

    async def settle(
        self, proposals: Sequence[Proposal], worker: int, *, alone: bool = False
    ) -> list[Answer]:
        work = self._t.work
        for one in proposals:
            mine = work.c.document_id == one.claim.document.id
            async with self._engine.begin() as connection:
                fence = sa.select(work.c.claim_seq, work.c.state).where(mine)
                found = (await connection.execute(fence)).first()
                if found is not None and found.state == one.claim.document.state:
                    held = {"lane": "claimed", "claim_seq": one.claim.sequence}
                    held |= {"worker": worker, "deadline_at": one.claim.deadline_at}
                    await connection.execute(sa.update(work).where(mine).values(held))
        return await super().settle(proposals, worker, alone=alone)


class UnfencedMachine(ReviewMachine):
    """The fence is gone."""

    store = UnfencedStore
    faults = frozenset({Fault.ZOMBIE, Fault.TRANSIENT, Fault.WAIT})


class CarelessStore(Store):
    """Rescues nobody: a planted fault."""

    async def rescue(self, worker: int, **_: Any) -> list[Any]:
        return []


class CarelessMachine(ReviewMachine):
    """Nobody looks after the dead."""

    store = CarelessStore
    faults = frozenset({Fault.CRASH_BEFORE})


class MisnotingStore(Store):
    """Notes something wrong of what waits: a planted fault."""

    async def settle(
        self, proposals: Sequence[Proposal], worker: int, *, alone: bool = False
    ) -> list[Answer]:
        answers = await super().settle(proposals, worker, alone=alone)
        work = self._t.work
        for one in proposals:
            waits = (work.c.document_id == one.claim.document.id) & (work.c.lane == "deferred")
            async with self._engine.begin() as connection:
                wrong = sa.update(work).where(waits).values(self._wrong(one.claim))
                await connection.execute(wrong)
        return answers

    def _wrong(self, claim: Claim) -> dict[str, int]:
        """Count an attempt too many."""
        return {"attempt": claim.attempt + 1}


class MiscountingMachine(ReviewMachine):
    """A failed attempt is counted twice."""

    store = MisnotingStore
    faults = frozenset({Fault.TRANSIENT})


class KeptFenceStore(MisnotingStore):
    """Lets what waits keep the fence of the claim that it was settled under."""

    def _wrong(self, claim: Claim) -> dict[str, int]:
        return {"claim_seq": claim.sequence}


class KeptFenceMachine(ReviewMachine):
    """A settle draws no fence."""

    store = KeptFenceStore
    faults = frozenset({Fault.TRANSIENT})


class LooseStore(Store):
    """Writes products before it looks whether the claim is still held: a planted fault."""

    async def settle(
        self, proposals: Sequence[Proposal], worker: int, *, alone: bool = False
    ) -> list[Answer]:
        async with self._engine.begin() as connection:
            for one in proposals:
                product: Any = one.product
                if one.kind == "other":
                    await product.write(connection, one.claim)
        return await super().settle(proposals, worker, alone=alone)


class LooseMachine(ReviewMachine):
    """Products are written whoever has the document."""

    store = LooseStore
    faults = frozenset({Fault.ZOMBIE})


class PickyMachine(ReviewMachine):
    """Nobody rejects what was scored: a promise that does not hold."""

    faults = frozenset({Fault.TRANSIENT})

    def check_rejected(self, document: Document) -> None:
        """See that it was rejected before it was scored."""
        assert document.version < 3, f"version {document.version}"


PLANTED = {
    "a settle without a fence": (UnfencedMachine, "its settle of"),
    "a rescue that does nothing": (CarelessMachine, "a dead worker held 1 documents, 0 were"),
    "an attempt that is counted twice": (MiscountingMachine, "attempt 2 and crash 0 are counted"),
    "a fence that is kept": (KeptFenceMachine, "it is deferred, and still has the fence of claim"),
    "a product of a lost claim": (LooseMachine, "was refused, and its product was written"),
    "a promise that does not hold": (PickyMachine, "AssertionError: version"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_with_its_story(name: str) -> None:
    """'A failing example prints the story': what was done, the history, and a test to keep."""
    machine, what = PLANTED[name]
    error, told = run(machine)
    assert error is not None
    assert what in told
    assert told.count("What was done:") == 1
    assert "1. submit: arrived" in told
    assert f"from {__name__} import {machine.__name__}" in told


def test_the_test_that_is_printed_runs_and_fails_alike() -> None:
    """'Ready to paste': it repeats the failure, and passes once the fault is gone."""
    _, told = run(UnfencedMachine)
    code = told.split("a test to keep ------------")[-1].split("------")[0]
    kept: dict[str, Any] = {}
    exec(compile(code, "kept.py", "exec"), kept)
    (test,) = [value for name, value in kept.items() if name.startswith("test_")]
    with pytest.raises(AssertionError, match="its settle of"):
        test()
    UnfencedMachine.store = Store
    try:
        test()
    finally:
        UnfencedMachine.store = UnfencedStore


def test_an_example_is_told_with_as_few_calls_as_fail() -> None:
    """A story of many steps is no story: what does not matter is left out."""
    _, told = run(CarelessMachine, steps=15)
    steps = told.split("What was done:")[-1].split("Document 0")[0].strip().splitlines()
    assert [line.split(". ")[1].split("(")[0] for line in steps] == ["submit", "disturb"]


def test_what_was_never_exercised_fails_and_says_what_to_do() -> None:
    """'The class fails when declared edges, verdicts or faults were never exercised'."""

    class StuckMachine(ReviewMachine):
        """People never get to decide."""

        def walk(self, **_: Any) -> None:
            """Stay."""

    error, told = run(StuckMachine, examples=1, steps=2)
    assert error is not None
    assert "never taken: scored>reject>rejected" in told
    assert "raise max_examples" in told


def test_what_a_real_hook_died_of_is_told() -> None:
    """A hook that fails always leaves most edges untaken: its exception says why."""

    async def broken(claim: Claim) -> Done:
        raise Reject("no ink")

    machine = lifecycle_machine(ReviewLifecycle, hooks={"score": broken}, database=database)
    with machine.replay() as state:
        state.submit()
        state.walk(document=0, goal="arrived>score>scored", steps=1, goes_on=True)
        failed = state.proof.bench.failed
    assert failed == {"score": "no ink"}
    assert "  score: no ink" in left_out(ReviewLifecycle, ["never taken: x"], (), failed)


def test_what_nothing_can_reach_is_named_and_not_demanded() -> None:
    """'Which verdicts are infeasible is found and reported as such rather than demanded'."""
    with ShippedMachine.replay() as state:
        assert state.proof.out_of_reach == {
            "never refused: is_unique of parse_complete>accept_parse>parse_validated"
        }
        assert len(state.proof.missing) > 50
        known = state.proof.out_of_reach
    with RedactedMachine.replay() as state:
        left = state.proof.out_of_reach - known
        assert len(state.proof.missing) > 50
    # Nothing is to earn there, so that nobody stops, fails or is stopped there.
    assert {line.split()[-1] for line in left} == {
        "chunks_stored>retry>chunks_stored",
        "chunks_stored>fail>dead_letter",
        "chunks_stored>cancel>cancelled",
    }


def test_a_check_of_an_unknown_state_is_refused() -> None:
    """A misspelt ``check_<state>`` would never be called, and nobody would know."""
    with pytest.raises(DefinitionError, match="has no state 'publishd'"):
        type("MisspeltMachine", (ReviewMachine,), {"check_publishd": lambda self, document: None})


def test_a_service_that_is_down_for_long_keeps_nobody_from_coming_to_rest() -> None:
    """Breakers and budgets wait in real time, which does not pass here: hooks ask without them."""
    calls: list[Claim] = []

    async def is_down_at_first(claim: Claim) -> Done:
        calls.append(claim)
        if len(calls) < 6:
            raise ConnectionError
        return await score(claim)

    stage = Stage(is_down_at_first, provider=Provider("a service"))
    machine = lifecycle_machine(ReviewLifecycle, hooks={"score": stage}, database=database)
    with machine.replay() as state:
        state.submit()
        state.submit()
    assert len(calls) > 6


def test_rules_of_ones_own_take_part() -> None:
    """'Users add rules by subclassing', and they see the world the others act in."""
    seen: list[int] = []

    class NosyMachine(ReviewMachine):
        """Counts."""

        faults = frozenset[Fault]()

        @rule()
        def count(self) -> None:
            """Look."""
            seen.append(len(self.world.documents))

    error, told = run(NosyMachine, examples=1)
    assert error is None, told
    assert seen


def test_an_example_may_take_its_time() -> None:
    """'Time passes at once' and only where it should: a busy machine takes no hand for dead."""
    with ReviewMachine.replay() as state:
        state.submit()
        bench = state.proof.bench

        async def busy() -> None:
            async with bench.autocommit.connect() as connection:
                for hand in state.world.hands:
                    await silence(connection, bench.tables, hand.worker, timedelta(hours=1))

        for fault in (Fault.CRASH_BEFORE, Fault.ZOMBIE, Fault.CLOCK_JUMP):
            state.run(busy())
            state.disturb(document=0, fault=fault.value)
        assert sum(state.proof.faults.values()) == 3


def test_every_fault_leaves_all_in_order() -> None:
    """'Faults as rules': each of them twice, on a document in the middle of its life."""
    with RedactedMachine.replay() as state:
        state.submit()
        for fault in Fault:
            state.disturb(document=0, fault=fault.value)
            state.walk(
                document=0,
                goal="parse_queued>finish_parse>parse_complete",
                steps=9,
                goes_on=True,
            )
            state.disturb(document=0, fault=fault.value)
        assert set(state.proof.faults.values()) == {2}
