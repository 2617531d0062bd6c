"""What a driver's error means to people: which sentence, and which cure."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.exc import ProgrammingError

from statemachine_pipeline.database import cures
from statemachine_pipeline.errors import DocumentNotFound

AT = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '
LOGIN, CONNECTIONS = "a role and a password that the server takes", "raise max_connections"


@pytest.mark.parametrize(
    ("said", "answer", "fix"),
    [
        (f"{AT}Connection refused", "did not answer", "see whether the server runs"),
        (f'{AT}FATAL:  password authentication failed for user "a"', "let nobody in", LOGIN),
        (f"{AT}fe_sendauth: no password supplied", "let nobody in", LOGIN),
        (f'{AT}FATAL:  role "a" does not exist', "let nobody in", LOGIN),
        (f'{AT}FATAL:  role "a" is not permitted to log in', "let nobody in", LOGIN),
        (f'{AT}FATAL:  no pg_hba.conf entry for host "10.0.0.2"', "let nobody in", LOGIN),
        (f'{AT}FATAL:  database "b" does not exist', "was not found", "CREATE DATABASE"),
        (f'{AT}FATAL:  permission denied for database "b"', "let nobody in", "GRANT CONNECT"),
        (f"{AT}FATAL:  sorry, too many clients already", "let nobody in", CONNECTIONS),
        (f"{AT}FATAL:  remaining connection slots are reserved", "let nobody in", CONNECTIONS),
        (f"{AT}FATAL:  the database system is starting up", "did not answer", "wait until"),
        ("the connection is lost", "did not answer", "see whether the server runs"),
    ],
)
def test_a_connection_that_was_refused_is_known_by_its_words(
    said: str, answer: str, fix: str
) -> None:
    """'libpq hands on what a server said that refused a connection, but not its code'."""
    error = cures.unavailable("looking", psycopg.OperationalError(said))
    assert error.found == f"the database {answer} while looking: {said}"
    assert fix in error.fix
    assert str(error) == f"{error.found}; {error.fix}"


@pytest.mark.parametrize(
    ("error", "answer", "fix"),
    [
        (psycopg.errors.LockNotAvailable("lock timeout"), "gave up", "pg_blocking_pids()"),
        (psycopg.errors.QueryCanceled("statement timeout"), "gave up", "`statement` of the"),
        (psycopg.errors.AdminShutdown("terminating"), "did not answer", "whether the server runs"),
    ],
)
def test_what_broke_off_is_known_by_its_code(error: psycopg.Error, answer: str, fix: str) -> None:
    """A server that answers and gives up is not said to be away."""
    found = cures.unavailable("looking", error)
    assert found.found.startswith(f"the database {answer} while looking: ")
    assert fix in found.fix


def test_a_right_that_is_missing_is_told_with_who_grants_it() -> None:
    """In the database's own words, without the statement."""
    denied = psycopg.errors.InsufficientPrivilege("permission denied for schema smp\nLINE 1: ...")
    told = cures.told(ProgrammingError("SELECT 'secret'", {}, denied))
    assert told.found == "the database refused: permission denied for schema smp"
    assert "migrate --app-role ROLE" in told.fix
    assert str(told) == f"{told.found}; {told.fix}"


def test_what_nobody_foresaw_is_told_by_its_name() -> None:
    """Whatever is raised makes a sentence; who knows no cure promises none."""
    assert str(cures.told(ValueError("no\nmore"))) == "ValueError: no"
    odd = psycopg.errors.UndefinedColumn('column "x" does not exist')
    assert cures.told(ProgrammingError("SELECT x", {}, odd)).fix == ""
    assert cures.told(DocumentNotFound("x")).found == str(DocumentNotFound("x"))
