"""A stage follows its trigger; every trigger has a hook or says that it needs none."""

from __future__ import annotations

import dataclasses
import functools
from datetime import timedelta
from typing import Any

import pytest
from statemachine import State

from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.failures import FailureRule
from statemachine_pipeline.lifecycle import DocumentLifecycle, Lifecycle
from statemachine_pipeline.limits import ProcessLimits
from statemachine_pipeline.retry import Constant, Policy
from statemachine_pipeline.stages import Stage, Stages, by_hand

GRAPH = DocumentLifecycle.graph
EARNING = (
    "queue_parse",
    "finish_parse",
    "accept_parse",
    "store_chunks",
    "store_embeddings",
    "finalize",
)
HERE = "test_stages"


async def work(claim: object) -> None:
    """An ``async def`` hook."""


def plain(claim: object) -> None:
    """A ``def`` hook."""


class Reader:
    """A Parser."""

    def parse(self, source: object) -> None: ...


class Cutter:
    """A Chunker that names itself."""

    fingerprint = "cutter-7"

    def split(self, text: object) -> None: ...


class Model:
    """An Embedder."""

    dimensions = 3
    batch_size = 2

    async def embed(self, texts: object) -> None: ...
    async def embed_query(self, text: str) -> None: ...


class Shelf:
    """A Publisher."""

    async def publish(self, claim: object) -> None: ...
    async def withdraw(self, claim: object) -> None: ...


class Calling:
    """An object that is called."""

    async def __call__(self, claim: object) -> None: ...


def stages_of(cls: type[Lifecycle] = DocumentLifecycle, **hooks: Any) -> Stages:
    """Bind ``work`` or nothing to every trigger, but what is said."""
    usual = {t: work if t in EARNING else None for t in cls.graph.forward_triggers()}
    return Stages(cls.graph, usual | hooks)


def refusal(make: Any) -> str:
    """Return the sentence with which a stage or a set of hooks is refused."""
    with pytest.raises(DefinitionError) as caught:
        make()
    return str(caught.value)


def without(hooks: dict[str, Any], *triggers: str) -> dict[str, Any]:
    """Leave triggers out."""
    return {trigger: hook for trigger, hook in hooks.items() if trigger not in triggers}


# Binding.


def test_a_stage_is_bound_to_the_state_its_trigger_leaves() -> None:
    """'A stage: an edge that a hook earns, keyed by its trigger'."""
    stages = stages_of()
    assert [(b.trigger, b.state) for b in stages] == [
        ("queue_parse", "uploaded"),
        ("finish_parse", "parse_queued"),
        ("accept_parse", "parse_complete"),
        ("store_chunks", "parse_validated"),
        ("store_embeddings", "embedding_in_progress"),
        ("finalize", "embeddings_stored"),
    ]
    assert stages.at("embedding_queued") is None
    assert stages.at("complete") is None


class LongerLifecycle(Lifecycle):
    """A state inserted before the chunker."""

    uploaded = State(initial=True)
    parse_validated, cleaned = State(), State()
    done = State(final=True)

    finish_parse = uploaded.to(parse_validated)
    clean = parse_validated.to(cleaned)
    store_chunks = cleaned.to(done)


def test_a_stage_follows_its_edge_when_a_state_is_inserted_before_it() -> None:
    """'A stage follows its edge when a user inserts a state before it'."""
    stages = stages_of(LongerLifecycle, clean=plain)
    assert [(b.trigger, b.state) for b in stages] == [
        ("finish_parse", "uploaded"),
        ("clean", "parse_validated"),
        ("store_chunks", "cleaned"),
    ]


def test_a_forgotten_hook_is_refused() -> None:
    """'A forgotten redact cannot be hopped over'."""
    hooks = without(dict.fromkeys(GRAPH.forward_triggers()), "store_chunks", "finalize")
    assert refusal(lambda: Stages(GRAPH, hooks)) == (
        "DocumentLifecycle: no hook for store_chunks, finalize; pass one in hooks={...}, None "
        "where there is nothing to earn, or by_hand"
    )


@pytest.mark.parametrize("trigger", ["parse", "retry", "cancel", "requeue", "uploaded"])
def test_a_hook_for_no_forward_trigger_is_refused(trigger: str) -> None:
    """A misspelt trigger, a failure edge, a restart and a state earn nothing."""
    assert refusal(lambda: stages_of(**{trigger: work})) == (
        f"DocumentLifecycle: hooks for {trigger}, but its triggers are mark_duplicate, "
        "queue_parse, finish_parse, accept_parse, store_chunks, queue_embedding, start_embedding, "
        "store_embeddings, finalize"
    )


