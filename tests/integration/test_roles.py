"""``migrate --app-role``: a role that does all daily work, and cannot rewrite what happened."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from fix_pipelines import BRIEFLY, HashEmbedder, Hooks, completed, pipeline_with, running
from fix_postgres import connect
from loguru import logger
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from typer.testing import CliRunner

from statemachine_pipeline import Budget, Pipeline, Provider, Reject, Stage
from statemachine_pipeline.cli import app
from statemachine_pipeline.database import search
from statemachine_pipeline.database.roles import GRANTS
from statemachine_pipeline.errors import RoleRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from statemachine_pipeline.hooks import Claim

    Psql = psycopg.Connection[Any]

ODD = 'role of "tests" 100%:s '


@pytest.fixture
def role(psql: Psql) -> Iterator[str]:
    """A role of this test's own without any rights, under a name that has to be quoted."""
    name = ODD + secrets.token_hex(6)
    psql.execute(f"CREATE ROLE {quoted(name)} LOGIN".encode())
    yield name
    psql.execute(f"DROP OWNED BY {quoted(name)}; DROP ROLE {quoted(name)}".encode())


def quoted(name: str) -> str:
    """Return a role's name as SQL."""
    return psycopg.sql.Identifier(name).as_string()


def url_as(url: str, role: str) -> str:
    """Return the URL by which a role connects."""
    return make_url(url).set(username=role).render_as_string(hide_password=False)


@contextlib.asynccontextmanager
async def working_as(url: str, role: str, hooks: Hooks, **own: Any) -> AsyncIterator[Pipeline]:
    """Open a pipeline of cheap hooks as a role."""
    engine = create_async_engine(url_as(url, role))
    try:
        yield pipeline_with(engine, hooks, **own)
    finally:
        await engine.dispose()


class Elsewhere:
    """A store outside the database, from which documents are withdrawn."""

    def __init__(self) -> None:
        self.held: set[Any] = set()

    async def publish(self, claim: Claim) -> None:
        self.held.add(claim.document.id)

    async def withdraw(self, claim: Claim) -> None:
        self.held.discard(claim.document.id)


async def test_the_whole_life_of_documents_needs_no_other_role(
    database_url: str, psql: Psql, role: str
) -> None:
    """'Grants what a worker needs': and a submitter, whoever searches, and every other verb."""
    await _granted(database_url, role)
    hooks, store = Hooks(), Elsewhere()
    async with working_as(database_url, role, hooks, finalize=store) as pipeline:
        told = hooks.finish_parse
        sent = [(await pipeline.submit(text)).document_id for text in (b"one\n\ntwo", b"three")]
        assert await completed(pipeline, *sent) == ["complete", "complete"]
        await pipeline.operations.submit_many([b"four", b"one\n\ntwo more"])
        told.raises(Reject("no"))
        await completed(pipeline)
        assert len(await pipeline.operations.dead_letters()) == 1
        assert (
            len((await pipeline.operations.requeue(tenant="default", reason="mended")).moved) == 1
        )
        async with running(pipeline):
            everything = [one.id for one in await pipeline.documents()]
            await pipeline.wait(*everything, timeout=BRIEFLY)
        assert len(store.held) == 4

        paused = await pipeline.operations.pause(stage="finalize", reason="it moves")
        later = (await pipeline.submit(b"five")).document_id
        await completed(pipeline)
        assert "it moves" in str(await pipeline.explain(later))
        assert await pipeline.operations.resume(stage="finalize") == [paused]
        cancelled = await pipeline.apply("cancel", later, reason="not wanted")
        assert cancelled.moved == (later,)

        await pipeline.apply("reprocess", sent[1], reason="again")
        await completed(pipeline)
        await pipeline.apply("delete", sent[0], reason="asked for")
        await completed(pipeline)
        assert sent[0] not in store.held
        assert await pipeline.operations.events(limit=1000)
        assert (await pipeline.get(sent[1])).state == "complete"
    assert psql.execute("SELECT count(*) FROM worker").fetchone() == (0,)


async def test_it_searches_what_it_published(
    database_url: str, psql: Psql, role: str, tmp_path: Path
) -> None:
    """Chunks and vectors, objects in a store, budgets of providers: by the same role."""
    await _granted(database_url, role)
    store = tmp_path / "store"
    asking = Stage(HashEmbedder(), provider=Provider("voyage", budget=Budget(requests=1000)))
    own = {"store_embeddings": asking, "blobs": f"file://{store}"}
    async with working_as(database_url, role, Hooks(), **own) as pipeline:
        sent = (await pipeline.submit(b"one\n\ntwo")).document_id
        await completed(pipeline)
        assert {hit.text for hit in await pipeline.search("two")} == {"one", "two"}
        changed = await pipeline.submit(b"one\n\nthree", source_uri="own:1")
        await pipeline.submit(b"one\n\nfour", source_uri="own:1")
        await completed(pipeline)
        assert "four" in {hit.text for hit in await pipeline.search("four", mode="text")}
        (provider,) = await pipeline.operations.breakers()
        assert provider.requests is not None
        await pipeline.apply("delete", sent, changed.document_id, reason="test")
        assert await pipeline.search("one") == []
        await pipeline.operations.sweep(older_than=timedelta(0))
        assert [path for path in store.rglob("*") if path.is_file()] == []
    assert psql.execute("SELECT count(*) FROM blob_object WHERE NOT erasing").fetchone() == (0,)


