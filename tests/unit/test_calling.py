"""What a call of users' code comes to, whatever it raises."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from statemachine_pipeline.decide import Crashed, Failed, Outcome, Postponed, Succeeded
from statemachine_pipeline.errors import DatabaseUnavailable, MissingExtra, StaleClaim
from statemachine_pipeline.failures import FailureRule
from statemachine_pipeline.hooks import Done, RateLimited, Reject, Retry, StageFault, Wait
from statemachine_pipeline.redaction import REASON_CHARS
from statemachine_pipeline.runner.calling import (
    DETAIL_CHARS,
    DeadlinePassed,
    call_user,
    deadline,
)
from statemachine_pipeline.runner.children import ChildCrashed, HookRaised
from statemachine_pipeline.stages import Stage
from statemachine_pipeline.symptoms import Symptoms

MINUTE = timedelta(minutes=1)
STALE = StaleClaim(UUID(int=1), "stage", 1)


async def hook(claim: Any) -> Done:
    """Do nothing."""
    return Done()


async def outcome(error: BaseException | None, **stage: Any) -> Outcome:
    """Call a hook that raises."""

    async def function() -> Done:
        if error is not None:
            raise error
        return Done(pages=3)

    return await call_user(Stage(hook, **stage), function)


def answered(status: int, **headers: str) -> httpx.HTTPStatusError:
    """Return what httpx raises for an answer."""
    request = httpx.Request("POST", "https://example.org/")
    response = httpx.Response(status, headers=headers, request=request)
    return httpx.HTTPStatusError("hush", request=request, response=response)


async def test_what_a_hook_returns_is_a_success() -> None:
    """'Call a hook; whatever it raises becomes an outcome', and what it returns too."""
    assert await outcome(None) == Succeeded(reported={"pages": 3})


async def test_a_failure_says_what_history_may_keep_apart_from_what_is_erased() -> None:
    """'A message may quote the document, and history is kept'; frames hold no message."""
    found = await outcome(ValueError("api_key=abc " + "hush" * 500))
    assert isinstance(found, Failed)
    assert (found.code, found.reason, found.permanent) == (
        "ValueError",
        "the hook raised ValueError",
        False,
    )
    assert found.detail is not None
    assert found.detail.startswith("api_key=*** hush")
    assert len(found.detail) == DETAIL_CHARS
    assert found.error_type == "ValueError"
    assert found.trace is not None
    assert found.trace.splitlines()[0] == "ValueError"
    assert f"  {__name__}:" in found.trace
    assert "hush" not in found.trace
    assert "runner.calling" not in found.trace


async def test_the_reason_tells_the_condition_that_was_found() -> None:
    """People read status, error and SQLSTATE without looking a code up."""
    found = await outcome(answered(422))
    assert isinstance(found, Failed)
    assert (found.code, found.permanent) == ("http_422", True)
    assert (found.reason, found.detail) == ("the hook raised HTTPStatusError (HTTP 422)", "hush")


async def test_a_stage_fault_pauses_for_as_long_as_the_stage_says() -> None:
    """'Make its duration a number on Stage'; the pause's reason quotes no document."""
    found = await outcome(answered(401), fault_pause=MINUTE)
    assert found == Postponed(
        code="stage_fault",
        reason="the hook raised HTTPStatusError (HTTP 401)",
        detail="hush",
        after=MINUTE,
    )
    told = await outcome(StageFault("password=abc was refused"), fault_pause=MINUTE)
    assert told == Postponed(code="stage_fault", reason="password=*** was refused", after=MINUTE)
    usual = await outcome(MissingExtra("pypdfium2", "documents"))
    assert isinstance(usual, Postponed)
    assert usual.after == timedelta(minutes=5)
    assert usual.reason.startswith("pypdfium2 is not installed; pip install")


async def test_a_rate_limit_is_postponed_for_as_long_as_was_asked() -> None:
    """'Longer is released as deferred with the attempt given back'."""
    found = await outcome(answered(429, **{"Retry-After": "90"}))
    assert isinstance(found, Postponed)
    assert (found.code, found.after) == ("rate_limited", timedelta(seconds=90))


async def test_rules_of_the_stage_come_first() -> None:
    """'Users extend per stage: Stage(hook, failures=[...]), theirs come first'."""
    rule = FailureRule(httpx.HTTPStatusError, "permanent", statuses=[404], code="page_gone")
    found = await outcome(answered(404), failures=[rule])
    assert isinstance(found, Failed)
    assert (found.code, found.permanent) == ("page_gone", True)
    assert isinstance(await outcome(answered(404)), Postponed)


async def test_what_was_raised_in_a_child_is_classified_alike() -> None:
    """'So that exceptions raised in a child process are classified too'."""
    seen = Symptoms(types=("httpx.HTTPStatusError", "Exception"), status=422)
    found = await outcome(HookRaised(seen, "token=abc \x00", "a trace"))
    assert found == Failed(
        code="http_422",
        reason="the hook raised HTTPStatusError (HTTP 422)",
        detail="token=*** \ufffd",
        permanent=True,
        error_type="httpx.HTTPStatusError",
        trace="a trace",
    )


