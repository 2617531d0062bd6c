"""`submit`: files are handed over, and nothing runs them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from statemachine_pipeline.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

SETTINGS = ("SMP_DATABASE", "SMP_APP", "SMP_SCHEMA", "SMP_BLOBS", "DATABASE_URL")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files."""
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(f"The text of {name}.\n")
    return tmp_path


def run(url: str, *words: object) -> Any:
    """Run the verb in this process."""
    given = ["--database", url, "submit", *map(str, words)]
    return CliRunner().invoke(app, given, env=dict.fromkeys(SETTINGS), catch_exceptions=False)


def test_files_are_handed_over_and_wait_for_a_worker(
    database_url: str, psql: psycopg.Connection[Any], folder: Path
) -> None:
    """'Leave the rest to workers'; the same bytes again change nothing, a path may be refused."""
    done = run(database_url, folder, "--tenant", "shop", "--correlation-id", "order-7")
    assert (done.exit_code, done.stdout.count(" new ")) == (0, 2)
    assert "handed over: 2 new; workers take them from here" in done.stderr
    waits = (
        "SELECT d.name, d.tenant, d.state, w.lane, t.correlation_id FROM document d "
        "JOIN work w ON w.document_id = d.id JOIN transition t ON t.document_id = d.id ORDER BY 1"
    )
    rest = ("shop", "uploaded", "ready", "order-7")
    assert psql.execute(waits).fetchall() == [("one.txt", *rest), ("two.txt", *rest)]

    again = run(database_url, folder, folder / "three.txt", "--tenant", "shop", "--json")
    told = [json.loads(line) for line in again.stdout.splitlines()]
    assert again.exit_code == 1
    assert [one["outcome"] for one in told] == ["unchanged", "unchanged", "refused"]
    assert [one["state"] for one in told] == ["uploaded", "uploaded", None]
    assert "no such file" in told[2]["reason"]


def test_a_source_makes_one_file_the_same_document(database_url: str, folder: Path) -> None:
    """`--source`: other bytes from it are a change, in a dry run too; several files are a slip."""
    words = ("--source", "notes:1", "--json")
    for name, outcome in (("one.txt", "new"), ("two.txt", "changed")):
        for more in (["--dry-run"], []):
            (told,) = run(database_url, folder / name, *words, *more).stdout.splitlines()
            found = json.loads(told)
            assert (found["outcome"], found["source_uri"]) == (outcome, "notes:1")
    for paths in ([folder], [folder / "one.txt", folder / "two.txt"]):
        slip = run(database_url, *paths, *words)
        assert (slip.exit_code, "name just one PATH" in slip.stderr) == (2, True)
    assert run(database_url, folder, "--tenant", " ").exit_code == 2


def test_handing_over_says_that_the_database_is_away(folder: Path) -> None:
    """Exit code 5, and nothing on stdout: it is to be tried again."""
    gone = run("postgresql://nobody@127.0.0.1:1/none", folder)
    assert (gone.exit_code, gone.stdout) == (5, "")