def test_two_hooks_on_a_state_are_refused() -> None:
    """'A state has at most one hook, under any one of its forward triggers'."""
    assert refusal(lambda: stages_of(mark_duplicate=work)) == (
        "DocumentLifecycle.uploaded: one hook at most, got one for mark_duplicate, queue_parse"
    )


def test_a_hook_beside_an_edge_kept_by_hand_is_refused() -> None:
    """'by_hand as a hook means: only apply takes this edge': nothing to run there."""
    assert refusal(lambda: stages_of(mark_duplicate=by_hand)) == (
        "DocumentLifecycle.uploaded: one hook at most, got one for mark_duplicate, queue_parse"
    )


def test_none_means_nothing_to_earn_and_by_hand_means_people() -> None:
    """'None (nothing to earn)'; 'by_hand: only apply takes this edge'."""
    stages = stages_of(queue_embedding=None, start_embedding=by_hand)
    assert stages.at("chunks_stored") is None
    assert stages.at("embedding_queued") is None
    assert not stages.is_by_hand("chunks_stored")
    assert stages.is_by_hand("embedding_queued")
    assert repr(by_hand) == "by_hand"


def test_each_state_has_the_policy_of_its_stage() -> None:
    """'The numbers that govern failures in state'; the usual ones where no stage is."""
    stages = stages_of(finish_parse=Stage(work, attempts=2, crashes=1))
    assert stages.policy_at("parse_queued") == Policy(attempts=2, crashes=1)
    assert stages.policy_at("embedding_queued") == Policy()
    assert stages.policy_at("nowhere") == Policy()


# The neighbourhood of a stage.


def at(stages: Stages, state: str) -> Any:
    """Return the stage of a state that has one."""
    found = stages.at(state)
    assert found is not None
    return found


def test_a_claim_for_a_stage_takes_documents_from_the_hops_before_it() -> None:
    """'A document that waits where there is nothing to earn is claimed for the stage behind'."""
    stages = stages_of()
    assert stages.leading_to(at(stages, "embedding_in_progress")) == (
        "embedding_in_progress",
        "embedding_queued",
        "chunks_stored",
    )
    assert stages.leading_to(at(stages, "parse_queued")) == ("parse_queued",)


def test_a_claim_does_not_reach_behind_what_people_hold() -> None:
    """'Only apply takes this edge': no worker claims a document that is held."""
    stages = stages_of(start_embedding=by_hand)
    assert stages.leading_to(at(stages, "embedding_in_progress")) == ("embedding_in_progress",)


def test_a_walk_may_stop_at_the_next_stage_behind_the_hops() -> None:
    """'The states with a hook at which a walk from state may stop next'."""
    stages = stages_of()
    assert stages.after("uploaded") == {"parse_queued"}
    assert stages.after("parse_validated") == {"embedding_in_progress"}
    assert stages.after("embedding_queued") == {"embedding_in_progress"}
    assert stages.after("embeddings_stored") == frozenset()
    assert stages.after("complete") == frozenset()


def test_a_walk_does_not_pass_what_people_hold() -> None:
    """'The document waits in lane held': no slot is kept for what comes behind."""
    assert stages_of(start_embedding=by_hand).after("parse_validated") == frozenset()


class RoundLifecycle(Lifecycle):
    """Hops in a circle, with a way out to two stages."""

    first = State(initial=True)
    one, two, left, right = State(), State(), State(), State()
    last = State(final=True)

    go = first.to(one)
    there = one.to(two) | one.to(left)
    back = two.to(one) | two.to(right)
    end = left.to(last) | right.to(last)


def test_circles_are_looked_through_once() -> None:
    """Both questions end, and find every stage around a circle."""
    stages = stages_of(RoundLifecycle, go=work, end=work)
    assert stages.after("first") == {"left", "right"}
    assert set(stages.leading_to(at(stages, "left"))) == {"left", "one", "two"}


def test_a_runner_serves_all_stages_or_those_named() -> None:
    """'Return the stages named by triggers, or all'."""
    stages = stages_of()
    assert stages.served(None) == tuple(stages)
    named = stages.served(["finalize", "queue_parse", "finalize"])
    assert [bound.trigger for bound in named] == ["finalize", "queue_parse"]
    assert stages.served([]) == ()
    assert len(stages_of(RoundLifecycle, go=work, end=work).served(["end"])) == 2


