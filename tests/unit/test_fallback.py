"""Several parsers as one: what counts as down, who is asked, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import threading
import urllib.request
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import httpx
import pybreaker
import pytest

from statemachine_pipeline import first_of
from statemachine_pipeline.adapters.fallback import FAILURES, is_down
from statemachine_pipeline.adapters.parsers import DocumentParser
from statemachine_pipeline.errors import DefinitionError, MissingExtra
from statemachine_pipeline.hooks import Parser, RateLimited, Reject, Retry, StageFault, Wait
from statemachine_pipeline.records import ParsedText, Source
from statemachine_pipeline.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Source(name="a", media_type="text/plain", size_bytes=5, data=b"words")
NEVER, AT_ONCE = timedelta(hours=1), timedelta(0)


class Says:
    """A parser that raises what it is told, or answers with its name."""

    def __init__(self, name: str, error: BaseException | None = None) -> None:
        self.fingerprint = name
        self.error = error
        self.count = 0

    def parse(self, source: Source) -> ParsedText:
        self.count += 1
        if self.error is not None:
            raise self.error
        return ParsedText(self.fingerprint)


class Nameless:
    """A parser without a fingerprint of its own."""

    def parse(self, source: Source) -> ParsedText:
        return ParsedText("nameless")


class Connected(Says):
    """A parser that holds a connection."""

    is_open = False

    async def __aenter__(self) -> Self:
        self.is_open = True
        return self

    async def __aexit__(self, *error: object) -> None:
        self.is_open = False


def status(code: int) -> httpx.HTTPStatusError:
    """Return what httpx raises for a status."""
    request = httpx.Request("POST", "http://parser")
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(code))


def raised(cause: BaseException, error: BaseException) -> BaseException:
    """Return an error that was raised because of another."""
    try:
        raise error from cause
    except type(error) as found:
        return found


def refused() -> BaseException:
    """Return what urllib raises for a port at which nobody listens."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    # Held all the while, or another process might listen there.
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="refused") as caught:
            direct.open(f"http://127.0.0.1:{mute.getsockname()[1]}")
    return caught.value


OUTAGES: list[Callable[[], BaseException]] = [
    lambda: Retry("the service is busy"),
    lambda: ConnectionRefusedError("no"),
    TimeoutError,
    lambda: socket.gaierror("name unknown"),
    lambda: httpx.ConnectError("no"),
    lambda: httpx.ReadTimeout("no"),
    lambda: status(500),
    lambda: status(503),
    lambda: raised(ConnectionResetError("no"), RuntimeError("a client's own error")),
    refused,
]
ANSWERS: list[Callable[[], BaseException]] = [
    lambda: Reject("password-protected", "encrypted"),
    lambda: RateLimited(timedelta(seconds=5)),
    lambda: StageFault("wrong key"),
    Wait,
    lambda: MissingExtra("docling", "none"),
    lambda: ValueError("a bug"),
    lambda: FileNotFoundError("gone"),
    lambda: status(400),
    lambda: status(401),
    lambda: status(429),
    lambda: httpx.UnsupportedProtocol("no scheme"),
    lambda: raised(ConnectionResetError("at first"), status(422)),
    lambda: raised(ConnectionResetError("no"), Reject("unreadable")),
]


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_leads_on_to_the_next_parser(outage: Callable[[], BaseException]) -> None:
    """A connection error, a timeout, ``Retry``, or a status of 500 or more, causes included."""
    error = outage()
    first, second, third = Says("first/1", error), Says("second/1"), Says("third/1")
    parsed = first_of(first, second, third).parse(SOURCE)
    assert (parsed.text, parsed.made_by, third.count) == ("second/1", "second/1", 0)
    assert parsed.warnings == (
        f"read by second/1; down: first/1 ({type(error).__name__}); `reprocess` reads it again",
    )
    assert is_down(error)


@pytest.mark.parametrize("answer", ANSWERS)
def test_anything_else_is_an_answer(answer: Callable[[], BaseException]) -> None:
    """A document that cannot be read, a wrong key, a full budget: the next one is not asked."""
    error = answer()
    first, second = Says("first/1", error), Says("second/1")
    with pytest.raises(type(error)) as caught:
        first_of(first, second).parse(SOURCE)
    assert caught.value is error
    assert second.count == 0
    assert not is_down(error)


def test_a_parser_that_is_up_is_the_only_one_asked() -> None:
    """What the first parser reads is its own: no warning, no other fingerprint."""
    first, second = Says("first/1"), Says("second/1")
    assert first_of(first, second).parse(SOURCE) == ParsedText("first/1")
    assert second.count == 0


def test_a_dead_parser_is_not_asked_for_every_document() -> None:
    """After so many failures in a row a parser is not asked any more."""
    first, second = Says("first/1", ConnectionError()), Says("second/1")
    both = first_of(first, second, rest=NEVER)
    notes = [both.parse(SOURCE).warnings[0] for _ in range(FAILURES + 3)]
    assert (first.count, second.count) == (FAILURES, FAILURES + 3)
    assert "first/1 (ConnectionError)" in notes[0]
    assert "first/1 (down for a while)" in notes[-1]


def test_only_failures_in_a_row_count_and_bad_documents_are_none() -> None:
    """One bad document must not close the way to a provider."""
    first, second = Says("first/1"), Says("second/1")
    both = first_of(first, second, rest=NEVER)
    for error in [ConnectionError(), ConnectionError(), Reject("bad"), None] * FAILURES:
        first.error = error
        with contextlib.suppress(Reject):
            both.parse(SOURCE)
    for _ in range(2 * FAILURES):
        first.error = Reject("bad")
        with pytest.raises(Reject):
            both.parse(SOURCE)
    first.error = None
    assert both.parse(SOURCE).text == "first/1"


