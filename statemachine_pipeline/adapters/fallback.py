"""Several parsers as one: the first that is up answers.

Only an outage leads on to the next parser. A document that cannot be read, a wrong key and a full
budget are answers of the first, and reading the document by a worse parser would only hide them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
import socket
import threading
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import uuid4

import pybreaker

from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.hooks import Done, Parser, Retry, Signal, StageFault
from statemachine_pipeline.records import ParsedText

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.records import Source

FAILURES: Final = 5
"""Failures in a row after which a parser is not asked for a while."""

REST: Final = timedelta(seconds=60)
"""How long it is not asked; then one document at a time tries it."""

_SERVER_ERROR: Final = 500
# Deeper chains of causes are made by hand.
_CAUSES: Final = 10


def first_of(*parsers: Parser, failures: int = FAILURES, rest: timedelta = REST) -> FirstOf:
    """Make a parser that asks the first of several, and the next while that one is down.

    Down is a parser that raises ``Retry``, a connection error, a timeout, or an error that carries
    an HTTP status of 500 or more. Anything else is its answer and goes to the runner: ``Reject``,
    ``RateLimited``, ``StageFault``, ``Wait``, and errors of other kinds. While all are down the
    stage is paused, and no document is charged.

    A text of another parser than the first says so in its warnings. Its product is kept under that
    parser's fingerprint, so the next ``reprocess`` reads such documents again and hops over all
    others. The fingerprint of the whole is the first parser's: a parser added behind it re-runs
    nothing.

    Failures are counted for each process: with ``run="process"`` in each child.

    Args:
        *parsers: The one that is wanted, then those to fall back on; each with its own timeouts,
            which together must fit the stage's deadline.
        failures: After so many failures in a row a parser is not asked any more.
        rest: For how long; then one document at a time tries it.

    Raises:
        DefinitionError: Fewer than two parsers, or something that is none.
    """
    each = (one.parsers if isinstance(one, FirstOf) else (one,) for one in parsers)
    return FirstOf(tuple(itertools.chain.from_iterable(each)), failures=failures, rest=rest)


class FirstOf:
    """What ``first_of`` makes; it may be shared by threads, and pickled if its parsers may."""

    def __init__(self, parsers: tuple[Parser, ...], *, failures: int, rest: timedelta) -> None:
        if len(parsers) < 2:  # noqa: PLR2004 - one to ask and one to fall back on
            raise DefinitionError(f"first_of needs at least two parsers, got {len(parsers)}")
        for parser in parsers:
            if not isinstance(parser, Parser) or inspect.isclass(parser):
                raise DefinitionError(f"first_of: {parser!r} is no parser: an instance with parse")
            if inspect.iscoroutinefunction(parser.parse):
                raise DefinitionError(f"first_of: {_name(parser)}.parse is async, it must not be")
        self.parsers = parsers
        self._failures, self._rest = failures, rest
        self._id = uuid4().hex
        weakref.finalize(self, _CIRCUITS.pop, self._id, None)
        self._entered: list[contextlib.AsyncExitStack] = []

    async def __aenter__(self) -> Self:
        """Enter those parsers that are async context managers, once for each runner."""
        async with contextlib.AsyncExitStack() as stack:
            for parser in self.parsers:
                if isinstance(parser, contextlib.AbstractAsyncContextManager):
                    await stack.enter_async_context(parser)
            self._entered.append(stack.pop_all())
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._entered.pop().aclose()

    @property
    def fingerprint(self) -> str:
        """The first parser's: what it read stays current whatever stands behind it."""
        return _name(self.parsers[0])

    def parse(self, source: Source) -> ParsedText | Done:
        """Return what the first parser that is up makes of ``source``.

        Raises:
            StageFault: All are down, and have been for as many documents as it takes.
            Retry: All are down, as far as is known.
            Exception: What the parser that is up raised.
        """
        down: list[str] = []
        waits: list[timedelta] = []
        circuits = _circuits(self._id, len(self.parsers), self._failures, self._rest)
        for parser, circuit in zip(self.parsers, circuits, strict=True):
            try:
                parsed = circuit.ask(parser, source)
            except pybreaker.CircuitBreakerError:
                down.append(f"{_name(parser)} (down for a while)")
            except Exception as error:
                if not is_down(error):
                    raise
                down.append(f"{_name(parser)} ({type(error).__name__})")
                if isinstance(error, Retry) and error.after is not None:
                    waits.append(error.after)
            else:
                return self._signed(parsed, parser, down)
        reason = f"no parser answers: {', '.join(down)}"
        if all(circuit.is_open for circuit in circuits):
            raise StageFault(reason)
        raise Retry(reason, min(waits, default=None))

    def _signed(
        self, parsed: ParsedText | Done, parser: Parser, down: list[str]
    ) -> ParsedText | Done:
        name = _name(parser)
        if name == self.fingerprint:
            return parsed
        if isinstance(parsed, Done):
            if not isinstance(parsed.product, ParsedText):
                return parsed
            text = self._signed(parsed.product, parser, down)
            return Done(text, children=parsed.children, **parsed.reported)
        note = f"read by {name}; down: {', '.join(down)}; `reprocess` reads it again"
        return dataclasses.replace(parsed, warnings=(*parsed.warnings, note), made_by=name)


