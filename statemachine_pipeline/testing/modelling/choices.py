"""What may come of an attempt, a hop, a rescue or a request, as the library itself decides it.

Guards are pure, so facts stand for everything that a hook, a database or another document may have
to say: for each combination of verdicts that any facts bring about there is one choice. Each is
asked of ``decide``, ``resume`` or ``plan`` once and remembered.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from statemachine_pipeline.database.moves import plan
from statemachine_pipeline.decide import (
    Crashed,
    Decision,
    Failed,
    Outcome,
    Postponed,
    Succeeded,
    decide,
    resume,
)
from statemachine_pipeline.errors import TransitionRefused
from statemachine_pipeline.graph import DELETE
from statemachine_pipeline.records import Document, Facts
from statemachine_pipeline.testing.modelling.products import INPUT, Products
from statemachine_pipeline.testing.verdicts import basis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.graph import Edge, Guard
    from statemachine_pipeline.records import Lane
    from statemachine_pipeline.retry import Policy
    from statemachine_pipeline.stages import Bound, Stages

TRIES = 2
"""Attempts and crashes are counted up to here, or to the policy where that allows fewer: what
``may_retry`` compares with the policy can tell no more numbers apart. Where a forward guard reads
them itself, the policy stands."""

DIED = Crashed(reason="its worker died")
"""What a rescue makes of a claim."""

_TRIES = ("attempt", "attempts_allowed", "crashes", "crashes_allowed")
_NOW = datetime(2000, 1, 1, tzinfo=UTC)
_DOCUMENT = Document(
    id=UUID(int=0),
    tenant="",
    source_uri="",
    name="",
    state="",
    version=1,
    generation=1,
    life=1,
    media_type=None,
    size_bytes=0,
    content_sha256=INPUT,
    input_sha256=INPUT,
    text_sha256=None,
    text_chars=0,
    chunk_count=0,
    vector_count=0,
    correlation_id="",
    last_error=None,
    metadata={},
    created_at=_NOW,
    updated_at=_NOW,
)


class Choice(NamedTuple):
    """One thing that may be settled, and what is decided on it.

    Attributes:
        words: What happened, for people.
        decision: What is decided.
        earns: The product that is kept: its stage, and the number of the facts of its guards.
        waits: It costs one of the times that something has to wait.
        outcome: What came of the hook; None for hops.
        facts: What guards were told.
        admitted: Where the runner could have gone on.
    """

    words: str
    decision: Decision
    earns: tuple[str, int] | None = None
    waits: bool = False
    outcome: Outcome | None = None
    facts: Facts = Facts()
    admitted: frozenset[str] = frozenset()


class Request(NamedTuple):
    """What somebody may ask for, and what comes of it.

    Attributes:
        trigger: What is asked for.
        state: Where the document stands then.
        lane: Who may take it there; None when it rests.
        edges: What is written to history.
        begins: Another life begins.
    """

    trigger: str
    state: str
    lane: Lane | None
    edges: tuple[Edge, ...]
    begins: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A document as people's requests are judged on it."""

    document: Document
    work: Any
    facts: Facts


