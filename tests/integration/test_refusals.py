"""A database that refuses: what the verbs say of it, and that a cure is named, the right one."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_postgres import connect
from sqlalchemy.engine import make_url
from typer.testing import CliRunner, Result

from statemachine_pipeline import Pipeline
from statemachine_pipeline.cli import app, health
from statemachine_pipeline.database import revisions
from statemachine_pipeline.database.timeouts import Timeouts
from statemachine_pipeline.errors import SchemaAhead
from statemachine_pipeline.oversight.checks.catalogue import CHECKS
from statemachine_pipeline.oversight.listening import Answer, Listening

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    Psql = psycopg.Connection[Any]

EVERY_CHECK = [check.id for check in CHECKS]
NOBODY = "00000000-0000-0000-0000-000000000000"
LOGIN = "a role and a password that the server takes"
UPGRADE = "upgrade this program"


def run(url: str, *words: str) -> Result:
    """Run a verb in this process; whatever it does not foresee is raised here."""
    return CliRunner().invoke(app, ["--database", url, *words], catch_exceptions=False)


def diagnoses(url: str) -> tuple[int, dict[str, Any]]:
    """Run ``doctor`` as a program would; return its exit code and its table."""
    ended = run(url, "doctor", "--json")
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [one["id"] for one in found] == EVERY_CHECK
    return ended.exit_code, {one["id"]: one for one in found}


def parts(url: str) -> tuple[int, dict[str, Any]]:
    """Run ``health`` as a program would; return its exit code and its parts."""
    ended = run(url, "health", "--json")
    return ended.exit_code, {one["name"]: one for one in json.loads(ended.stdout)["components"]}


@pytest.fixture
def stranger(database_url: str, psql: Psql) -> Iterator[str]:
    """The URL of a role that the server lets in, and that may not look at the tables."""
    name = f"smp_test_{secrets.token_hex(6)}"
    psql.execute(f"CREATE ROLE {name} LOGIN".encode())
    yield make_url(database_url).set(username=name).render_as_string(hide_password=False)
    psql.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


@pytest.mark.parametrize(
    ("wrong", "answer", "fix"),
    [
        ({"username": "nobody_at_all"}, "let nobody in", LOGIN),
        ({"database": "nowhere_at_all"}, "was not found", "CREATE DATABASE"),
    ],
)
def test_who_is_not_let_in_is_told_so(
    database_url: str, wrong: dict[str, Any], answer: str, fix: str
) -> None:
    """It answered: exit code 5 all the same, with the table, and what is wrong in the URL."""
    url = make_url(database_url).set(**wrong).render_as_string(hide_password=False)
    code, checks = diagnoses(url)
    assert (code, answer in checks["database"]["message"]) == (5, True), checks["database"]
    assert fix in checks["database"]["fix"]
    code, components = parts(url)
    assert (code, answer in components["database"]["says"]) == (5, True), components
    assert fix in components["database"]["fix"]
    ended = run(url, "status")
    assert (ended.exit_code, f"the database {answer} while" in ended.stderr) == (5, True)
    assert fix in ended.stderr


def test_a_role_that_may_not_look_gets_its_table(stranger: str) -> None:
    """'Fails when it lacks a right that the work needs', and 'the others are made all the same'."""
    code, checks = diagnoses(stranger)
    assert (code, checks["database"]["status"], checks["role"]["status"]) == (1, "ok", "fail")
    assert "lacks USAGE on the schema" in checks["role"]["message"]
    for fix in (checks["role"]["fix"], checks["schema"]["fix"]):
        assert "migrate --app-role" in fix
    code, components = parts(stranger)
    assert (code, list(components)) == (1, ["schema"])
    assert components["schema"]["says"].endswith("permission denied for schema smp")
    assert "migrate --app-role" in components["schema"]["fix"]
    ended = run(stranger, "status")
    assert (ended.exit_code, "migrate --app-role ROLE` grants" in ended.stderr) == (1, True)


@pytest.fixture
def newer(database_url: str, psql: Psql) -> str:
    """The URL of tables that a later version has migrated."""
    psql.execute("UPDATE alembic_version SET version_num = '0002'")
    return database_url


VERBS = (
    ("migrate",),
    ("migrate", "--dry-run"),
    ("status",),
    ("explain", NOBODY),
    ("cancel", NOBODY),
    ("prune", "--state", "cancelled", "--older-than", "1d"),
    ("pause", "--stage", "queue_parse", "--reason", "test"),
    ("worker",),
)


def test_tables_of_a_newer_version_are_left_alone(newer: str) -> None:
    """'The tables are of a revision that this version does not know; it leaves them alone'."""
    found = f"is at revision 0002, and this version knows none after {revisions.HEAD}"
    for words in VERBS:
        ended = run(newer, *words)
        told = " ".join(ended.stderr.split())
        assert (ended.exit_code, found in told) == (1, True), words
        assert (UPGRADE in told, "migrate`" in told) == (True, False), words


async def test_an_exporter_goes_on_while_a_newer_version_is_rolled_out(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Its numbers are wanted most then; only one that starts is refused."""
    async with Pipeline(engine, lifecycle=None) as pipeline:
        gauges = pipeline.operations.oversight.gauges()
        psql.execute("UPDATE alembic_version SET version_num = '0002'")
        assert 'smp_table_bytes{table="work"}' in (await gauges.metrics()).snapshot()
    with pytest.raises(SchemaAhead):
        async with Pipeline(engine, lifecycle=None):
            pass


