"""Outcome to decision: which edges a document takes, and who may touch it next. Pure.

A hook's outcome, facts, the stage's policy and one random draw come in; the edges to walk and the
lane to leave the document in come out. No clock, no I/O, nothing awaited.
"""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, assert_never

from statemachine_pipeline.graph import FAIL, MARK_DUPLICATE, RETRY, Edge
from statemachine_pipeline.records import Facts, sha256_hex

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from uuid import UUID

    from statemachine_pipeline.records import Child, KeyKind, Lane
    from statemachine_pipeline.retry import Policy
    from statemachine_pipeline.stages import Bound, Stages

_NONE: Mapping[str, Any] = MappingProxyType({})
_COUNTS = (
    "text_chars",
    "chunks_expected",
    "chunks_stored",
    "vectors_expected",
    "vectors_stored",
)
_NO_COUNTS = MappingProxyType(dict.fromkeys(_COUNTS, 0))

ProductKind = Literal["none", "text", "chunks", "vectors", "publication", "other"]
_STORED: frozenset[ProductKind] = frozenset({"text", "chunks", "vectors", "publication"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The hook returned."""

    product: object | None = None
    children: tuple[Child, ...] = ()
    reported: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _NONE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The hook failed.

    Attributes:
        code: One word for grouping.
        reason: A sentence for people, without document text: it stays in history.
        detail: What else is known, such as an exception's message; erased with the document.
        permanent: Another try cannot help.
        after: Wait at least this long before the next try.
        error_type: Dotted name of what was raised; None for what the hook said by a signal.
        trace: Where it was raised: types and frames, without messages.
    """

    code: str
    reason: str
    detail: str | None = None
    permanent: bool = False
    after: timedelta | None = None
    error_type: str | None = None
    trace: str | None = None

    @property
    def error(self) -> str:
        """The whole story."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Postponed:
    """Nobody's fault: the attempt is given back and the document looked at again later.

    Attributes:
        code: Why.
        reason: A sentence for people, without document text: a paused stage shows it.
        after: When to look again.
        detail: What else is known, such as an exception's message; erased with the document.
    """

    code: Literal["waiting", "rate_limited", "provider_closed", "stage_fault"]
    reason: str
    after: timedelta
    detail: str | None = None

    @property
    def error(self) -> str:
        """The whole story."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Crashed:
    """The hook took down what ran it.

    Attributes:
        reason: A sentence for people, without document text: what died, and of what.
        code: One word for grouping.
        detail: What else is known; erased with the document.
        is_contained: Only a child process died. Else the claim ended without a word: its worker
            died or ran past deadline and grace, so the next try is made by one that holds nothing
            else.
    """

    reason: str
    code: str = "crashed"
    detail: str | None = None
    is_contained: bool = False


Outcome: TypeAlias = Succeeded | Failed | Postponed | Crashed


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Earned:
    """What a stage made of an input, as its product row says.

    Attributes:
        stage: The trigger it earned.
        input_sha256: What it read.
        fingerprint: The hook that made it.
        output_sha256: What later stages read.
        kind: Where its data lies.
        key: The bytes or text that the document owns by it, if any.
        reported: What the hook said for guards.
        facts: Counts the guards saw; one that is left out was 0.
    """

    stage: str
    input_sha256: str
    fingerprint: str
    output_sha256: str
    kind: ProductKind
    key: tuple[KeyKind, str] | None = None
    reported: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _NONE)
    facts: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _NONE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What earlier lives of a document left that may still be good.

    Attributes:
        earned: Newest product of each stage, the latest last.
        present: Output hashes whose data is still stored, by kind.
        owners: For each key the other document that owns it now; absent where this one does.
    """

    earned: Mapping[str, Earned]
    present: Mapping[ProductKind, Collection[str]]
    owners: Mapping[tuple[KeyKind, str], UUID]


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One edge to write to history."""

    edge: Edge
    hop: bool = False
    error: str | None = None
    reason: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """What a dead letter says of the attempt that was the last.

    Attributes:
        stage: The trigger that was not earned.
        failed: How it failed.
        attempts: Tries at that stage.
        crashes: Those of them that took a child process or a worker down.
    """

    stage: str
    failed: Failed
    attempts: int
    crashes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to write.

    Attributes:
        state: Where the document stands afterwards.
        steps: Edges taken, in order; empty for a release.
        lane: What becomes of its work row; None when it rests.
        after: For a deferred document, how long.
        give_back: The attempt does not count.
        crashed: One crash more.
        alone: The next try is made by a worker that holds nothing else.
        input_sha256: What the next stage reads; None leaves it.
        error: What the document's ``last_error`` becomes.
        duplicate_of: Whom the document rests on, when ``mark_duplicate`` was taken.
        duplicate_by: Which of the two they share.
        counts: What the guards saw when a stage was earned; kept with its product.
        parked: Set when it became a dead letter.
    """

    state: str
    steps: tuple[Step, ...] = ()
    lane: Lane | None = None
    after: timedelta = timedelta(0)
    give_back: bool = False
    crashed: bool = False
    alone: bool = False
    input_sha256: str | None = None
    error: str | None = None
    duplicate_of: UUID | None = None
    duplicate_by: KeyKind | None = None
    counts: Mapping[str, int] = dataclasses.field(default_factory=lambda: _NONE)
    parked: Parked | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the same worker keeps the document for the next stage."""
        return self.lane == "claimed"

    @property
    def reenters(self) -> bool:
        """Whether it left its state and came back there, so that the stage begins anew."""
        left = any(step.edge.trigger != RETRY for step in self.steps)
        return left and self.steps[0].edge.from_state == self.state


def decide(
    stages: Stages,
    state: str,
    outcome: Outcome,
    facts: Facts,
    *,
    policy: Policy,
    draw: float,
    admitted: Collection[str] = (),
    input_sha256: str | None = None,
) -> Decision:
    """Turn the outcome of one attempt into edges and a lane.

    Args:
        stages: The lifecycle's graph and hooks.
        state: Where the attempt was made.
        outcome: What came of it.
        facts: What guards read; must carry attempt and crashes as they were claimed.
        policy: The stage's numbers.
        draw: Random number in [0, 1) for the backoff.
        admitted: States at which this runner may go on at once.
        input_sha256: The output of this stage, read by the next.
    """
    match outcome:
        case Succeeded(reported=reported):
            if reported:
                facts = dataclasses.replace(facts, reported=reported)
            way = stages.graph.advance(state, facts)
            if isinstance(way, str):
                text = f"the hook succeeded but no forward guard agreed ({way})"
                failed = Failed(code=way, reason=text, permanent=True)
                return _failure(stages, state, failed, facts, policy, draw)
            counts = {name: getattr(facts, name) for name in _COUNTS}
            return _rest(
                stages,
                [Step(way)],
                way.to_state,
                facts,
                admitted,
                input_sha256=input_sha256,
                counts=counts,
            )
        case Failed():
            return _failure(stages, state, outcome, facts, policy, draw)
        case Crashed(reason=reason, code=code, detail=detail, is_contained=is_contained):
            failed = Failed(code=code, reason=reason, detail=detail)
            seen = dataclasses.replace(facts, crashes=facts.crashes + 1)
            decision = _failure(stages, state, failed, seen, policy, draw)
            return dataclasses.replace(decision, crashed=True, alone=not is_contained)
        case Postponed(error=error, after=after):
            return Decision(state=state, lane="deferred", after=after, give_back=True, error=error)
    assert_never(outcome)


def walk_from(stages: Stages, edge: Edge, facts: Facts) -> Decision:
    """Take an edge that somebody asked for, and those behind it where nothing is to be earned."""
    return _rest(stages, [Step(edge)], edge.to_state, facts, (), input_sha256=None)


def _failure(
    stages: Stages, state: str, failed: Failed, facts: Facts, policy: Policy, draw: float
) -> Decision:
    facts = dataclasses.replace(
        facts,
        permanent=failed.permanent,
        attempts_allowed=policy.attempts,
        crashes_allowed=policy.crashes,
    )
    graph = stages.graph
    options = {option.trigger: option for option in graph.explain(state, facts)}
    trigger = RETRY if options[RETRY].is_open else FAIL
    edge = graph.step(state, trigger, facts)
    step = Step(edge, error=failed.code, reason=failed.reason)
    if trigger == FAIL:
        bound = stages.at(state)
        parked = Parked(
            stage=bound.trigger if bound else graph.forward(state)[-1],
            failed=failed,
            attempts=facts.attempt if bound else 0,
            crashes=facts.crashes,
        )
        return Decision(state=edge.to_state, steps=(step,), error=failed.error, parked=parked)
    delay = max(policy.delay(attempt=facts.attempt, draw=draw), failed.after or timedelta(0))
    return Decision(state=state, steps=(step,), lane="deferred", after=delay, error=failed.error)


def resume(
    stages: Stages,
    state: str,
    facts: Facts,
    *,
    input_sha256: str,
    standing: Standing,
    admitted: Collection[str],
) -> Decision | None:
    """Walk every stage whose product is current, from where a claimed document stands.

    Returns:
        The hops as one decision, or None when the document's own stage has to be run.
    """
    if stages.at(state) is None and standing.earned:
        # Guards on the way out of a state without a hook see what was seen on the way in. That is
        # not what was run last: an earlier stage may have been run anew, and that one hopped.
        led = stages.before(state)
        seen = [e for e in standing.earned.values() if e.output_sha256 == input_sha256]
        seen = [e for e in seen if e.stage in led] or list(standing.earned.values())
        facts = _facts_of(facts, seen[-1], standing)
    way = _current(stages, state, facts, input_sha256, standing)
    if not way and stages.at(state) is not None:
        return None
    hops = [Step(edge, hop=True) for _, edge, _ in way]
    if way:
        _, edge, earned = way[-1]
        state, input_sha256 = edge.to_state, earned.output_sha256
        # Guards of the hops behind a stage see what they saw when it was earned.
        facts = _facts_of(facts, earned, standing)
    return _rest(stages, hops, state, facts, admitted, input_sha256=input_sha256)


def _current(
    stages: Stages, state: str, facts: Facts, input_sha256: str, standing: Standing
) -> list[tuple[str, Edge, Earned]]:
    """List the stages that can be hopped over, up to the first that has to be run."""
    way: list[tuple[str, Edge, Earned]] = []
    visited: set[str] = set()
    while state not in visited:
        visited.add(state)
        bound = stages.at(state)
        if bound is None:
            edge = _plain_hop(stages, state, facts)
            if edge is None:
                break
            earned = Earned(
                stage=edge.trigger,
                input_sha256=input_sha256,
                fingerprint="",
                output_sha256=input_sha256,
                kind="none",
            )
        else:
            if stages.graph.leads_back(state):
                # The same input was not its last word then, and would lead round for ever.
                break
            found = _current_product(bound, input_sha256, standing)
            if found is None:
                break
            earned = found
            outcome = stages.graph.advance(state, _facts_of(facts, earned, standing))
            if isinstance(outcome, str):
                break
            edge = outcome
            facts = _facts_of(facts, earned, standing)
        way.append((state, edge, earned))
        state, input_sha256 = edge.to_state, earned.output_sha256
    return _with_data(way, standing, stages)


def _plain_hop(stages: Stages, state: str, facts: Facts) -> Edge | None:
    if stages.is_by_hand(state) or stages.graph.is_resting(state):
        return None
    outcome = stages.graph.advance(state, facts)
    return None if isinstance(outcome, str) else outcome


def _current_product(bound: Bound, input_sha256: str, standing: Standing) -> Earned | None:
    earned = standing.earned.get(bound.trigger)
    if earned is None or earned.fingerprint != bound.fingerprint:
        return None
    return earned if earned.input_sha256 == input_sha256 else None


def _facts_of(facts: Facts, earned: Earned, standing: Standing) -> Facts:
    owner = standing.owners.get(earned.key) if earned.key else None
    return dataclasses.replace(
        facts,
        **{**_NO_COUNTS, **earned.facts},
        reported=earned.reported,
        duplicate_of=owner,
        duplicate_by=earned.key[0] if earned.key and owner else None,
    )


def _with_data(
    way: list[tuple[str, Edge, Earned]], standing: Standing, stages: Stages
) -> list[tuple[str, Edge, Earned]]:
    """Cut the way where the newest data of a kind is no longer stored.

    Also drops trailing hops that had nothing to earn: whether those are taken is for admission.
    """
    while True:
        newest = {earned.kind: (n, earned.output_sha256) for n, (_, _, earned) in enumerate(way)}
        lost = [
            n
            for kind, (n, output) in newest.items()
            if kind in _STORED and output not in standing.present.get(kind, ())
        ]
        if not lost:
            break
        way = way[: min(lost)]
    while way and stages.at(way[-1][0]) is None:
        way = way[:-1]
    return way


def _rest(
    stages: Stages,
    steps: list[Step],
    state: str,
    facts: Facts,
    admitted: Collection[str],
    *,
    input_sha256: str | None,
    counts: Mapping[str, int] = _NONE,
) -> Decision:
    """Walk on where there is nothing to earn, and say who has the document then.

    A hop into a state with a hook is taken only when this runner may go on there: so a fleet that
    does not embed leaves its documents before ``start_embedding``, not after.
    """
    graph = stages.graph
    lane: Lane
    passed: set[str] = set()
    while True:
        if graph.is_resting(state):
            twin = bool(steps) and steps[-1].edge.trigger == MARK_DUPLICATE
            return Decision(
                state=state,
                steps=tuple(steps),
                input_sha256=input_sha256,
                duplicate_of=facts.duplicate_of if twin else None,
                duplicate_by=facts.duplicate_by if twin else None,
                counts=counts,
            )
        if stages.is_by_hand(state):
            lane = "held"
            break
        if stages.at(state) is not None:
            lane = "claimed" if state in admitted else "ready"
            break
        passed.add(state)
        way = graph.advance(state, facts)
        if isinstance(way, Edge) and way.to_state in passed:
            # The facts stay the same, so the walk would never end.
            way = "hops_in_a_circle"
        if isinstance(way, str):
            text = f"nothing to earn here, yet no way forward ({way})"
            failed = Failed(code=way, reason=text, permanent=True)
            ended = _failure(stages, state, failed, facts, stages.policy_at(state), 0.0)
            return dataclasses.replace(
                ended, steps=(*steps, *ended.steps), input_sha256=input_sha256, counts=counts
            )
        if stages.at(way.to_state) is not None and way.to_state not in admitted:
            lane = "ready"
            break
        steps = [*steps, Step(way, hop=True)]
        state = way.to_state
    return Decision(
        state=state,
        steps=tuple(steps),
        lane=lane,
        give_back=not steps,
        input_sha256=input_sha256,
        counts=counts,
    )


def output_sha256(bound: Bound, input_sha256: str, product: object | None) -> str:
    """Hash what later stages read of a product.

    None or a key passes its input on; a product with ``sha256`` is asked; any other
    counts as changed exactly when its input or hook did.
    """
    own = getattr(product, "sha256", None)
    if isinstance(own, str):
        return own
    if product is None or getattr(product, "key", None) is not None:
        return input_sha256
    return sha256_hex(f"{bound.trigger}:{bound.fingerprint}:{input_sha256}")
