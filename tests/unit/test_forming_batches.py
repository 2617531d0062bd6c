"""Which texts go into the next request: bounds, order, and the turns of tenants."""

from __future__ import annotations

import dataclasses
import uuid
from collections import Counter, deque
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine_pipeline import Batch, Stage
from statemachine_pipeline.batching import Limits
from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.providers import Budget, Provider
from statemachine_pipeline.resilience.batches import Line, Queue, Text

ID = uuid.UUID(int=0)


def line(tenant: str, *tokens: int, alone: bool = False, since: float = 0.0) -> Line:
    """Return a line whose texts count so many tokens."""
    texts = deque(Text(ID, index, f"{tenant}{index}", count) for index, count in enumerate(tokens))
    return Line(tenant, texts, since=since, alone=alone)


def queue(*lines: Line, inputs: int = 100, tokens: int = 1_000) -> Queue:
    """Return a queue in which lines wait."""
    made = Queue(Limits(inputs=inputs, tokens=tokens))
    for one in lines:
        made.add(one)
    return made


def names(taken: list[tuple[Line, Text]]) -> str:
    """Return what was taken, as one word."""
    return " ".join(text.text for _, text in taken)


LINES = st.lists(
    st.builds(
        lambda tenant, tokens, alone: line(tenant, *tokens, alone=alone),
        st.sampled_from("abc"),
        st.lists(st.integers(0, 12), max_size=9),
        st.booleans(),
    ),
    max_size=6,
)


@given(LINES, st.integers(1, 7), st.integers(1, 20), st.integers(0, 5))
def test_no_bound_is_exceeded_and_nothing_is_lost_doubled_or_out_of_order(
    lines: list[Line], inputs: int, tokens: int, removed: int
) -> None:
    """For any lines and limits, with one line that gives up on the way."""
    handed_in = {one: list(one.texts) for one in lines}
    waiting = queue(*lines, inputs=inputs, tokens=tokens)
    gone = lines[removed] if removed < len(lines) else None
    found: dict[Line, list[Text]] = {one: [] for one in lines}
    first = True
    while taken := waiting.take():
        assert len(taken) <= inputs
        assert len(taken) == 1 or sum(text.tokens for _, text in taken) <= tokens
        holders = {one for one, _ in taken}
        assert len(holders) == 1 or not any(one.alone for one in holders)
        for one, text in taken:
            found[one].append(text)
        if first and gone is not None:
            waiting.remove(gone)
        first = False
    for one, texts in handed_in.items():
        assert found[one] == (texts[: len(found[one])] if one is gone else texts)
    assert (waiting.lines, waiting.oldest, waiting.is_full) == ([], None, False)
    assert (waiting._inputs, waiting._tokens) == (0, 0)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(1, 12))
def test_tenants_that_wait_get_the_same_share(sizes: list[int], inputs: int) -> None:
    """Over all requests together, as long as each still has texts waiting."""
    lines = [line(str(tenant), *[1] * size) for tenant, size in enumerate(sizes)]
    waiting = queue(*lines, inputs=inputs)
    shares: Counter[str] = Counter({one.tenant: 0 for one in lines})
    while all(one.texts for one in lines):
        assert max(shares.values()) - min(shares.values()) <= 1
        shares.update(one.tenant for one, _ in waiting.take()[:inputs])


def test_a_large_document_does_not_hold_up_another_tenants_small_one() -> None:
    """Ten thousand texts of one tenant, three of another that came later."""
    waiting = queue(line("a", *[1] * 10_000), line("b", 1, 1, 1), inputs=8)
    assert names(waiting.take()) == "a0 b0 a1 b1 a2 b2 a3 a4"
    assert names(waiting.take()) == "a5 a6 a7 a8 a9 a10 a11 a12"


def test_documents_of_a_tenant_go_in_the_order_of_their_arrival() -> None:
    """The first is done before the second begins, so that few are half done."""
    waiting = queue(line("a", 1, 1), line("a", 2), line("b", 1, 1), inputs=4)
    assert names(waiting.take()) == "a0 b0 a1 b1"
    assert [text.tokens for _, text in waiting.take()] == [2]


def test_a_text_of_too_many_tokens_goes_alone_and_keeps_its_turn() -> None:
    """'A text that has more goes alone': what comes behind it does not overtake."""
    waiting = queue(line("a", 3, 50), line("b", 4, 4), tokens=10)
    assert [names(waiting.take()) for _ in range(4)] == ["a0 b0", "a1", "b1", ""]


