"""The command line as people and scripts use it, on one embedded server.

What a process does (signals, pipes, streams, children) is tested with real ones; the other verbs
run in this one, because importing everything anew takes a second and a half each time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fix_folders import reachable
from typer.testing import CliRunner

from statemachine_pipeline.cli import app
from statemachine_pipeline.database.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETTINGS = ("SMP_DATABASE", "SMP_APP", "SMP_SCHEMA", "SMP_BLOBS", "DATABASE_URL")
UNKNOWN = "00000000-0000-0000-0000-000000000000"
PATIENCE_SECONDS = 100

TINY = """
import asyncio
import os
import signal
from pathlib import Path
from statemachine_pipeline import Done, Lifecycle, Pipeline, State
from statemachine_pipeline.cli import batch

if "STANDSTILL_SECONDS" in os.environ:
    batch.STANDSTILL_SECONDS = float(os.environ["STANDSTILL_SECONDS"])

class Letters(Lifecycle):
    received = State(initial=True)
    filed = State(final=True)
    file = received.to(filed)

async def file(claim):
    if "slow" in claim.document.name:
        Path("began").touch()
        while "finishes" not in claim.document.name or not Path("go").exists():
            await asyncio.sleep(0.01)
    if "terminates" in claim.document.name:
        signal.raise_signal(signal.SIGTERM)
    return Done()

pipeline = Pipeline("embedded", lifecycle=Letters, hooks={"file": file}, schema="letters")
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """What a finished command left behind."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Its standard output as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """A folder in which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Begin a command as a process of its own."""
        inherited = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        return subprocess.Popen(
            [sys.executable, "-m", "statemachine_pipeline", *arguments],
            cwd=self.folder,
            env=inherited | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> Ended:
        """Run a command in this process."""
        with contextlib.chdir(self.folder):
            env = dict.fromkeys(SETTINGS) | environment
            result = CliRunner().invoke(app, arguments, env=env)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(code=result.exit_code, out=result.stdout, err=result.stderr)


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for a command, and see to it that it is gone."""
    try:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    return Ended(code=process.returncode, out=out, err=err)


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    """Return a folder with documents and an app; its server is held, so commands only join it."""
    with reachable() as folder:
        docs = folder / "docs"
        docs.mkdir()
        (docs / "garden.md").write_text(
            "# Garden\n\n## Apples\n\nThe apple tree is pruned in March.\n"
            f"![tree](data:image/png;base64,{'QUJD' * 100})\n"
        )
        (docs / "kitchen.html").write_text("<h1>Kitchen</h1><p>Bread bakes for forty minutes.</p>")
        (docs / "roof.txt").write_text("The roof was mended by a carpenter in October.\n")
        (docs / "roof-again.txt").write_text("The roof was mended by a carpenter in October.\n")
        (docs / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(64)))
        (docs / "empty.txt").touch()
        (docs / ".hidden.txt").write_text("nobody looks here")
        (docs / "loop").symlink_to("loop")
        (docs / "inner").mkdir()
        (docs / "inner" / "up").symlink_to("..", target_is_directory=True)
        (folder / "letters.py").write_text(TINY)
        (folder / "quick.txt").write_text("a letter")
        (folder / "slow-finishes.txt").write_text("a letter that takes a moment")
        (folder / "slow.txt").write_text("a letter that takes for ever")
        with EmbeddedServer(folder / ".statemachine-pipeline"):
            yield Shell(folder)


@pytest.fixture(scope="module")
def ingested(shell: Shell) -> Ended:
    """Return how the ingest of the documents ended; later tests look at what it left."""
    with shell.start("ingest", "docs", "missing.md", "--json") as process:
        return end(process)


def of(ingested: Ended, name: str) -> dict[str, Any]:
    """Return what was told of the file called ``name``."""
    return next(record for record in ingested.records if record["name"] == name)