FORBIDDEN = """
UPDATE transition SET reason = 'another'
DELETE FROM transition
TRUNCATE transition
TRUNCATE document CASCADE
DELETE FROM document
UPDATE lifecycle SET graph = '{}'
UPDATE alembic_version SET version_num = '0'
INSERT INTO restore VALUES (1)
ALTER TABLE transition DISABLE TRIGGER ALL
ALTER TABLE transition DROP CONSTRAINT transition_edge_is_declared
DROP TRIGGER history_is_not_changed ON transition
CREATE TABLE smp.mine (id integer)
CREATE OR REPLACE FUNCTION smp.refuse_change() RETURNS trigger LANGUAGE sql AS ''
DROP TABLE work
SELECT setval('claim_seq', 1)
SET session_replication_role = replica
"""


async def test_what_would_rewrite_history_is_refused(
    database_url: str, psql: Psql, role: str
) -> None:
    """'No UPDATE, DELETE or TRUNCATE on transition, no DDL': PostgreSQL says so itself."""
    await _granted(database_url, role)
    psql.execute(f"SET ROLE {quoted(role)}".encode())
    answers = {}
    for forbidden in FORBIDDEN.strip().splitlines():
        try:
            psql.execute(forbidden.encode())
        except psycopg.Error as error:
            answers[forbidden] = error.sqlstate
    psql.execute("RESET ROLE")
    assert answers == dict.fromkeys(FORBIDDEN.strip().splitlines(), "42501")


async def test_granting_again_changes_nothing_and_takes_back_what_was_too_much(
    database_url: str, psql: Psql, role: str
) -> None:
    """'Harmless when repeated', and 'nothing more', whatever was granted before."""
    await _granted(database_url, role)
    before = _acl(psql)
    await _granted(database_url, role)
    assert _acl(psql) == before
    psql.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA smp TO {quoted(role)}".encode())
    psql.execute(f"GRANT ALL ON SCHEMA smp TO {quoted(role)}".encode())
    assert _acl(psql) != before
    await _granted(database_url, role)
    assert _acl(psql) == before


async def test_a_role_that_may_rewrite_history_is_no_role_for_work(
    database_url: str, psql: Psql, role: str
) -> None:
    """Missing, superuser, member of the owner, or by PUBLIC: said, and nothing is changed."""
    with pytest.raises(RoleRefused, match=r"there is none of this name; CREATE ROLE it first"):
        await _granted(database_url, "nobody here")
    with pytest.raises(RoleRefused, match="it is a superuser all the same"):
        await _granted(database_url, "postgres")
    psql.execute("GRANT DELETE, UPDATE ON transition TO PUBLIC")
    with pytest.raises(RoleRefused, match="it may DELETE, UPDATE transition all the same"):
        await _granted(database_url, role)
    assert _acl(psql) == {}
    psql.execute("REVOKE ALL ON transition FROM PUBLIC")
    psql.execute(f"ALTER TABLE transition OWNER TO {quoted(role)}".encode())
    try:
        with pytest.raises(RoleRefused, match="it owns the tables all the same"):
            await _granted(database_url, role)
    finally:
        psql.execute("ALTER TABLE transition OWNER TO postgres")


