"""What an error of the database means to people: a sentence, and what to do about it.

The only place that knows. It decides nothing; who may try again is told apart in ``mapping``.
"""

from __future__ import annotations

import dataclasses
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from statemachine_pipeline.errors import DatabaseUnavailable, DatabaseUnusable, PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Cure:
    """What a kind of error means.

    Attributes:
        answer: What the database did; completes "the database".
        fix: What to do.
    """

    answer: str
    fix: str


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What one error means.

    Attributes:
        found: A sentence without the cure.
        fix: What to do; empty where the sentence says it, or nobody knows.
    """

    found: str
    fix: str = ""

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.found, self.fix)))


AWAY: Final = Cure(
    "did not answer", "see whether the server runs, and whether host and port of its URL are right"
)
_LET_IN = (
    "give its URL a role and a password that the server takes; its pg_hba.conf says from where"
)
_NOBODY, _GAVE_UP = "let nobody in", "gave up"
CURES: Final[Mapping[str, Cure]] = MappingProxyType(
    {
        "25006": Cure("takes no writes", "the server is a standby or read-only; name the primary"),
        "25P03": Cure(_GAVE_UP, "the transaction stood still for too long"),
        "28000": Cure(_NOBODY, _LET_IN),
        "28P01": Cure(_NOBODY, _LET_IN),
        "3D000": Cure("was not found", "name one that is there, or make it: CREATE DATABASE"),
        "40001": Cure(_GAVE_UP, "try again"),
        "40P01": Cure(_GAVE_UP, "try again"),
        "42501": Cure(
            "refused",
            "`statemachine-pipeline doctor` names the role and all that it lacks, and as the owner "
            "of the tables `migrate --app-role ROLE` grants that",
        ),
        "53100": Cure(_GAVE_UP, "free space on the server's disk"),
        "53300": Cure(
            _NOBODY, "raise max_connections, or give the pools of workers fewer connections"
        ),
        "55P03": Cure(
            _GAVE_UP,
            "somebody else holds what it waited for: try again, and see pg_blocking_pids() for who",
        ),
        "57014": Cure(
            _GAVE_UP,
            "raise `statement` of the pipeline's Timeouts, or statement_timeout of the role, if "
            "nobody cancelled it",
        ),
        "57P03": Cure("did not answer", "wait until the server has started"),
    }
)
"""By SQLSTATE."""

_CONNECT: Final = Cure(_NOBODY, "as its owner: GRANT CONNECT ON DATABASE ... TO that role")
_WORDS: Final = (
    (re.compile('permission denied for database "'), _CONNECT),
    (re.compile('FATAL: +database ".*" does not exist'), CURES["3D000"]),
    (re.compile("too many (clients|connections)|remaining connection slots"), CURES["53300"]),
    (re.compile("the database system is "), CURES["57P03"]),
    (
        re.compile(
            "authentication failed|no password supplied|pg_hba.conf|not permitted to log in|"
            'FATAL: +role ".*" does not exist'
        ),
        CURES["28P01"],
    ),
)
"""libpq hands on what a server said that refused a connection, but not its code."""


def cure(error: object) -> Cure:
    """Return what a driver's error means; of no known kind, that the database is away."""
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return CURES.get(state, AWAY)
    said = str(error)
    return next((cure for words, cure in _WORDS if words.search(said)), AWAY)


def unavailable(doing: str, error: object) -> DatabaseUnavailable:
    """Return what to raise for an error that may pass; ``doing`` completes "while"."""
    found = cure(error)
    return DatabaseUnavailable(doing, first_line(error), answer=found.answer, fix=found.fix)


def told(error: BaseException) -> Told:
    """Say what any error means to whoever looks at the pipeline."""
    if isinstance(error, DatabaseUnusable):
        return Told(error.found, error.fix)
    if isinstance(error, PipelineError):
        return Told(str(error))  # which says what to do
    cause = getattr(error, "orig", None) or error
    if isinstance(error, SQLAlchemyError):
        # The database's own words, without the statement.
        known = CURES.get(getattr(cause, "sqlstate", None) or "")
        return Told(f"the database refused: {first_line(cause)}", known.fix if known else "")
    return Told(f"{type(cause).__name__}: {first_line(cause)}")


def first_line(error: object) -> str:
    """Return the first line of a driver's message: the others repeat the statement."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