def test_a_parser_that_came_back_is_asked_again() -> None:
    """After the rest one document tries it, and if that goes well all others do."""
    first, second = Says("first/1", ConnectionError()), Says("second/1")
    both = first_of(first, second, rest=AT_ONCE)
    for _ in range(FAILURES + 2):
        assert both.parse(SOURCE).text == "second/1"
    assert first.count == FAILURES + 2
    first.error = None
    assert [both.parse(SOURCE).text for _ in range(2)] == ["first/1"] * 2


def test_one_document_at_a_time_tries_a_parser_that_was_down() -> None:
    """The half-open state of pybreaker itself lets all of them through at once."""
    entered, leave = threading.Event(), threading.Event()

    class Hanging(Says):
        def parse(self, source: Source) -> ParsedText:
            if self.count >= FAILURES:
                entered.set()
                assert leave.wait(20)
            return super().parse(source)

    first, second = Hanging("first/1", ConnectionError()), Says("second/1")
    both = first_of(first, second, rest=AT_ONCE)
    for _ in range(FAILURES):
        both.parse(SOURCE)
    probe = threading.Thread(target=both.parse, args=[SOURCE])
    probe.start()
    assert entered.wait(20)
    assert both.parse(SOURCE).text == "second/1"
    assert first.count == FAILURES
    leave.set()
    probe.join(20)
    assert first.count == FAILURES + 1


def test_while_all_are_down_documents_are_tried_again_and_then_the_stage_is_paused() -> None:
    """Once that is known, no document is charged."""
    both = first_of(Says("a/1", ConnectionError()), Says("b/1", TimeoutError()), rest=NEVER)
    reason = r"no parser answers: a/1 \(ConnectionError\), b/1 \(TimeoutError\)"
    for _ in range(FAILURES - 1):
        with pytest.raises(Retry, match=reason):
            both.parse(SOURCE)
    with pytest.raises(StageFault, match=reason):
        both.parse(SOURCE)
    with pytest.raises(StageFault, match="down for a while"):
        both.parse(SOURCE)


def test_a_breaker_of_a_parsers_own_counts() -> None:
    """An open one says that its provider is down."""
    parsed = first_of(Says("a/1", pybreaker.CircuitBreakerError()), Says("b/1")).parse(SOURCE)
    assert "a/1 (down for a while)" in parsed.warnings[0]
    assert is_down(pybreaker.CircuitBreakerError())


def test_a_retry_waits_as_long_as_the_parser_that_is_back_first() -> None:
    """After: Wait at least this long."""
    soon, late = (Retry("busy", after=timedelta(seconds=n)) for n in (5, 50))
    with pytest.raises(Retry) as caught:
        first_of(Says("a/1", late), Says("b/1", soon), Says("c/1", Retry("busy"))).parse(SOURCE)
    assert caught.value.after == timedelta(seconds=5)


def test_the_fingerprint_is_the_first_parsers() -> None:
    """A parser added behind it re-runs nothing; two servers of one parser are one."""
    assert Stage(first_of(Says("a/1"), Says("b/1"))).fingerprint == Stage(Says("a/1")).fingerprint
    nameless = first_of(Nameless(), Says("b/1"))
    assert Stage(nameless).fingerprint == Stage(Nameless()).fingerprint
    twin = first_of(Says("a/1", ConnectionError()), Says("a/1")).parse(SOURCE)
    assert (twin.made_by, twin.warnings) == (None, ())


def test_it_is_a_parser_and_one_of_them_may_be_of_its_kind() -> None:
    """A first_of within another is the same as its parsers in its place."""
    inner = first_of(Says("a/1", ConnectionError()), Says("b/1", ConnectionError()), failures=1)
    outer = first_of(inner, Says("c/1"), failures=1)
    assert isinstance(outer, Parser)
    assert [outer.parse(SOURCE).text for _ in range(3)] == ["c/1"] * 3


def test_copies_in_one_process_share_what_is_known() -> None:
    """A child gets a fresh copy with every call; failures are counted for each process."""
    both = first_of(Says("a/1", ConnectionError()), DocumentParser(), rest=NEVER)
    for _ in range(FAILURES):
        copy = pickle.loads(pickle.dumps(both))
        assert "a/1 (ConnectionError)" in copy.parse(SOURCE).warnings[0]
    copy = pickle.loads(pickle.dumps(both))
    assert "a/1 (down for a while)" in copy.parse(SOURCE).warnings[0]


def test_parsers_that_hold_something_are_entered() -> None:
    """A hook that is an async context manager is entered once for each runner."""

    async def run() -> None:
        async with both:
            assert first.is_open
            assert pickle.loads(pickle.dumps(both)).parse(SOURCE).text == "a/1"
        assert not first.is_open

    first = Connected("a/1")
    both = first_of(first, Says("b/1"))
    asyncio.run(run())


class Async:
    async def parse(self, source: Source) -> ParsedText:
        return ParsedText("")


@pytest.mark.parametrize(
    ("parsers", "reason"),
    [
        ([Says("a/1")], "first_of needs at least two parsers, got 1"),
        ([Says("a/1"), Says], "is no parser: an instance with parse"),
        ([Says("a/1"), "docling"], "'docling' is no parser"),
        ([Says("a/1"), Async()], r"parse is async, it must not be"),
    ],
)
def test_what_cannot_work_is_refused_at_once(parsers: list[Any], reason: str) -> None:
    """Fewer than two parsers, or something that is none."""
    with pytest.raises(DefinitionError, match=reason):
        first_of(*parsers)