def test_each_document_is_told_with_its_end_and_its_reason(ingested: Ended) -> None:
    """Every file ends in a state with a true reason; bad ones disturb nobody and give code 1."""
    told = {record["name"]: (record["state"], record["reason"]) for record in ingested.records}
    assert ingested.code == 1, ingested.err
    assert told["garden.md"] == ("complete", None)
    assert told["kitchen.html"] == ("complete", None)
    assert {told["roof.txt"][0], told["roof-again.txt"][0]} == {"complete", "duplicate"}
    assert told["empty.txt"] == ("dead_letter", "the file is empty")
    assert told["photo.png"][0] == "dead_letter"
    assert "not supported" in told["photo.png"][1]
    assert told["missing.md"] == (None, "there is no such file; check the path")
    assert told["loop"] == (None, "its links form a loop; submit the real file")
    assert "loop" in told["up"][1]
    assert ".hidden.txt" not in told


def test_ingest_writes_json_lines_to_stdout_and_talk_to_stderr(
    shell: Shell, ingested: Ended
) -> None:
    """One object per document with document_id, source_uri, state, reason, chunks."""
    wanted = {"document_id", "source_uri", "state", "reason", "chunks", "name", "outcome"}
    wanted |= {"parent_id"}
    assert all(set(record) == wanted for record in ingested.records)
    garden = of(ingested, "garden.md")
    assert garden["source_uri"] == (shell.folder / "docs" / "garden.md").as_uri()
    assert (garden["outcome"], garden["chunks"]) == ("new", 1)
    assert str(shell.folder / ".statemachine-pipeline") in ingested.err


def test_the_same_bytes_again_are_unchanged_and_say_how_to_requeue(
    shell: Shell, ingested: Ended
) -> None:
    """Again: `unchanged`, the present state and, for a dead letter, the command to type."""
    again = shell.run("ingest", "docs/garden.md", "docs/empty.txt")
    garden, empty = again.out.splitlines()[1:]
    assert again.code == 1
    assert garden.split()[1:4] == ["unchanged", "complete", "1"]
    assert f"statemachine-pipeline requeue {of(ingested, 'empty.txt')['document_id']}" in empty


@pytest.mark.usefixtures("ingested")
def test_status_counts_documents_by_state(shell: Shell) -> None:
    """`status --json` is {"states": {state: count}, "withdrawals": [...]}."""
    assert shell.run("status", "--json").records == [
        {"states": {"complete": 3, "duplicate": 1, "dead_letter": 2}, "withdrawals": []}
    ]


@pytest.mark.usefixtures("ingested")
def test_list_filters_by_state_and_says_when_there_is_more(shell: Shell) -> None:
    """`list` shows as many as asked for, of one state, and is not silent about the rest."""
    listed = shell.run("list", "--state", "complete", "--limit", "2", "--json")
    assert [record["state"] for record in listed.records] == ["complete", "complete"]
    assert "more than these 2" in listed.err
    slip = shell.run("list", "--state", "finished")
    assert slip.code == 2
    assert "no state 'finished'" in slip.err


def test_show_tells_history_and_why(shell: Shell, ingested: Ended) -> None:
    """`show --json` has the document, each step of its history, and the explanation."""
    empty = of(ingested, "empty.txt")["document_id"]
    (shown,) = shell.run("show", empty, "--json").records
    assert shown["document"]["state"] == "dead_letter"
    assert [step["trigger"] for step in shown["history"]] == ["submit", "fail"]
    assert (
        shown["history"][1] | {"from_state": "uploaded", "to_state": "dead_letter"}
        == (shown["history"][1])
    )
    assert "T" in shown["history"][0]["at"]
    assert "the file is empty" in shown["explanation"]["sentence"]
    assert "requeue" in [option["trigger"] for option in shown["explanation"]["options"]]


def test_dead_letters_are_listed_grouped_and_requeued_by_what_they_have_in_common(
    shell: Shell, ingested: Ended
) -> None:
    """`dead-letters` says what failed and why; `requeue` takes the same filters."""
    empty = of(ingested, "empty.txt")["document_id"]
    letters = shell.run("dead-letters", "--json").records
    assert {one["name"] for one in letters} == {"photo.png", "empty.txt"}
    (letter,) = (one for one in letters if one["document_id"] == empty)
    assert (letter["stage"], letter["code"], letter["attempts"]) == ("queue_parse", "empty", 1)

    listed = shell.run("dead-letters", "--code", "empty", "--since", "1d")
    assert "queue_parse  empty" in listed.out
    assert shell.run("dead-letters", "--since", "2999-01-01", "--json").records == []
    assert "there are more than these 1" in shell.run("dead-letters", "--limit", "1").err
    groups = shell.run("dead-letters", "--group", "--json").records
    assert ("queue_parse", "empty", 1, empty) in [
        (one["stage"], one["code"], one["count"], one["example"]) for one in groups
    ]
    assert "1  queue_parse  empty" in shell.run("dead-letters", "--group").out

    (would,) = shell.run("requeue", "--code", "empty", "--dry-run", "--json").records
    assert (would["dry_run"], would["moved"]) == (True, [empty])
    state = shell.run("requeue", "--state", "dead_letter", "--code", "empty", "--dry-run", "--json")
    assert state.records == [would]
    none = shell.run("requeue", "--stage", "finalize", "--since", "12h")
    assert (none.code, "0 documents moved" in none.err) == (0, True)
    (shown,) = shell.run("show", empty, "--json").records
    assert shown["explanation"]["dead_letter"]["code"] == "empty"