class Choices:
    """What the library decides on one lifecycle with its hooks.

    Args:
        stages: The lifecycle and its hooks.
        tries: See ``TRIES``.
        is_bounded: Stages have a last attempt.
    """

    def __init__(self, stages: Stages, *, tries: int = TRIES, is_bounded: bool = True) -> None:
        self.stages = stages
        self._tries, self._is_bounded = tries, is_bounded
        self._products = Products(stages)
        edges = (*stages.graph.edges, *stages.graph.restarts)
        self._edges = {edge.code: edge for edge in edges}
        # Nothing of a choice changes, so each is made once.
        self.attempts = functools.cache(self._attempts)
        self.hops = functools.cache(self._hops)
        self.rescued = functools.cache(self._rescued)
        self.asked = functools.cache(self._asked)
        self.policy_at = functools.cache(self._policy_at)

    def _policy_at(self, state: str) -> Policy:
        """Return the numbers that govern failures in ``state``, as far as they are counted."""
        policy = self.stages.policy_at(state)
        told = {tuple(getattr(f, name) for name in _TRIES) for f in basis(self._guards(state))}
        if len(told) > 1:
            return policy
        attempts, crashes = min(policy.attempts, self._tries), min(policy.crashes, self._tries)
        return dataclasses.replace(policy, attempts=attempts, crashes=crashes)

    def _guards(self, state: str) -> tuple[Guard, ...]:
        """List the guards on the way out of ``state``, up to where something is to be earned."""
        graph, states, found = self.stages.graph, [state], dict[Any, None]()
        for one in states:
            ways = [e for e in graph.edges if e.from_state == one and e.trigger in _ways(graph, e)]
            found |= dict.fromkeys(guard for edge in ways for guard in edge.guards)
            after = [e.to_state for e in ways if self.stages.at(e.to_state) is None]
            states += [to for to in dict.fromkeys(after) if to not in states]
        return tuple(found)

    def _variants(self, state: str, seen: Facts) -> Iterator[Facts]:
        """Yield facts for each combination of verdicts, at the attempt and crashes of ``seen``."""
        guards = self._guards(state)
        met: set[tuple[object, ...]] = set()
        given = {name: getattr(seen, name) for name in _TRIES}
        for one in basis(guards):
            facts = dataclasses.replace(one, permanent=False, **given)
            judged = tuple(guard.judge(facts) for guard in guards)
            verdicts = tuple((v.holds, v.error is None) for v in judged)
            if verdicts not in met:
                met.add(verdicts)
                yield facts

    def _facts(self, state: str, attempt: int, crashes: int) -> Facts:
        policy = self.policy_at(state)
        return Facts(
            attempt=attempt,
            attempts_allowed=policy.attempts,
            crashes=crashes,
            crashes_allowed=policy.crashes,
        )

    def _decide(
        self, state: str, outcome: Outcome, facts: Facts, admitted: frozenset[str]
    ) -> Decision:
        policy = self.policy_at(state)
        if not self._is_bounded:
            policy = dataclasses.replace(policy, attempts=10**6, crashes=10**6)
        return decide(
            self.stages,
            state,
            outcome,
            facts,
            policy=policy,
            draw=0.0,
            admitted=admitted,
            input_sha256=INPUT if isinstance(outcome, Succeeded) else None,
        )

    def _attempts(self, state: str, attempt: int, crashes: int) -> tuple[Choice, ...]:
        """List what may come of an attempt in ``state``."""
        bound = self.stages.at(state)
        if bound is None:
            return ()
        seen = self._facts(state, attempt, crashes)
        found: dict[Any, Choice] = {}
        following = self.stages.after(state) - {state}
        for facts in self._variants(state, seen):
            for admitted in dict.fromkeys((following, frozenset[str]())):
                choice = self._earning(bound, facts, admitted)
                found.setdefault(_key(choice), choice)
        failures: list[tuple[str, Outcome]] = [
            ("its hook fails", Failed(code="failed", reason="it failed")),
            (
                "its hook fails for good",
                Failed(code="refused", reason="it was refused", permanent=True),
            ),
            (
                "its hook has to wait",
                Postponed(code="waiting", reason="it waits", after=timedelta(0)),
            ),
        ]
        if bound.stage.where == "process":
            died = Crashed(reason="its process died", is_contained=True)
            failures.append(("the child process of its hook dies", died))
        for words, outcome in failures:
            decision = self._decide(state, outcome, seen, frozenset())
            waits = isinstance(outcome, Postponed)
            choice = Choice(words, decision, waits=waits, outcome=outcome, facts=seen)
            found.setdefault(_key(choice), choice)
        return tuple(found.values())

    def _earning(self, bound: Bound, facts: Facts, admitted: frozenset[str]) -> Choice:
        outcome = Succeeded(reported=facts.reported)
        decision = self._decide(bound.state, outcome, facts, admitted)
        earns = None
        if decision.parked is None:
            earns = bound.trigger, self._products.number(decision.counts, facts.reported)
        return Choice("its hook succeeds", decision, earns, False, outcome, facts, admitted)

    def _hops(
        self,
        state: str,
        attempt: int,
        crashes: int,
        is_restarted: bool,
        earned: tuple[tuple[str, int], ...],
    ) -> tuple[Choice | None, ...]:
        """List what a worker may settle before it runs a hook; None where it runs it."""
        here = self.stages.at(state)
        if here is not None and not is_restarted:
            return (None,)
        bounds = [here] if here else [b for b in self.stages if state in self.stages.leading_to(b)]
        asks = is_restarted or self.stages.is_guarded(state)
        found: dict[Any, Choice | None] = {}
        standings = self._products.standings(earned if asks else ())
        everywhere = {bound.state for bound in self.stages}
        ways = ((b, states) for b in bounds for states in (everywhere, {b.state}))
        for (bound, admitted), standing in itertools.product(ways, standings):
            decision = resume(
                self.stages,
                state,
                self._facts(bound.state, attempt, crashes),
                input_sha256=INPUT,
                standing=standing,
                admitted=admitted,
            )
            choice = None
            if decision is not None:
                words = "what it needs is there already" if earned else "nothing is to earn"
                choice = Choice(words, decision, waits=not decision.steps)
            found.setdefault(choice and _key(choice), choice)
        return tuple(found.values())

    def _rescued(self, state: str, attempt: int, crashes: int) -> Decision:
        """Return what becomes of a claim that ended without a word."""
        facts = Facts(attempt=attempt, crashes=crashes)
        return self._decide(state, DIED, facts, frozenset())

    def _asked(self, state: str, attempt: int, crashes: int, *, works: bool) -> tuple[Request, ...]:
        """List what somebody may ask for here and is not refused."""
        seen = self._facts(state, max(attempt, 1), crashes)
        document = dataclasses.replace(_DOCUMENT, state=state)
        found: dict[Any, Request] = {}
        # What works is stopped before it is deleted, so that this is possible everywhere.
        triggers = dict.fromkeys((*self.stages.graph.possible(state), DELETE))
        for trigger, facts in itertools.product(triggers, self._variants(state, seen)):
            held = _Held(document=document, work=works or None, facts=facts)
            try:
                move = plan(self.stages, held, trigger, by="somebody", reason="asked")
            except TransitionRefused:
                continue
            steps = (f"{s['from_state']}>{s['trigger']}>{s['to_state']}" for s in move.steps)
            edges = tuple(self._edges[code] for code in steps)
            begins = move.given["lives"] > 0
            request = Request(trigger, move.state, move.given["lane"], edges, begins)
            found.setdefault(edges, request)
        return tuple(found.values())


def _ways(graph: Any, edge: Edge) -> tuple[str, ...]:
    return graph.forward(edge.from_state)  # type: ignore[no-any-return]


def _key(choice: Choice) -> tuple[object, ...]:
    """Return what tells choices apart that a worker may make."""
    decision = choice.decision
    edges = tuple(step.edge.code for step in decision.steps)
    return (
        choice.earns,
        edges,
        decision.state,
        decision.lane,
        decision.give_back,
        decision.crashed,
    )
