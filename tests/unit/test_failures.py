"""What exceptions mean: the table, rules of one's own, and what is known of an exception."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy.exc

from statemachine_pipeline.errors import (
    BlobsRefused,
    BlobsUnavailable,
    DefinitionError,
    MissingExtra,
    SourceRefused,
)
from statemachine_pipeline.failures import RULES, UNTOLD_WAIT, FailureRule, Verdict, classify
from statemachine_pipeline.runner.calling import DeadlinePassed
from statemachine_pipeline.runner.children import ChildTimedOut, ChildUnavailable
from statemachine_pipeline.symptoms import Symptoms, symptoms

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REQUEST = httpx.Request("POST", "https://example.org/v1")


def verdict(error: BaseException, *rules: FailureRule) -> Verdict:
    """Classify an exception as the runner does."""
    return classify(symptoms(error, NOW), rules)


def answered(status: int, **headers: str) -> httpx.HTTPStatusError:
    """Return what httpx raises for an answer."""
    response = httpx.Response(status, headers=headers, request=REQUEST)
    return httpx.HTTPStatusError("no", request=REQUEST, response=response)


def caused(error: BaseException, cause: BaseException) -> BaseException:
    """Return an exception raised from another one."""
    error.__cause__ = cause
    return error


def refused(state: str, kind: type[psycopg.Error] = psycopg.Error) -> psycopg.Error:
    """Return what psycopg raises for a SQLSTATE."""
    try:
        found: type[psycopg.Error] = psycopg.errors.lookup(state)
    except KeyError:
        found = type("Unlisted", (kind,), {"sqlstate": state})
    return found("no")


def wrapped(kind: type[Any], original: Exception) -> Exception:
    """Return what SQLAlchemy raises for an error of a driver."""
    made: Exception = kind("SELECT 1", {}, original)
    return made


class RequestsLike(OSError):
    """As requests raises it: an OSError with the answer."""

    def __init__(self, status: int) -> None:
        super().__init__("no")
        self.response = type("Answer", (), {"status_code": status, "headers": {}})()


class AiohttpLike(Exception):
    """As aiohttp raises it: status and headers on the exception."""

    status, headers = 429, {"Retry-After": "7"}


class BotocoreLike(Exception):
    """As botocore raises it: the answer is a dict."""

    response = {"ResponseMetadata": {"HTTPStatusCode": 503}}  # noqa: RUF012


KINDS: list[tuple[BaseException, str, str]] = [
    (answered(429), "rate_limited", "http_429"),
    (answered(408), "transient", "http_408"),
    (answered(409), "transient", "http_409"),
    (answered(425), "transient", "http_425"),
    (answered(500), "transient", "http_500"),
    (answered(503), "transient", "http_503"),
    (answered(599), "transient", "http_599"),
    (answered(400), "permanent", "http_400"),
    (answered(413), "permanent", "http_413"),
    (answered(422), "permanent", "http_422"),
    (answered(401), "stage_fault", "http_401"),
    (answered(402), "stage_fault", "http_402"),
    (answered(403), "stage_fault", "http_403"),
    (answered(404), "stage_fault", "http_404"),
    (answered(302), "stage_fault", "http_302"),
    (answered(418), "transient", "HTTPStatusError"),
    (RequestsLike(401), "stage_fault", "http_401"),
    (AiohttpLike(), "rate_limited", "http_429"),
    (BotocoreLike(), "transient", "http_503"),
    (httpx.ConnectTimeout("no"), "transient", "http_timeout"),
    (httpx.ReadTimeout("no"), "transient", "http_timeout"),
    (httpx.PoolTimeout("no"), "transient", "http_timeout"),
    (httpx.ConnectError("no"), "transient", "http_transport"),
    (httpx.RemoteProtocolError("half a body"), "transient", "http_transport"),
    (httpx.ProxyError("no"), "transient", "http_transport"),
    (httpx.LocalProtocolError("no"), "stage_fault", "bad_request"),
    (httpx.UnsupportedProtocol("no"), "stage_fault", "bad_address"),
    (httpx.InvalidURL("no"), "stage_fault", "bad_address"),
    (httpx.TooManyRedirects("no"), "stage_fault", "bad_address"),
    (httpx.DecodingError("no"), "transient", "http_garbled"),
    (
        caused(httpx.ConnectError("no"), caused(OSError("no"), ssl.SSLCertVerificationError("no"))),
        "stage_fault",
        "certificate_refused",
    ),
    (refused("40P01"), "transient", "sqlstate_40P01"),
    (refused("40001"), "transient", "sqlstate_40001"),
    (refused("08006"), "transient", "sqlstate_08006"),
    (refused("53300"), "transient", "sqlstate_53300"),
    (refused("53100"), "stage_fault", "sqlstate_53100"),
    (refused("57P01"), "transient", "sqlstate_57P01"),
    (refused("57014"), "transient", "sqlstate_57014"),
    (refused("55P03"), "transient", "sqlstate_55P03"),
    (refused("25006"), "transient", "sqlstate_25006"),
    (refused("22P02"), "permanent", "sqlstate_22P02"),
    (refused("23505"), "permanent", "sqlstate_23505"),
    (refused("54000"), "permanent", "sqlstate_54000"),
    (refused("42P01"), "stage_fault", "sqlstate_42P01"),
    (refused("42501"), "stage_fault", "sqlstate_42501"),
    (refused("28P01"), "stage_fault", "sqlstate_28P01"),
    (psycopg.OperationalError("no"), "transient", "database_unreachable"),
    (psycopg.InterfaceError("no"), "transient", "database_unreachable"),
    (psycopg.DataError("no"), "permanent", "DataError"),
    (
        wrapped(sqlalchemy.exc.OperationalError, psycopg.OperationalError("no")),
        "transient",
        "database_unreachable",
    ),
    (
        wrapped(sqlalchemy.exc.OperationalError, refused("40P01")),
        "transient",
        "sqlstate_40P01",
    ),
    (
        wrapped(sqlalchemy.exc.ProgrammingError, refused("42P01")),
        "stage_fault",
        "sqlstate_42P01",
    ),
    (wrapped(sqlalchemy.exc.IntegrityError, Exception("no")), "permanent", "IntegrityError"),
    (wrapped(sqlalchemy.exc.DataError, Exception("no")), "permanent", "DataError"),
    (sqlalchemy.exc.TimeoutError("no"), "transient", "database_pool_exhausted"),
    (OSError(errno.ENOSPC, "no"), "stage_fault", "ENOSPC"),
    (OSError(errno.EMFILE, "no"), "stage_fault", "EMFILE"),
    (PermissionError(errno.EACCES, "no"), "stage_fault", "EACCES"),
    (FileNotFoundError(errno.ENOENT, "no"), "transient", "FileNotFoundError"),
    (OSError(errno.ENAMETOOLONG, "no"), "permanent", "ENAMETOOLONG"),
    (ConnectionResetError("no"), "transient", "connection_lost"),
    (BrokenPipeError("no"), "transient", "connection_lost"),
    (TimeoutError("no"), "transient", "call_timed_out"),
    (socket.gaierror("no"), "transient", "gaierror"),
    (MemoryError(), "transient", "out_of_memory"),
    (RecursionError(), "permanent", "nested_too_deep"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "permanent", "undecodable"),
    (ModuleNotFoundError("no"), "stage_fault", "import_failed"),
    (SyntaxError("no"), "stage_fault", "import_failed"),
    (ChildUnavailable("no child process was started"), "rate_limited", "child_unavailable"),
    (ChildTimedOut(1), "transient", "timed_out"),
    (DeadlinePassed(timedelta(seconds=1)), "transient", "timed_out"),
    (MissingExtra("x", "y"), "stage_fault", "MissingExtra"),
    (DefinitionError("no"), "stage_fault", "DefinitionError"),
    (BlobsRefused("x", "y"), "stage_fault", "BlobsRefused"),
    (BlobsUnavailable("x", "y"), "transient", "BlobsUnavailable"),
    (SourceRefused("x", "y", "z"), "permanent", "SourceRefused"),
    (ValueError("no"), "transient", "ValueError"),
    (KeyError("no"), "transient", "KeyError"),
    (asyncio.InvalidStateError("no"), "transient", "InvalidStateError"),
]


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    KINDS,
    ids=[f"{n}-{type(e).__name__}-{code}" for n, (e, _, code) in enumerate(KINDS)],
)
def test_an_exception_is_of_the_kind_the_table_says(
    error: BaseException, kind: str, code: str
) -> None:
    """'Anything a hook raises beside the five signals is classified in one readable table'."""
    found = verdict(error)
    assert (found.kind, found.code) == (kind, code)


def test_every_rule_of_the_table_is_reached_by_an_exception_above() -> None:
    """No rule stands behind one that takes everything it is about."""
    reached = set()
    for error, _, _ in KINDS:
        for one in symptoms(error, NOW).chain:
            hit = next((n for n, rule in enumerate(RULES) if rule.matches(one)), None)
            if hit is not None:
                reached.add(hit)
                break
    idle = [rule for n, rule in enumerate(RULES) if n not in reached]
    untried = {
        "psycopg.ProgrammingError",
        "ssl.SSLCertVerificationError",
        "sqlalchemy.exc.InterfaceError",
        "sqlalchemy.exc.ProgrammingError",
        "statemachine_pipeline.errors.EmbedderMismatch",
        "statemachine_pipeline.errors.LifecycleMismatch",
        "statemachine_pipeline.errors.SchemaAhead",
        "statemachine_pipeline.errors.SchemaMissing",
    }
    assert {str(rule.error) for rule in idle} == untried
    for rule in idle:
        (found,) = {classify(Symptoms(types=(str(rule.error), "Exception")))}
        assert found.kind == rule.kind


def test_what_was_raised_from_something_known_is_judged_by_that() -> None:
    """'What no rule knows is judged by what it was explicitly raised from'."""
    own = caused(RuntimeError("no"), caused(ValueError("no"), answered(401)))
    assert verdict(own) == Verdict(kind="stage_fault", code="http_401")
    during = RuntimeError("no")
    during.__context__ = answered(401)
    assert verdict(during).kind == "transient"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "90"}, 90),
        ({"retry-after": "Thu, 01 Jan 2026 00:02:00 GMT"}, 120),
        ({"x-ratelimit-reset-requests": "1m5s"}, 65),
        ({}, UNTOLD_WAIT.total_seconds()),
        ({"Retry-After": "soon"}, UNTOLD_WAIT.total_seconds()),
    ],
    ids=["seconds", "date", "reset", "untold", "unreadable"],
)
def test_a_rate_limit_waits_as_it_was_told(headers: dict[str, str], seconds: float) -> None:
    """'429 with Retry-After'; ten seconds when it says nothing."""
    assert verdict(answered(429, **headers)).wait == timedelta(seconds=seconds)


def test_other_answers_may_ask_to_wait_too() -> None:
    """A 503 with Retry-After waits at least that long; a refusal for good has no wait."""
    assert verdict(answered(503, **{"Retry-After": "40"})).wait == timedelta(seconds=40)
    assert verdict(answered(503)).wait is None
    assert verdict(answered(401, **{"Retry-After": "40"})).wait is None


def test_rules_of_the_stage_come_first() -> None:
    """'Theirs come first', by class or by name, with the conditions they name."""
    gone = FailureRule(httpx.HTTPStatusError, "permanent", statuses=[404], code="page_gone")
    by_name = FailureRule("builtins.KeyError", "permanent")
    lost = FailureRule("LookupError", "permanent", code="lost:{type}")
    assert verdict(answered(404), gone) == Verdict(kind="permanent", code="page_gone")
    assert verdict(answered(403), gone).kind == "stage_fault"
    assert verdict(KeyError(), by_name).kind == "permanent"
    assert verdict(KeyError(), lost).code == "lost:KeyError"
    assert verdict(caused(RuntimeError(), KeyError()), lost).code == "lost:KeyError"


def test_a_rule_waits_at_least_as_long_as_it_says() -> None:
    """'Least time until the next try. An answer that asks for more gets it'."""
    patient = FailureRule("Exception", "rate_limited", statuses=[429], wait=timedelta(seconds=30))
    waits = [verdict(answered(429, **{"Retry-After": n}), patient).wait for n in ("5", "50")]
    assert waits == [timedelta(seconds=30), timedelta(seconds=50)]
    busy = FailureRule(ValueError, "transient", wait=timedelta(minutes=3))
    assert verdict(ValueError(), busy).wait == timedelta(minutes=3)


def test_every_condition_of_a_rule_counts() -> None:
    """Statuses, errnos, SQLSTATEs and causes narrow a rule down."""
    seen = Symptoms(types=("OSError",), status=500, errno="EIO", sqlstate="40P01")
    for fits, other in (
        ({"statuses": [500]}, {"statuses": [501]}),
        ({"errnos": ["EIO"]}, {"errnos": ["ENOSPC"]}),
        ({"sqlstates": ["40"]}, {"sqlstates": ["41"]}),
    ):
        assert FailureRule(OSError, "transient", **fits).matches(seen)  # type: ignore[arg-type]
        assert not FailureRule(OSError, "transient", **other).matches(seen)  # type: ignore[arg-type]
    tls = FailureRule(OSError, "transient", cause=ssl.SSLError)
    assert not tls.matches(seen)
    assert tls.matches(symptoms(caused(OSError(), caused(KeyError(), ssl.SSLError())), NOW))


WRONG: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("ReadTimeout", "transient"), {}, "'module.ReadTimeout'"),
    (("print", "transient"), {}, "no built-in exception"),
    ((int, "transient"), {}, "is no class of exceptions"),
    ((7, "transient"), {}, "is no class of exceptions"),
    ((ValueError, "fatal"), {}, "kind must be one of transient"),
    ((ValueError, "permanent"), {"code": "two words"}, "code must be one word"),
    ((ValueError, "permanent"), {"code": ""}, "code must be one word"),
    ((ValueError, "permanent"), {"code": "{status}"}, "unknown without statuses"),
    ((ValueError, "permanent"), {"code": "{errno}"}, "unknown without errnos"),
    ((ValueError, "permanent"), {"code": "{name}"}, "not 'name'"),
    ((ValueError, "permanent"), {"code": "{"}, "cannot be read"),
    ((ValueError, "permanent"), {"statuses": "429"}, "'4' is no HTTP status"),
    ((ValueError, "permanent"), {"statuses": [42]}, "42 is no HTTP status"),
    ((OSError, "permanent"), {"errnos": ["ENOSPACE"]}, "'ENOSPACE' is no name"),
    ((OSError, "permanent"), {"sqlstates": ["4"]}, "'4' is no beginning of a SQLSTATE"),
    ((OSError, "permanent"), {"wait": timedelta(1)}, "wait has no effect"),
    ((OSError, "stage_fault"), {"wait": timedelta(1)}, "wait has no effect"),
    ((OSError, "transient"), {"wait": timedelta(0)}, "wait must be above zero"),
    ((OSError, "transient"), {"cause": "SSLError"}, "'module.SSLError'"),
    ((KeyboardInterrupt, "transient"), {}, "never looked up"),
    (("statemachine_pipeline.hooks.Retry", "permanent"), {}, "never looked up"),
    ((asyncio.CancelledError, "permanent"), {}, "never looked up"),
]


@pytest.mark.parametrize(
    ("values", "named", "message"), WRONG, ids=[f"{n}" for n in range(len(WRONG))]
)
def test_a_wrong_rule_is_refused_when_it_is_made(
    values: tuple[Any, ...], named: dict[str, Any], message: str
) -> None:
    """'It could never match, or says two things'."""
    with pytest.raises(ValueError, match=message):
        FailureRule(*values, **named)


class Hostile(Exception):
    """Whose every attribute raises."""

    @property
    def response(self) -> Any:
        raise RuntimeError("no")

    status = headers = sqlstate = orig = errno = response


def test_no_exception_is_too_odd_to_be_looked_at() -> None:
    """'Never raises', whatever the attributes do, and even when it was raised from itself."""
    assert verdict(Hostile()) == Verdict(kind="transient", code="Hostile")
    first, second = ValueError(), KeyError()
    caused(first, caused(second, first))
    assert verdict(first).code == "ValueError"
    lying = ValueError()
    lying.status_code, lying.errno, lying.sqlstate = True, "EIO", 5  # type: ignore[attr-defined]
    assert symptoms(lying, NOW) == Symptoms(types=("ValueError", "Exception", "BaseException"))
