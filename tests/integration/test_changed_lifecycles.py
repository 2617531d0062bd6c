"""A lifecycle that has lost or renamed states, on a database with documents in the old ones."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from fix_pipelines import BRIEFLY, accept, completed, hand, until, until_blocked
from statemachine import State
from typer.testing import CliRunner

from statemachine_pipeline import Done, Lifecycle, Pipeline, by_hand, same_bytes
from statemachine_pipeline.cli import app
from statemachine_pipeline.database import successors
from statemachine_pipeline.errors import (
    DefinitionError,
    LifecycleRetired,
    StaleClaim,
    StatesUnmapped,
)
from statemachine_pipeline.liveness import Liveness
from statemachine_pipeline.testing import assert_database_replays, assert_replays

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Claim
    from statemachine_pipeline.records import Facts

    Psql = psycopg.Connection[Any]


def is_old(facts: Facts) -> bool:
    """It goes to the archive."""
    return bool(facts.reported.get("is_old"))


class Before(Lifecycle):
    """Letters are scanned, approved and filed; old ones are put away."""

    received = State(initial=True)
    scanned, approving = State(), State()
    archived, filed = State(final=True), State(final=True)

    archive = received.to(archived, cond=is_old)
    scan = received.to(scanned)
    read = scanned.to(approving)
    approve = approving.to(filed)


class After(Lifecycle):
    """The same with other names for three states."""

    received = State(initial=True)
    digitised, deciding = State(), State()
    kept, filed = State(final=True), State(final=True)

    archive = received.to(kept, cond=is_old)
    scan = received.to(digitised)
    read = digitised.to(deciding)
    approve = deciding.to(filed)


STATES = {"scanned": "digitised", "approving": "deciding", "archived": "kept"}


async def scan(claim: Claim) -> Done:
    """Tell old letters by their text."""
    return Done(is_old=(await claim.source()).read().startswith(b"old"))


async def read(_: Claim) -> Done:
    """Earn the edge."""
    return Done()


HOOKS = {"archive": None, "scan": scan, "read": read, "approve": by_hand}


def letters(engine: AsyncEngine, lifecycle: type[Lifecycle], schema: str = "letters") -> Pipeline:
    """Return a pipeline of letters."""
    return Pipeline(engine, lifecycle=lifecycle, hooks=HOOKS, schema=schema)


async def sent(pipeline: Pipeline, *names: str) -> dict[str, UUID]:
    """Hand letters over; each one's text is its name."""
    return {name: (await pipeline.submit(name.encode())).document_id for name in names}


async def brought(pipeline: Pipeline, *triggers: str) -> None:
    """Run some stages until they have nothing left."""
    await pipeline.runner(triggers=triggers).run_until_idle()


@pytest.fixture
async def before(engine: AsyncEngine, psql: Psql) -> Pipeline:
    """Letters on the old lifecycle; ``psql`` looks at their schema."""
    pipeline = letters(engine, Before)
    await pipeline.migrate()
    psql.execute("SET search_path TO letters, public")
    return pipeline


def work_of(psql: Psql, document: UUID) -> Any:
    """Return state, lane, attempt, crashes, worker and fence of a document that does not rest."""
    query = "SELECT state, lane, attempt, crashes, worker, claim_seq FROM work WHERE document_id=%s"
    return psql.execute(query, [document]).fetchone()


def told(psql: Psql, document: UUID) -> list[str]:
    """Return the history of a document as codes of its edges."""
    query = (
        "SELECT coalesce(from_state, '') || '>' || trigger || '>' || to_state FROM transition "
        "WHERE document_id = %s ORDER BY version"
    )
    return [row[0] for row in psql.execute(query, [document])]