GROUPS: list[tuple[list[BaseException], str, bool]] = [
    ([ValueError()], "ValueError", False),
    ([Reject("no", "one"), Reject("no", "two")], "one", True),
    ([Reject("no", "one"), ValueError()], "ValueError", False),
    ([answered(429), Reject("no")], "rate_limited", False),
    ([Wait(), Reject("no")], "waiting", False),
    ([answered(429), Retry("no")], "retry", False),
    ([answered(401), answered(429), ValueError(), Reject("no")], "stage_fault", False),
    ([Retry("short"), Retry("long", MINUTE)], "retry", False),
    ([asyncio.CancelledError(), Reject("no", "one")], "one", True),
    ([ExceptionGroup("in", [StageFault("x")]), ValueError()], "stage_fault", False),
]


@pytest.mark.parametrize(
    ("members", "code", "permanent"), GROUPS, ids=[f"{n}" for n in range(len(GROUPS))]
)
async def test_a_group_means_what_its_worst_member_does(
    members: list[BaseException], code: str, permanent: bool
) -> None:
    """A stage fault, then another try, then a wait; permanent only if all are."""
    found = await outcome(BaseExceptionGroup("several", members))
    assert isinstance(found, Failed | Postponed)
    assert (found.code, getattr(found, "permanent", False)) == (code, permanent)
    if members[-1:] and str(members[-1]) == "long":
        assert found.after == MINUTE


async def test_the_longest_wait_of_a_group_counts() -> None:
    """'Among equals the longest wait wins'."""
    found = await outcome(ExceptionGroup("several", [RateLimited(MINUTE), RateLimited(2 * MINUTE)]))
    assert isinstance(found, Postponed)
    assert found.after == 2 * MINUTE


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), STALE, DatabaseUnavailable("a", "b")],
    ids=["interrupt", "stale", "database"],
)
async def test_what_is_not_the_hooks_gets_through(error: BaseException) -> None:
    """The claim was lost, the database is away, or the process is to end; in a group too."""
    with pytest.raises(type(error)):
        await outcome(error)
    with pytest.raises(type(error)):
        await outcome(BaseExceptionGroup("several", [ValueError(), error]))


@pytest.mark.parametrize("error", [STALE, DatabaseUnavailable("a", "b")], ids=["stale", "database"])
async def test_what_is_not_the_hooks_gets_through_another_exception(error: BaseException) -> None:
    """Hooks wrap what they catch; what no rule knows is judged by what it was raised from."""
    wrapper = ValueError("cannot read")
    wrapper.__cause__ = KeyError("text")
    wrapper.__cause__.__cause__ = error
    error.__cause__ = ConnectionError()  # has a rule, but is why the database is away
    with pytest.raises(type(error)):
        await outcome(wrapper)
    rules = [FailureRule(KeyError, "permanent", code="no_text")]
    found = await outcome(wrapper, failures=rules)
    assert isinstance(found, Failed)
    assert found.code == "no_text"


async def test_a_hook_in_a_task_group_that_is_cancelled_from_outside_stays_cancelled() -> None:
    """A stopping worker ends its hooks; that is no failure of theirs."""
    begun = asyncio.Event()

    async def forever() -> Done:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(3600))
            begun.set()
        return Done()

    task = asyncio.create_task(call_user(Stage(hook), forever))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_deadline_of_the_stage_is_told_from_a_timeout_of_the_hooks_own() -> None:
    """``timed_out`` is the stage's deadline; what the hook gave up on itself is another thing."""
    with pytest.raises(DeadlinePassed, match=r"the stage's deadline of 0\.01 s passed"):
        async with deadline(timedelta(seconds=0.01)):
            await asyncio.sleep(3600)
    with pytest.raises(TimeoutError, match="mine"):
        async with deadline(MINUTE):
            raise TimeoutError("mine")
    found = await outcome(DeadlinePassed(MINUTE))
    assert isinstance(found, Failed)
    assert (found.code, found.reason) == ("timed_out", "the stage's deadline of 60 s passed")


@pytest.mark.parametrize("code", ["", "\x00", 7, None], ids=["empty", "nul", "number", "none"])
async def test_a_code_that_cannot_be_one_still_makes_a_dead_letter(code: Any) -> None:
    """PostgreSQL wants a code, and text that it can store."""
    found = await outcome(Reject("no", code))
    assert isinstance(found, Failed)
    assert found.permanent
    assert found.code
    assert "\x00" not in found.code


@pytest.mark.parametrize("kind", [Reject, Retry, StageFault])
async def test_a_sentence_of_a_signal_is_bounded(kind: Any) -> None:
    """History keeps it for ever, and it is sent to whoever looks."""
    found = await outcome(kind("token=abc " + "long " * 100_000))
    assert isinstance(found, Failed | Postponed)
    assert found.reason.startswith("token=*** long")
    assert len(found.reason) == REASON_CHARS


async def test_what_a_crashed_child_said_is_masked() -> None:
    """It reaches dead letters, which people read."""
    found = await outcome(ChildCrashed("answered nonsense", detail="KeyError: 'token=abc'"))
    assert isinstance(found, Crashed)
    assert found.detail == "KeyError: 'token=***'"


def test_a_retry_takes_a_duration() -> None:
    """A number would fail only when the outcome is written, far from its cause."""
    with pytest.raises(TypeError, match="after must be a timedelta, got 5"):
        Retry("no", 5)  # type: ignore[arg-type]
