"""The pytest plugin, in sessions of its own as users run them."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fix_postgres import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    Session = Callable[..., pytest.RunResult]

pytest_plugins = ["pytester"]

INSTALLED = entry_points(group="pytest11", name="statemachine_pipeline")
PLUGIN = () if INSTALLED else ("-p", "statemachine_pipeline.testing.plugin")

LIFECYCLE = """
from statemachine_pipeline import Facts, Lifecycle, State

def is_good(facts: Facts) -> bool:
    return facts.reported.get("good") is True

class Review(Lifecycle):
    written = State(initial=True)
    accepted, refused = State(final=True), State(final=True)

    accept = written.to(accepted, cond=is_good)
    refuse = written.to(refused)
"""


@pytest.fixture
def folder(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project whose tests may use no mark that nobody declared, and warn of nothing."""
    pytester.makeini(
        "[pytest]\naddopts = --strict-markers -p no:cacheprovider\nfilterwarnings = error\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )
    return pytester


@pytest.fixture
def session(folder: pytest.Pytester) -> Session:
    """Runs pytest in a process of its own, on the files given by name."""

    def run(*arguments: str, **files: str) -> pytest.RunResult:
        folder.makepyfile(**files)
        return folder.runpytest_subprocess(*PLUGIN, *arguments)

    return run


@pytest.fixture
def inside(folder: pytest.Pytester) -> Session:
    """Runs pytest in this process, in a tenth of the time, for what leaves no trace here."""

    def run(*arguments: str, **files: str) -> pytest.RunResult:
        folder.makepyfile(**files)
        return folder.runpytest_inprocess(*PLUGIN, *arguments)

    return run


def test_a_session_that_uses_nothing_imports_nothing(session: Session) -> None:
    """'It imports nothing but pytest until a fixture or option of it is used.'."""
    done = session(
        test_it="""
        import sys

        HEAVY = {"alembic", "hypothesis", "networkx", "psycopg", "sqlalchemy", "statemachine"}

        def test_nothing_was_imported():
            assert not HEAVY & set(sys.modules)
            own = {name for name in sys.modules if name.startswith("statemachine_pipeline")}
            assert own == {
                "statemachine_pipeline",
                "statemachine_pipeline.testing",
                "statemachine_pipeline.testing.plugin",
            }
        """,
    )
    done.assert_outcomes(passed=1)
    assert "lifecycle coverage" not in done.stdout.str()


def test_every_kind_of_test_has_a_database_of_its_own(
    inside: Session, smp_server: str, pytester: pytest.Pytester
) -> None:
    """'Works for sync tests, pytest-asyncio and anyio'; 'what is not dropped before is dropped'."""
    done = inside(
        f"--smp-server={smp_server}",
        lifecycles=LIFECYCLE,
        test_it="""
        import asyncio
        from pathlib import Path

        import psycopg
        import pytest
        from lifecycles import Review
        from sqlalchemy.engine import make_url

        from statemachine_pipeline import by_hand
        from statemachine_pipeline.testing import assert_history, assert_state, drain

        seen = []

        async def work(smp_pipeline, smp_database):
            seen.append(smp_database)
            async def check(claim):
                from statemachine_pipeline import Done
                return Done(good=True)
            async with smp_pipeline(hooks={"accept": check, "refuse": None}) as pipeline:
                document = (await pipeline.submit(b"text")).document_id
                assert await drain(pipeline) == {"accepted": 1}
                await assert_state(pipeline, document, "accepted")
                await assert_history(pipeline, document, ["submit", "accept"])

        pytestmark = pytest.mark.smp_pipeline(lifecycle=Review, schema="reviews")

        def test_sync(smp_pipeline, smp_database, smp_clock):
            asyncio.run(work(smp_pipeline, smp_database))
            smp_clock.advance_blocking(hours=1)

        @pytest.mark.asyncio
        async def test_asyncio(smp_pipeline, smp_database, smp_clock):
            await work(smp_pipeline, smp_database)
            await smp_clock.advance(hours=1)

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_anyio(smp_pipeline, smp_database, smp_clock):
            await work(smp_pipeline, smp_database)
            await smp_clock.advance(hours=1)

        class TestByHand:
            people = {"accept": by_hand, "refuse": by_hand}
            pytestmark = pytest.mark.smp_pipeline(lifecycle=Review, hooks=people)

            @pytest.mark.asyncio
            async def test_hooks_of_the_marker_count(self, smp_pipeline):
                async with smp_pipeline() as pipeline:
                    document = (await pipeline.submit(b"text")).document_id
                    assert await drain(pipeline) == {"written": 1}
                    await pipeline.apply("refuse", document, reason="dull")
                    await assert_state(pipeline, document, "refused")

        @pytest.fixture(scope="module")
        def left_behind(smp_databases):
            return [smp_databases.make(None), smp_databases.make()]

        def test_each_was_dropped_after_its_test(left_behind):
            Path("prefix").write_text(make_url(left_behind[0]).database.rpartition("_")[0])
            assert len(set(seen)) == 3
            for url in seen:
                with pytest.raises(psycopg.OperationalError, match="does not exist"):
                    psycopg.connect(url.replace("+psycopg", ""))
        """,
    )
    done.assert_outcomes(passed=5)
    prefix = (pytester.path / "prefix").read_text()
    with connect(smp_server) as connection:
        names = {str(row[0]) for row in connection.execute("SELECT datname FROM pg_database")}
    assert not {name for name in names if name.startswith(prefix)}


def test_an_embedded_server_leaves_nothing_behind(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'Else an embedded server of the session's own', which is erased in the end."""
    monkeypatch.delenv("SMP_TEST_DATABASE", raising=False)
    said = tmp_path / "said"
    done = session(
        test_it=f"""
        from pathlib import Path

        from sqlalchemy.engine import make_url

        def test_it(smp_database):
            Path({str(said)!r}).write_text(make_url(smp_database).query["host"])
        """,
    )
    done.assert_outcomes(passed=1)
    sockets = Path(said.read_text())
    assert sockets.is_absolute()
    assert not sockets.exists()
    assert not sockets.parent.exists() or sockets.parent == Path("/tmp")


TESTS = """
import pytest
from lifecycles import Review

from statemachine_pipeline import Facts

@pytest.mark.parametrize("good", [True, False])
def test_it(good):
    edge = Review.graph.advance("written", Facts(reported={"good": good}))
    assert edge.to_state == ("accepted" if good else "refused")

def test_restarts():
    Review.graph.restart("refused", "reprocess")
"""

FAILURES = """
from lifecycles import Review
from statemachine_pipeline import Facts

def test_failures():
    for attempt, trigger in ((1, "retry"), (5, "fail")):
        Review.graph.step("written", trigger, Facts(attempt=attempt, attempts_allowed=5))
    Review.graph.step("written", "cancel", Facts())
"""


def test_coverage_is_told_and_put_into_a_file(inside: Session, pytester: pytest.Pytester) -> None:
    """'Report which states, edges and guards of this lifecycle the tests exercise.'."""
    done = inside(
        "--lifecycle-cov=lifecycles:Review",
        "--lifecycle-cov-json=covered.json",
        "--lifecycle-cov-fail-under=36",
        lifecycles=LIFECYCLE,
        test_it=TESTS,
    )
    assert done.ret == 0
    done.stdout.fnmatch_lines(
        [
            "*lifecycle coverage: lifecycles:Review*",
            "state * entered",
            "written * 1",
            "refused * 1",
            "dead_letter * -",
            "edge * taken  guards: agreed, refused",
            "written>accept>accepted * 1  is_good 1, 1",
            "written>refuse>refused * 1",
            "written>fail>dead_letter * -  not may_retry -, -",
            "restart * taken",
            "refused>reprocess>written * 1",
            "never taken: written>retry>written",
            "never agreed: may_retry of written>retry>written",
            "36.4 % of edges and verdicts, 7 missing",
        ]
    )
    stored = json.loads((pytester.path / "covered.json").read_text())["lifecycles:Review"]
    assert stored["edges"]["written>accept>accepted"] == 1
    assert ["written>accept>accepted", "is_good", False, 1] in stored["verdicts"]
    assert len(stored["missing"]) == 7


def test_coverage_of_several_processes_is_one(session: Session) -> None:
    """'Merged over pytest-xdist workers': each exercised a part, together they did all."""
    done = session(
        *("-n", "2", "--dist", "loadfile", "--lifecycle-cov=lifecycles:Review"),
        "--lifecycle-cov-fail-under=100",
        lifecycles=LIFECYCLE,
        test_it=TESTS,
        test_failures=FAILURES,
    )
    assert done.ret == 0
    done.stdout.fnmatch_lines(["100.0 % of edges and verdicts, 0 missing"])


def test_what_only_looks_at_a_lifecycle_exercises_nothing(inside: Session, smp_server: str) -> None:
    """Lint, paths and the model check see the lifecycle's own graph; walks are what counts."""
    done = inside(
        f"--smp-server={smp_server}",
        "--lifecycle-cov=lifecycles:Review",
        "-kclean or machine or refuse and not (reprocess or revise or delete)",
        lifecycles=LIFECYCLE,
        test_it="""
        import asyncio

        import pytest
        from lifecycles import Review
        from statemachine_pipeline.testing import (
            assert_lint_clean, every_transition, lifecycle_machine, model_check, walk
        )

        pytestmark = pytest.mark.smp_pipeline(lifecycle=Review, hooks={"accept": None})

        def test_it_is_clean():
            assert_lint_clean(Review)
            model_check(Review, crashes=0, duplicates=0).raise_for_violation()

        @every_transition(Review)
        def test_an_edge(path, smp_pipeline):
            async def scenario():
                async with smp_pipeline(hooks={"refuse": None}) as pipeline:
                    await walk(path, pipeline)

            asyncio.run(scenario())

        def test_what_a_machine_does_counts(smp_server):
            with lifecycle_machine(Review, database=smp_server).replay() as state:
                state.submit()
                goal = "written>retry>written"
                state.walk(document=0, goal=goal, steps=1, goes_on=True)
        """,
    )
    assert done.ret == 0, done.stdout.str()
    done.stdout.fnmatch_lines(
        [
            "written>accept>accepted * -  is_good -, *",
            "written>refuse>refused * 2",
            "written>retry>written * 1  may_retry *, -",
            "written>cancel>cancelled * -",
        ]
    )


def test_a_process_that_crashed_is_told_of(inside: Session) -> None:
    """'One that crashed says nothing': its node has no output."""
    done = inside(
        "--lifecycle-cov=lifecycles:Review",
        lifecycles=LIFECYCLE,
        conftest="""
        def pytest_sessionfinish(session):
            plugin = session.config.pluginmanager.get_plugin("statemachine_pipeline_watching")
            plugin.pytest_testnodedown(node=object())
        """,
        test_it=TESTS,
    )
    done.stdout.fnmatch_lines(["1 process(es) crashed, and what they exercised is not counted"])


def test_too_little_coverage_fails_the_session(inside: Session) -> None:
    """'Fail if less of the edges and verdicts of a lifecycle was exercised.'."""
    under = ("--lifecycle-cov=lifecycles:Review", "--lifecycle-cov-fail-under=90")
    done = inside(*under, lifecycles=LIFECYCLE, test_it=TESTS)
    done.assert_outcomes(passed=3)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["lifecycles:Review: 36.4 % was exercised, 90 % are required"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lifecycles", "write it as module:Class"),
        ("nowhere:Review", "No module named 'nowhere'*write it as module:Class"),
        ("lifecycles:Other", "has no attribute 'Other'*write it as module:Class"),
        ("lifecycles:is_good", "is_good declares no lifecycle"),
    ],
)
def test_a_name_that_is_no_lifecycle_ends_the_session(
    inside: Session, name: str, said: str
) -> None:
    """What was asked, what was found, what to do."""
    done = inside(f"--lifecycle-cov={name}", lifecycles=LIFECYCLE, test_it=TESTS)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: --lifecycle-cov={name}: *{said}*"])


def test_a_watched_lifecycle_works_as_ever(inside: Session, smp_server: str) -> None:
    """'Decides as that one does, and is counted': stored, claimed, explained, moved by hand."""
    done = inside(
        f"--smp-server={smp_server}",
        "--lifecycle-cov=lifecycles:Review",
        lifecycles=LIFECYCLE,
        test_it="""
        import asyncio
        import pytest
        from lifecycles import Review
        from statemachine_pipeline import Done
        from statemachine_pipeline.testing import drain

        @pytest.mark.smp_pipeline(lifecycle=Review)
        def test_it(smp_pipeline):
            async def work():
                tries = iter([OSError("down"), Done(good=False)])
                async def check(claim):
                    outcome = next(tries)
                    if isinstance(outcome, Exception):
                        raise outcome
                    return outcome
                async with smp_pipeline(hooks={"accept": check, "refuse": None}) as pipeline:
                    document = (await pipeline.submit(b"text")).document_id
                    assert await drain(pipeline) == {"refused": 1}
                    await pipeline.explain(document)
                    await pipeline.apply("delete", document, reason="over")
            asyncio.run(work())
        """,
    )
    assert done.ret == 0
    done.stdout.fnmatch_lines(
        [
            "written>accept>accepted * -  is_good -, 1",
            "written>refuse>refused * 1",
            "written>retry>written * 1  may_retry 1, -",
            "written>fail>dead_letter * -  not may_retry -, 1",
            "refused>delete>deleted * 1",
        ]
    )


def test_the_plugin_is_declared(pytestconfig: pytest.Config) -> None:
    """Pytest finds it by its entry point, in group ``pytest11``."""
    import tomllib

    declared: dict[str, Any] = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text())
    points = declared["project"]["entry-points"]["pytest11"]
    assert points == {"statemachine_pipeline": "statemachine_pipeline.testing.plugin"}