async def test_documents_in_every_lane_move_and_are_worked_to_their_end(
    before: Pipeline, engine: AsyncEngine, psql: Psql
) -> None:
    """Each moves by a row of history, ready, deferred, held or at rest as its new state wants."""
    ids = await sent(before, "held")
    await brought(before, "scan", "read")
    ids |= await sent(before, "ready", "claimed", "deferred", "crashed", "old")
    await brought(before, "scan")
    ids |= await sent(before, "shared", "untouched")
    psql.execute(
        "UPDATE work SET lane = 'deferred', attempt = 3, run_at = now() + interval '1 hour' "
        "WHERE document_id = %s",
        [ids["deferred"]],
    )
    psql.execute(
        "UPDATE work SET crashes = 2, alone = true WHERE document_id = %s", [ids["crashed"]]
    )
    old = await hand(before)
    claims = {c.document.name: (c, b) for c, b in await old.claim("read", "scan")}
    by_id = {claim.document.id: (claim, bound) for claim, bound in claims.values()}
    fences = {name: work_of(psql, id_)[5] for name, id_ in ids.items() if name != "old"}
    when = psql.execute("SELECT run_at FROM work WHERE lane = 'deferred'").fetchone()

    said = (await letters(engine, After).migrate(STATES)).said

    assert said.endswith(
        "After, 2 versions; moved 4 from scanned to digitised; moved 1 from approving to "
        "deciding; moved 1 from archived to kept"
    )
    lanes = {name: work_of(psql, id_) for name, id_ in ids.items()}
    assert lanes["ready"][:5] == ("digitised", "ready", 0, 0, None)
    assert lanes["claimed"][:5] == ("digitised", "ready", 0, 0, None)
    assert lanes["deferred"][:5] == ("digitised", "deferred", 0, 0, None)
    assert psql.execute("SELECT run_at FROM work WHERE lane = 'deferred'").fetchone() == when
    assert lanes["crashed"][:5] == ("digitised", "ready", 0, 2, None)
    assert lanes["held"][:5] == ("deciding", "held", 0, 0, None)
    assert lanes["old"] is None
    assert all(lanes[name][5] > fences[name] for name in fences if lanes[name][0] != "received")
    assert told(psql, ids["old"])[-1] == "archived>migrate>kept"
    # Hand is registered without a lifecycle, so only what was moved was taken from it.
    answers = [await old.settle(await old.earn(*by_id[ids["claimed"]]), alone=True)]
    assert isinstance(answers[0][0], StaleClaim)
    psql.execute("UPDATE work SET run_at = now() WHERE lane = 'deferred'")
    await old.workers.leave(old.worker)
    after = letters(engine, After)
    await asyncio.wait_for(after.runner().run_until_idle(), BRIEFLY.total_seconds())
    await after.apply("approve", state="deciding", reason="read")
    assert await after.counts() == {"filed": 7, "kept": 1}
    assert told(psql, ids["claimed"]) == [
        ">submit>received",
        "received>scan>scanned",
        "scanned>migrate>digitised",
        "digitised>read>deciding",
        "deciding>approve>filed",
    ]


