"""``doctor``: each thing that it looks for is caused, found, and told with what mends it."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from typing import TYPE_CHECKING, Any

from fix_lifecycles import Longer, Short
from fix_pipelines import HashEmbedder, Hooks, completed, hand, pipeline_with
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from typer.testing import CliRunner, Result

from statemachine_pipeline import Pipeline, Reject, Stage, by_hand
from statemachine_pipeline.cli import app
from statemachine_pipeline.database import inspection
from statemachine_pipeline.database.inspection import Inspection
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.hooks import Done
from statemachine_pipeline.oversight import doctor
from statemachine_pipeline.oversight.checks import server, verdicts
from statemachine_pipeline.oversight.checks.catalogue import CHECKS
from statemachine_pipeline.oversight.checks.verdicts import Subject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import psycopg
    import pytest
    from fix_logs import Log
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.oversight.checks.verdicts import Verdict

    Psql = psycopg.Connection[Any]

BY_ID = {check.id: check for check in CHECKS}


async def verdict(pipeline: Pipeline, check: str) -> Verdict:
    """Make one check as ``doctor`` does."""
    t = tables(pipeline.schema)
    subject = Subject(
        inspection=Inspection(pipeline.engine, t),
        engine=pipeline.engine,
        t=t,
        stages=pipeline.stages,
        blobs=pipeline._blobs,
    )
    return await doctor._made(BY_ID[check], subject)


@contextlib.asynccontextmanager
async def at(url: str, **options: Any) -> AsyncIterator[Pipeline]:
    """Open a pipeline of cheap hooks on an engine of its own."""
    engine = create_async_engine(url, **options)
    try:
        yield pipeline_with(engine)
    finally:
        await engine.dispose()


CAUSES = {
    "autovacuum": (
        "ALTER TABLE work SET (autovacuum_enabled = false)",
        *("warn", "off for work", "ALTER TABLE smp.work RESET"),
    ),
    "durability": ("ALTER DATABASE {} SET synchronous_commit = off", "", "off: a", "on"),
    "connections": (
        "ALTER DATABASE {} CONNECTION LIMIT 1",
        *("warn", "of 1 connections are taken", "raise max_connections"),
    ),
    "schema": (
        "UPDATE alembic_version SET version_num = '0000'",
        *("fail", "revision 0000, and this version knows none after", "upgrade this program"),
    ),
    "indexes": ("DROP INDEX document_tenant_idx", "warn", "document_tenant_idx", "REINDEX"),
    "providers": (
        """INSERT INTO breaker (provider, state, reason, opened_at, until)
           VALUES ('voyage', 'open', '503 five times', '2026-01-01Z', '2026-01-02Z');
           INSERT INTO budget (provider, per_seconds, hold_seconds) VALUES ('voyage', 60, 10)""",
        *("warn", "'voyage' is not asked since 2026-01-01 00:00:00 UTC: 503 five", "providers"),
    ),
    "fault_pauses": (
        """INSERT INTO pause (stage, fault, reason, by, until) VALUES
           ('store_embeddings', true, '401: wrong key', 'pipeline', now() + interval '5 min')""",
        *("warn", "stage store_embeddings until", "resume --stage"),
    ),
    "workers": (
        """INSERT INTO worker (host, pid, version, beat_at)
           VALUES ('box', 7, '1', now() - interval '2 hours')""",
        *("warn", "(box, pid 7) for 7,200 s", "its log"),
    ),
    "worker_versions": (
        "INSERT INTO worker (host, pid, version) VALUES ('a', 1, '0.9'), ('b', 2, '1.0')",
        *("warn", "run 2 versions: 0.9, 1.0", "SIGTERM"),
    ),
}


async def test_what_can_be_caused_by_a_statement_is_found(engine: AsyncEngine, psql: Psql) -> None:
    """Each is well before, and told with its cause and its cure after."""
    pipeline = pipeline_with(engine)
    database = str(make_url(engine.url).database)
    for check, (statement, status, message, fix) in CAUSES.items():
        # A server for tests may be one that forgets, which is told before anything else.
        assert status == "" or (await verdict(pipeline, check)).status == "ok", check
        psql.execute(statement.format(database).encode())
        await engine.dispose()  # settings of a database hold for new connections
        found = await verdict(pipeline, check)
        assert found.status in ([status] if status else ["warn", "fail"])
        assert (message in found.message, fix in str(found.fix)) == (True, True), found


HOLES = {
    "trigger history_is_not_ahead on transition is switched off": (
        "ALTER TABLE transition DISABLE TRIGGER history_is_not_ahead"
    ),
    "trigger history_is_not_changed on transition is missing": (
        "DROP TRIGGER history_is_not_changed ON transition"
    ),
    "trigger document_goes_with_its_history on document is missing": (
        "DROP TRIGGER document_goes_with_its_history ON document"
    ),
    "trigger document_stands_at_its_newest_transition on document is switched off": (
        "ALTER TABLE document DISABLE TRIGGER ALL"
    ),
    "constraint transition_continues_its_predecessor on transition is missing": (
        "ALTER TABLE transition DROP CONSTRAINT transition_continues_its_predecessor"
    ),
    "edge uploaded>cheat>complete is legal and in no lifecycle": (
        "ALTER TABLE transition DROP CONSTRAINT transition_edge_is_declared, ADD CONSTRAINT "
        "transition_edge_is_declared CHECK (coalesce(from_state, '') || '>' || trigger || '>' || "
        "to_state = ANY (ARRAY['uploaded>cheat>complete', '>submit>uploaded'])) NOT VALID"
    ),
    "function refuse_change is another one": (
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RETURN NEW; END'"
    ),
    "constraint transition_edge_is_declared on transition is missing": (
        "ALTER TABLE transition DROP CONSTRAINT transition_edge_is_declared"
    ),
}


async def test_whatever_no_longer_guards_histories_is_named(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'Whatever must hold is enforced in the database': what is missing, off or changed fails."""
    monkeypatch.setattr(verdicts, "SHOWN", 1000)
    pipeline = pipeline_with(engine)
    assert (await verdict(pipeline, "guards")).status == "ok"
    for problem, statement in HOLES.items():
        assert problem not in (await verdict(pipeline, "guards")).message
        psql.execute(statement.encode())
        found = await verdict(pipeline, "guards")
        assert (found.status, problem in found.message) == ("fail", True), found


