"""`lint` as people and scripts use it: what it looks at, what it prints, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from statemachine_pipeline.cli import app
from statemachine_pipeline.testing.linting.findings import CATALOGUE

FAULTY = """
from statemachine_pipeline import Facts, Lifecycle, Pipeline, State, by_hand

def is_long(facts: Facts) -> bool:
    return facts.text_chars > 10

class Letters(Lifecycle):
    received = State(initial=True)
    filed, returned = State(final=True), State(final=True)
    file = received.to(filed)
    give_back = received.to(returned)

class Notes(Lifecycle):
    received = State(initial=True)
    filed = State(final=True)
    file = received.to(filed, cond=lambda facts: is_long(facts))

pipeline = Pipeline("embedded", lifecycle=Letters, hooks={"file": by_hand, "give_back": by_hand})
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with an app, and none of our variables set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delenv("SMP_APP", raising=False)
    (tmp_path / "smp_linted.py").write_text(FAULTY)
    return tmp_path


def command(*arguments: str) -> Any:
    """Run ``lint`` in this process."""
    return CliRunner().invoke(app, ["lint", *arguments])


@pytest.mark.usefixtures("folder")
def test_the_command_tells_findings_and_its_exit_code_does() -> None:
    """'Exit 0 clean, 1 with findings'; without a name it is the shipped lifecycle."""
    clean = command()
    assert (clean.exit_code, clean.stdout) == (0, "")
    assert clean.stderr == "DocumentLifecycle: 0 findings\n"
    found = command("smp_linted:Letters")
    assert found.exit_code == 1
    assert found.stdout.startswith(
        "L11 received>give_back>returned: whenever it is open, received>file>filed is taken before"
    )
    words = " ".join(found.stdout.split())
    assert f"{CATALOGUE['L11'].why} {CATALOGUE['L11'].advice}" in words
    assert "For example with nothing known of the document." in words
    assert found.stderr == "Letters: 1 finding\n"


@pytest.mark.usefixtures("folder")
def test_the_command_takes_a_pipeline_with_its_hooks() -> None:
    """'Also --app module:pipeline, then with its hooks'; the setting is read too."""
    assert command("--app", "smp_linted:pipeline").exit_code == 0
    assert command("smp_linted:pipeline").exit_code == 0
    Path("pyproject.toml").write_text('[tool.statemachine-pipeline]\napp = "smp_linted:pipeline"\n')
    assert command().stderr == "Letters: 0 findings\n"


@pytest.mark.usefixtures("folder")
def test_the_command_prints_an_object_a_line() -> None:
    """'--json one object a line'."""
    result = command("smp_linted:Letters", "--json")
    assert result.exit_code == 1
    (record,) = [json.loads(line) for line in result.stdout.splitlines()]
    rule = CATALOGUE["L11"]
    assert (record["id"], record["where"]) == ("L11", "received>give_back>returned")
    assert (record["why"], record["advice"]) == (rule.why, rule.advice)
    assert record["witness"]["text_chars"] == 0


@pytest.mark.usefixtures("folder")
def test_the_command_leaves_out_what_is_allowed() -> None:
    """'Exit code 1 when more is found than --allow names'."""
    assert command("smp_linted:Notes", "--allow", "L09").exit_code == 0
    both = command("smp_linted:Notes", "--allow", "L09:received>file>filed", "--allow", "L13")
    assert both.exit_code == 1
    assert "L13 is allowed and not found" in both.stderr


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["smp_linted"], "write it as module:attribute"),
        (["smp_lost:Letters"], "no module 'smp_lost'"),
        (["smp_linted:Lost"], "has no 'Lost'"),
        (["smp_linted:Facts"], "no Lifecycle with states"),
        (["smp_linted:Lifecycle"], "no Lifecycle with states"),
        (["smp_linted:Letters", "--app", "smp_linted:pipeline"], "not both"),
    ],
)
def test_a_slip_in_the_command_is_told(arguments: list[str], told: str) -> None:
    """'2 for bad usage'."""
    result = command(*arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())


@pytest.mark.parametrize("missing", ["hypothesis", "networkx"])
def test_the_extra_that_is_missing_is_named(missing: str) -> None:
    """'Clear message when the extra is missing'."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['smp', 'lint']; "
        "from statemachine_pipeline.cli import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        f"error: {missing} is not installed; pip install 'statemachine-pipeline[testing]'\n"
    )