async def test_a_worker_of_the_old_lifecycle_that_lives_writes_nothing_more_and_ends(
    before: Pipeline, engine: AsyncEngine, psql: Psql
) -> None:
    """It is refused, not corrupt: its claims are given back unspent, and it says why it ends."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(claim: Claim) -> Done:
        begun.set()
        await go_on.wait()
        return await scan(claim)

    old = Pipeline(engine, lifecycle=Before, hooks=HOOKS | {"scan": slow}, schema="letters")
    ids = await sent(before, "shared", "old one")
    beats = Liveness(beat=timedelta(milliseconds=500), dead_after=timedelta(minutes=5))
    running = asyncio.create_task(old.runner(liveness=beats).run())
    await asyncio.wait_for(begun.wait(), BRIEFLY.total_seconds())
    await until(psql, "SELECT count(*) = 2 FROM work WHERE lane = 'claimed'")

    await letters(engine, After).migrate(STATES)

    query = "SELECT lane, attempt, worker FROM work"
    assert psql.execute(query).fetchall() == [("ready", 0, None)] * 2
    go_on.set()
    with pytest.raises(LifecycleRetired, match=r"'scanned' became 'digitised'.*run the newer"):
        await asyncio.wait_for(running, BRIEFLY.total_seconds())
    assert psql.execute("SELECT count(*) FROM worker").fetchone() == (0,)
    assert {tuple(told(psql, one)) for one in ids.values()} == {(">submit>received",)}
    with pytest.raises(LifecycleRetired):
        await letters(engine, Before).runner().run_until_idle()
    after = letters(engine, After)
    await after.runner().run_until_idle()
    assert await after.counts() == {"deciding": 1, "kept": 1}


async def test_the_database_lets_nobody_back_into_a_state_that_was_left(
    before: Pipeline, engine: AsyncEngine, psql: Psql
) -> None:
    """Whatever client writes: a program of the old code that never looked again, for example."""
    ids = await sent(before, "one")
    await letters(engine, After).migrate(STATES)
    with pytest.raises(psycopg.errors.CheckViolation, match="leads_to_no_retired_state"):
        psql.execute(
            "WITH moved AS (UPDATE document SET state = 'scanned', version = 2 RETURNING id) "
            "INSERT INTO transition (document_id, version, life, generation, trigger, from_state, "
            "to_state, correlation_id) SELECT id, 2, 1, 1, 'scan', 'received', 'scanned', 'x' "
            "FROM moved"
        )
    assert told(psql, ids["one"]) == [">submit>received"]


async def test_going_back_to_the_old_lifecycle_opens_its_states_again(
    before: Pipeline, engine: AsyncEngine, psql: Psql
) -> None:
    """A migration can be undone by another, and both are in history."""
    ids = await sent(before, "old one", "one")
    await brought(before, "scan")
    await letters(engine, After).migrate(STATES)
    back = {new: old for old, new in STATES.items()}
    again = letters(engine, Before)
    assert "moved 1 from kept to archived" in str(await again.migrate(back))
    await brought(again, "scan", "read")
    assert await again.counts() == {"approving": 1, "archived": 1}
    assert told(psql, ids["old one"])[-2:] == ["archived>migrate>kept", "kept>migrate>archived"]
    with pytest.raises(LifecycleRetired):
        await letters(engine, After).counts()
    # What it was told before it still knows.
    assert "moved 1 from archived to kept" in str(await letters(engine, After).migrate())
    psql.execute("ALTER TABLE transition VALIDATE CONSTRAINT transition_edge_is_declared")


async def test_documents_in_states_without_a_successor_are_never_left_behind(
    before: Pipeline, engine: AsyncEngine, psql: Psql
) -> None:
    """They are counted, the option to write is named, and nothing was changed."""
    await sent(before, "one", "two", "old one")
    await brought(before, "scan")
    after = letters(engine, After)
    with pytest.raises(StatesUnmapped) as refused:
        await after.migrate()
    assert refused.value.counts == {"archived": 1, "scanned": 2}
    assert "migrate --map archived=NEW --map scanned=NEW" in str(refused.value)
    with pytest.raises(StatesUnmapped) as refused:
        await after.migrate({"scanned": "digitised"})
    assert refused.value.counts == {"archived": 1}
    assert psql.execute("SELECT count(*) FROM lifecycle").fetchone() == (1,)
    assert await before.counts() == {"archived": 1, "scanned": 2}


@pytest.mark.parametrize(
    ("states", "why"),
    [
        ({"received": "digitised"}, "After knows 'received' itself"),
        ({"scanned": "digitized"}, "declares no 'digitized'; it declares received, digitised"),
        ({"scanned": "cancelled"}, "declares no 'cancelled'"),
        ({"scanned": "filed"}, "what is at work would rest without having earned it"),
        ({"archived": "received"}, "what rests would begin to work within its life"),
    ],
)
async def test_a_move_that_makes_no_sense_is_refused_with_what_to_do(
    states: dict[str, str], why: str, before: Pipeline, engine: AsyncEngine, psql: Psql
) -> None:
    """Nothing was changed then, whatever else was asked for."""
    await sent(before, "one")
    for dry_run in (True, False):
        with pytest.raises(DefinitionError, match=why):
            await letters(engine, After).migrate(STATES | states, dry_run=dry_run)
    assert psql.execute("SELECT count(*) FROM lifecycle").fetchone() == (1,)


async def test_a_move_that_nobody_needs_is_no_error(engine: AsyncEngine) -> None:
    """One script serves a new database and an old one."""
    after = letters(engine, After, "fresh")
    assert str(await after.migrate({"never_was": "digitised"}, dry_run=True)).endswith(
        "; no documents would move"
    )
    assert "After, 1 version" in str(await after.migrate({"never_was": "digitised"}))
    assert (await after.migrate({"never_was": "digitised"})).said.endswith("1 version")


class TwinsBefore(Lifecycle):
    """Whoever has the bytes of another rests on it."""

    uploaded = State(initial=True)
    duplicate, complete = State(final=True), State(final=True)
    mark_duplicate = uploaded.to(duplicate, cond=same_bytes)
    keep = uploaded.to(complete)


class TwinsAfter(Lifecycle):
    """The same, by another name."""

    uploaded = State(initial=True)
    twin, complete = State(final=True), State(final=True)
    mark_duplicate = uploaded.to(twin, cond=same_bytes)
    keep = uploaded.to(complete)


async def test_what_a_document_rests_on_stays_when_its_end_is_renamed(
    engine: AsyncEngine, psql: Psql
) -> None:
    """Nothing but the state changes: a twin still takes over from its owner."""
    hooks = {"mark_duplicate": None, "keep": accept}
    old, new = (
        Pipeline(engine, lifecycle=one, hooks=hooks, schema="twins")
        for one in (TwinsBefore, TwinsAfter)
    )
    await old.migrate()
    first = await old.submit(b"same", source_uri="a:1")
    second = await old.submit(b"same", source_uri="a:2")
    assert sorted(await completed(old, first.document_id, second.document_id)) == [
        "complete",
        "duplicate",
    ]
    twin = (await old.documents(state="duplicate"))[0].id
    owner = ({first.document_id, second.document_id} - {twin}).pop()
    await new.migrate({"duplicate": "twin"})
    await new.apply("delete", owner, reason="gone")
    assert await completed(new, twin) == ["complete"]
    psql.execute("SET search_path TO twins, public")
    assert told(psql, twin)[-3:] == [
        "duplicate>migrate>twin",
        "twin>reprocess>uploaded",
        "uploaded>keep>complete",
    ]


async def test_a_dry_run_counts_and_changes_nothing(
    before: Pipeline, engine: AsyncEngine, psql: Psql
) -> None:
    """``--dry-run`` prints the count of each pair."""
    await sent(before, "one", "two", "old one")
    await brought(before, "scan")
    said = str(await letters(engine, After).migrate(STATES, dry_run=True))
    assert said == (
        "schema letters: at 0001; would make lifecycle After; "
        "would move 2 from scanned to digitised; would move 0 from approving to deciding; "
        "would move 1 from archived to kept"
    )
    assert await before.counts() == {"archived": 1, "scanned": 2}


PROGRAM = """
from statemachine_pipeline import Done, Lifecycle, Pipeline, State

