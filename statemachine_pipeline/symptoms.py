"""What is known of an exception, as plain values that rules read and a pipe carries. Pure."""

from __future__ import annotations

import dataclasses
import errno
import re
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.redaction import type_name
from statemachine_pipeline.waits import asked_wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

OWN: Final = "statemachine_pipeline.errors"
STATUS: Final = range(100, 600)

_DEPTH: Final = 5
"""Exceptions of a chain of causes that are looked at."""
_MRO: Final = 20
_SQLSTATE: Final = re.compile(r"[0-9A-Z]{5}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Symptoms:
    """What rules can know of an exception, as values that cross a pipe.

    Attributes:
        types: Dotted names of its class and of those it inherits from; built-in ones without a
            module.
        status: HTTP status of the answer it carries.
        errno: Name of an operating system's error, such as ``ENOSPC``.
        sqlstate: PostgreSQL's five characters.
        wait: How long the answer it carries asks to wait.
        cause: What it was explicitly raised from.
    """

    types: tuple[str, ...]
    status: int | None = None
    errno: str | None = None
    sqlstate: str | None = None
    wait: timedelta | None = None
    cause: Symptoms | None = None

    @property
    def name(self) -> str:
        """The bare name of its class."""
        return self.types[0].rpartition(".")[2]

    @property
    def is_own(self) -> bool:
        """Whether this package raised it on purpose, with a message that says what to do."""
        return f"{OWN}.PipelineError" in self.types

    @property
    def chain(self) -> Iterator[Symptoms]:
        """It, what it was raised from, and so on."""
        found: Symptoms | None = self
        while found is not None:
            yield found
            found = found.cause

    def __str__(self) -> str:
        status = self.status and f"HTTP {self.status}"
        known = (status, self.errno, self.sqlstate and f"SQLSTATE {self.sqlstate}")
        found = ", ".join(one for one in known if one)
        return f"{self.name} ({found})" if found else self.name


def leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions that a group holds, in any depth; of no group, itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for member in error.exceptions for leaf in leaves(member)]


def causes(error: BaseException) -> list[BaseException]:
    """Return an exception, what it was explicitly raised from, and so on; at most five."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and len(chain) < _DEPTH and not any(one is known for known in chain):
        chain.append(one)
        one = one.__cause__
    return chain


def symptoms(error: BaseException, now: datetime) -> Symptoms:
    """Read what rules can know of an exception; never raises.

    Args:
        error: Of any class, even one whose attributes raise. One that was seen in a child process
            brings along what was seen there.
        now: The time, for answers that say until when to wait (UTC).
    """
    seen = _attribute(error, "symptoms")
    if isinstance(seen, Symptoms):
        return seen
    found = None
    for one in reversed(causes(error)):
        found = _symptoms(one, now, found)
    assert found is not None  # noqa: S101 - a chain holds at least its first
    return found


def _symptoms(error: BaseException, now: datetime, cause: Symptoms | None) -> Symptoms:
    response = _attribute(error, "response")
    original = _attribute(error, "orig")
    number = _attribute(error, "errno")
    return Symptoms(
        types=tuple(type_name(kind) for kind in type(error).__mro__[:_MRO] if kind is not object),
        status=_status(error, response),
        errno=errno.errorcode.get(number) if isinstance(number, int) else None,
        sqlstate=_sqlstate(error) or _sqlstate(original),
        wait=_asked(response, now) or _asked(error, now),
        cause=cause,
    )


def _attribute(thing: Any, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - a property of a user's exception may raise anything
        return None


def _status(error: BaseException, response: object) -> int | None:
    told: list[Any] = [
        _attribute(thing, name) for thing in (response, error) for name in ("status_code", "status")
    ]
    if isinstance(response, dict):  # botocore's
        inner = response.get("ResponseMetadata")
        told.append(inner.get("HTTPStatusCode") if isinstance(inner, dict) else None)
    return next((one for one in told if type(one) is int and one in STATUS), None)


def _sqlstate(error: object) -> str | None:
    for name in ("sqlstate", "pgcode"):
        found = _attribute(error, name)
        if isinstance(found, str) and _SQLSTATE.fullmatch(found):
            return found
    return None


def _asked(thing: object, now: datetime) -> timedelta | None:
    headers = _attribute(thing, "headers")
    try:
        lowered = {str(name).lower(): str(value) for name, value in headers.items()}
        return asked_wait(lowered, now)
    except Exception:  # noqa: BLE001 - whatever these headers are, they say nothing
        return None
