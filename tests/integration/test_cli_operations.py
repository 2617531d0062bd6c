"""The verbs of whoever operates a pipeline: what they print for people, and their exit codes."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import Hooks, pipeline_with, running, until
from typer.testing import CliRunner

from statemachine_pipeline import Pipeline, Reject, Stage, StageFault
from statemachine_pipeline.cli import app
from statemachine_pipeline.failures import FailureRule

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

UNKNOWN = "00000000-0000-0000-0000-000000000000"
SETTINGS = ("SMP_DATABASE", "SMP_APP", "SMP_SCHEMA", "SMP_BLOBS", "DATABASE_URL")


@pytest.fixture
def run(database_url: str) -> Callable[..., Any]:
    """Return what runs a verb on this test's database."""

    def runs(*words: str) -> Any:
        given = ("--database", database_url, *words)
        result = CliRunner().invoke(app, given, env=dict.fromkeys(SETTINGS))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return runs


@pytest.fixture
def waiting(database_url: str) -> UUID:
    """Return a document that no worker takes."""

    async def submit() -> UUID:
        async with Pipeline(database_url) as pipeline:
            return (await pipeline.submit(b"one", name="one.txt")).document_id

    return asyncio.run(submit())


SAID = "no way in with password=hunter2 \x1b[31mred\x1b]0;owned\x07 \u202eback"
SHOWN = r"no way in with password=*** \x1b[31mred\x1b]0;owned\x07 \u202eback"
STORED = "SELECT count(*) FROM {0} AS found WHERE found::text LIKE '%hunter2%'"


async def test_what_an_exception_says_is_shown_without_secrets_and_orders_to_a_terminal(
    engine: AsyncEngine, psql: psycopg.Connection[Any], run: Callable[..., Any]
) -> None:
    """Operators need its words, wherever they look: masked before they are stored, then escaped."""
    hooks = Hooks()
    rule = FailureRule(ValueError, "permanent", is_quotable=True)
    pipeline = pipeline_with(engine, queue_parse=Stage(hooks.queue_parse, failures=[rule]))
    hooks.queue_parse.raises(Reject(SAID), ValueError(SAID), StageFault(SAID))
    ids = []
    async with running(pipeline):
        for number in range(3):
            ids.append((await pipeline.submit(b"%d" % number)).document_id)
            await until(psql, "SELECT last_error IS NOT NULL FROM document WHERE id = %s", ids[-1])
    told = [("show", ids[0]), ("explain", ids[1]), ("explain", ids[2])]
    for words in (*told, ("list",), ("dead-letters",), ("doctor",)):
        ended = await asyncio.to_thread(run, *map(str, words))
        assert SHOWN in " ".join(ended.stdout.split()), words
        assert "hunter2" not in ended.output, words
        assert not {"\x1b", "\x07", "\u202e"} & set(ended.output), words
    tables = psql.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'smp'").fetchall()
    assert len(tables) > 10
    for (table,) in tables:
        assert psql.execute(STORED.format(table).encode()).fetchone() == (0,), table


@pytest.mark.parametrize("verb", ["explain", "wait", "show"])
def test_an_unknown_id_is_told_by_its_exit_code(run: Callable[..., Any], verb: str) -> None:
    """'Exit code 3 for an unknown id', and nothing on stdout."""
    ended = run(verb, UNKNOWN)
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert f"no document {UNKNOWN}" in ended.stderr


def test_explain_says_one_sentence(run: Callable[..., Any], waiting: UUID) -> None:
    """'the one sentence of `show` alone'."""
    ended = run("explain", str(waiting))
    assert ended.exit_code == 0
    said = ended.stdout.removesuffix("\n")
    assert said.startswith("uploaded: ready for a worker to make attempt 1 of ")
    assert said.endswith(" queue_parse; no worker is alive")
    assert said in run("show", str(waiting)).stdout


def test_wait_tells_by_its_exit_code_how_it_ended(run: Callable[..., Any], waiting: UUID) -> None:
    """'exit 124 when it times out, else by the states reached'."""
    late = run("wait", str(waiting), "--timeout", "0.5s")
    assert late.exit_code == 124
    assert "1 of 1 document does not rest after 0.5 s" in late.stderr
    assert late.stdout.splitlines()[1].split() == [str(waiting), "uploaded", "one.txt"]
    assert run("cancel", str(waiting)).exit_code == 0
    assert run("wait", str(waiting)).exit_code == 1


