"""Calls users' code: whatever it raises becomes an outcome.

``call_user`` holds the only broad ``except`` around users' code. What a signal means is written
here; what any other exception means is the table of ``failures.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.decide import Crashed, Failed, Outcome, Postponed, Succeeded
from statemachine_pipeline.errors import DatabaseUnavailable, PipelineError, StaleClaim
from statemachine_pipeline.failures import classify, rule_for
from statemachine_pipeline.hooks import (
    Done,
    RateLimited,
    Reject,
    Retry,
    Signal,
    StageFault,
    Wait,
)
from statemachine_pipeline.redaction import frames, message_of, public, redacted, storable
from statemachine_pipeline.resilience.breakers import ProviderClosed
from statemachine_pipeline.runner.children import ChildCrashed, HookRaised
from statemachine_pipeline.symptoms import causes, leaves, symptoms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from statemachine_pipeline.stages import Stage
    from statemachine_pipeline.symptoms import Symptoms

DETAIL_CHARS: Final = 500
_NOT_THE_HOOKS: Final = (StaleClaim, DatabaseUnavailable)
_ENDS_THE_PROCESS: Final = (KeyboardInterrupt,)


class DeadlinePassed(PipelineError):
    """A hook ran for longer than its stage lets it, and was stopped."""

    def __init__(self, deadline: timedelta) -> None:
        super().__init__(f"the stage's deadline of {deadline.total_seconds():g} s passed")


@contextlib.asynccontextmanager
async def deadline(after: timedelta) -> AsyncIterator[asyncio.Timeout]:
    """Stop the block after a time; yields the limit, which can be moved.

    Raises:
        DeadlinePassed: It was stopped; a ``TimeoutError`` of the block itself gets through.
    """
    limit = asyncio.timeout(after.total_seconds())
    try:
        async with limit:
            yield limit
    except TimeoutError:
        if limit.expired():
            raise DeadlinePassed(after) from None
        raise


async def call_user(
    stage: Stage, function: Callable[..., Awaitable[Done]], *arguments: object
) -> Outcome:
    """Call a hook; whatever it raises becomes an outcome.

    Args:
        stage: Whose rules come first, and whose pause a stage fault is.
        function: Calls the hook.
        *arguments: Its arguments.

    Raises:
        StaleClaim: The claim was lost, so there is nothing to settle.
        DatabaseUnavailable: Not the hook's fault.
        KeyboardInterrupt: The process is to end, and the claim with it.
    """
    calling = asyncio.current_task()
    try:
        done = await function(*arguments)
        return Succeeded(product=done.product, children=done.children, reported=done.reported)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return outcome_of(error, stage)
    except BaseException as error:
        if isinstance(error, GeneratorExit) and not _is_running(calling):
            raise  # nobody raised it: the loop has gone, and what it left behind is thrown away
        return outcome_of(error, stage)


def _is_running(task: asyncio.Task[Any] | None) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False


def outcome_of(error: BaseException, stage: Stage, what: str = "the hook raised") -> Outcome:
    """Say what a raised exception means; of a group, what its worst member does.

    Worst is a stage fault, then what counts an attempt, then what gives it back, and at last what
    is permanent: a group is permanent only if each of its members is. Among equals the longest
    wait wins.

    Args:
        error: What was raised.
        stage: Whose rules come first, and whose pause a stage fault is.
        what: Begins the sentence.

    Raises:
        StaleClaim: It says, or is among what it groups, that the claim was lost.
        DatabaseUnavailable: Or that the pipeline's database did not answer.
        KeyboardInterrupt: Or that the process is to end.
    """
    found = leaves(error)
    for kinds in (_ENDS_THE_PROCESS, _NOT_THE_HOOKS):
        for one in found:
            if isinstance(one, kinds):
                raise one
    # Tasks of a group that were cancelled because of another one say nothing.
    telling = [one for one in found if not isinstance(one, asyncio.CancelledError)] or found
    return max((_outcome(one, stage, what) for one in telling), key=_badness)


def code_of(error: BaseException, stage: Stage) -> str | None:
    """Return the code that history has for what a hook raised; None for what is not the hook's."""
    try:
        outcome = outcome_of(error, stage)
    except (*_NOT_THE_HOOKS, *_ENDS_THE_PROCESS):
        return None
    return None if isinstance(outcome, Succeeded) else outcome.code


