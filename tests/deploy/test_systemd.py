"""The units of systemd: read by systemd itself, hardened, and with time to drain."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import PROGRAM, mistaken

from statemachine_pipeline.cli.ending import UNREACHABLE, USAGE

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
NAMES = ("statemachine-pipeline-worker@.service", "statemachine-pipeline-exporter.service")
EXPOSURE = 2.0
"""Of ten, by the measure of `systemd-analyze security`: up to 2.4 it says OK."""
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(
    ANALYZE is None, reason="needs systemd-analyze: apt-get install systemd"
)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on files, which needs no systemd that runs."""
    return subprocess.run([str(ANALYZE), *arguments], capture_output=True, text=True, check=False)


def setting(unit: str, name: str) -> str:
    """Return what a unit says last of a setting."""
    return re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), flags=re.MULTILINE)[-1]


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_systemd_understands_the_unit(name: str, tmp_path: Path) -> None:
    """Not a word of complaint, with a program where it says that there is one."""
    program = tmp_path / PROGRAM
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = (UNITS / name).read_text().replace(setting(name, "ExecStart").split()[0], str(program))
    unit = tmp_path / name.replace("@.", "@9801.")
    unit.write_text(text)

    done = analyze("verify", "--man=no", "--recursive-errors=no", str(unit))

    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(text.replace("Restart=", "Restart=sometimes"))
    assert "sometimes" in analyze("verify", "--man=no", str(unit)).stderr


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_the_unit_is_hardened(name: str) -> None:
    """No root, no capabilities, a file system to read, and few system calls."""
    done = analyze("security", "--offline=yes", "--no-pager", str(UNITS / name))
    found = re.search(r"Overall exposure level .*: (?P<level>[\d.]+)", done.stdout)

    assert found is not None, done.stdout + done.stderr
    assert float(found["level"]) <= EXPOSURE, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_unit_runs_a_verb_that_exists(name: str) -> None:
    """With options that it has, as a program of its own and not through a shell."""
    program, *words = shlex.split(setting(name, "ExecStart"))
    assert Path(program).name == PROGRAM
    assert mistaken(words) is None
    assert setting(name, "Type") == "exec"
    assert setting(name, "Restart") == "on-failure"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_a_mistaken_setting_ends_a_unit_for_good(name: str) -> None:
    """'Started again without a limit': whatever number of starts, a database may be away longer."""
    assert setting(name, "StartLimitIntervalSec") == "0"
    assert setting(name, "RestartPreventExitStatus") == str(USAGE)
    assert UNREACHABLE != USAGE


def test_a_worker_gets_longer_to_stop_than_it_takes_to_drain() -> None:
    """SIGTERM goes to the worker alone; what is left after the time is killed."""
    words = shlex.split(setting(NAMES[0], "ExecStart"))
    drain = int(words[words.index("--drain") + 1])
    assert int(setting(NAMES[0], "TimeoutStopSec")) >= drain + 15
    assert setting(NAMES[0], "KillMode") == "mixed"