def test_top_prints_one_table_where_there_is_no_terminal(
    run: Callable[..., Any], waiting: UUID
) -> None:
    """'when not a TTY or with `--once` it prints one table', and the sentence below it."""
    ended = run("top")
    assert ended.exit_code == 0
    heading, first, *_ = ended.stdout.splitlines()
    assert heading.split()[:4] == ["STAGE", "READY", "DEFERRED", "CLAIMED"]
    assert first.split()[:4] == ["queue_parse", "1", "0", "0"]
    assert ended.stdout.count("STAGE") == 1
    assert ended.stdout.splitlines()[-1].startswith("queue_parse: 1 is ready, the oldest for ")
    (look,) = map(json.loads, run("top", "--json").stdout.splitlines())
    assert look["slowest"]["stage"] == "queue_parse"
    assert waiting


def test_a_count_names_what_it_counts_by(run: Callable[..., Any], waiting: UUID) -> None:
    """``list --group``, with filters as ``list`` has them."""
    assert run("list", "--group", "stage").stdout.split() == [
        *("STAGE", "DOCUMENTS", "queue_parse", "1", "total", "1")
    ]
    assert run("list", "--older-than", "1h", "--group", "state").stdout.split()[-1] == "0"
    assert str(waiting) in run("list", "--stage", "queue_parse", "--contains", "ONE.").stdout


def test_pruning_says_what_went_and_what_was_left(run: Callable[..., Any], waiting: UUID) -> None:
    """Each that was left with its reason, here because no event is newer than its last."""
    run("cancel", str(waiting))
    ended = run("prune", "--older-than", "0.001s")
    assert ended.exit_code == 0
    assert "0 documents gone, 1 left" in ended.stderr
    assert "cancelled: it has the newest event of all" in ended.stdout


def test_what_failed_at_a_stage_that_there_is_no_more_is_found(
    run: Callable[..., Any], waiting: UUID, psql: psycopg.Connection[Any]
) -> None:
    """'Unless something was found for it'."""
    psql.execute(
        "INSERT INTO dead_letter (document_id, stage, state, code, reason, attempts, crashes)"
        " VALUES (%s, 'old', 'uploaded', 'empty', 'it is empty', 1, 0)",
        [waiting],
    )
    for words in (("dead-letters",), ("dead-letters", "--group"), ("list",)):
        ended = run(*words, "--stage", "old")
        assert (ended.exit_code, str(waiting) in ended.stdout) == (0, True), ended.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "--stage", "nothing"), "no stage 'nothing'; there are queue_parse"),
        (("list", "--stage", "cancel", "--group", "state"), "no stage 'cancel'; there are"),
        (("dead-letters", "--stage", "nothing"), "no stage 'nothing'; there are queue_parse"),
        (("dead-letters", "--group", "--stage", "nothing"), "no stage 'nothing'; there are"),
        (("requeue", "--stage", "nothing", "--dry-run"), "no stage 'nothing'; there are queue_"),
        (("resume", "--stage", "nothing"), "no stage 'nothing'; there are queue_parse"),
        (("requeue", "--code", "empty", "--state", "nothing"), "no state 'nothing'; there are"),
        (("requeue", "--code", "empty", "--state", "cancelled"), "not for what is cancelled"),
        (("prune", "--older-than", "30d", "--state", "complete"), "prune takes those in cancelled"),
        (("prune", "--older-than", "30d", "--state", "nothing"), "no state 'nothing'; there are"),
        (("sweep", "--dry-run"), "this pipeline keeps bytes in the database; name a store: blobs="),
        (("list", "--state", "nothing"), "no state 'nothing'"),
        (("list", "--older-than", "soon"), "--older-than wants a duration such as 30s"),
        (("list", "--group", "name"), "'name' is not one of"),
        (("prune", "--older-than", "30"), "--older-than wants a duration"),
        (("wait", UNKNOWN, "--timeout", "soon"), "--timeout wants a duration"),
        (("top", "--every", "0s"), "--every wants a duration"),
        (("usage", "--price", "store_embeddings"), "--price wants STAGE=NUMBER"),
        (("usage", "--price", "store_embeddings=-1"), "--price wants STAGE=NUMBER"),
        (("usage", "--price", "nothing=1"), "--price: no stage earns nothing"),
        (("list", "--database", ""), "--database names none"),
        (("usage", "--since", "soon"), "--since 'soon' is no time"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    run: Callable[..., Any], words: tuple[str, ...], said: str
) -> None:
    """An empty answer would hide a slip: exit code 2, and what there is."""
    ended = run(*words)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert said in " ".join(ended.stderr.split())