def test_whoever_looks_at_tables_of_a_newer_version_is_told_to_upgrade(
    newer: str,
) -> None:
    """Not to migrate, which cannot be done."""
    code, checks = diagnoses(newer)
    found = checks["schema"]
    assert (code, found["status"], found["fix"]) == (1, "fail", UPGRADE)
    code, components = parts(newer)
    assert (code, components["schema"]["fix"]) == (1, UPGRADE)


def test_tables_of_an_older_version_are_to_be_migrated(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revision that this version knows is one that it can go on from."""
    monkeypatch.setattr(revisions, "REVISIONS", ("0001", "0002"))
    monkeypatch.setattr(revisions, "HEAD", "0002")
    ended = run(database_url, "status")
    assert ended.exit_code == 1
    assert "revision 0001, this version needs 0002; run `statemachine-pipeline migrate`" in (
        " ".join(ended.stderr.split())
    )


def test_a_lock_that_somebody_holds_is_no_database_that_is_away(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answered, and gave up: the cure is to see who holds what."""
    brisk = Timeouts(statement=timedelta(seconds=10), lock=timedelta(seconds=0.1))
    monkeypatch.setattr(health, "BRISK", brisk)
    with connect(database_url) as holder, holder.transaction():
        holder.execute("LOCK TABLE smp.alembic_version IN ACCESS EXCLUSIVE MODE")
        code, components = parts(database_url)
    (part,) = components.values()
    assert (code, part["name"]) == (5, "database")
    assert part["says"].startswith("the database gave up while ")
    assert "pg_blocking_pids()" in part["fix"]


@pytest.mark.parametrize("body", [b"Prometheus Server is Ready.\n", b"[]", b'{"status": "up"}'])
def test_who_answers_and_is_no_worker_is_told_so(body: bytes) -> None:
    """A port is mistaken for another; 'nobody answers' would send whoever reads it astray."""
    listening = Listening("127.0.0.1", 0, {"/readyz": lambda: Answer(200, body)})
    try:
        words = ("health", "--port", str(listening.port))
        ended = subprocess.run(
            [sys.executable, "-m", "statemachine_pipeline", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        listening.stop()
    assert (ended.returncode, ended.stdout) == (5, "")
    assert ended.stderr.startswith("no worker answers at 127.0.0.1 port ")
