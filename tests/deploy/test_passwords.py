"""The pages about roles and backups, word by word, on a server that asks for passwords."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fix_folders import reachable
from fix_postgres import connect, program
from pages import blocks
from sqlalchemy.engine import make_url

from statemachine_pipeline.database.embedded import EmbeddedServer
from statemachine_pipeline.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION, BACKUPS = (
    ROOT / "docs" / "how-to" / f"{name}.md" for name in ("run-in-production", "back-up-and-restore")
)
ASKS = "local all postgres trust\nlocal all all scram-sha-256\n"


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A server that asks everybody but its superuser for a password; durable, as `doctor` wants."""
    with reachable() as folder:
        made = EmbeddedServer(folder / "server")
        try:
            url = made.start()
            (made.directory / "postgres" / "pg_hba.conf").write_text(ASKS)
            with connect(url) as connection:
                connection.execute("SELECT pg_reload_conf()")
            yield made
        except MissingExtra as error:
            pytest.skip(str(error))
        finally:
            made.stop()


@pytest.fixture
def shell(server: EmbeddedServer, tmp_path: Path) -> Callable[[str], str]:
    """Run a line of a page beside `deploy`, and return what it printed."""
    ours = tmp_path / "statemachine-pipeline"
    ours.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m statemachine_pipeline "$@"\n')
    ours.chmod(0o755)
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    named = make_url(server.url).query
    own = {one: os.environ[one] for one in ("HOME", "LANG") if one in os.environ}
    own |= {"PATH": f"{tmp_path}:{Path(program('psql')).parent}:{os.environ['PATH']}"}
    own |= {"PYTHONPATH": str(ROOT), "OWNER_PASSWORD": "ow'n", "APP_PASSWORD": "%app"}
    own |= {"PGHOST": str(named["host"]), "PGPORT": str(named["port"]), "PGUSER": "postgres"}

    def run(line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line.replace("@db/", "@/")],
            cwd=tmp_path,
            env=own,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


def lines(page: Path, heading: str) -> list[str]:
    """Return what a section of a page tells somebody to run, but for what names their server."""
    begins = page.read_text()[: page.read_text().index(f"\n{heading}\n")].count("\n") + 2
    ends = [n for n, line in enumerate(page.read_text().splitlines(), 1) if line.startswith("## ")]
    last = min([n for n in ends if n > begins], default=sys.maxsize)
    found = [one for one in blocks(page) if begins < one.line < last and one.language == "console"]
    told = re.findall(r"^\$ (.*)$", "".join(one.body for one in found), flags=re.MULTILINE)
    return [one for one in told if not one.startswith("export ") and "$PWD" not in one]


def test_the_pages_make_roles_dump_and_restore_word_by_word(shell: Callable[[str], str]) -> None:
    """'A superuser makes both'; the owner migrates, dumps and restores; the other one works."""
    made = [shell(line) for line in lines(PRODUCTION, "## 1. Two roles")]
    assert "role pipeline_app may work" in made[2]
    assert "ok      role " in made[3]

    (dump,) = lines(BACKUPS, "## Dump")
    *restore, worker = lines(BACKUPS, "## Restore")
    shell(dump)
    told = [shell(line) for line in restore]

    assert "ok      role " in told[-1]
    assert "ok      guards " in told[-1]
    assert worker.endswith("@db/restored worker")
    owner = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'smp'"
    assert shell(f'psql --dbname=restored -Atc "{owner}"') == "pipeline_owner\n"