class Renamed(Lifecycle):
    arrived, filed = State(initial=True), State(final=True)
    file = arrived.to(filed)

async def file(claim):
    return Done()

pipeline = Pipeline(lifecycle=Renamed, hooks={"file": file}, schema="letters")
"""


class Short(Lifecycle):
    """Letters that are only filed."""

    received, filed = State(initial=True), State(final=True)
    file = received.to(filed)


class Renamed(Lifecycle):
    """The lifecycle of ``PROGRAM``."""

    arrived, filed = State(initial=True), State(final=True)
    file = arrived.to(filed)


@pytest.fixture
async def short(engine: AsyncEngine, psql: Psql) -> Pipeline:
    """Letters on the lifecycle before that of ``PROGRAM``."""
    pipeline = Pipeline(engine, lifecycle=Short, hooks={"file": read}, schema="letters")
    await pipeline.migrate()
    psql.execute("SET search_path TO letters, public")
    return pipeline


async def test_a_migration_that_is_killed_in_the_middle_is_gone_on_with(
    short: Pipeline, engine: AsyncEngine, psql: Psql, database_url: str, tmp_path: Path
) -> None:
    """Batches commit by themselves; run again, without a word about states, it moves the rest."""
    (tmp_path / "killed_app.py").write_text(PROGRAM)
    await short.operations.submit_many(str(number).encode() for number in range(520))
    words = [sys.executable, "-m", "statemachine_pipeline", "--app", "killed_app:pipeline"]
    words += ["--database", database_url, "migrate", "--map", "received=arrived"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    last = "SELECT FROM letters.document ORDER BY id DESC LIMIT 1 FOR UPDATE"
    async with engine.begin() as other:
        await other.execute(sa.text(last))
        process = await asyncio.create_subprocess_exec(*words, env=environment)
        await until_blocked(psql)
        process.kill()
        await process.wait()
    await until(
        psql,
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() "
        "AND state <> 'idle' AND pid <> pg_backend_pid()",
    )
    assert dict(psql.execute("SELECT state, count(*) FROM document GROUP BY state").fetchall()) == {
        "arrived": 500,
        "received": 20,
    }

    again = Pipeline(engine, lifecycle=Renamed, hooks={"file": read}, schema="letters")

    assert (await again.migrate()).said.endswith("moved 20 from received to arrived")
    query = (
        "SELECT count(*), count(DISTINCT document_id), bool_and(version = 2) FROM transition "
        "WHERE trigger = 'migrate' AND from_state = 'received' AND to_state = 'arrived'"
    )
    assert psql.execute(query).fetchone() == (520, 520, True)
    assert psql.execute("SELECT DISTINCT state, lane FROM work").fetchall() == [
        ("arrived", "ready")
    ]


async def test_two_migrations_at_once_move_each_document_once(
    short: Pipeline, engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'By several processes at once': both end well, while workers of the new class work."""
    monkeypatch.setattr(successors, "BATCH", 5)
    await short.operations.submit_many(str(number).encode() for number in range(12))
    after = Pipeline(engine, lifecycle=Renamed, hooks={"file": read}, schema="letters")
    last = "SELECT FROM letters.document ORDER BY id DESC LIMIT 1 FOR UPDATE"
    async with engine.begin() as other:
        await other.execute(sa.text(last))
        both = [asyncio.create_task(after.migrate({"received": "arrived"})) for _ in range(2)]
        await until_blocked(psql, 2)
        async with after.runner():
            await until(psql, "SELECT count(*) = 10 FROM document WHERE state = 'filed'")
    said = [str(await one) for one in both]
    moved = [int(number) for one in said for number in re.findall(r"moved (\d+) from", one)]
    assert sum(moved) == 12
    await after.runner().run_until_idle()
    assert await after.counts() == {"filed": 12}
    query = "SELECT count(*) FROM transition WHERE trigger = 'migrate'"
    assert psql.execute(query).fetchone() == (12,)