def test_a_slip_in_what_is_to_be_requeued_is_told(shell: Shell) -> None:
    """Exit code 2: a time that is none, and filters of dead letters beside IDs."""
    assert shell.run("dead-letters", "--since", "999999d").code == 2
    slip = shell.run("dead-letters", "--since", "yesterday")
    both = shell.run("requeue", UNKNOWN, "--code", "empty")
    assert (slip.code, both.code) == (2, 2)
    assert "--since 'yesterday' is no time" in slip.err
    assert "are for dead letters" in both.err


def test_show_draws_a_document_for_people(shell: Shell, ingested: Ended) -> None:
    """`show ID` answers: how far is it, why is it here, what comes next."""
    shown = shell.run("show", of(ingested, "garden.md")["document_id"])
    assert "progress: uploaded > parse_queued > " in shown.out
    assert "complete: 1 chunk and 1 vector are published" in shown.out
    assert "reprocess" in shown.out
    assert "warnings of the parser:\n- left out 1 embedded file, 416 characters" in shown.out


def test_show_tells_what_the_parser_left_out(shell: Shell, ingested: Ended) -> None:
    """Warnings are stored with the text and shown, with `--json` as well."""
    (garden,) = shell.run("show", of(ingested, "garden.md")["document_id"], "--json").records
    assert garden["explanation"]["warnings"] == [
        "left out 1 embedded file, 416 characters of base64"
    ]
    (kitchen,) = shell.run("show", of(ingested, "kitchen.html")["document_id"], "--json").records
    assert kitchen["explanation"]["warnings"] == []


@pytest.mark.usefixtures("ingested")
def test_search_finds_the_passage(shell: Shell) -> None:
    """`search` prints the passages that fit best, best first."""
    found = shell.run("search", "when are apples pruned?", "--limit", "2", "--json").records
    assert found[0]["document"]["name"] == "garden.md"
    assert found[0]["headings"] == ["Garden", "Apples"]
    assert found[0]["score"] > found[1]["score"]


@pytest.mark.usefixtures("ingested")
def test_search_takes_a_mode_filters_and_groups(shell: Shell) -> None:
    """`--mode`, `--where KEY=VALUE` and `--group` narrow; a slip in one of them is told."""
    words = shell.run("search", "apples", "--mode", "text", "--limit", "1", "--json").records
    nobody = shell.run("search", "apples", "--group", "staff", "--group", "board", "--json")
    unkept = shell.run("search", "apples", "--where", "kind=letter", "--where", "year=2024")
    slip = shell.run("search", "apples", "--where", "kind")
    unread = shell.run("search", "apples", "--where", 'year={"$near": 1}')

    assert (words[0]["text_rank"], words[0]["vector_rank"]) == (1, None)
    assert (nobody.code, nobody.out, unkept.out) == (0, "", "")
    assert (slip.code, unread.code) == (2, 2)
    assert "--where wants KEY=VALUE, got 'kind'" in slip.err
    assert "there are $gt, $gte, $lt, $lte, $in" in unread.err