async def test_only_the_owner_makes_the_vector_index(
    database_url: str, psql: Psql, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'Skipped with a clear warning by a worker that does not own the tables', and made later."""
    monkeypatch.setattr(search, "WORTH_AN_INDEX", 2)
    await _granted(database_url, role)
    said: list[Any] = []
    number = logger.add(lambda line: said.append(line.record["extra"].get("event_name")))
    logger.enable("statemachine_pipeline")
    async with working_as(database_url, role, Hooks()) as pipeline:
        await pipeline.submit(b"one\n\ntwo\n\nthree")
        await completed(pipeline)
        (found,) = [f for f in await pipeline.operations.oversight.doctor() if f.id == WANTED]
        assert (found.status, said.count("index.missing")) == ("warn", 1)
        assert "migrate, as the owner" in str(found.fix)
    logger.disable("statemachine_pipeline")
    logger.remove(number)
    await _granted(database_url, role)
    index = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'chunk_vector_embedder_%'"
    assert psql.execute(index.encode()).fetchone() == (1,)


WANTED = "vector_indexes"


def test_the_command_line_grants_too(database_url: str, psql: Psql, role: str) -> None:
    """``migrate --app-role`` says what it did; a slip in the name is a usage error."""
    env = {"SMP_DATABASE": database_url}
    done = CliRunner().invoke(app, ["migrate", "--app-role", role], env=env)
    assert done.exit_code == 0, done.stderr
    assert "may work, and cannot change history" in done.stdout
    assert set(_acl(psql)) == {*GRANTS, "claim_seq", "smp"}
    slip = CliRunner().invoke(app, ["migrate", "--app-role", "slip", "--dry-run"], env=env)
    assert (slip.exit_code, "CREATE ROLE it first" in slip.stderr) == (2, True)


def test_migrate_says_to_a_role_for_daily_work_that_it_is_not_the_one(
    database_url: str, role: str
) -> None:
    """'Which account, what it lacks, and what to do', also where nothing would be changed."""
    granted = ["migrate", "--app-role", role, "--json"]
    (line,) = (
        CliRunner().invoke(app, granted, env={"SMP_DATABASE": database_url}).stdout.split("\n")[:-1]
    )
    told = json.loads(line)
    assert (told["revision_before"], told["revision"], told["app_role"]) == ("0001", "0001", role)
    env = {"SMP_DATABASE": url_as(database_url, role)}
    for words in ([], ["--dry-run"]):
        done = CliRunner().invoke(app, ["migrate", *words], env=env)
        assert (done.exit_code, done.stdout) == (4, "")
        assert f"role {role!r} cannot migrate: the tables in schema 'smp' belong to 'postgres'" in (
            done.stderr
        )
        assert "connect as that role to migrate" in done.stderr


LACKS = {
    "": "schema 'smp' is not there, and the role may not create it; as an administrator: GRANT "
    "CREATE ON DATABASE",
    "CREATE SCHEMA smp": "no tables, and the role may not create any there; as its owner: GRANT "
    'CREATE ON SCHEMA "smp" TO',
    "CREATE SCHEMA smp AUTHORIZATION": "the extension `vector` is not there, and the role may not "
    "create it; as a superuser, once: CREATE EXTENSION vector",
}


def test_who_begins_is_told_the_first_right_that_is_missing(empty_url: str) -> None:
    """One after another, until the role may do all of it; then it owns what it made."""
    role = f"owner of {secrets.token_hex(6)}"
    env = {"SMP_DATABASE": url_as(empty_url, role)}
    with connect(empty_url) as psql:
        psql.execute(f"CREATE ROLE {quoted(role)} LOGIN".encode())
        psql.execute("DROP EXTENSION IF EXISTS vector")
        for given, lacks in LACKS.items():
            whose = quoted(role) if given.endswith("AUTHORIZATION") else ""
            psql.execute(f"DROP SCHEMA IF EXISTS smp; {given} {whose}".encode())
            done = CliRunner().invoke(app, ["migrate"], env=env)
            assert (done.exit_code, lacks in done.stderr) == (4, True), done.stderr
        psql.execute("CREATE EXTENSION vector")
        done = CliRunner().invoke(app, ["migrate"], env=env)
        assert (done.exit_code, "nothing -> 0001" in done.stdout) == (0, True), done.stderr
        psql.execute(f"DROP OWNED BY {quoted(role)}; DROP ROLE {quoted(role)}".encode())


async def test_a_bulk_verb_that_needs_another_role_says_which(
    database_url: str, psql: Psql, role: str
) -> None:
    """A dry run counts truly by any role and says whether this may; a missing right has advice."""
    await _granted(database_url, role)
    hooks = Hooks()
    hooks.finish_parse.raises(Reject("no"))
    async with working_as(database_url, role, hooks) as pipeline:
        await pipeline.submit(b"bad")
        await completed(pipeline)
        await pipeline.submit(b"good")
        await completed(pipeline)

    async def run(*words: str) -> tuple[int, str]:
        env = {"SMP_DATABASE": url_as(database_url, role)}
        done = await asyncio.to_thread(CliRunner().invoke, app, words, env=env)
        return done.exit_code, done.stderr

    would = await run("prune", "--older-than", "0.001s", "--dry-run")
    assert "prune: 1 document would go" in would[1]
    assert "this role may not do it: history belongs to the role 'postgres'" in would[1]
    refused = await run("prune", "--older-than", "0.001s")
    assert (refused[0], "connect as the owner" in refused[1]) == (4, True)
    psql.execute(f"REVOKE INSERT ON transition FROM {quoted(role)}".encode())
    code, told = await run("delete", "--state", "complete")
    assert (code, "permission denied for table transition; `statemachine-pipe" in told) == (1, True)


async def _granted(url: str, role: str) -> None:
    """Migrate as the owner."""
    engine = create_async_engine(url)
    try:
        await pipeline_with(engine).migrate(app_role=role)
    finally:
        await engine.dispose()


def _acl(psql: Psql) -> dict[str, list[str]]:
    """Return what anybody but the owner may do, by object."""
    rows = psql.execute(
        "SELECT name, a.privilege_type FROM (SELECT relname AS name, relacl AS acl, relowner AS o "
        "FROM pg_class WHERE relnamespace = 'smp'::regnamespace UNION ALL SELECT nspname, nspacl, "
        "nspowner FROM pg_namespace WHERE nspname = 'smp') AS found, aclexplode(acl) AS a "
        "WHERE a.grantee NOT IN (0, o) ORDER BY 1, 2"
    ).fetchall()
    found: dict[str, list[str]] = {}
    for name, privilege in rows:
        found.setdefault(name, []).append(privilege)
    return found
