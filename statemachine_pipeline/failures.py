"""What an exception means for a document: one table of rules, which stages extend. Pure.

Hooks say what they mean by signals (``Retry``, ``Reject``, ``RateLimited``, ``StageFault``,
``Wait``). Anything else they raise is looked up here: first in the rules of the stage, then in
``RULES``, the first that fits wins; for the exception itself, then for what it was raised from.
What no rule knows is transient: it is bounded by the stage's attempts, whatever it is. Only what
is hardly ever about the document is a stage fault, since that keeps all others waiting.

Rules go by names and plain values, so that they need no driver and no client to be installed, and
hold for what was raised in a child process.
"""

from __future__ import annotations

import builtins
import dataclasses
import errno
import re
import string
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from statemachine_pipeline.redaction import type_name
from statemachine_pipeline.symptoms import OWN, STATUS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from statemachine_pipeline.symptoms import Symptoms

FailureKind = Literal["transient", "rate_limited", "permanent", "stage_fault"]

UNTOLD_WAIT: Final = timedelta(seconds=10)
"""How long a provider is left alone that asked for it without saying how long."""

_SQLSTATES: Final = re.compile(r"[0-9A-Z]{2,5}")
_DOTTED: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_CODE: Final = re.compile(r"[\w.:{}-]{1,100}")
_CONDITIONS: Final = {"status": "statuses", "errno": "errnos", "sqlstate": "sqlstates"}
"""What a code may name, and the condition without which it may be unknown."""


_NEVER_LOOKED_UP: Final = {
    "KeyboardInterrupt",
    "SystemExit",
    "asyncio.exceptions.CancelledError",
    "BaseExceptionGroup",
    "ExceptionGroup",
    f"{OWN}.StaleClaim",
    f"{OWN}.DatabaseUnavailable",
    "statemachine_pipeline.runner.children.ChildCrashed",
    *(
        f"statemachine_pipeline.hooks.{name}"
        for name in ("Signal", "Retry", "Reject", "RateLimited", "StageFault", "Wait")
    ),
}