def test_a_requeued_dead_letter_is_taken_up_by_a_worker_that_drains(
    shell: Shell, ingested: Ended
) -> None:
    """`requeue` starts another life; a worker runs it, and SIGTERM lets the worker end well."""
    empty = of(ingested, "empty.txt")["document_id"]
    requeued = shell.run("requeue", empty, "--reason", "try again", "--json")
    assert (requeued.code, requeued.records[0]["moved"]) == (0, [empty])
    with shell.start("worker", "--drain", "5") as worker:
        assert worker.stderr is not None
        assert "embedded" in worker.stderr.readline()
        assert "all stages" in worker.stderr.readline()
        until(lambda: _state(shell, empty) == "dead_letter")
        worker.send_signal(signal.SIGTERM)
        stopped = end(worker)
    assert (stopped.code, stopped.out) == (0, "")
    assert "worker stopped" in stopped.err
    (shown,) = shell.run("ingest", "docs/empty.txt", "--json").records
    assert (shown["state"], shown["outcome"]) == ("dead_letter", "unchanged")


def test_a_finished_document_cannot_be_cancelled(shell: Shell, ingested: Ended) -> None:
    """What may not take a trigger stays, is named with the reason, and gives code 4."""
    garden = of(ingested, "garden.md")["document_id"]
    refused = shell.run("cancel", garden, "--json")
    assert refused.code == 4
    assert refused.records[0]["moved"] == []
    assert refused.records[0]["refused"][0]["document_id"] == garden
    assert "wrong_state" in refused.records[0]["refused"][0]["reason"]


@pytest.mark.usefixtures("ingested")
def test_an_unknown_document_is_not_found_and_a_malformed_id_is_a_slip(shell: Shell) -> None:
    """Exit codes: 3 for an id that nobody has, 2 for what is no id."""
    assert shell.run("show", UNKNOWN).code == 3
    malformed = shell.run("show", "garden.md")
    assert malformed.code == 2
    assert "UUID" in malformed.err


def test_an_unreachable_database_gives_code_5_and_no_password(shell: Shell) -> None:
    """A closed port is told at once, and the password nowhere."""
    url = "postgres://me:swordfish@127.0.0.1:1/documents"
    gone = shell.run("status", DATABASE_URL=url)
    assert gone.code == 5
    assert "documents on 127.0.0.1:1" in gone.err
    assert "swordfish" not in gone.out + gone.err
    assert "Traceback" not in gone.err


def test_a_database_has_to_be_migrated_first(shell: Shell, empty_url: str) -> None:
    """On a database of one's own nothing is created unasked; the error names the command."""
    before = shell.run("ingest", "quick.txt", "--database", empty_url)
    assert before.code == 1
    assert "statemachine-pipeline migrate" in before.err
    migrated = shell.run("--database", empty_url, "migrate")
    assert (migrated.code, "DocumentLifecycle" in migrated.out) == (0, True)
    assert shell.run("status", "--json", SMP_DATABASE=empty_url).records == [
        {"states": {}, "withdrawals": []}
    ]


def test_looking_where_nothing_was_ingested_makes_no_server(shell: Shell) -> None:
    """`status` in a wrong folder says so, and leaves nothing behind."""
    empty = shell.folder / "elsewhere"
    empty.mkdir()
    looked = Shell(empty).run("status")
    assert looked.code == 1
    assert "nothing was ingested yet" in looked.err
    assert list(empty.iterdir()) == []


def test_graph_in_both_formats(shell: Shell) -> None:
    """`graph` draws the shipped lifecycle without a database, or the app's."""
    assert shell.run("graph").out.startswith("stateDiagram-v2\n    [*] --> uploaded: submit\n")
    own = json.loads(shell.run("graph", "--format", "json", "--app", "letters:pipeline").out)
    assert (own["name"], own["initial"]) == ("Letters", "received")


def test_an_app_brings_its_lifecycle_hooks_and_schema(shell: Shell) -> None:
    """With --app every verb uses the user's Pipeline; without, looking works from the graph."""
    filed = shell.run("ingest", "quick.txt", "--json", SMP_APP="letters:pipeline")
    assert (filed.code, filed.records[0]["state"]) == (0, "filed")
    looked = shell.run("list", "--schema", "letters", "--json")
    assert [record["name"] for record in looked.records] == ["quick.txt"]
    forgotten = shell.run("ingest", "quick.txt", "--schema", "letters")
    assert forgotten.code == 2
    assert "--app" in forgotten.err


