"""Calls users' code: whatever it raises becomes an outcome.

``call_user`` holds the only broad ``except`` around users' code.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.decide import Failed, Outcome, Postponed, Succeeded
from statemachine_pipeline.errors import (
    DatabaseUnavailable,
    DefinitionError,
    MissingExtra,
    PipelineError,
    StaleClaim,
)
from statemachine_pipeline.hooks import (
    Done,
    RateLimited,
    Reject,
    Retry,
    Signal,
    StageFault,
    Wait,
)
from statemachine_pipeline.resilience.breakers import ProviderClosed
from statemachine_pipeline.runner.children import ChildCrashed, ChildTimedOut, HookRaised

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STAGE_FAULT_PAUSE = timedelta(minutes=5)
DETAIL_CHARS = 500
_OF_THE_STAGE: Final = {"MissingExtra", "DefinitionError"}
"""Raised in a child, these say that no document could pass."""


async def call_user(  # noqa: C901, PLR0911 - a table of what may be raised
    function: Callable[..., Awaitable[Done]], *arguments: object
) -> Outcome:
    """Call a hook; whatever it raises becomes an outcome.

    Raises:
        StaleClaim: The claim was lost, so there is nothing to settle.
        DatabaseUnavailable: Not the hook's fault.
    """
    try:
        done = await function(*arguments)
        return Succeeded(product=done.product, children=done.children, reported=done.reported)
    except (StaleClaim, DatabaseUnavailable):
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Failed(code="hook_cancelled", reason="the hook was cancelled by its own doing")
    except SystemExit:
        return Failed(code="SystemExit", reason="the hook wanted to end the process")
    except Signal as signal:
        return _told(signal)
    except (TimeoutError, ChildTimedOut):
        return Failed(code="timed_out", reason="the stage's deadline passed")
    except ChildCrashed as error:
        return Failed(code="child_crashed", reason="the child process died", detail=_detail(error))
    except (MissingExtra, DefinitionError) as error:
        return _told(StageFault(str(error)))
    except HookRaised as error:
        if error.type_name in _OF_THE_STAGE:
            return _told(StageFault(error.message))
        reason = f"the hook raised {error.type_name}"
        return Failed(code=error.type_name, reason=reason, detail=_detail(error))
    except PipelineError as error:
        return Failed(code=type(error).__name__, reason=_detail(error))
    except Exception as error:  # noqa: BLE001 - users may raise anything
        name = type(error).__name__
        # The message may quote the document, and history is kept when the document is deleted.
        return Failed(code=name, reason=f"the hook raised {name}", detail=_detail(error))


def _told(signal: Signal) -> Outcome:  # noqa: PLR0911 - a table of signals
    match signal:
        case Retry(reason=reason, after=after):
            return Failed(code="retry", reason=_storable(reason), after=after)
        case Reject(reason=reason, code=code):
            return Failed(code=_storable(code), reason=_storable(reason), permanent=True)
        case RateLimited(after=after):
            return Postponed(code="rate_limited", reason=str(signal), after=after)
        case ProviderClosed(reason=reason, after=after):
            return Postponed(code="provider_closed", reason=_storable(reason), after=after)
        case StageFault(reason=reason):
            return Postponed(code="stage_fault", reason=_storable(reason), after=STAGE_FAULT_PAUSE)
        case Wait(poll_after=after):
            return Postponed(code="waiting", reason=str(signal), after=after)
    return Failed(code=type(signal).__name__, reason="the hook raised a signal of its own")


def _detail(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception of the user's may not even have a text
        text = "its message cannot be read"
    return _storable(text)[:DETAIL_CHARS]


def _storable(text: str) -> str:
    """Replace what PostgreSQL's text cannot hold: NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
