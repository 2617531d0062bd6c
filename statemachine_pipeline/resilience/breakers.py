"""One runner's side of a provider's breaker: pybreaker counts, the database tells the fleet.

pybreaker is fed after each request, in a block without any await. So no lock is held while a
provider is asked, and what says nothing about the provider (a cancelled hook, a 429, one bad
document) is not fed at all: pybreaker would take what it excludes for a success. Open, it is never
asked, since it would go by this machine's clock and let every caller through: the one probe of the
fleet is taken from the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import pybreaker

from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.failures import classify
from statemachine_pipeline.hooks import RateLimited, Retry, Signal, Wait
from statemachine_pipeline.obstacles import REFUSED
from statemachine_pipeline.redaction import public
from statemachine_pipeline.symptoms import leaves, symptoms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.database.providers import Providers, View
    from statemachine_pipeline.failures import FailureRule
    from statemachine_pipeline.providers import Provider
    from statemachine_pipeline.resilience.counting import Counting
    from statemachine_pipeline.symptoms import Symptoms

SHORTEST: Final = timedelta(seconds=1)
_SERVER_ERRORS: Final = range(500, 600)
_PASSING: Final = {408, 425}
_CALLS: Final = {
    "TimeoutError",
    "ConnectionError",
    "statemachine_pipeline.runner.children.ChildTimedOut",
}

State = Literal["closed", "open", "half_open"]
_STATES: Final[dict[str, State]] = {
    pybreaker.STATE_CLOSED: "closed",
    pybreaker.STATE_OPEN: "open",
    pybreaker.STATE_HALF_OPEN: "half_open",
}

Ending = Literal["succeeded", "failed", "answered", "unknown"]
"""What the end of a request says about its provider."""
_SAYS_MOST: Final = ("unknown", "succeeded", "answered", "failed")


class ProviderClosed(Signal):
    """The provider is not asked for now; the attempt is given back.

    Args:
        reason: A sentence for people.
        after: When to look again.
    """

    def __init__(self, reason: str, after: timedelta) -> None:
        self.reason, self.after = reason, after
        super().__init__(reason)


class FleetBreaker:
    """One runner's side of one provider's breaker.

    Args:
        provider: Whose.
        store: Where the fleet sees it.
        worker: Who asks.
        counting: Told where it stands.
    """

    def __init__(
        self, provider: Provider, store: Providers, worker: int, counting: Counting
    ) -> None:
        self._provider, self._store, self._worker = provider, store, worker
        self._counting = counting
        counting.stands("closed")
        self._circuit = pybreaker.CircuitBreaker(
            fail_max=provider.breaker.failures,
            listeners=[_Listener(self)],
            name=provider.name,
            throw_new_error_on_trip=False,
        )
        self._unwritten: deque[tuple[str, str]] = deque()
        self._writing = asyncio.Lock()
        self._follows = False
        self._probe: Literal["none", "held", "used"] = "none"
        self._why, self._reason, self._due = "", "", 0.0
        self.version = 0

    @property
    def is_closed(self) -> bool:
        """Whether requests go through, as far as this runner knows."""
        return bool(self._circuit.current_state == pybreaker.STATE_CLOSED)

    def admit(self) -> bool:
        """Let a request through, or refuse it.

        Returns:
            True for the one that tries the provider again.

        Raises:
            ProviderClosed: It is down, or another request is trying it.
        """
        if self.is_closed:
            return False
        if self._probe != "held":
            raise self.refusal()
        self._probe = "used"
        return True

    def refusal(self) -> ProviderClosed:
        """Return what a request is told while the breaker is not closed."""
        due = timedelta(seconds=self._due - time.monotonic())
        reason = f"provider {self._provider.name!r}{REFUSED}{self._reason}"
        return ProviderClosed(reason, max(due, SHORTEST))

    async def hear(self, ending: Ending, why: str, *, is_probe: bool) -> bool:
        """Count how a request ended.

        Args:
            ending: What it says about the provider.
            why: What failed, in a few words without document text.
            is_probe: What ``admit`` returned.

        Returns:
            Whether it failed while the provider was known to be down, so that nobody is charged.
        """
        if is_probe and self._probe != "used":
            is_probe = False  # it took too long, and is somebody else's now
        if not is_probe and not self.is_closed:
            # What was under way when it opened neither closes it nor keeps it open for longer.
            return ending == "failed"
        if ending == "unknown" or (ending == "answered" and not is_probe):
            if is_probe:
                await self.give_probe_back()
            return False
        self._why = why
        self._feed(failed=ending == "failed")
        first = await self.write()
        return ending == "failed" and (is_probe or first is False)

    def _feed(self, *, failed: bool) -> None:
        with contextlib.suppress(_RequestFailed), self._circuit.calling():
            if failed:
                raise _RequestFailed

    def changed(self, state: str) -> None:
        """Note a change that pybreaker made; ``write`` tells the fleet."""
        self._counting.stands(_STATES[state])
        if self._follows:
            return
        self.version += 1
        reason = ""
        if state == pybreaker.STATE_OPEN:
            count = self._provider.breaker.failures
            tried = f"the request that tried it failed: {self._why}"
            several = f"{count} requests in a row failed, the last: "
            failed = (several if count > 1 else "a request failed: ") + self._why
            reason = self._reason = tried if self._probe == "used" else failed
            self._due = time.monotonic() + self._provider.breaker.open_for.total_seconds()
        self._probe = "none"
        self._unwritten.append((state, reason))

    async def write(self) -> bool | None:
        """Tell the fleet what changed here; what cannot be told now is told later.

        Returns:
            Whether the last change was this runner's to make; None when there was none.
        """
        done = None
        async with self._writing:
            while self._unwritten:
                state, reason = self._unwritten[0]
                try:
                    done = await self._tell(state, reason)
                except DatabaseUnavailable:
                    return None
                self._unwritten.popleft()
                self.version += 1
        return done

    async def _tell(self, state: str, reason: str) -> bool:
        name, worker = self._provider.name, self._worker
        if state == pybreaker.STATE_CLOSED:
            return await self._store.close(name, worker)
        return await self._store.open(name, worker, reason, self._provider.breaker.open_for)

    def follow(self, view: View, version: int) -> None:
        """Take over what the fleet knows, unless something changed here since ``version``."""
        if version != self.version or self._unwritten:
            return
        self._reason = view.reason or ""
        self._due = time.monotonic() + view.opens_in.total_seconds()
        if self._probe != "none" and view.probe_worker == self._worker:
            return
        self._probe = "none"
        wanted = pybreaker.STATE_CLOSED if view.state == "closed" else pybreaker.STATE_OPEN
        self._set(wanted)

    async def take_probe(
        self, served: Sequence[tuple[str, str]], lease: timedelta, *, suspect: bool
    ) -> bool:
        """Take the probe of the fleet, if it is due and a document waits; see ``Providers``."""
        name, worker = self._provider.name, self._worker
        if self._unwritten or self._probe != "none":
            return False
        if not await self._store.take_probe(name, worker, served, lease, suspect=suspect):
            return False
        self.version += 1
        self._set(pybreaker.STATE_HALF_OPEN)
        self._probe = "held"
        return True

    async def give_probe_back(self) -> None:
        """Let somebody else try, if this runner holds the probe; one that is lost runs out."""
        if self._probe == "none":
            return
        self._probe = "none"
        self.version += 1
        self._set(pybreaker.STATE_OPEN)
        with contextlib.suppress(DatabaseUnavailable):
            await self._store.give_probe_back(self._provider.name, self._worker)

    def _set(self, state: str) -> None:
        """Move pybreaker to where the fleet is."""
        if self._circuit.current_state == state:
            return
        self._follows = True
        try:
            {
                pybreaker.STATE_CLOSED: self._circuit.close,
                pybreaker.STATE_OPEN: self._circuit.open,
                pybreaker.STATE_HALF_OPEN: self._circuit.half_open,
            }[state]()
        finally:
            self._follows = False


class _Listener(pybreaker.CircuitBreakerListener):
    """Tells one breaker what pybreaker did."""

    def __init__(self, breaker: FleetBreaker) -> None:
        self._breaker = breaker

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        """Note a new state; opening an open breaker is none."""
        if old_state is None or old_state.name != new_state.name:
            self._breaker.changed(new_state.name)


class _RequestFailed(Exception):
    """What pybreaker is told instead of the error itself."""


def heard_of(
    error: BaseException, rules: Sequence[FailureRule] = (), *, is_late: bool = False
) -> tuple[Ending, str]:
    """Tell what a request that raised says about its provider, and what failed in a few words.

    Failed is what may pass by itself: ``Retry``, timeouts, connections, statuses 5xx. A refusal of
    one document, a defect of the hook or a stop of the worker says nothing. Of a group, that counts
    which says most.

    Args:
        error: What it raised; messages of unknown errors may quote a document, and are not told.
        rules: What the stage says of its exceptions.
        is_late: The stage's deadline stopped it.
    """
    heard = ((_ending(one, rules, is_late=is_late), _said_by(one)) for one in leaves(error))
    return max(heard, key=lambda one: _SAYS_MOST.index(one[0]))


def _ending(error: BaseException, rules: Sequence[FailureRule], *, is_late: bool) -> Ending:
    match error:
        case asyncio.CancelledError():
            return "failed" if is_late else "unknown"
        case Retry():
            return "failed"
        case RateLimited() | Wait():
            return "answered"
        case Signal():
            return "unknown"
        case Exception():
            return _ending_of_others(symptoms(error, datetime.now(UTC)), rules)
    return "unknown"


def _ending_of_others(found: Symptoms, rules: Sequence[FailureRule]) -> Ending:
    kind = classify(found, rules).kind
    if kind != "transient":
        return "answered" if kind == "rate_limited" else "unknown"
    if found.status is not None:
        return "failed" if found.status in _SERVER_ERRORS or found.status in _PASSING else "unknown"
    if not _CALLS.isdisjoint(found.types):
        return "failed"
    # Python's own errors are defects of the hook; libraries have errors of their own for requests.
    return "unknown" if found.is_own or "." not in found.types[0] else "failed"


def _said_by(error: BaseException) -> str:
    if isinstance(error, Retry):
        return public(error.reason)
    if isinstance(error, asyncio.CancelledError):
        return "the stage's deadline passed"
    found = symptoms(error, datetime.now(UTC))
    return found.name + (f" {found.status}" if found.status else "")