def test_a_runner_cannot_serve_what_no_hook_earns() -> None:
    """'A trigger has no hook here': a misspelt one would wait for ever."""
    assert refusal(lambda: stages_of().served(["finalize", "parse", "start_embedding"])) == (
        "DocumentLifecycle: no hook earns parse, start_embedding; hooks earn queue_parse, "
        "finish_parse, accept_parse, store_chunks, store_embeddings, finalize"
    )


# One stage.


@pytest.mark.parametrize(
    ("hook", "kind", "where"),
    [
        (work, "function", "loop"),
        (plain, "function", "thread"),
        (functools.partial(work), "function", "loop"),
        (functools.partial(plain), "function", "thread"),
        (Calling(), "function", "loop"),
        (Calling().__call__, "function", "loop"),
        (lambda claim: None, "function", "thread"),
        (Reader(), "parser", "thread"),
        (Cutter(), "chunker", "thread"),
        (Model(), "embedder", "loop"),
        (Shelf(), "publisher", "loop"),
    ],
)
def test_a_hook_runs_where_it_does_no_harm(hook: Any, kind: str, where: str) -> None:
    """'None takes the event loop for async def and a thread for def'."""
    stage = Stage(hook)
    assert (stage.kind, stage.where) == (kind, where)


@pytest.mark.parametrize("where", ["loop", "thread", "process"])
def test_a_plain_hook_runs_where_it_is_told(where: Any) -> None:
    """'process is for parsers, chunkers and plain functions importable by name'."""
    assert Stage(Reader(), run=where).where == where
    assert Stage(plain, run=where).where == where


@pytest.mark.parametrize("hook", [work, Model(), Shelf(), Calling()])
@pytest.mark.parametrize("where", ["thread", "process"])
def test_an_async_hook_off_the_loop_is_refused(hook: Any, where: Any) -> None:
    """'Anything else is refused at start': a thread would get a coroutine and drop it."""
    said = refusal(lambda: Stage(hook, run=where))
    assert said.endswith(f": it is async, so it cannot run in a {where}")
    assert said.startswith(f"stage {HERE}.")


def test_an_unknown_place_is_refused() -> None:
    """A misspelt ``run`` is named with what it may be."""
    assert refusal(lambda: Stage(plain, run="proces")) == (  # type: ignore[arg-type]
        f"stage {HERE}.plain: run='proces' is unknown; it is one of loop, thread, process"
    )


def test_what_is_no_hook_is_refused() -> None:
    """'It has none of parse, split, embed, publish and cannot be called'."""
    assert refusal(lambda: Stage(3)) == (
        "3 is no hook: it has none of parse, split, embed, publish and cannot be called"
    )


@pytest.mark.parametrize("hook", [Reader, Model, Calling])
def test_a_class_in_place_of_an_instance_is_refused(hook: type) -> None:
    """A class has the methods too, but nobody has made it."""
    assert refusal(lambda: Stage(hook)) == (
        f"{HERE}.{hook.__name__} is a class; pass an instance of it as the hook"
    )


@pytest.mark.parametrize(("concurrency", "seconds"), [(0, 60), (1, 0), (1, -1)])
def test_numbers_that_let_nothing_run_are_refused(concurrency: int, seconds: int) -> None:
    """Concurrency and deadline above zero, with the stage named."""
    deadline = timedelta(seconds=seconds)
    assert refusal(lambda: Stage(work, concurrency=concurrency, deadline=deadline)) == (
        f"stage {HERE}.work: concurrency and deadline must be above zero, "
        f"got {concurrency} and {deadline}"
    )


class Slow(Model):
    """An Embedder whose calls have a limit."""

    call_timeout = timedelta(seconds=90)


@pytest.mark.parametrize("seconds", [30, 90])
def test_a_call_that_may_outlast_the_deadline_is_refused(seconds: int) -> None:
    """'``call_timeout``: refused unless it is below the stage's deadline'."""
    assert refusal(lambda: Stage(Slow(), deadline=timedelta(seconds=seconds))) == (
        f"stage {HERE}.Slow: one call may take 0:01:30, which is not below the stage's deadline of "
        f"{timedelta(seconds=seconds)}; shorten its timeouts or pass Stage(..., deadline=...)"
    )
    assert Stage(Slow(), deadline=timedelta(seconds=91)).kind == "embedder"