async def test_the_command_line_moves_documents_and_shows_it(
    short: Pipeline, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``migrate --map OLD=NEW`` says what it did, and ``show`` tells the story."""
    (tmp_path / "moved_app.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    ids = await sent(short, "one")

    async def run(*words: str) -> Any:
        first = ["--app", "moved_app:pipeline", "--database", database_url]
        return await asyncio.to_thread(CliRunner().invoke, app, [*first, *words])

    for pairs in (["received"], ["received=arrived", "received=filed"]):
        wrong = await run("migrate", *(f"--map={pair}" for pair in pairs))
        assert (wrong.exit_code, "--map wants OLD=NEW" in wrong.stderr) == (2, True)
    left = await run("migrate")
    assert (left.exit_code, "migrate --map received=NEW" in left.stderr) == (1, True)
    unknown = await run("migrate", "--map", "received=arived")
    assert (unknown.exit_code, "declares no 'arived'" in unknown.stderr) == (2, True)
    dry = await run("migrate", "--map", "received=arrived", "--dry-run")
    assert dry.stdout == (
        "schema letters: at 0001; would make lifecycle Renamed; "
        "would move 1 from received to arrived\n"
    )
    done = await run("migrate", "--map", "received=arrived")
    assert done.stdout == (
        "schema letters: at 0001; lifecycle Renamed, 2 versions; moved 1 from received to arrived\n"
    )
    shown = (await run("show", str(ids["one"]))).stdout
    assert "progress: received > arrived > (filed)" in shown
    assert "by migrate, Renamed has no such state" in shown


async def test_histories_of_a_migrated_database_replay_with_the_map_and_not_without(
    before: Pipeline, engine: AsyncEngine
) -> None:
    """``assert_replays`` refuses what no edge explains, and accepts it with ``states``."""
    ids = await sent(before, "one", "two", "old one")
    await brought(before, "scan")
    async with Pipeline(engine, lifecycle=None, schema="letters") as stored:
        with pytest.raises(AssertionError) as refused:
            await assert_database_replays(stored, After)
        assert "received>scan>scanned: 2 x" in str(refused.value)
        assert "`migrate --map scanned=NEW`" in str(refused.value)
        planned = await assert_database_replays(stored, After, states=STATES)
    assert (planned.documents, planned.steps) == (3, 6)
    after = letters(engine, After)
    await after.migrate(STATES)
    await after.runner().run_until_idle()
    replayed = await assert_database_replays(after, After, states=STATES)
    assert (replayed.documents, replayed.steps) == (3, 11)
    assert replayed.edges["digitised>read>deciding"] == 2
    assert assert_replays(await after.history(ids["one"]), After, states=STATES).steps == 4
    with pytest.raises(AssertionError, match="scanned>migrate>digitised"):
        assert_replays(await after.history(ids["one"]), After)
