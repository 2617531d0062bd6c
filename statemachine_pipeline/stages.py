"""A stage binds a hook to the trigger it earns, with the numbers that govern its attempts.

Stages are keyed by trigger, not by state, so a stage follows its edge when a lifecycle inserts a
state before it. Nothing here runs a hook.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from statemachine_pipeline.batching import Batch, Limits, limits_of
from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.failures import FailureRule
from statemachine_pipeline.hooks import Chunker, Embedder, Parser, Publisher
from statemachine_pipeline.limits import ProcessLimits
from statemachine_pipeline.providers import Provider
from statemachine_pipeline.retry import Backoff, Exponential, Policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from statemachine_pipeline.graph import Graph

Kind = Literal["parser", "chunker", "embedder", "publisher", "function"]
Where = Literal["loop", "thread", "process"]

AT_ONCE = 8
EMBEDDED_AT_ONCE = 64
"""Documents of a few chunks fill a request only if many are in hand; each is one more to take up
again, alone, should the worker die."""


class _ByHand:
    """Says that only ``apply`` takes an edge; the document waits for it in lane held."""

    def __repr__(self) -> str:
        return "by_hand"


by_hand: Final = _ByHand()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChildLimits:
    """What a stage may find in one document.

    Attributes:
        depth: How deep documents may lie in one another. What lies deeper is left out with a
            warning; more than the others fails the document.
        count: Most children.
        size_bytes: Most bytes of all children together; each is bounded by what is stored in the
            database besides.
    """

    depth: int = 3
    count: int = 1_000
    size_bytes: int = 100 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """A hook and the numbers of its stage.

    Attributes:
        hook: A Parser, Chunker, Embedder, Publisher, or a function of the claim.
        attempts: Tries before the document goes to ``dead_letter``.
        crashes: Crashes at this stage before it does: a worker, or a child process, that died.
        backoff: How the waits between attempts grow: Exponential, Fibonacci or Constant.
        failures: What exceptions mean that the hook raises, before the table for all stages.
        fault_pause: How long a fault of the stage pauses it.
        deadline: Longest run of one attempt; then the hook is stopped and the attempt failed.
        concurrency: Documents that one runner has in hand at this stage. None takes 8, and 64 at an
            embedder, whose requests are filled from all of them.
        provider: The service that the hook asks; stages that name the same one share its budget and
            its breaker.
        run: Where the hook runs. None takes the event loop for ``async def`` and a thread for
            ``def``; ``process`` is for parsers, chunkers and plain functions importable by name,
            and a child that dies is a crash of its document and no dead runner.
        wait: How long ``Wait`` may be raised before it counts as a failed attempt.
        version: Change it when the hook's output changes, so that ``reprocess`` runs it again.
        limits: What a hook in a child process may use; None takes the defaults.
        children: How many documents the hook may find in one, and how deep.
        batch: How the requests of an embedder are formed; of no other hook.
        kind: Which protocol the hook follows.
        where: Where the hook runs, with the default filled in.
        slots: ``concurrency``, with the default filled in.
    """

    hook: Any
    _: dataclasses.KW_ONLY
    attempts: int = 5
    crashes: int = 3
    backoff: Backoff = Exponential()  # noqa: RUF009 - immutable
    failures: Sequence[FailureRule] = ()
    fault_pause: timedelta = timedelta(minutes=5)
    deadline: timedelta = timedelta(minutes=10)
    concurrency: int | None = None
    provider: Provider | None = None
    run: Where | None = None
    wait: timedelta = timedelta(hours=24)
    version: str = "1"
    limits: ProcessLimits | None = None
    children: ChildLimits = ChildLimits()
    batch: Batch = Batch()  # noqa: RUF009 - it is frozen
    kind: Kind = dataclasses.field(init=False)
    where: Where = dataclasses.field(init=False)
    slots: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        # Asked for at every attempt, and looking a protocol up costs 40 us.
        object.__setattr__(self, "kind", _kind(self.hook))
        default = EMBEDDED_AT_ONCE if self.kind == "embedder" else AT_ONCE
        given = self.concurrency
        object.__setattr__(self, "slots", default if given is None else given)
        if self.slots < 1 or self.deadline <= timedelta(0):
            raise DefinitionError(
                f"stage {_name(self.hook)}: concurrency and deadline must be above zero, "
                f"got {self.concurrency} and {self.deadline}"
            )
        if self.fault_pause <= timedelta(0):
            raise DefinitionError(
                f"stage {_name(self.hook)}: fault_pause must be above zero, got {self.fault_pause}"
            )
        object.__setattr__(self, "failures", _rules(self.hook, self.failures))
        object.__setattr__(self, "where", self.run or ("loop" if self._is_async else "thread"))
        if self.where not in get_args(Where):
            known = ", ".join(get_args(Where))
            raise DefinitionError(
                f"stage {_name(self.hook)}: run={self.run!r} is unknown; it is one of {known}"
            )
        if self._is_async and self.where != "loop":
            raise DefinitionError(
                f"stage {_name(self.hook)}: it is async, so it cannot run in a {self.where}"
            )
        if self.provider is not None and not isinstance(self.provider, Provider):
            raise DefinitionError(
                f"stage {_name(self.hook)}: provider={self.provider!r} is no Provider; say "
                f"Provider({str(self.provider)!r}) once and give it to every stage that asks it"
            )
        if self.limits is not None and self.where != "process":
            raise DefinitionError(
                f"stage {_name(self.hook)}: it runs in the {self.where}, where its limits would "
                'have no effect; pass run="process" too, or no limits'
            )
        call = getattr(self.hook, "call_timeout", None)
        if isinstance(call, timedelta) and call >= self.deadline:
            # The deadline would cut it off, and a slow service would look like a slow document.
            raise DefinitionError(
                f"stage {_name(self.hook)}: one call may take {call}, which is not below the "
                f"stage's deadline of {self.deadline}; shorten its timeouts or pass Stage(..., "
                "deadline=...)"
            )
        if self.kind != "embedder" and self.batch != Batch():
            raise DefinitionError(
                f"stage {_name(self.hook)}: batch= is for embedders; this hook is called once for "
                "an attempt"
            )
        try:
            _ = self.policy, self.kind == "embedder" and self.request_limits
        except ValueError as error:
            raise DefinitionError(f"stage {_name(self.hook)}: {error}") from error

    @property
    def policy(self) -> Policy:
        """The numbers that decide between retry and fail."""
        return Policy(attempts=self.attempts, crashes=self.crashes, backoff=self.backoff)

    @property
    def process_limits(self) -> ProcessLimits:
        """What a child process that runs it may use."""
        return self.limits or ProcessLimits()

    @property
    def request_limits(self) -> Limits:
        """What one request of its embedder may hold: no more than its provider's whole budget."""
        limits = self.batch.within(limits_of(self.hook))
        allowed = self.provider.budget.tokens if self.provider else None
        return dataclasses.replace(limits, tokens=min(limits.tokens, allowed or limits.tokens))

    @property
    def stores_elsewhere(self) -> bool:
        """Whether it publishes where this database's transactions do not reach."""
        return self.kind == "publisher" and getattr(self.hook, "stores_elsewhere", True)

    @property
    def _is_async(self) -> bool:
        if self.kind in {"embedder", "publisher"}:
            return True
        if self.kind in {"parser", "chunker"}:
            return False
        hook = _unwrapped(self.hook)
        call = hook if inspect.isroutine(hook) else type(hook).__call__
        return inspect.iscoroutinefunction(call)

    @property
    def fingerprint(self) -> str:
        """Identity of the hook and its settings; another one means another output."""
        return f"{getattr(self.hook, 'fingerprint', None) or _name(self.hook)}#{self.version}"


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """A stage in its place: the trigger it earns and the state it leaves."""

    trigger: str
    state: str
    stage: Stage
    fingerprint: str


