"""The model is no fairy tale: what it says happens is done to a real store, and compared.

Walks through the model, each step of which is carried out by the library's own claims, settles,
rescues and requests on PostgreSQL. After each the rows must be as the model has them: state, lane,
attempt, crashes, holder, fences, history. Time is moved in the tables, never waited for.

Some walks are drawn, the same in every run; to what they leave out leads the shortest walk there
is, so that nothing that the model knows is left to chance.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import pytest
from fix_pipelines import Hand, hand
from statemachine import State

from statemachine_pipeline import Lifecycle, Pipeline, Stage, by_hand
from statemachine_pipeline.database.proposal import Settled
from statemachine_pipeline.decide import Decision, Failed
from statemachine_pipeline.errors import StaleClaim
from statemachine_pipeline.lifecycle import DocumentLifecycle
from statemachine_pipeline.observability.metrics import Metrics
from statemachine_pipeline.records import Accepted, Validated, sha256_hex
from statemachine_pipeline.runner.drive import Drive
from statemachine_pipeline.runner.following import moved, next_claim
from statemachine_pipeline.runner.slots import Slots
from statemachine_pipeline.testing.modelling.actions import Action, Step
from statemachine_pipeline.testing.modelling.choices import Choice, Choices
from statemachine_pipeline.testing.modelling.protocol import AS_BUILT
from statemachine_pipeline.testing.modelling.situations import (
    IDLE,
    Budget,
    Row,
    Situation,
    canonical,
)
from statemachine_pipeline.testing.modelling.steps import Steps
from statemachine_pipeline.testing.modelling.story import Story, numbered

if TYPE_CHECKING:
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Facts
    from statemachine_pipeline.database.proposal import Proposal
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.stages import Bound

    Psql = psycopg.Connection[Any]

Walk: TypeAlias = list[tuple[Situation, Step]]
"""Each step with where it is done."""

DRAWN, LENGTH = 10, 12
WEIGHTS = {"worker": 20, "fault": 7, "person": 3}
ONWARD, ANYHOW = 0.6, 0.3
AGAINST = {f"{one} while claimed" for one in ("refused", "apply", "submit")}
"""What is done against a worker that holds the document."""
A_DAY = "interval '1 day'"


def is_scan(facts: Facts) -> bool:
    """The hook found pictures of text."""
    return bool(facts.reported.get("scan"))


class Forked(Lifecycle):
    """Two ways behind a state without a hook, one of which leads past a person."""

    received = State(initial=True)
    sorted_out, scanned, typed, reviewed = State(), State(), State(), State()
    filed, rejected = State(final=True), State(final=True)

    inspect = received.to(sorted_out)
    scan = sorted_out.to(scanned, cond=is_scan)
    pass_on = sorted_out.to(typed)
    recognise = scanned.to(reviewed)
    read = typed.to(filed)
    approve = reviewed.to(typed)
    reject = reviewed.to(rejected)


async def never(claim: object) -> None:
    """Be a hook that nobody runs: what it comes to is decided by the walk."""
    raise AssertionError(claim)


TWICE = Stage(never, attempts=2, crashes=2)
LIFECYCLES = {
    DocumentLifecycle: {
        **dict.fromkeys(("queue_parse", "finish_parse", "accept_parse"), TWICE),
        **dict.fromkeys(("store_chunks", "store_embeddings", "finalize"), TWICE),
    },
    Forked: {
        **dict.fromkeys(("scan", "pass_on")),
        **dict.fromkeys(("inspect", "recognise", "read"), TWICE),
        **dict.fromkeys(("approve", "reject"), by_hand),
    },
}


def what(decision: Decision) -> tuple[Any, ...]:
    """Return what tells decisions apart."""
    edges = tuple(step.edge.code for step in decision.steps)
    return edges, decision.state, decision.lane, decision.give_back, decision.crashed


class World:
    """A real document and its real workers, in the places that the model gives them."""

    def __init__(self, hand: Hand, psql: Psql, choices: Choices, twin: UUID) -> None:
        self.hand, self.psql, self.choices, self.twin = hand, psql, choices, twin
        self.pipeline, self.store, self.stages = hand.pipeline, hand.store, hand.stages
        self.workers: list[int] = []
        self.held: dict[int, tuple[Claim, Bound]] = {}
        self.dead: set[int] = set()
        self.uri = ""

    async def begin(self, number: int, workers: int) -> None:
        """Submit a new document, and start workers that know nothing."""
        self.uri, self.copy = f"mem:{number}", 0
        self.workers = [await self.hand.workers.register() for _ in range(workers)]
        self.held.clear()
        self.document = await self.submit()
        self.version = 1

    async def submit(self) -> UUID:
        """Submit bytes that nobody has submitted before, and once more, which changes nothing."""
        self.copy += 1
        content = f"{self.uri} {self.copy}".encode()
        sent = await self.pipeline.submit(content, source_uri=self.uri)
        again = await self.pipeline.submit(content, source_uri=self.uri)
        assert (sent.outcome in {"new", "changed"}, again.outcome) == (True, "unchanged")
        return sent.document_id

    def row(self) -> Any:
        """Read how the document stands."""
        return self.psql.execute(
            "SELECT d.state, w.lane, w.attempt, w.crashes, w.worker, w.claim_seq, w.alone "
            "FROM document d LEFT JOIN work w ON w.document_id = d.id WHERE d.id = %s",
            [self.document],
        ).fetchone()

    def order(self, at: Situation) -> None:
        """Put workers into the places that ``canonical`` gives them."""
        order = sorted(range(len(at.workers)), key=at.workers.__getitem__)
        self.workers = [self.workers[n] for n in order]
        self.held = {to: self.held[n] for to, n in enumerate(order) if n in self.held}

    async def do(self, at: Situation, step: Step) -> None:
        """Carry out one step of the model."""
        if step.worker is None:
            await self.do_for_anybody(step)
            return
        n = step.worker
        # Nothing but the number is a worker's own.
        self.hand.worker = self.workers[n]
        match step.action:
            case "claim":
                (self.held[n],) = await self.hand.claim(alone=self.row()[6])
            case "settle" | "settle twice" | "settle unheard":
                await self.settle(at, step)
            case "settle unsent" | "ask":
                is_held = await self.store.holds(self.held[n][0])
                assert is_held == at.workers[n].is_current
            case "refused":
                await self.try_in_vain(n)
            case "release":
                assert await self.hand.workers.release(self.workers[n], keep=()) == 1
            case "leave":
                assert await self.hand.workers.leave(self.workers[n]) == 1
                self.workers[n] = await self.hand.workers.register()
            case "die":
                self.dead.add(self.workers[n])
                self.workers[n] = await self.hand.workers.register()

    async def do_for_anybody(self, step: Step) -> None:
        """Carry out what no worker in particular does."""
        self.hand.worker = self.workers[0]
        match step.action:
            case "rescue" | "rescue late":
                await self.rescue(is_late=step.action == "rescue late")
            case "promote":
                self.psql.execute(f"UPDATE work SET run_at = run_at - {A_DAY}")
                assert await self.store.promote() == 1
            case "apply":
                done = await self.pipeline.apply(step.words, self.document, reason="asked")
                assert done.moved == (self.document,), done
            case "submit":
                assert await self.submit() == self.document

    async def try_in_vain(self, n: int) -> None:
        """Settle under a claim that is gone."""
        claim, bound = self.held[n]
        assert not await self.store.holds(claim)
        late = self.hand.propose(claim, bound, Failed(code="late", reason="late"))
        (answer,) = await self.hand.settle(late, alone=True)
        assert isinstance(answer, StaleClaim)

    async def rescue(self, *, is_late: bool) -> None:
        """Move time on for the claim, or for the beats of its worker, and look for it."""
        assert await self.hand.rescue() == 0
        if is_late:
            self.psql.execute(f"UPDATE work SET deadline_at = deadline_at - {A_DAY}")
        else:
            dead = list(self.dead)
            self.psql.execute(
                f"UPDATE worker SET beat_at = beat_at - {A_DAY} WHERE id = ANY(%s)", [dead]
            )
        assert await self.hand.rescue() == 1

    async def settle(self, at: Situation, step: Step) -> None:
        """Settle what the model chose, as the runner would make it."""
        n, choice = step.worker, step.choice
        assert n is not None
        assert choice is not None
        claim, _ = self.held[n]
        if choice.outcome is None:
            proposal = await self.hop(at, n, choice)
        else:
            proposal = self.attempt(n, choice)
            self.own(choice.facts.duplicate_of and proposal)
        (answer,) = await self.hand.settle(proposal, alone=True)
        assert isinstance(answer, Settled), answer
        assert what(answer.decision) == what(choice.decision)
        if answer.continuation is not None and step.action != "settle unheard":
            following = self.stages.at(answer.decision.state)
            assert following is not None
            document = moved(claim.document, answer, proposal.product)
            self.held[n] = next_claim(claim, document, following, answer.continuation), following

    def attempt(self, n: int, choice: Choice) -> Proposal:
        """Return the outcome of an attempt, with what guards are told."""
        claim, bound = self.held[n]
        proposer, outcome = self.hand.proposer, choice.outcome
        known, facts = proposer.facts(claim, bound), choice.facts
        named = ("attempt", "attempts_allowed", "crashes", "crashes_allowed")
        assert [getattr(known, x) for x in named] == [getattr(facts, x) for x in named]
        if facts.duplicate_of:
            facts = dataclasses.replace(facts, duplicate_of=self.twin)
        content = claim.document.content_sha256
        products = {
            "queue_parse": Accepted(media_type="text/plain", sha256=content),
            "accept_parse": Validated(text_sha256=sha256_hex(content)),
        }
        if choice.earns and bound.trigger in products:
            outcome = dataclasses.replace(outcome, product=products[bound.trigger])
        return proposer.propose(claim, bound, outcome, facts, choice.admitted, 0.0)

    async def hop(self, at: Situation, n: int, choice: Choice) -> Proposal:
        """Let the runner walk where the model does: whoever owns the keys, whatever it serves."""
        claim, _ = self.held[n]
        stages, row = self.stages, at.row
        one = (row.state, row.attempt, row.crashes, row.is_restarted, row.earned)
        known = {c and what(c.decision) for c in self.choices.hops(*one)}
        for kinds in ((), ("bytes",), ("text",)):
            self.own(claim if kinds else None, kinds)
            for bound in stages:
                if row.state not in stages.leading_to(bound):
                    continue
                for is_closed in (False, True):
                    slots = Slots(list(stages), lambda: None, Metrics())
                    if is_closed:
                        slots.close()
                    drive = Drive(self.store, stages, slots, None, None, None)  # type: ignore[arg-type]
                    found = await drive._hop(claim, bound)
                    decision = found and found[0].decide(found[0].facts)
                    assert (decision and what(decision)) in known
                    if found and what(decision) == what(choice.decision):
                        return found[0]
        raise AssertionError(f"the runner never does {what(choice.decision)}")

    def own(self, what: Any, kinds: tuple[str, ...] = ("bytes", "text")) -> None:
        """Let the twin own what the document of a claim or proposal has, or nothing."""
        self.psql.execute("DELETE FROM text_owner")
        if not what:
            return
        claim = getattr(what, "claim", what)
        content = claim.document.content_sha256
        hashes = {"bytes": content, "text": sha256_hex(content)}
        for kind in kinds:
            values = [claim.document.tenant, kind, hashes[kind], self.twin]
            self.psql.execute("INSERT INTO text_owner VALUES (%s, %s, %s, %s)", values)

    def check(self, at: Situation, step: Step) -> None:
        """Compare the rows with what the model says of them."""
        row, (state, lane, attempt, crashes, worker, fence, _) = at.row, self.row()
        assert (state, lane) == (row.state, row.lane)
        if lane is not None:
            assert (attempt, crashes) == (row.attempt, row.crashes)
        mine = [self.workers[n] for n, one in enumerate(at.workers) if one.is_current]
        if lane == "claimed":
            assert [worker] == mine or (not mine and worker in self.dead)
        else:
            assert not mine
        for number, one in enumerate(at.workers):
            if one.doing in {"working", "unsure", "late"}:
                claim, _ = self.held[number]
                # Whatever a worker lost has another fence now, also where nobody took it up yet.
                assert (claim.sequence == fence) == one.is_current
                assert not one.is_current or claim.attempt == row.attempt
        told = self.psql.execute(
            "SELECT coalesce(from_state, '') || '>' || trigger || '>' || to_state FROM transition "
            "WHERE document_id = %s AND version > %s ORDER BY version",
            [self.document, self.version],
        ).fetchall()
        assert [code for (code,) in told] == [edge.code for edge in step.edges]
        self.version += len(told)


def chosen(draw: random.Random, at: Situation, steps: list[Step], done: Counter[str]) -> Step:
    """Draw a step: mostly of workers, mostly onwards, and first what was done least."""
    causes = sorted({step.cause for step in steps})
    cause = draw.choices(causes, [WEIGHTS[one] for one in causes])[0]
    found = [step for step in steps if step.cause == cause]
    onward = [s for s in found if s.choice and (s.choice.earns or s.choice.outcome is None)]
    if draw.random() < ONWARD:
        found = onward or found
    if draw.random() < ANYHOW:
        return draw.choice(found)
    return min(found, key=lambda one: (min(done[word] for word in words(at, one)), draw.random()))


def drawn(steps: Steps, number: int, done: Counter[str]) -> Walk:
    """Draw a walk, and count what it shows."""
    draw = random.Random(number)
    at = steps.beginning(Situation(Row("", None), Budget(4, 3, 2, 2), (IDLE, IDLE)))
    walk: Walk = []
    while len(walk) < LENGTH and (possible := list(steps.after(at))):
        step = chosen(draw, at, possible, done)
        walk.append((at, step))
        done.update(words(at, step))
        at = canonical(step.after)
    return walk


def shortest(steps: Steps) -> dict[str, Walk]:
    """Look through all that may happen; return the shortest walk to whatever a step shows."""
    start = steps.beginning(Situation(Row("", None), Budget(2, 1, 1, 1), (IDLE, IDLE)))
    ways: dict[str, Walk] = {}
    came: dict[Situation, tuple[Situation, Step] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        at = waiting.popleft()
        for step in steps.after(at):
            for word in words(at, step):
                if word not in ways:
                    ways[word] = [*_back(came, at), (at, step)]
            after = canonical(step.after)
            if after not in came:
                came[after] = at, step
                waiting.append(after)
    return ways


def _back(came: dict[Situation, tuple[Situation, Step] | None], at: Situation) -> Walk:
    """Return how a situation was come to."""
    walk: Walk = []
    while (last := came[at]) is not None:
        walk.insert(0, last)
        at = last[0]
    return walk


def words(at: Situation, step: Step) -> list[str]:
    """Name what a step shows: its action, in which lane, and the triggers it takes."""
    triggers = [edge.trigger for edge in step.edges]
    return [step.action, f"{step.action} while {at.row.lane}", *triggers]


async def compare(world: World, number: int, walk: Walk) -> None:
    """Do a walk with a document of its own, and compare after each step."""
    await world.begin(number, workers=2)
    story = Story(walk[0][0])
    for at, step in walk:
        story.tell(((at, step),))
        try:
            await world.do(at, step)
            world.check(step.after, step)
        except Exception as error:
            raise AssertionError(f"walk {number}:\n{numbered(story.sentences)}") from error
        world.order(step.after)
    await world.pipeline.apply("delete", world.document, reason="the walk is over")


@pytest.mark.parametrize("lifecycle", LIFECYCLES)
async def test_the_store_does_what_the_model_says(
    engine: AsyncEngine, psql: Psql, lifecycle: type[Lifecycle]
) -> None:
    """Walks are done and compared, until every action in every lane and trigger was among them."""
    pipeline = Pipeline(engine, lifecycle=lifecycle, hooks=LIFECYCLES[lifecycle])
    await pipeline.migrate()
    twin = (await pipeline.submit(b"the twin")).document_id
    await pipeline.apply("cancel", twin, reason="it only owns")
    choices = Choices(pipeline.stages, tries=100)
    steps = Steps(choices, AS_BUILT, tracks=False)
    world, done = World(await hand(pipeline), psql, choices, twin), Counter[str]()
    ways = shortest(steps)
    assert {*AGAINST, *get_args(Action), *lifecycle.graph.triggers} - {"submit"} <= set(ways)
    for number in range(DRAWN):
        await compare(world, number, drawn(steps, number, done))
    for number, (word, walk) in enumerate(ways.items(), DRAWN):
        if not done[word]:
            done.update(itertools.chain.from_iterable(words(*one) for one in walk))
            await compare(world, number, walk)
    assert set(ways) - set(done) == set()
