"""The README and every page: what can be run runs, what is generated is current, links lead on."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from fix_folders import reachable
from forking import Forking
from pages import ROOT, agrees, blocks, environment_of_a_reader, is_run, pages, run_page
from sqlalchemy.engine import make_url

from statemachine_pipeline.database.embedded import DEFAULT_DIRECTORY, EmbeddedServer
from statemachine_pipeline.testing.databases import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_LINES = 25
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)(?P<to>[^)\s#]*)(?:#(?P<part>[^)\s]*))?\)")
CODE = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
NEEDS_DATABASE = "<!-- needs: DATABASE_URL -->"

PAGES = pages()
FIRST = [ROOT / "docs" / "tutorial" / "first-documents.md"]
"""Run in a folder that is really empty: each of its commands starts the server, and leaves it."""
# The README's program is examples/shortest.py, which test_examples runs.
RUN = [page for page in PAGES[1:] if any(map(is_run, blocks(page)))]


def named(page: Path) -> str:
    """Return a page's path as a test id."""
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def forking() -> Iterator[Forking]:
    """A Python that has imported the package already; every program is still its own process."""
    with Forking(environment_of_a_reader()) as started:
        yield started


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedServer]:
    """A server that pages share: to make and start one takes longer than most of them."""
    with reachable() as folder, EmbeddedServer(folder / "server") as server:
        yield server


@pytest.fixture
def as_new(shared: EmbeddedServer) -> EmbeddedServer:
    """The shared server, with an empty database ``postgres`` as after its creation."""
    with connect(make_url(shared.url).set(database="template1")) as psql:
        psql.execute("DROP DATABASE IF EXISTS postgres WITH (FORCE)")
        psql.execute("CREATE DATABASE postgres TEMPLATE template0")
    return shared


@pytest.mark.timeout(400)  # the guide to testing runs for half a minute on a machine of its own
@pytest.mark.parametrize("page", RUN, ids=named)
def test_every_block_of_a_page_runs_and_prints_what_it_says(
    page: Path, tmp_path: Path, forking: Forking, request: pytest.FixtureRequest
) -> None:
    """STYLE: README, docs and examples run."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    given = {}
    if NEEDS_DATABASE in page.read_text():
        given["DATABASE_URL"] = request.getfixturevalue("empty_url")
    elif page not in FIRST:
        server: EmbeddedServer = request.getfixturevalue("as_new")
        (tmp_path / DEFAULT_DIRECTORY).symlink_to(server.directory)
        given["SMP_TEST_DATABASE"] = server.url  # for pages about tests of the reader's

    run_page(page, tmp_path, forking, given)


@pytest.mark.parametrize("page", RUN, ids=named)
def test_a_page_imports_all_that_it_uses_of_the_package(page: Path) -> None:
    """``import statemachine_pipeline`` would find modules there that somebody else has imported."""
    for block in blocks(page):
        if block.language == "python":
            plain = [one for one in ast.walk(ast.parse(block.body)) if isinstance(one, ast.Import)]
            names = [alias.name for one in plain for alias in one.names]
            assert not [name for name in names if name.startswith("statemachine_pipeline")], named(
                page
            )


def test_generated_parts_are_current() -> None:
    """The diagram, the lifecycle page and the CLI page say what the code says."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=named
)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    """A file, and the heading or test in it; so each guarantee has its proof."""
    for link in LINK.finditer(CODE.sub("", page.read_text())):
        target = (page.parent / link["to"]).resolve() if link["to"] else page
        assert target.exists(), f"{named(page)}: {link[0]} leads nowhere"
        if link["part"] and target.suffix == ".md":
            titles = [anchor(found["title"]) for found in HEADING.finditer(target.read_text())]
            assert link["part"] in titles, f"{named(page)}: {link[0]} names no heading"


def test_every_guarantee_names_a_test_that_exists() -> None:
    """Each of the seven promises links a file below tests, and names tests in it."""
    page = ROOT / "docs" / "explanation" / "guarantees.md"
    promises = re.split(r"^## (?=\d\. )", page.read_text(), flags=re.MULTILINE)[1:]

    assert len(promises) == 7
    for promise in promises:
        proofs = re.findall(r"\[`(?P<test>\w+)`\]\((?P<file>[^)]*/tests/[^)]+\.py)\)", promise)
        assert proofs, f"no test is linked for promise {promise[:60]!r}"
        for test, file in proofs:
            source = (page.parent / file).read_text()
            assert re.search(rf"(def|class) {test}\b", source), f"{file} has no {test}"


def test_every_fault_names_a_test_that_exists() -> None:
    """Each row of the table of failures ends with links to its proofs, parameters included."""
    page = ROOT / "docs" / "explanation" / "failures.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    faults = [line for line in rows if not line.startswith("| fault |")]

    assert len(faults) > 30
    for fault in faults:
        proofs = re.findall(
            r"\[`(?P<test>\w+)(?:\[(?P<case>[\w-]+)\])?`\]\((?P<file>[^)]+\.py)\)",
            fault.split(" | ")[3],
        )
        assert proofs, f"no test is linked for {fault[:60]!r}"
        for test, case, file in proofs:
            source = (page.parent / file).read_text()
            assert re.search(rf"def {test}\b", source), f"{file} has no {test}"
            known = source + (ROOT / "tests" / "chaos" / "faults.py").read_text()
            assert not case or f'"{case}":' in known, f"{test} has no case {case}"


def test_the_readme_shows_the_shortest_example_word_for_word() -> None:
    """The program on the first screen is examples/shortest.py, at most 25 lines long."""
    program = next(b for b in blocks(ROOT / "README.md") if b.language == "python").body
    example = (ROOT / "examples" / "shortest.py").read_text()

    assert program == example.split('"""\n\n', 1)[1]
    assert len(program.splitlines()) <= MOST_LINES


def test_every_public_name_is_in_the_docs() -> None:
    """What can be imported is explained or used on some page."""
    import statemachine_pipeline

    written = "".join(page.read_text() for page in PAGES)
    missing = [n for n in statemachine_pipeline.__all__ if not re.search(rf"\b{n}\b", written)]

    assert missing == []


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ("0.23 a\n", "0.24  a\n", True),
        ("3 a\n", "4 a\n", False),
        ("a\n...\nc\n", "a\nb\nb\nc\n", True),
        ("a\nc\n", "a\nb\nc\n", False),
        ("at 2025-01-02 03:04:05\n", "at 2026-11-24 00:16:01.123\n", True),
    ],
)
def test_output_is_compared_but_for_what_varies(expected: str, actual: str, *, same: bool) -> None:
    """The comparison itself can fail."""
    assert agrees(expected, actual) is same


def anchor(title: str) -> str:
    """Return the name by which a heading is linked to."""
    kept = re.sub(r"[^\w\- ]", "", title.strip().lower().replace("`", ""))
    return kept.replace(" ", "-")