def test_a_document_that_failed_often_shares_no_request() -> None:
    """Isolation before blame; those behind it wait for the next request."""
    waiting = queue(line("a", 1, 1, alone=True), line("b", 1), line("c", 1))
    assert [names(waiting.take()) for _ in range(3)] == ["a0 a1", "b0 c0", ""]
    waiting = queue(line("a", 1), line("b", 1, alone=True), line("c", 1), line("a", 1))
    assert [names(waiting.take()) for _ in range(3)] == ["a0 c0 a0", "b0", ""]


@pytest.mark.parametrize(
    ("lines", "is_full"),
    [
        ([], False),
        ([line("a", 1, 1)], False),
        ([line("a", 1, 1), line("b", 1)], True),
        ([line("a", 9, 1)], True),
        ([line("a", 1, alone=True)], True),
    ],
    ids=["empty", "two", "inputs", "tokens", "alone"],
)
def test_a_full_request_waits_for_nobody(lines: list[Line], is_full: bool) -> None:
    """By inputs, by tokens, or because nobody may join."""
    assert queue(*lines, inputs=3, tokens=10).is_full is is_full


def test_the_oldest_text_is_known() -> None:
    """It says when a request is due that is not full."""
    late, early = line("a", 1, since=9.0), line("b", 1, since=4.0)
    waiting = queue(late, early, inputs=1)
    assert waiting.oldest == 4.0
    waiting.remove(early)
    waiting.remove(early)
    assert waiting.oldest == 9.0


# Settings.


@dataclasses.dataclass
class Model:
    """An embedder that takes 64 texts."""

    dimensions: int = 4
    batch_size: int = 64

    async def embed(self, texts: Any) -> Any:
        """Return nothing."""

    async def embed_query(self, text: str) -> Any:
        """Return nothing."""


def test_a_batch_takes_what_the_embedder_takes_or_less() -> None:
    """Numbers of the stage narrow those of the embedder."""
    hook = Model()
    assert Stage(hook).request_limits == Limits(inputs=64, tokens=300_000)
    assert Stage(hook, batch=Batch(inputs=9, tokens=8)).request_limits == Limits(inputs=9, tokens=8)
    small, large = (Provider("p", budget=Budget(tokens=count)) for count in (1_000, 400_000))
    assert Stage(hook, provider=small).request_limits == Limits(inputs=64, tokens=1_000)
    assert Stage(hook, provider=large).request_limits == Limits(inputs=64, tokens=300_000)
    hook.limits = Limits(inputs=7, tokens=6)  # type: ignore[attr-defined]
    assert Stage(hook).request_limits == hook.limits  # type: ignore[attr-defined]


def test_an_embedder_has_more_documents_in_hand() -> None:
    """Small documents fill a request only when many are in hand."""
    assert (Stage(Model()).slots, Stage(max).slots) == (64, 8)
    assert (Stage(Model(), concurrency=2).slots, Stage(max, concurrency=2).slots) == (2, 2)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Stage(Model(), batch=Batch(inputs=65)), "takes 64 inputs and 300,000 .* 65"),
        (lambda: Stage(Model(), batch=Batch(tokens=300_001)), "and 300,001"),
        (lambda: Stage(max, batch=Batch(inputs=1)), "batch= is for embedders"),
        (lambda: Stage(Model(batch_size=0)), "limits must be above zero"),
    ],
    ids=["inputs", "tokens", "function", "none"],
)
def test_a_batch_that_no_embedder_takes_is_refused(make: Any, reason: str) -> None:
    """When the stage is made, with its hook named."""
    with pytest.raises(DefinitionError, match=f"^stage .*{reason}"):
        make()


def test_limits_that_are_none_are_refused() -> None:
    """A tuple in their place is found out at once."""
    hook = Model()
    hook.limits = (5, 6)  # type: ignore[attr-defined]
    with pytest.raises(DefinitionError, match="limits must be a Limits, found tuple"):
        Stage(hook)


@pytest.mark.parametrize(
    "wrong",
    [{"inputs": 0}, {"tokens": 0}, {"requests": 0}, {"age": timedelta(-1)}],
    ids=["inputs", "tokens", "requests", "age"],
)
def test_numbers_that_let_nothing_through_are_refused(wrong: dict[str, Any]) -> None:
    """At once, not at the first document."""
    with pytest.raises(ValueError, match="numbers must be above zero"):
        Batch(**wrong)