@pytest.mark.parametrize(("attempts", "crashes"), [(0, 3), (5, 0)])
def test_a_stage_without_a_try_is_refused_when_it_is_declared(attempts: int, crashes: int) -> None:
    """'A lifecycle, stage or set of hooks cannot work as declared', said at once."""
    assert refusal(lambda: Stage(work, attempts=attempts, crashes=crashes)) == (
        f"stage {HERE}.work: attempts and crashes must be at least 1, got {attempts} and {crashes}"
    )


def test_the_fingerprint_is_the_hooks_own_or_its_name_with_the_version() -> None:
    """'Identity of the hook and its settings; another one means another output'."""
    assert Stage(work).fingerprint == f"{HERE}.work#1"
    assert Stage(work, version="2").fingerprint == f"{HERE}.work#2"
    assert Stage(functools.partial(work)).fingerprint == f"{HERE}.work#1"
    assert Stage(Reader()).fingerprint == f"{HERE}.Reader#1"
    assert Stage(Cutter()).fingerprint == "cutter-7#1"
    assert Stage(Cutter(), version="b").fingerprint == "cutter-7#b"
    assert at(stages_of(finish_parse=Cutter()), "parse_queued").fingerprint == "cutter-7#1"


def test_numbers_that_do_not_change_the_output_do_not_change_the_fingerprint() -> None:
    """'A shipped hook's fingerprint changes only when its output does'."""
    tuned = Stage(plain, attempts=9, concurrency=1, run="process", deadline=timedelta(hours=1))
    assert tuned.fingerprint == Stage(plain).fingerprint


def test_a_stage_hands_its_backoff_to_its_policy() -> None:
    """'How the waits between attempts grow', per stage."""
    steady = Constant(base=timedelta(seconds=9), jitter="none")
    assert Stage(work, backoff=steady).policy == Policy(backoff=steady)
    assert Stage(work).policy == Policy()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"backoff": timedelta(seconds=2)}, "backoff must be one of Exponential, Fibonacci"),
        ({"failures": [ValueError]}, "is no rule; write failures="),
        ({"failures": ValueError}, "is no rule; write failures="),
        ({"fault_pause": timedelta(0)}, "fault_pause must be above zero"),
    ],
    ids=["backoff", "classes", "class", "pause"],
)
def test_a_wrong_rule_or_schedule_is_refused_when_the_stage_is_made(
    numbers: dict[str, Any], message: str
) -> None:
    """Not when the first document fails, at night."""
    with pytest.raises(DefinitionError, match=message):
        Stage(work, **numbers)


def test_rules_of_a_stage_may_be_given_in_any_collection() -> None:
    """They are kept as a tuple, in their order."""
    rules = [FailureRule(ValueError, "permanent"), FailureRule(KeyError, "permanent")]
    assert Stage(work, failures=rules).failures == tuple(rules)
    assert Stage(work, failures=iter(rules)).failures == tuple(rules)  # type: ignore[arg-type]
    assert Stage(work, failures=rules[0]).failures == (rules[0],)  # type: ignore[arg-type]


def test_limits_of_a_child_process_are_for_stages_that_have_one() -> None:
    """'Where its limits would have no effect': an option that nothing reads is refused."""
    tight = ProcessLimits(cpu_seconds=10)
    assert Stage(plain, run="process", limits=tight).process_limits is tight
    assert Stage(plain, run="process").process_limits == ProcessLimits()
    assert refusal(lambda: Stage(plain, limits=tight)) == (
        f"stage {HERE}.plain: it runs in the thread, where its limits would have no effect; "
        'pass run="process" too, or no limits'
    )


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ProcessLimits)])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, 2**63], ids=str)
def test_a_limit_that_is_none_is_refused(name: str, value: Any) -> None:
    """Each is a whole number above zero; the kernel takes some others for no limit."""
    with pytest.raises(ValueError, match=f"{name}={value!r} must be"):
        ProcessLimits(**{name: value})


def test_less_memory_than_python_needs_is_refused() -> None:
    """'At least 64 MiB': with less a child may not even start."""
    with pytest.raises(ValueError, match="at least 67,108,864"):
        ProcessLimits(memory_bytes=2**26 - 1)
    assert ProcessLimits(memory_bytes=2**26).memory_bytes == 2**26