def test_an_interrupted_ingest_gives_its_documents_back(shell: Shell) -> None:
    """First signal drains, second aborts: code 130, and the document is there for the next."""
    arguments = ("--app", "letters:pipeline", "ingest", "slow.txt", "--json")
    with shell.start(*arguments) as process:
        until((shell.folder / "began").exists)
        process.send_signal(signal.SIGINT)
        heard(process, "finishing what runs")  # two at once may arrive as one
        process.send_signal(signal.SIGINT)
        stopped = end(process)
    assert stopped.code == 130, stopped.err
    assert "stopped early with 1 document on the way" in stopped.err
    assert "handed over" not in stopped.err
    assert stopped.records[0]["state"] == "received"
    cancelled = shell.run("cancel", "--state", "received", "--schema", "letters", "--json")
    assert cancelled.records[0]["moved"] == [stopped.records[0]["document_id"]]


def test_an_ingest_says_which_files_it_left_when_it_was_interrupted(shell: Shell) -> None:
    """What was never handed over is on no worker's list; it takes the same command again."""
    many = shell.folder / "many"
    many.mkdir()
    (many / "0-terminates.txt").write_text("the first letter ends its worker")
    for number in range(1, 2000):
        (many / f"{number:04}.txt").write_text(f"letter {number}")
    with shell.start("ingest", "many", "--app", "letters:pipeline") as process:
        stopped = end(process)
    assert stopped.code == 143, stopped.err
    assert len(stopped.out.splitlines()) < 2000
    assert "not every file was handed over; the same ingest again" in stopped.err


def test_an_ingest_that_waits_for_a_dead_worker_says_so(shell: Shell) -> None:
    """After kill -9 its claims stand for a minute: nobody should take that for a hang."""
    (shell.folder / "began").unlink(missing_ok=True)
    (shell.folder / "slow-killed.txt").write_text("a letter whose worker dies")
    arguments = ("--app", "letters:pipeline", "ingest", "slow-killed.txt", "--json")
    with shell.start(*arguments) as process:
        until((shell.folder / "began").exists)
        process.kill()
    with shell.start(*arguments, STANDSTILL_SECONDS="0.5") as process:
        told = heard(process, "nothing has moved")
        process.send_signal(signal.SIGTERM)
        stopped = end(process)
    (record,) = stopped.records
    assert "slow-killed.txt is received: worker " in told
    assert "should that worker be dead, its documents are taken over 60 s after" in told
    assert "nothing has moved" not in stopped.err, "once is enough"
    assert shell.run("cancel", record["document_id"], "--schema", "letters").code == 0


def test_an_empty_path_is_not_the_present_folder(shell: Shell) -> None:
    """`ingest "$UNSET"` must not hand over whatever lies here."""
    slip = shell.run("ingest", "")
    assert slip.code == 2
    assert "it is empty" in slip.err