def _outcome(error: BaseException, stage: Stage, what: str) -> Outcome:
    if isinstance(error, asyncio.CancelledError):
        return Failed(code="hook_cancelled", reason="the hook was cancelled by its own doing")
    if isinstance(error, SystemExit):
        return Failed(code="SystemExit", reason="the hook wanted to end the process")
    if isinstance(error, Signal):
        return _told(error, stage)
    if isinstance(error, ChildCrashed):
        return _crashed(error)
    return _classified(error, stage, what)


def _classified(error: BaseException, stage: Stage, what: str) -> Outcome:
    found = symptoms(error, datetime.now(UTC))
    if isinstance(error, HookRaised):
        message, trace = redacted(error.message), error.trace
    else:
        message, trace = message_of(error), frames(error)
        _let_through(error, found, stage)
    message = storable(message)[:DETAIL_CHARS]
    verdict = classify(found, stage.failures)
    # A message may quote the document, and history is kept when the document is deleted.
    reason, detail = f"{what} {found}", message or None
    if verdict.is_quotable:
        reason, detail = message if found.is_own else f"{reason}: {message}", None
    reason = storable(reason)
    if verdict.kind == "stage_fault":
        return Postponed(code="stage_fault", reason=reason, detail=detail, after=stage.fault_pause)
    if verdict.kind == "rate_limited":
        after = verdict.wait or timedelta(0)
        return Postponed(code="rate_limited", reason=reason, detail=detail, after=after)
    return Failed(
        code=storable(verdict.code),
        reason=reason,
        detail=detail,
        permanent=verdict.kind == "permanent",
        after=verdict.wait,
        error_type=storable(found.types[0]),
        trace=storable(trace),
    )


def _let_through(error: BaseException, found: Symptoms, stage: Stage) -> None:
    """Raise what is not the hook's, if that is what an exception no rule knows was raised from."""
    for one, seen in zip(causes(error), found.chain, strict=True):
        if isinstance(one, _NOT_THE_HOOKS):
            raise one
        if rule_for(seen, stage.failures) is not None:
            return


def _crashed(error: ChildCrashed) -> Crashed:
    detail = None if error.detail is None else storable(redacted(error.detail))[:DETAIL_CHARS]
    return Crashed(reason=str(error), code=error.code, detail=detail, is_contained=True)


def _told(signal: Signal, stage: Stage) -> Outcome:  # noqa: PLR0911 - a table of signals
    match signal:
        case Retry(reason=reason, after=after):
            return Failed(code="retry", reason=public(reason), after=after)
        case Reject(reason=reason, code=code):
            return Failed(code=public(code) or "rejected", reason=public(reason), permanent=True)
        case RateLimited(after=after):
            return Postponed(code="rate_limited", reason=str(signal), after=after)
        case ProviderClosed(reason=reason, after=after):
            return Postponed(code="provider_closed", reason=public(reason), after=after)
        case StageFault(reason=reason):
            return Postponed(code="stage_fault", reason=public(reason), after=stage.fault_pause)
        case Wait(poll_after=after):
            return Postponed(code="waiting", reason=str(signal), after=after)
    return Failed(code=type(signal).__name__, reason="the hook raised a signal of its own")


def _badness(outcome: Outcome) -> tuple[int, timedelta]:
    match outcome:
        case Postponed(code="stage_fault", after=after):
            return 3, after
        case Failed(permanent=False, after=after):
            return 2, after or timedelta(0)
        case Crashed():
            return 2, timedelta(0)
        case Postponed(after=after):
            return 1, after
    return 0, timedelta(0)