class _Circuit:
    """A breaker that lets one caller at a time find out whether a parser is up again.

    pybreaker's own half-open state lets all of them through at once.
    """

    def __init__(self, failures: int, rest: timedelta) -> None:
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failures,
            reset_timeout=rest.total_seconds(),
            exclude=[lambda error: not is_down(error)],
            # Else the call that trips it raises the breaker's error instead of its own.
            throw_new_error_on_trip=False,
        )
        self._probe = threading.Lock()

    @property
    def is_open(self) -> bool:
        return bool(self._breaker.current_state != pybreaker.STATE_CLOSED)

    def ask(self, parser: Parser, source: Source) -> ParsedText | Done:
        """Parse, or refuse.

        Raises:
            pybreaker.CircuitBreakerError: The parser is not asked now.
        """
        if not self.is_open:
            return self._call(parser, source)
        if not self._probe.acquire(blocking=False):
            raise pybreaker.CircuitBreakerError
        try:
            return self._call(parser, source)
        finally:
            self._probe.release()

    def _call(self, parser: Parser, source: Source) -> ParsedText | Done:
        # Not breaker.call(): it would hold a lock while a parser works.
        with self._breaker.calling():
            return parser.parse(source)


_CIRCUITS: Final[dict[str, tuple[_Circuit, ...]]] = {}
_CIRCUITS_LOCK: Final = threading.Lock()


def _circuits(key: str, count: int, failures: int, rest: timedelta) -> tuple[_Circuit, ...]:
    """Return this process's circuits of one ``first_of``.

    They belong to the process and not to the object: a child gets a fresh copy of that with every
    call, and locks cannot be pickled.
    """
    with _CIRCUITS_LOCK:
        if key not in _CIRCUITS:
            _CIRCUITS[key] = tuple(_Circuit(failures, rest) for _ in range(count))
        return _CIRCUITS[key]


def is_down(error: BaseException) -> bool:
    """Tell whether an error means that a provider did not answer as one that works.

    Clients wrap such errors in their own, so causes count too.
    """
    if isinstance(error, Signal):
        return isinstance(error, Retry)
    for one in _chain(error):
        status = _status(one)
        if status is not None:
            return status >= _SERVER_ERROR
        if _is_outage(one):
            return True
    return False


def _is_outage(error: BaseException) -> bool:
    import httpx

    # What the caller did wrong, though httpx calls it trouble of the transport.
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return False
    outages = (ConnectionError, TimeoutError, socket.gaierror, httpx.TransportError)
    # A parser may have a breaker of its own.
    return isinstance(error, (*outages, pybreaker.CircuitBreakerError))


def _status(error: BaseException) -> int | None:
    """Find an HTTP status where httpx, requests, urllib and most providers' clients keep it."""
    response: Any = getattr(error, "response", None)
    found = (
        getattr(response, "status_code", None),
        getattr(error, "status_code", None),
        getattr(error, "code", None),
    )
    return next((status for status in found if isinstance(status, int)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    for _ in range(_CAUSES):
        if one is None:
            return
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _name(parser: Parser) -> str:
    """Return a parser's fingerprint, or its class."""
    told = getattr(parser, "fingerprint", None)
    return str(told or f"{type(parser).__module__}.{type(parser).__qualname__}")
