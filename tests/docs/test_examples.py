"""The three example programs, run as their first lines say, against real servers."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
from pages import ROOT, agrees, blocks, environment_of_a_reader
from psycopg import sql
from sqlalchemy.engine import make_url

from statemachine_pipeline.database.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(400)
EXAMPLES = ROOT / "examples"
PATIENCE_SECONDS = 120
SECRETS = ("mira@library.example", "DE89 3704 0044 0532 0130 00", "+49 30 1234 5678")
LETTER = f"""# A letter

Please write to {SECRETS[0]} or ring {SECRETS[2]} before Friday.
The gift goes to the account {SECRETS[1]} of the Friends of the Library.
"""


def run(*command: str | Path, folder: Path, code: int = 0, **variables: str) -> str:
    """Run a command as a reader would; return its stdout."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment_of_a_reader() | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def statemachine_pipeline(*words: str, folder: Path, code: int = 0, **variables: str) -> str:
    """Run the command line."""
    return run(
        sys.executable, "-m", "statemachine_pipeline", *words, folder=folder, code=code, **variables
    )


def test_the_shortest_program_prints_what_the_readme_says(tmp_path: Path) -> None:
    """STYLE: one complete program with its literal output; scores may differ by a little."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    said = next(block.output for block in blocks(ROOT / "README.md") if block.output)

    printed = run(sys.executable, "examples/shortest.py", folder=tmp_path)

    assert agrees(said, printed), printed
    scores = [float(line.split()[0]) for line in printed.splitlines()[2:]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_a_secret_is_nowhere_but_in_the_source(tmp_path: Path) -> None:
    """The custom lifecycle, wholly by the command line with ``--app``.

    The hook's product replaces the unredacted text, so no table but ``blob`` keeps it; and what
    still looks suspicious is not let on by the guard.
    """
    shutil.copy(EXAMPLES / "redacted.py", tmp_path)
    (tmp_path / "letter.md").write_text(LETTER)
    (tmp_path / "suspect.md").write_text("Write to mira@localhost, please.")
    app = ("--app", "redacted:pipeline")

    told = statemachine_pipeline(
        *app, "ingest", "letter.md", "suspect.md", "--json", folder=tmp_path, code=1
    )
    letter, suspect = map(json.loads, told.splitlines())
    shown = statemachine_pipeline(*app, "show", letter["document_id"], "--json", folder=tmp_path)

    assert (letter["state"], suspect["state"]) == ("complete", "dead_letter")
    assert "guard_refused:is_clean" in suspect["reason"]
    assert "pii_redacted" in [step["to_state"] for step in json.loads(shown)["history"]]
    rows = dict(rows_of_every_table(tmp_path / ".statemachine-pipeline"))
    for secret in SECRETS:
        assert {table for table, text in rows.items() if secret in text} == {"blob"}
    for label in ("[e-mail]", "[telephone]", "[account]"):
        assert label in rows["chunk"]


def rows_of_every_table(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield the tables of an embedded server, each with its rows as one text."""
    with EmbeddedServer(directory) as server:
        url = make_url(server.url).set(drivername="postgresql")
        with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'smp'"
            ).fetchall()
            assert len(tables) > 10
            for (table,) in tables:
                row = "convert_from(content, 'UTF8')" if table == "blob" else "t::text"
                query = sql.SQL(f"SELECT string_agg({row}, ' ') FROM smp.{{}} t")
                found = connection.execute(query.format(sql.Identifier(table))).fetchone()
                yield table, (found and found[0]) or ""


def test_the_service_takes_a_contract_and_tells_where_it_stands(
    empty_url: str, tmp_path: Path
) -> None:
    """Uploaded over HTTP, committed with the service's own row, followed until it rests."""
    statemachine_pipeline("migrate", folder=tmp_path, DATABASE_URL=empty_url)
    contract = EXAMPLES / "documents" / "annual-report-2024.pdf"

    with served(empty_url) as client:
        first, again = (upload(client, contract) for _ in range(2))
        sentence = followed(client, first["id"])
        nobody = client.get("/contracts/00000000-0000-0000-0000-000000000000")

    assert first["outcome"] == "new"
    assert again == first | {"outcome": "unchanged"}
    assert sentence.startswith("complete: ")
    assert nobody.status_code == 404
    plain = make_url(empty_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as connection:
        (row,) = connection.execute("SELECT document_id, customer FROM contract").fetchall()
        workers = connection.execute("SELECT count(*) FROM smp.work").fetchone()
    assert (str(row[0]), row[1]) == (first["id"], "alder")
    assert workers == (0,)


@contextlib.contextmanager
def served(url: str) -> Iterator[httpx.Client]:
    """Run the service on a port of this machine; it has to drain and end when told to."""
    # A file, because nobody reads a pipe meanwhile. The port stays bound, so that nobody takes it.
    with socket.socket() as bound, tempfile.TemporaryFile("w+") as said:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--fd", str(bound.fileno()), "service:app"],
            cwd=EXAMPLES,
            env=environment_of_a_reader() | {"DATABASE_URL": url, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=said,
            stderr=subprocess.STDOUT,
            pass_fds=[bound.fileno()],
        )
        try:
            address = f"http://127.0.0.1:{port}"
            with httpx.Client(
                base_url=address, trust_env=False, timeout=PATIENCE_SECONDS
            ) as client:
                wait_until_up(client, process)
                yield client
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        output = said.read()
    assert "Application shutdown complete" in output, output
    assert process.returncode in {0, -signal.SIGTERM}, output


def wait_until_up(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    """Wait until the service answers."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            client.get("/openapi.json")
            return
        time.sleep(0.1)
    raise AssertionError("the service did not come up")


def upload(client: httpx.Client, contract: Path) -> dict[str, Any]:
    """Post a file; return the answer."""
    answer = client.post(
        "/contracts",
        params={"customer": "alder"},
        files={"file": (contract.name, contract.read_bytes())},
    )
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def followed(client: httpx.Client, document: str) -> str:
    """Ask for the status until the document rests; return the last sentence."""
    until = time.monotonic() + PATIENCE_SECONDS
    sentence = ""
    while time.monotonic() < until:
        sentence = client.get(f"/contracts/{document}").json()
        if sentence.split(":")[0] in {"complete", "duplicate", "dead_letter", "cancelled"}:
            break
        time.sleep(0.1)
    return sentence
