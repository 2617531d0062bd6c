"""``pause``, ``resume`` and ``pauses`` as people and scripts use them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from statemachine_pipeline.cli import app
from statemachine_pipeline.cli.pausing import duration_of

if TYPE_CHECKING:
    import psycopg
    from click.testing import Result

    Psql = psycopg.Connection[Any]


class Shell:
    """Verbs on one database."""

    def __init__(self, url: str) -> None:
        self._url = url

    def run(self, *arguments: str) -> Result:
        """Run a verb."""
        return CliRunner().invoke(app, arguments, env={"SMP_DATABASE": self._url})

    def records(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a verb with ``--json``."""
        ended = self.run(*arguments, "--json")
        assert ended.exit_code == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture
def shell(database_url: str) -> Shell:
    """A database that was migrated, without documents."""
    return Shell(database_url)


def test_a_pause_is_made_listed_and_lifted(shell: Shell) -> None:
    """By whom is told, and what is lifted is what was made."""
    place = ["--stage", "store_embeddings", "--tenant", "a"]
    (made,) = shell.records("pause", *place, "--reason", "no budget", "--for", "2h")
    assert (made["stage"], made["tenant"]) == ("store_embeddings", "a")
    assert (made["reason"], made["fault"]) == ("no budget", False)
    assert made["by"].startswith("cli")
    length = datetime.fromisoformat(made["until"]) - datetime.fromisoformat(made["since"])
    assert length == pytest.approx(timedelta(hours=2), abs=timedelta(seconds=1))
    assert shell.records("pauses") == [made]
    assert shell.records("resume", *place) == [made]
    assert shell.records("pauses") == []


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (["pauses"], ["nothing is paused"]),
        (["providers"], ["no provider is known; a worker makes"]),
        (["dead-letters"], ["there are no dead letters"]),
        (["dead-letters", "--group", "--code", "slip"], ["no dead letter matches"]),
        (["dead-letters", "--stage", "finalize"], ["no dead letter matches"]),
        (["list", "--code", "slip"], ["no document matches"]),
        (["requeue", "--code", "slip"], ["0 documents moved"]),
    ],
)
def test_an_empty_answer_is_said(shell: Shell, verb: list[str], said: list[str]) -> None:
    """Headings alone leave people to wonder, and would hide a slip."""
    ended = shell.run(*verb)
    assert ended.exit_code == 0
    assert [part for part in said if part not in ended.stderr] == []


def test_status_says_what_is_paused_and_who_is_down(shell: Shell, psql: Psql) -> None:
    """Whoever is called at night looks there first, and sees why a state grows."""
    shell.run("pause", "--stage", "finalize", "--reason", "it moves")
    psql.execute(
        "INSERT INTO breaker (provider, state, reason, opened_at, until) VALUES"
        " ('gone', 'open', 'it fell', now(), now() + interval '1 minute'),"
        " ('fine', 'closed', NULL, NULL, NULL);"
        "INSERT INTO budget (provider, per_seconds, hold_seconds)"
        " VALUES ('gone', 60, 10), ('fine', 60, 10)"
    )
    said = shell.run("status").stderr
    assert "stage finalize is paused by cli" in said
    assert ": it moves; see `pauses`" in said
    assert "provider 'gone' is not asked for now: it fell; see `providers`" in said
    assert "fine" not in said


def test_pauses_are_a_table_for_people(shell: Shell) -> None:
    """A heading, one line each, and talk on stderr."""
    assert shell.run("pauses").stderr.endswith("nothing is paused\n")
    shell.run("pause", "--tenant", "a", "--reason", "a bill")
    listed = shell.run("pauses").stdout.splitlines()
    assert " ".join(listed[0].split()) == "STAGE TENANT SINCE (UTC) UNTIL (UTC) BY REASON"
    assert listed[1].startswith("every stage  a ")
    assert listed[1].split()[-4] == "resumed"
    missed = shell.run("resume", "--stage", "finalize")
    assert missed.exit_code == 0
    assert missed.stderr.endswith("nothing was paused under this name; paused: tenant a\n")
    assert "resumed: tenant a, paused by" in shell.run("resume", "--tenant", "a").stderr


def test_whose_pause_is_replaced_is_said(shell: Shell, psql: Psql) -> None:
    """In silence somebody's ten minutes would end after one; the pipeline's own pause stays."""
    place = ("pause", "--stage", "finalize")
    first = shell.run(*place, "--reason", "a bill")
    psql.execute(
        "INSERT INTO pause (stage, fault, reason, by, until)"
        " VALUES ('finalize', true, '401', 'pipeline', now() + interval '1 hour')"
    )
    shell.run(*place, "--tenant", "a", "--reason", "another place")
    second = shell.run(*place, "--reason", "a disk", "--for", "1m")
    assert "replaces" not in first.stderr
    assert re.fullmatch(
        r"it replaces a pause of cli\S* until resumed: a bill", second.stderr.splitlines()[-1]
    )
    assert second.stderr.count("replaces") == 1


def test_an_end_is_told_in_local_time(shell: Shell) -> None:
    """``--until`` as the clock on the wall says it."""
    end = datetime.now().astimezone().replace(microsecond=0) + timedelta(days=1)
    asked = ["--tenant", "a", "--reason", "a bill", "--until", f"{end:%Y-%m-%dT%H:%M:%S}"]
    (made,) = shell.records("pause", *asked)
    assert datetime.fromisoformat(made["until"]) == end.astimezone(UTC)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reason", "why"], "neither a stage nor a tenant was named"),
        (["--stage", "parse", "--reason", "why"], "no stage 'parse'; there are queue_parse"),
        (["--tenant", "a", "--reason", "why", "--for", "soon"], "--for wants a duration such as"),
        (["--tenant", "a"], "--reason"),
        (
            ["--tenant", "a", "--reason", "why", "--for", "1h", "--until", "2999-01-01"],
            "--for and --until were both given",
        ),
    ],
    ids=["nothing", "stage", "duration", "reason", "two ends"],
)
def test_a_slip_is_told_and_gives_code_2(shell: Shell, arguments: list[str], said: str) -> None:
    """And nothing is paused."""
    ended = shell.run("pause", *arguments)
    assert ended.exit_code == 2
    assert said in " ".join(ended.stderr.split())
    assert shell.records("pauses") == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("15m", 900), ("1.5h", 5400), (" 3d ", 259_200)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    """As people write it."""
    assert duration_of(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "30", "0s", "-1h", "1w", "1h30m", "999999999d", "nan s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """An end that no calendar knows is none either."""
    with pytest.raises(Exception, match="--for wants a duration such as 30s, 15m, 2h or 3d"):
        duration_of(text)