class Stages:
    """The stages of one lifecycle.

    Args:
        graph: The lifecycle.
        hooks: For each forward trigger a Stage, a bare hook, ``by_hand``, or None where there is
            nothing to earn.
        earned: Triggers known to have a hook in the workers, where the hooks are not known here.

    Attributes:
        kept_by_hand: Triggers that only ``apply`` takes, in declared order.

    Raises:
        DefinitionError: A trigger is unknown, has neither hook nor None, or a state has two hooks.
    """

    def __init__(
        self, graph: Graph, hooks: Mapping[str, Any], *, earned: Iterable[str] = ()
    ) -> None:
        known = graph.forward_triggers()
        unknown = [trigger for trigger in hooks if trigger not in known]
        if unknown:
            raise DefinitionError(
                f"{graph.name}: hooks for {', '.join(unknown)}, "
                f"but its triggers are {', '.join(known)}"
            )
        forgotten = [trigger for trigger in known if trigger not in hooks]
        if forgotten:
            raise DefinitionError(
                f"{graph.name}: no hook for {', '.join(forgotten)}; pass one in hooks={{...}}, "
                "None where there is nothing to earn, or by_hand"
            )
        self.graph = graph
        self._earned = tuple(earned)
        self._bound: dict[str, Bound] = {}
        self._by_hand: set[str] = set()
        self.kept_by_hand = tuple(trigger for trigger in known if hooks[trigger] is by_hand)
        self._entered: dict[str, frozenset[str]] = {}
        providers: dict[str, Provider] = {}
        for state in graph.states:
            self._bind(state, {trigger: hooks[trigger] for trigger in graph.forward(state)})
        for bound in self._bound.values():
            provider = bound.stage.provider
            if provider and providers.setdefault(provider.name, provider) != provider:
                raise DefinitionError(
                    f"{graph.name}: provider {provider.name!r} is described in two ways: "
                    f"{providers[provider.name]} and {provider}; give its stages the same object"
                )

    def _bind(self, state: str, hooks: Mapping[str, Any]) -> None:
        if any(hook is by_hand for hook in hooks.values()):
            self._by_hand.add(state)
        bearing = {t: h for t, h in hooks.items() if h is not None and h is not by_hand}
        earning = [trigger for trigger, hook in hooks.items() if hook is not None]
        if len(bearing) > 1 or (bearing and state in self._by_hand):
            raise DefinitionError(
                f"{self.graph.name}.{state}: one hook at most, got one for {', '.join(earning)}"
            )
        for trigger, hook in bearing.items():
            stage = hook if isinstance(hook, Stage) else Stage(hook)
            self._bound[state] = Bound(trigger, state, stage, stage.fingerprint)

    @property
    def earned(self) -> tuple[str, ...]:
        """The stages by their triggers, in the order of the lifecycle."""
        named = dict.fromkeys(bound.trigger for bound in self._bound.values())
        return tuple(named) or self._earned

    def awaited_at(self, state: str) -> tuple[str, ...]:
        """Return the triggers of the stages that a document in ``state`` is at or waits for."""
        earned, found, states = frozenset(self.earned), dict[str, None](), [state]
        for one in states:
            here = [trigger for trigger in self.graph.forward(one) if trigger in earned]
            found |= dict.fromkeys(here)
            if here or one in self._by_hand:
                continue
            ways = (self.graph.targets(one, t) for t in self.graph.forward(one))
            states += [to for targets in ways for to in targets if to not in states]
        return tuple(found)

    def at(self, state: str) -> Bound | None:
        """Return the stage that leads out of ``state``; None where there is nothing to earn."""
        return self._bound.get(state)

    def is_by_hand(self, state: str) -> bool:
        """Tell whether only ``apply`` leads out of ``state``."""
        return state in self._by_hand

    def is_guarded(self, state: str) -> bool:
        """Tell whether a guard is asked on the way out of ``state``."""
        edges = (edge for edge in self.graph.edges if edge.from_state == state)
        return any(edge.guards for edge in edges if edge.trigger in self.graph.forward(state))

    def policy_at(self, state: str) -> Policy:
        """Return the numbers that govern failures in ``state``."""
        bound = self._bound.get(state)
        return bound.stage.policy if bound else Policy()

    def __iter__(self) -> Iterator[Bound]:
        return iter(self._bound.values())

    def leading_to(self, bound: Bound) -> tuple[str, ...]:
        """Return the states from which a claim ends up at ``bound``: its own and hops before it.

        A document that waits where there is nothing to earn is claimed for the stage behind.
        """
        states = [bound.state]
        for state in states:
            for before in self.graph.states:
                hop = before not in self._bound and before not in self._by_hand
                ways = (self.graph.targets(before, t) for t in self.graph.forward(before))
                if hop and before not in states and any(state in targets for targets in ways):
                    states.append(before)
        return tuple(states)

    def after(self, state: str) -> frozenset[str]:
        """Return the states with a hook at which a walk from ``state`` may stop next."""
        return frozenset(one for one in self._entered_from(state) if one in self._bound)

    def before(self, state: str) -> frozenset[str]:
        """Return the triggers of the stages behind which a walk may come to ``state``."""
        bounds = self._bound.values()
        return frozenset(b.trigger for b in bounds if state in self._entered_from(b.state))

    def _entered_from(self, state: str) -> frozenset[str]:
        if state not in self._entered:
            ways = (self.graph.targets(state, t) for t in self.graph.forward(state))
            entered = list(dict.fromkeys(to for targets in ways for to in targets))
            for one in entered:
                if one not in self._bound and one not in self._by_hand:
                    ways = (self.graph.targets(one, t) for t in self.graph.forward(one))
                    entered += {to for targets in ways for to in targets} - set(entered)
            self._entered[state] = frozenset(entered)
        return self._entered[state]

    def served(self, triggers: Iterable[str] | None) -> tuple[Bound, ...]:
        """Return the stages named by ``triggers``, or all.

        Raises:
            DefinitionError: A trigger has no hook here.
        """
        if triggers is None:
            return tuple(self._bound.values())
        by_trigger: dict[str, list[Bound]] = {}
        for bound in self._bound.values():
            by_trigger.setdefault(bound.trigger, []).append(bound)
        wanted = list(dict.fromkeys(triggers))
        strange = [trigger for trigger in wanted if trigger not in by_trigger]
        if strange:
            raise DefinitionError(
                f"{self.graph.name}: no hook earns {', '.join(strange)}; "
                f"hooks earn {', '.join(by_trigger)}"
            )
        return tuple(bound for trigger in wanted for bound in by_trigger[trigger])