async def test_a_role_that_skips_triggers_is_told(database_url: str) -> None:
    """``session_replication_role`` turns every guard off without changing any."""
    replica = {"options": "-c session_replication_role=replica"}
    async with at(database_url, connect_args=replica) as blind:
        assert "no trigger or foreign key is asked" in (await verdict(blind, "guards")).message


async def test_a_server_without_pgvector_is_told(engine: AsyncEngine, psql: Psql) -> None:
    """Fails, with the statement that mends it."""
    psql.execute("DROP EXTENSION vector CASCADE")
    found = await verdict(pipeline_with(engine), "server_version")
    assert (found.status, found.fix) == ("fail", "as a superuser: CREATE EXTENSION vector")
    columns = await verdict(pipeline_with(engine), "indexes")
    assert "columns are missing: vector_buffer.vector, chunk_vector.vector" in columns.message


async def test_an_old_transaction_is_told_with_who_holds_it(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds VACUUM up; process and role say whom to ask."""
    pipeline = pipeline_with(engine)
    assert (await verdict(pipeline, "oldest_transaction")).status == "ok"
    monkeypatch.setattr(server, "OLD_TRANSACTION_SECONDS", 0.0)
    with psql.transaction():
        psql.execute("SELECT 1")
        found = await verdict(pipeline, "oldest_transaction")
    assert found.status == "warn"
    assert f"process {psql.info.backend_pid} of " in found.message


async def test_a_full_disk_of_the_embedded_server_is_told(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other server's disk cannot be seen from here."""
    monkeypatch.setattr(server, "LITTLE_SPACE_BYTES", 10**18)
    found = await verdict(pipeline_with(engine), "disk")
    assert found.status == ("warn" if "free at" in found.message else "skip")


async def test_a_pool_for_more_connections_than_there_are_is_told(database_url: str) -> None:
    """Each worker may open as many as its pool has, and two more."""
    async with at(database_url, pool_size=5000) as greedy:
        found = await verdict(greedy, "connections")
    assert (found.status, "may ask for 5012" in found.message) == ("warn", True)


async def test_one_connection_is_enough(database_url: str) -> None:
    """An application's pool may be that small: no check takes two, or it is skipped."""
    async with at(database_url, pool_size=1, max_overflow=0) as narrow:
        found = {one.id: one for one in await narrow.operations.oversight.doctor()}
    assert "only connection" in found["notifications"].message
    assert {key for key, one in found.items() if one.status == "fail"} <= {"durability"}


async def test_the_rights_of_the_role_are_told(database_url: str, psql: Psql) -> None:
    """Too few fail, too many warn; and forgotten transactions of any role but the embedded one."""
    role = f"smp_test_{secrets.token_hex(6)}"
    psql.execute(f"CREATE ROLE {role} LOGIN".encode())
    url = make_url(database_url).set(username=role).render_as_string(hide_password=False)
    try:
        async with at(url) as working, at(database_url) as owner:
            found = {one.id: one for one in await working.operations.oversight.doctor()}
            assert "lacks USAGE on the schema, USAGE on claim_seq, " in found["role"].message
            assert f"--app-role {role}" in str(found["role"].fix)
            assert "permission denied for schema smp" in found["schema"].message
            assert found["guards"].status == "skip"
            await owner.migrate(app_role=role)
            assert (await verdict(working, "role")).status == "ok"
            psql.execute(f"GRANT DELETE ON transition TO {role}".encode())
            found = await verdict(working, "role")
            assert (found.status, "may DELETE transition" in found.message) == ("warn", True)
            psql.execute(f"ALTER TABLE work OWNER TO {role}".encode())
            found = await verdict(working, "role")
            assert (found.status, "owns work" in found.message) == ("warn", True)
            found = await verdict(working, "idle_transactions")
            assert (found.status, "= '5min'" in str(found.fix)) == ("warn", True)
            psql.execute(
                f"ALTER ROLE {role} SET idle_in_transaction_session_timeout = '5min'".encode()
            )
            await working.engine.dispose()
            assert "end after 300 s" in (await verdict(working, "idle_transactions")).message
    finally:
        psql.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER".encode())
        psql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


async def test_a_pooler_in_transaction_mode_is_told(
    pooled_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LISTEN is of no use there, and what is prepared gets lost."""
    monkeypatch.setattr(inspection, "HEARD_WITHIN_SECONDS", 0.3)
    async with at(pooled_url, connect_args={"prepare_threshold": None}) as pooled:
        assert (await verdict(pooled, "pooler")).message.startswith("a pooler stands between")
        found = await verdict(pooled, "notifications")
        assert (found.status, "a pooler in transaction mode" in found.message) == ("warn", True)
    async with at(pooled_url) as pooled:
        found = await verdict(pooled, "pooler")
        assert (found.status, "prepare_threshold=none" in str(found.fix)) == ("warn", True)


async def _pass(_: object) -> Done:
    return Done()


async def test_another_lifecycle_and_its_states_are_told(empty_url: str) -> None:
    """Code that is older than the database leaves documents alone that a newer one moved."""
    engine = create_async_engine(empty_url)
    try:
        short = Pipeline(engine, lifecycle=Short, hooks={"look": _pass})
        longer = Pipeline(engine, lifecycle=Longer, hooks={"check": _pass, "look": by_hand})
        await short.migrate()
        found = await verdict(longer, "lifecycle")
        assert (found.status, "'Longer' differs from" in found.message) == ("fail", True)
        await longer.migrate()
        await longer.submit(b"text")
        assert (await verdict(short, "unknown_states")).status == "ok"
        await completed(longer)
        found = await verdict(short, "unknown_states")
        assert (found.status, "1 in 'checked'" in found.message) == ("fail", True)
        assert (await verdict(longer, "unknown_states")).status == "ok"
    finally:
        await engine.dispose()


async def test_states_are_not_looked_for_where_all_are_known(
    engine: AsyncEngine, psql: Psql
) -> None:
    """'Only states of registered lifecycles are looked for', which reads every document."""
    pipeline = pipeline_with(engine)
    with psql.transaction():
        psql.execute("LOCK TABLE document IN ACCESS EXCLUSIVE MODE")
        assert (await verdict(pipeline, "unknown_states")).status == "ok"


async def test_a_rehearsal_is_no_submission_to_the_log(engine: AsyncEngine, log: Log) -> None:
    """'A document of its own is submitted, in a transaction that is rolled back'."""
    assert (await verdict(pipeline_with(engine), "claim")).status == "ok"
    assert log.lines == []


async def test_history_of_another_server_is_told(engine: AsyncEngine, psql: Psql) -> None:
    """Until ``migrate`` ran, as after a restore."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"old")
    psql.execute(
        "SET session_replication_role = replica; UPDATE transition SET xact = xact + 1000000; "
        "RESET session_replication_role"
    )
    found = await verdict(pipeline, "event_order")
    assert (found.status, found.fix) == ("fail", "statemachine-pipeline migrate")
    await pipeline.migrate()
    assert (await verdict(pipeline, "event_order")).status == "ok"


async def test_a_hook_that_no_child_process_can_import_is_told(engine: AsyncEngine) -> None:
    """It would be found out by the first document else."""

    def local(claim: object) -> Done:
        return Done()

    pipeline = pipeline_with(engine, accept_parse=Stage(local, run="process"))
    found = await verdict(pipeline, "hooks")
    assert (found.status, "accept_parse: " in found.message) == ("fail", True)
    assert (await verdict(pipeline_with(engine), "hooks")).status == "ok"
    unknown = Pipeline(engine, lifecycle=None)
    async with unknown:
        assert (await verdict(unknown, "hooks")).status == "skip"
        assert (await verdict(unknown, "claim")).status == "skip"


async def test_vectors_of_another_length_are_told(engine: AsyncEngine) -> None:
    """Under one name there is one length."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text")
    await completed(pipeline)
    assert (await verdict(pipeline, "vectors")).message == "store_embeddings has 4 dimensions"

    class Wider(HashEmbedder):
        dimensions = 8

    found = await verdict(pipeline_with(engine, store_embeddings=Wider()), "vectors")
    assert (found.status, "8 dimensions, and vectors with 4" in found.message) == ("fail", True)


async def test_bytes_that_cannot_be_read_are_told(engine: AsyncEngine, tmp_path: Path) -> None:
    """Lost, out of reach, or in a store that this pipeline does not name."""
    folder = tmp_path / "store"
    pipeline = pipeline_with(engine, blobs=f"file://{folder}")
    found = await verdict(pipeline, "blobs")
    assert (found.status, "nothing is there yet" in found.message) == ("warn", True)
    another = folder / "another"  # an empty folder may be one that is not mounted
    another.write_text("")
    assert "no document's bytes are there yet" in (await verdict(pipeline, "blobs")).message
    await pipeline.submit(b"text")
    assert "can be read" in (await verdict(pipeline, "blobs")).message
    found = await verdict(pipeline_with(engine), "blobs")
    assert (found.status, "names none" in found.message) == ("fail", True)
    for path in [one for one in folder.rglob("*") if one.is_file() and one != another]:
        path.unlink()
    found = await verdict(pipeline, "blobs")
    assert (found.status, "has lost" in found.message) == ("fail", True)


async def test_a_claim_that_cannot_be_made_breaks_its_check_and_no_other(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'One check that raises is a fail of that check and ends nothing'; nothing is left of it."""
    monkeypatch.setattr(inspection, "HEARD_WITHIN_SECONDS", 20.0)
    pipeline = pipeline_with(engine)
    assert "it was rolled back" in (await verdict(pipeline, "claim")).message
    psql.execute("ALTER TABLE work ADD CONSTRAINT shut CHECK (lane <> 'claimed')")
    found = await pipeline.operations.oversight.doctor()
    broken = {one.id: one for one in found}["claim"]
    assert (broken.status, 'constraint "shut"' in broken.message) == ("fail", True)
    assert [one.id for one in found] == list(BY_ID)
    assert {one.status for one in found if one.id not in {"claim", "durability"}} <= {"ok", "skip"}
    left = "SELECT (SELECT count(*) FROM document) + (SELECT count(*) FROM worker)"
    assert psql.execute(left).fetchone() == (0,)


async def test_a_claim_that_nobody_rescues_is_told(engine: AsyncEngine, psql: Psql) -> None:
    """Any running worker would have taken it back."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text")
    await (await hand(pipeline)).claim_one()
    assert (await verdict(pipeline, "stuck_claims")).status == "ok"
    psql.execute("UPDATE work SET deadline_at = '2026-01-01Z'")
    found = await verdict(pipeline, "stuck_claims")
    assert (found.status, "since 2026-01-01" in found.message) == ("warn", True)


async def test_work_that_nobody_does_is_told(engine: AsyncEngine, psql: Psql) -> None:
    """'No worker while work is due' fails; not so where people paused it."""
    pipeline = pipeline_with(engine)
    assert (await verdict(pipeline, "work")).status == "ok"
    await pipeline.submit(b"text")
    found = await verdict(pipeline, "work")
    assert (found.status, "1 at queue_parse for" in found.message) == ("fail", True)
    await pipeline.operations.pause(stage="queue_parse", reason="test")
    assert (await verdict(pipeline, "work")).status == "ok"
    await pipeline.operations.resume(stage="queue_parse")
    serves = "INSERT INTO worker (host, pid, version, serves) VALUES ('a', 1, '1', %s)"
    psql.execute(serves, ['{"finalize": null}'])
    assert (await verdict(pipeline, "work")).status == "fail"
    psql.execute(serves, ['{"queue_parse": null}'])
    assert (await verdict(pipeline, "work")).status == "ok"


async def test_a_worker_with_a_strange_lifecycle_is_told(engine: AsyncEngine, psql: Psql) -> None:
    """It was started with code that nobody migrated to."""
    psql.execute("INSERT INTO worker (host, pid, version, lifecycle) VALUES ('a', 1, '1', 'gone')")
    found = await verdict(pipeline_with(engine), "worker_versions")
    assert (found.status, "does not know: worker 1 (a, pid 1)" in found.message) == ("warn", True)


async def test_what_failed_lately_is_told_by_stage_and_code(
    engine: AsyncEngine, psql: Psql
) -> None:
    """'Dead letters growing': which stage and code, how many; older ones are no news."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    hooks.finish_parse.raises(Reject("no text in it", code="scanned"))
    await pipeline.submit(b"text")
    await completed(pipeline)
    found = await verdict(pipeline, "dead_letters")
    assert (found.status, "1 at finish_parse (scanned)" in found.message) == ("warn", True)
    psql.execute("UPDATE dead_letter SET at = at - interval '2 hours'")
    assert (await verdict(pipeline, "dead_letters")).status == "ok"


async def test_a_worker_that_was_killed_is_told_while_silent_and_after(
    engine: AsyncEngine, psql: Psql
) -> None:
    """From its second missed beat on, and for an hour after it was declared dead."""
    pipeline = pipeline_with(engine)
    psql.execute("INSERT INTO worker (host, pid, version) VALUES ('a', 1, '1'), ('b', 2, '1')")
    psql.execute("UPDATE worker SET beat_at = now() - interval '15 seconds' WHERE host = 'a'")
    assert (await verdict(pipeline, "workers")).status == "ok"
    psql.execute("UPDATE worker SET beat_at = now() - interval '25 seconds' WHERE host = 'a'")
    found = await verdict(pipeline, "workers")
    assert (found.status, "silent: worker 1 (a, pid 1) for 2" in found.message) == ("warn", True)
    psql.execute("UPDATE worker SET dead_at = '2026-01-01Z' WHERE host = 'a'")
    found = await verdict(pipeline, "workers")
    said = "last hour: worker 1 (a, pid 1) at 2026-01-01 00:00:00 UTC; 1 worker lives"
    assert (found.status, said in found.message) == ("warn", True)


async def test_a_worker_that_missed_two_beats_may_yet_do_what_is_due(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A short silence is a warning about the worker; nobody else counts it as dead either."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"text")
    serves = "INSERT INTO worker (host, pid, version, serves) VALUES ('a', 1, '1', %s)"
    psql.execute(serves, ['{"queue_parse": null}'])
    psql.execute("UPDATE worker SET beat_at = now() - interval '25 seconds'")
    assert (await verdict(pipeline, "work")).status == "ok"
    psql.execute("UPDATE worker SET beat_at = now() - interval '61 seconds'")
    assert (await verdict(pipeline, "work")).status == "fail"


async def test_crashes_are_told_whatever_else_fails(engine: AsyncEngine, psql: Psql) -> None:
    """A document that crashed is named while it is tried again, and once it was given up."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    assert (await verdict(pipeline, "crashes")).status == "ok"
    hooks.finish_parse.raises(Reject("no text in it", code="scanned"))
    sent = (await pipeline.submit(b"text")).document_id
    psql.execute("UPDATE work SET crashes = 1")
    found = await verdict(pipeline, "crashes")
    said = f"1 in 'uploaded' to be tried again, as {sent}"
    assert (found.status, said in found.message) == ("warn", True)
    await completed(pipeline)
    assert (await verdict(pipeline, "crashes")).status == "ok"
    psql.execute("UPDATE dead_letter SET crashes = 3")
    found = await verdict(pipeline, "crashes")
    said = f"1 given up at finish_parse (scanned), as {sent}"
    assert (found.status, said in found.message) == ("warn", True)
    psql.execute("UPDATE dead_letter SET at = at - interval '2 hours'")
    assert (await verdict(pipeline, "crashes")).status == "ok"


async def test_another_driver_spares_what_only_psycopg_shows(database_url: str) -> None:
    """An application on asyncpg gets every other check."""
    url = make_url(database_url).set(drivername="postgresql+asyncpg")
    async with at(url.render_as_string(hide_password=False)) as pipeline:
        found = {one.id: one for one in await pipeline.operations.oversight.doctor()}
    skipped = {key for key, one in found.items() if "asyncpg" in one.message}
    assert skipped == {"pooler", "notifications", "claim"}
    assert {key for key, one in found.items() if one.status == "fail"} <= {"durability"}


async def test_without_tables_or_database_the_rest_is_skipped(empty_url: str) -> None:
    """It says what is wrong, not thirty times what follows from it."""
    async with at(empty_url) as pipeline:
        found = {one.id: one for one in await pipeline.operations.oversight.doctor()}
    assert found["schema"].status == "fail"
    assert found["guards"].message == "the tables cannot be used: see schema"
    assert found["role"].message == "there is no schema smp"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and not listened on
        url = f"postgresql+psycopg://127.0.0.1:{nobody.getsockname()[1]}/none"
        async with at(url) as pipeline:
            found = {one.id: one for one in await pipeline.operations.oversight.doctor()}
    assert (found["database"].status, found["hooks"].status) == ("fail", "ok")
    others = {one.message for key, one in found.items() if key not in {"database", "hooks"}}
    assert others == {"the database does not answer"}


def test_the_command_line_tells_that_a_database_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 5, with the finding that says so and those that need no database."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"postgresql://127.0.0.1:{nobody.getsockname()[1]}/none"
        (tmp_path / "app_of_doctor.py").write_text(
            f"from statemachine_pipeline import Pipeline\npipeline = Pipeline({url!r})\n"
        )
        named = ("--app", "app_of_doctor:pipeline"), ("--database", url)
        both = [CliRunner().invoke(app, ["doctor", "--json", *words]) for words in named]
    for ended in both:
        _tells_that_it_is_away(ended)


def _tells_that_it_is_away(ended: Result) -> None:
    found = {one["id"]: one["status"] for one in map(json.loads, ended.stdout.splitlines())}
    assert (ended.exit_code, found.pop("database"), found.pop("hooks")) == (5, "fail", "ok")
    assert set(found.values()) == {"skip"}


def test_the_command_line_prints_findings_and_how_to_mend_them(
    database_url: str, psql: Psql
) -> None:
    """Exit code 1 when one fails; ``--json`` prints every field of each."""
    psql.execute("DROP TRIGGER history_is_not_changed ON transition")
    env = {"SMP_DATABASE": database_url}
    done = CliRunner().invoke(app, ["doctor"], env=env)
    assert done.exit_code == 1
    assert "fail guards histories are guarded no more" in " ".join(done.stdout.split())
    assert "guards: see docs/reference/tables.md" in done.stdout
    assert "to mend it: restore the schema" in done.stdout
    listed = CliRunner().invoke(app, ["doctor", "--json"], env=env)
    found = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [one["id"] for one in found] == list(BY_ID)
    assert set(found[0]) == {"id", "status", "message", "fix", "docs", "seconds"}
    assert listed.exit_code == 1