def test_a_path_that_may_not_be_read_stops_no_other(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused in the report, not as a slip that leaves every other path out.

    As an ordinary account sees a file of mode 000; the next mistake of the line is told instead.
    """
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    told = shell.run("ingest", "quick.txt", "--database", "mysql://nobody@nowhere/x")
    assert "not readable" not in told.err
    assert "the database URL is for 'mysql'" in told.err


def test_a_terminated_ingest_finishes_what_runs(shell: Shell) -> None:
    """SIGTERM lets the hooks that run come to their end, and gives code 143."""
    (shell.folder / "began").unlink(missing_ok=True)
    with shell.start("ingest", "slow-finishes.txt", "--app", "letters:pipeline") as process:
        until((shell.folder / "began").exists)
        process.send_signal(signal.SIGTERM)
        heard(process, "finishing what runs")
        (shell.folder / "go").touch()
        stopped = end(process)
    assert stopped.code == 143, stopped.err
    assert "filed" in stopped.out


@pytest.mark.usefixtures("ingested")
def test_a_reader_that_leaves_early_is_no_error(shell: Shell) -> None:
    """`list | head` ends quietly."""
    with shell.start("list") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        told = process.stderr.read()
        process.wait(PATIENCE_SECONDS)
    assert "Error" not in told
    assert "Traceback" not in told
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["worker", "--help"], 0),
        (["graph"], 0),
        (["doctor", "--database", "postgresql://nobody@127.0.0.1:1/none"], 5),
    ],
)
def test_the_exit_code_is_the_verbs_though_nobody_reads_to_the_end(
    words: list[str], code: int
) -> None:
    """'A reader of stdout that goes before its end, as `head` does, changes none of them.'."""
    # Unbuffered, so that it is noticed while the verb writes and not after it.
    program = [sys.executable, "-u", "-m", "statemachine_pipeline", *words]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(PATIENCE_SECONDS) == code
    assert b"Traceback" not in said


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something has happened in another process."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def heard(process: subprocess.Popen[str], words: str) -> str:
    """Return the first line of what a process tells people that holds these words."""
    assert process.stderr is not None
    return next(line for line in process.stderr if words in line)


def _state(shell: Shell, document: str) -> str:
    (shown,) = shell.run("show", document, "--json").records
    return str(shown["document"]["state"])


def test_ingest_follows_what_is_found_in_a_document(shell: Shell) -> None:
    """Attachments rest before it ends, are told with their parent, and count for the exit code."""
    letter, inner = EmailMessage(), EmailMessage()
    for one, subject in ((letter, "Tide tables"), (inner, "Lost")):
        one["Subject"], one["From"] = subject, "harbour@town.example"
        one.set_content(f"{subject}, see below.\n")
    inner.add_attachment(b"\x89PNG\r\n\x1a\n" + bytes(64), "image", "png", filename="map.png")
    letter.add_attachment("High water at nine.\n", filename="tides.txt")
    letter.add_attachment(inner)
    (shell.folder / "letter.eml").write_bytes(letter.as_bytes())

    told = shell.run("ingest", "letter.eml", "quick.txt", "--json")
    names = [record["name"] for record in told.records]
    mail, tides, lost, map_, quick = told.records
    shown = shell.run("show", mail["document_id"])
    below = shell.run("show", lost["document_id"], "--json").records[0]
    again = shell.run("ingest", "letter.eml")
    deleted = shell.run("delete", mail["document_id"])

    assert names == ["letter.eml", "tides.txt", "Lost.eml", "map.png", "quick.txt"]
    assert told.code == 1
    assert [record["outcome"] for record in told.records] == ["new", *["found"] * 3, "new"]
    assert [one["parent_id"] for one in (mail, tides, lost, map_, quick)] == [
        *(None, mail["document_id"], mail["document_id"]),
        *(lost["document_id"], None),
    ]
    assert (tides["state"], lost["state"], map_["state"]) == ("complete", "complete", "dead_letter")
    assert "PNG image is not supported yet" in map_["reason"]
    assert "found in it:\n" in shown.out
    assert f"{tides['document_id']}  complete  tides.txt" in shown.out
    assert below["parent"] == {"id": mail["document_id"], "name": "letter.eml", "state": "complete"}
    assert [child["name"] for child in below["children"]] == ["map.png"]
    assert below["document"]["parent_id"] == mail["document_id"]
    assert str(Path("letter.eml", "Lost.eml", "map.png")) in again.out
    assert deleted.out.count("delete") == 4


def test_bytes_go_to_the_store_that_is_named_and_leave_it_with_their_document(
    shell: Shell, tmp_path: Path
) -> None:
    """SMP_BLOBS or --blobs; `sweep` without either has nothing to do and says so."""
    store = tmp_path / "store"
    where = ("--app", "letters:pipeline", "--schema", "stored")
    ended = shell.run(*where, "--blobs", store.as_uri(), "ingest", "quick.txt", "--json")
    assert (ended.code, ended.records[0]["state"]) == (0, "filed")
    assert len([path for path in store.rglob("*") if path.is_file()]) == 1
    given = {"SMP_BLOBS": store.as_uri()}
    assert shell.run(*where, "delete", ended.records[0]["document_id"], **given).code == 0
    assert [path for path in store.rglob("*") if path.is_file()] == []
    assert shell.run(*where, "sweep", "--older-than", "0", **given).out == "erased 0 objects\n"
    nothing = shell.run(*where, "sweep")
    assert (nothing.code, "keeps bytes in the database" in nothing.err) == (2, True)
    wrong = shell.run(*where, "status", SMP_BLOBS="memory:///")
    assert (wrong.code, "s3://bucket/prefix" in wrong.err) == (2, True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_a_full_disk_is_told_in_a_line() -> None:
    """'One clear line instead of a traceback', and a failure: the data is not all there."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "statemachine_pipeline", "graph"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "error: cannot write: No space left on device\n")