def _kind(hook: object) -> Kind:
    kinds: tuple[tuple[type, Kind], ...] = (
        (Parser, "parser"),
        (Chunker, "chunker"),
        (Embedder, "embedder"),
        (Publisher, "publisher"),
    )
    if inspect.isclass(hook):
        raise DefinitionError(f"{_name(hook)} is a class; pass an instance of it as the hook")
    for protocol, kind in kinds:
        if isinstance(hook, protocol):
            return kind
    if callable(hook):
        return "function"
    raise DefinitionError(
        f"{hook!r} is no hook: it has none of parse, split, embed, publish and cannot be called"
    )


def _rules(hook: object, given: Any) -> tuple[FailureRule, ...]:
    found = tuple(given) if isinstance(given, Iterable) else (given,)
    wrong = next((one for one in found if not isinstance(one, FailureRule)), None)
    if wrong is not None:
        raise DefinitionError(
            f"stage {_name(hook)}: failures={wrong!r} is no rule; write "
            "failures=[FailureRule(TheError, 'permanent', code='the_word')]"
        )
    return found


def _unwrapped(hook: Any) -> Any:
    while isinstance(hook, functools.partial):
        hook = hook.func
    return hook


def _name(hook: object) -> str:
    hook = _unwrapped(hook)
    named: Any = hook if inspect.isroutine(hook) or inspect.isclass(hook) else type(hook)
    return f"{named.__module__}.{named.__qualname__}"