@dataclasses.dataclass(frozen=True, slots=True)
class FailureRule:
    """What an exception means that a hook raises.

    Attributes:
        error: Its class, or the dotted name of it; classes that inherit from it count too.
        kind: What follows: another try, a wait with the attempt given back, a dead letter, or a
            pause of the stage that charges no document.
        code: The word that dead letters are grouped by. ``{type}``, ``{status}``, ``{errno}`` and
            ``{sqlstate}`` stand for what was found.
        statuses: Only with one of these HTTP statuses.
        errnos: Only with one of these errors of the operating system, such as ``ENOSPC``.
        sqlstates: Only with a SQLSTATE that begins with one of these.
        cause: Only when it was raised from such an exception, directly or not; as ``error``.
        wait: Least time until the next try, for ``transient`` and ``rate_limited``. An answer that
            asks for more gets it.
        is_quotable: Its message never holds text of a document, so that history may keep it.

    Raises:
        ValueError: It could never match, or says two things.
    """

    error: type[BaseException] | str
    kind: FailureKind
    _: dataclasses.KW_ONLY
    code: str = "{type}"
    statuses: Collection[int] = ()
    errnos: Collection[str] = ()
    sqlstates: Collection[str] = ()
    cause: type[BaseException] | str | None = None
    wait: timedelta | None = None
    is_quotable: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", _named(self.error))
        if self.cause is not None:
            object.__setattr__(self, "cause", _named(self.cause))
        if self.kind not in get_args(FailureKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(FailureKind))}: {self}")
        for wrong in _wrong(self):
            raise ValueError(f"{wrong}: {self}")

    def matches(self, found: Symptoms) -> bool:
        """Tell whether the rule is about such an exception."""
        return (
            self.error in found.types
            and (not self.statuses or found.status in self.statuses)
            and (not self.errnos or found.errno in self.errnos)
            and (not self.sqlstates or _begins(found.sqlstate, self.sqlstates))
            and (self.cause is None or _has_cause(found, self.cause))
        )

    def judge(self, found: Symptoms) -> Verdict:
        """Say what an exception means that the rule is about."""
        seen = {"type": found.name} | {name: getattr(found, name) for name in _CONDITIONS}
        least = self.wait or (UNTOLD_WAIT if self.kind == "rate_limited" else None)
        told = None if self.kind in {"permanent", "stage_fault"} else found.wait
        waits = [one for one in (self.wait if told else least, told) if one is not None]
        return Verdict(
            kind=self.kind,
            code=self.code.format(**seen),
            wait=max(waits, default=None),
            is_quotable=self.is_quotable,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from an exception.

    Attributes:
        kind: What becomes of the attempt.
        code: One word for grouping.
        wait: Least time until the next try; never None for ``rate_limited``.
        is_quotable: Its message may be kept in history.
    """

    kind: FailureKind
    code: str
    wait: timedelta | None = None
    is_quotable: bool = False


def _named(error: Any) -> str:
    if isinstance(error, type) and issubclass(error, BaseException):
        return type_name(error)
    if not isinstance(error, str):
        raise ValueError(f"{error!r} is no class of exceptions, nor the name of one")  # noqa: TRY004
    name = error.removeprefix("builtins.")
    is_built_in = isinstance(getattr(builtins, name, None), type)
    if not (_DOTTED.fullmatch(name) or (is_built_in and name[0].isupper())):
        raise ValueError(
            f"{name!r} is no built-in exception; write the class, or its name with the module: "
            f"'module.{name}'"
        )
    return name


def _wrong(rule: FailureRule) -> Iterator[str]:
    """Say what is wrong with the values of a rule."""
    if rule.error in _NEVER_LOOKED_UP:
        yield f"{rule.error} is never looked up, it has its own meaning"
    if bad := [one for one in rule.statuses if type(one) is not int or one not in STATUS]:
        yield f"{bad[0]!r} is no HTTP status"
    if unknown := [one for one in rule.errnos if one not in errno.errorcode.values()]:
        yield f"{unknown[0]!r} is no name of an error of the operating system"
    if odd := [one for one in rule.sqlstates if not _SQLSTATES.fullmatch(str(one))]:
        yield f"{odd[0]!r} is no beginning of a SQLSTATE, of two to five characters"
    if rule.wait is not None and rule.kind in {"permanent", "stage_fault"}:
        yield f"wait has no effect on what is {rule.kind}"
    if rule.wait is not None and rule.wait <= timedelta(0):
        yield "wait must be above zero"
    if not _CODE.fullmatch(rule.code):
        yield f"code must be one word, got {rule.code!r}"
    else:
        yield from _wrong_code(rule)


def _wrong_code(rule: FailureRule) -> Iterator[str]:
    known = {"type", *_CONDITIONS}
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(rule.code) if name is not None]
    except ValueError as error:
        yield f"code {rule.code!r} cannot be read: {error}"
        return
    for name in fields:
        if name not in known:
            yield f"code may hold {', '.join(sorted(known))} in braces, not {name!r}"
        elif name != "type" and not getattr(rule, _CONDITIONS[name]):
            yield f"code holds {{{name}}}, which is unknown without {_CONDITIONS[name]}"


def _begins(sqlstate: str | None, beginnings: Collection[str]) -> bool:
    return sqlstate is not None and sqlstate.startswith(tuple(beginnings))


def _has_cause(found: Symptoms, cause: object) -> bool:
    return any(cause in one.types for one in found.chain if one is not found)


UNKNOWN: Final = FailureRule("BaseException", "transient")
"""What no rule knows: tried again, and parked after the last attempt."""

RULES: Final[tuple[FailureRule, ...]] = (
    # What an answer over HTTP says, whichever client carries it: httpx, requests, aiohttp, botocore
    # and the clients made of them.
    FailureRule("Exception", "rate_limited", statuses=(429,), code="http_{status}"),
    FailureRule("Exception", "transient", statuses=(408, 409, 423, 424, 425), code="http_{status}"),
    FailureRule("Exception", "transient", statuses=range(500, 600), code="http_{status}"),
    # These are about what was sent: the same input gets the same answer.
    FailureRule(
        "Exception", "permanent", statuses=(400, 413, 414, 415, 422, 451), code="http_{status}"
    ),
    # Key, money, address, method: the same for every document.
    FailureRule(
        "Exception",
        "stage_fault",
        statuses=(*range(300, 400), 401, 402, 403, 404, 405, 406, 407, 410, 421, 426),
        code="http_{status}",
    ),
    # No answer over HTTP, or none that can be read.
    FailureRule(
        "httpx.ConnectError",
        "stage_fault",
        cause="ssl.SSLCertVerificationError",
        code="certificate_refused",
    ),
    FailureRule("httpx.UnsupportedProtocol", "stage_fault", code="bad_address"),
    FailureRule("httpx.InvalidURL", "stage_fault", code="bad_address"),
    FailureRule("httpx.TooManyRedirects", "stage_fault", code="bad_address"),
    # The request itself breaks HTTP, such as a header with a line break from a key file.
    FailureRule("httpx.LocalProtocolError", "stage_fault", code="bad_request"),
    FailureRule("httpx.TimeoutException", "transient", code="http_timeout"),
    FailureRule("httpx.TransportError", "transient", code="http_transport"),
    FailureRule("httpx.DecodingError", "transient", code="http_garbled"),
    # Databases that hooks ask. Connection, resources, rollback, shutdown, lock and statement
    # timeouts pass; so does a standby that does not write yet.
    FailureRule("Exception", "stage_fault", sqlstates=("53100",), code="sqlstate_{sqlstate}"),
    FailureRule(
        "Exception",
        "transient",
        sqlstates=("08", "40", "53", "55P03", "57", "58", "25006"),
        code="sqlstate_{sqlstate}",
    ),
    # Values that fit no column, a constraint, a limit: of this document.
    FailureRule("Exception", "permanent", sqlstates=("22", "23", "54"), code="sqlstate_{sqlstate}"),
    # Password, database, schema, table, column, right: of the stage.
    FailureRule(
        "Exception",
        "stage_fault",
        sqlstates=("0A", "28", "3D", "3F", "42"),
        code="sqlstate_{sqlstate}",
    ),
    FailureRule("psycopg.OperationalError", "transient", code="database_unreachable"),
    FailureRule("psycopg.InterfaceError", "transient", code="database_unreachable"),
    FailureRule("psycopg.DataError", "permanent"),
    FailureRule("psycopg.ProgrammingError", "stage_fault"),
    FailureRule("sqlalchemy.exc.OperationalError", "transient", code="database_unreachable"),
    FailureRule("sqlalchemy.exc.InterfaceError", "transient", code="database_unreachable"),
    FailureRule("sqlalchemy.exc.TimeoutError", "transient", code="database_pool_exhausted"),
    FailureRule("sqlalchemy.exc.DataError", "permanent"),
    FailureRule("sqlalchemy.exc.IntegrityError", "permanent"),
    FailureRule("sqlalchemy.exc.ProgrammingError", "stage_fault"),
    # This machine: full, out of files, not allowed. A missing file may be one document's.
    FailureRule(
        "OSError",
        "stage_fault",
        errnos=("ENOSPC", "EDQUOT", "EROFS", "EMFILE", "ENFILE", "EACCES", "EPERM"),
        code="{errno}",
    ),
    FailureRule("OSError", "permanent", errnos=("ENAMETOOLONG",), code="{errno}"),
    FailureRule("ssl.SSLCertVerificationError", "stage_fault", code="certificate_refused"),
    FailureRule("ConnectionError", "transient", code="connection_lost"),
    FailureRule("TimeoutError", "transient", code="call_timed_out"),
    FailureRule("MemoryError", "transient", code="out_of_memory"),
    # The code is not there, or not whole.
    FailureRule("ImportError", "stage_fault", code="import_failed", is_quotable=True),
    FailureRule("SyntaxError", "stage_fault", code="import_failed"),
    # The same bytes fail the same way.
    FailureRule("UnicodeError", "permanent", code="undecodable"),
    FailureRule("RecursionError", "permanent", code="nested_too_deep"),
    # Child processes and deadlines. Where none can be started, no document is to blame, and no
    # other worker need wait.
    FailureRule(
        "statemachine_pipeline.runner.children.ChildUnavailable",
        "rate_limited",
        code="child_unavailable",
        is_quotable=True,
    ),
    FailureRule(
        "statemachine_pipeline.runner.children.ChildTimedOut",
        "transient",
        code="timed_out",
        is_quotable=True,
    ),
    FailureRule(
        "statemachine_pipeline.runner.calling.DeadlinePassed",
        "transient",
        code="timed_out",
        is_quotable=True,
    ),
    # This package's own errors, when a hook does not catch them.
    FailureRule(f"{OWN}.SourceRefused", "permanent"),
    FailureRule(f"{OWN}.MissingExtra", "stage_fault", is_quotable=True),
    FailureRule(f"{OWN}.DefinitionError", "stage_fault", is_quotable=True),
    FailureRule(f"{OWN}.EmbedderMismatch", "stage_fault", is_quotable=True),
    FailureRule(f"{OWN}.LifecycleMismatch", "stage_fault", is_quotable=True),
    FailureRule(f"{OWN}.SchemaMissing", "stage_fault", is_quotable=True),
    FailureRule(f"{OWN}.SchemaAhead", "stage_fault", is_quotable=True),
    FailureRule(f"{OWN}.BlobsRefused", "stage_fault", is_quotable=True),
    FailureRule(f"{OWN}.BlobsUnavailable", "transient", is_quotable=True),
)
"""What everybody's exceptions mean; the first rule that fits wins."""


def classify(found: Symptoms, rules: Sequence[FailureRule] = ()) -> Verdict:
    """Say what an exception means: by ``rules``, then by ``RULES``, then it is ``UNKNOWN``.

    What no rule knows is judged by what it was explicitly raised from.
    """
    for one in found.chain:
        rule = rule_for(one, rules)
        if rule is not None:
            return rule.judge(one)
    return UNKNOWN.judge(found)


def rule_for(found: Symptoms, rules: Sequence[FailureRule] = ()) -> FailureRule | None:
    """Return the first rule that is about just this exception, whatever it was raised from."""
    return next((rule for rule in (*rules, *RULES) if rule.matches(found)), None)
