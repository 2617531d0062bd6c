"""Applications on other drivers and without an event loop submit, look and apply all the same."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from fix_pipelines import BRIEFLY, completed, path_of, pipeline_with
from psycopg.rows import dict_row
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session

from statemachine_pipeline import Incoming, Pipeline
from statemachine_pipeline.database.borrowed import at_once
from statemachine_pipeline.database.timeouts import Timeouts
from statemachine_pipeline.errors import (
    DatabaseUnavailable,
    DefinitionError,
    DocumentNotFound,
    PipelineError,
    SchemaMissing,
    SourceRefused,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    Psql = psycopg.Connection[Any]

NOBODY = UUID(int=1)
LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)


class Ends(Protocol):
    """What ends a transaction."""

    def commit(self) -> object: ...
    def rollback(self) -> object: ...


def _plain(url: URL | str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@contextlib.contextmanager
def sqlalchemy_session(url: str) -> Iterator[tuple[Any, Ends]]:
    """As in Flask applications."""
    engine = sa.create_engine(url)
    with Session(engine) as session:
        yield session, session
    engine.dispose()


@contextlib.contextmanager
def sqlalchemy_connection(url: str) -> Iterator[tuple[Any, Ends]]:
    """Core without the ORM."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        yield connection, connection
    engine.dispose()


@contextlib.contextmanager
def psycopg_connection(url: str) -> Iterator[tuple[Any, Ends]]:
    """No SQLAlchemy at all, and rows as the application likes them."""
    with psycopg.connect(_plain(url), row_factory=dict_row) as connection:
        yield connection, connection


@contextlib.contextmanager
def django_connection(url: str) -> Iterator[tuple[Any, Ends]]:
    """Django's, in a transaction as inside ``atomic()``."""
    with _django(url) as connection:
        connection.set_autocommit(False)
        yield connection, connection


@contextlib.contextmanager
def _django(url: str) -> Iterator[Any]:
    from django.db.backends.postgresql.base import DatabaseWrapper
    from django.db.utils import ConnectionHandler

    info = psycopg.conninfo.conninfo_to_dict(_plain(url))
    settings = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": info["dbname"],
        "USER": info.get("user", ""),
        "PASSWORD": info.get("password", ""),
        "HOST": info.get("host", ""),
        "PORT": info.get("port", ""),
    }
    from django.conf import settings as project

    if not project.configured:
        project.configure(USE_TZ=True, TIME_ZONE="Asia/Tokyo")
    connection = ConnectionHandler({"default": settings})["default"]
    assert isinstance(connection, DatabaseWrapper)
    yield connection
    connection.close()


LENT: list[Callable[[str], contextlib.AbstractContextManager[tuple[Any, Ends]]]] = [
    sqlalchemy_session,
    sqlalchemy_connection,
    psycopg_connection,
    django_connection,
]


@pytest.fixture(params=LENT, ids=lambda made: made.__name__)
def lent(request: pytest.FixtureRequest, database_url: str) -> Iterator[tuple[Any, Ends]]:
    """One kind of synchronous connection, and what ends its transaction."""
    with request.param(database_url) as made:
        yield made


@pytest.fixture
def blocking(database_url: str) -> Any:
    """A pipeline that is never entered, as a synchronous application has it."""
    return Pipeline(database_url).blocking


def test_a_document_is_submitted_looked_at_and_moved(
    lent: tuple[Any, Ends], blocking: Any, psql: Psql
) -> None:
    """The same values come out, whatever the application's driver makes of JSON and times."""
    connection, ends = lent
    metadata = {"k": ["ä", 1, None]}
    sent = blocking.submit(
        connection, b"text", source_uri="mem:a", name="a.txt", metadata=metadata, not_before=LATER
    )
    assert (sent.outcome, sent.state) == ("new", "uploaded")
    document = blocking.get(connection, sent.document_id)
    assert (document.id, document.metadata) == (sent.document_id, metadata)
    assert isinstance(document.created_at, datetime)
    assert document.created_at.tzinfo is not None
    explained = blocking.explain(connection, sent.document_id)
    assert (explained.lane, explained.until) == ("deferred", LATER)
    assert blocking.submit(connection, b"text", source_uri="mem:a").outcome == "unchanged"
    assert blocking.submit(connection, b"new", source_uri="mem:a").outcome == "changed"
    applied = blocking.apply(connection, "cancel", sent.document_id, reason="no", by="ann")
    assert applied.moved == (sent.document_id,)
    again = blocking.apply(connection, "cancel", state="cancelled", reason="no", tenant="default")
    assert "wrong_state" in again.refused[0].reason
    steps = blocking.history(connection, sent.document_id)
    assert [step.trigger for step in steps] == ["submit", "revise", "cancel"]
    assert psql.execute("SELECT count(*) FROM document").fetchone() == (0,)
    ends.commit()
    assert path_of(psql, sent.document_id) == ["submit", "revise", "cancel"]
    assert psql.execute("SELECT content FROM blob").fetchone() == (b"new",)


def test_it_vanishes_with_the_transaction_of_the_application(
    lent: tuple[Any, Ends], blocking: Any, psql: Psql
) -> None:
    """Nothing is committed here."""
    connection, ends = lent
    blocking.submit(connection, b"text")
    ends.rollback()
    assert psql.execute("SELECT count(*) FROM document").fetchone() == (0,)
    blocking.submit(connection, b"text")
    ends.commit()
    assert psql.execute("SELECT count(*) FROM document").fetchone() == (1,)


def test_what_is_refused_is_refused_in_the_same_words(
    lent: tuple[Any, Ends], blocking: Any
) -> None:
    """Errors are those of the Pipeline, and the transaction goes on."""
    connection, ends = lent
    with pytest.raises(DocumentNotFound):
        blocking.get(connection, NOBODY)
    with pytest.raises(DocumentNotFound):
        blocking.history(connection, NOBODY)
    with pytest.raises(DocumentNotFound):
        blocking.apply(connection, "cancel", NOBODY, reason="no")
    with pytest.raises(SourceRefused):
        blocking.submit(connection, "/nowhere/at/all")
    with pytest.raises(ValueError, match="either document ids or a state"):
        blocking.apply(connection, "cancel", reason="no")
    assert blocking.submit(connection, b"text").outcome == "new"
    ends.rollback()


def test_a_schema_that_is_missing_is_named(lent: tuple[Any, Ends], database_url: str) -> None:
    """Driver errors are mapped on every way to the database."""
    connection, ends = lent
    with pytest.raises(SchemaMissing):
        Pipeline(database_url, schema="nowhere").blocking.submit(connection, b"text")
    ends.rollback()


@pytest.mark.parametrize("kind", ["psycopg", "django"])
def test_in_autocommit_each_call_is_a_transaction(
    database_url: str, blocking: Any, psql: Psql, kind: str
) -> None:
    """And not each statement of it: a document is never half there. In ``atomic`` it is part."""
    with contextlib.ExitStack() as stack:
        if kind == "django":
            connection: Any = stack.enter_context(_django(database_url))
            connection.ensure_connection()
            raw = connection.connection
        else:
            connection = raw = psycopg.connect(_plain(database_url), autocommit=True)
            stack.enter_context(connection)
        statements = "SELECT document.xmin::text, blob.xmin::text FROM document, blob"
        blocking.submit(connection, b"old", source_uri="mem:a")
        blocking.submit(connection, b"new", source_uri="mem:a")
        ((document, blob),) = psql.execute(statements).fetchall()
        last = psql.execute("SELECT max(xact)::text FROM transition").fetchone()
        assert (document, blob) == (blob, document)
        assert last == (blob,)
        with contextlib.suppress(ZeroDivisionError), raw.transaction():
            blocking.submit(connection, b"other")
            raise ZeroDivisionError
    assert psql.execute("SELECT count(*) FROM document").fetchone() == (1,)


def test_a_connection_that_commits_every_statement_is_refused(
    database_url: str, blocking: Any
) -> None:
    """SQLAlchemy in AUTOCOMMIT: a document would be half there in between."""
    engine = sa.create_engine(database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        with pytest.raises(PipelineError, match="without AUTOCOMMIT"):
            blocking.submit(connection, b"text")
        with pytest.raises(DocumentNotFound):  # looking is harmless
            blocking.get(connection, NOBODY)
    engine.dispose()


def test_nothing_but_the_database_is_waited_for() -> None:
    """Or the caller's thread would wait for an event loop that is not there."""

    async def waits() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="waits for something else"):
        at_once(waits())


async def test_what_is_no_connection_is_refused(engine: AsyncEngine, blocking: Any) -> None:
    """With the kinds that are taken; an AsyncSession has ``submit`` itself."""
    async with AsyncSession(engine) as session:
        with pytest.raises(PipelineError, match="cannot work on a AsyncSession; lend a sync"):
            blocking.submit(session, b"text")


async def test_a_synchronous_session_is_shown_the_way(
    engine: AsyncEngine, database_url: str
) -> None:
    """In place of an error from deep inside."""
    with sqlalchemy_session(database_url) as (session, _):
        wrong: Any = session
        with pytest.raises(TypeError, match=r"got a Session; .* use pipeline\.blocking"):
            await pipeline_with(engine).submit(b"text", session=wrong)


async def test_a_scoped_session_is_a_session(engine: AsyncEngine, psql: Psql) -> None:
    """As applications with one session a request have it."""
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
    await pipeline_with(engine).submit(b"text", session=scoped)
    assert psql.execute("SELECT count(*) FROM document").fetchone() == (0,)
    await scoped.commit()
    await scoped.remove()
    assert psql.execute("SELECT count(*) FROM document").fetchone() == (1,)


@pytest.fixture
async def asyncpg_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on the other asynchronous driver."""
    url = make_url(database_url).set(drivername="postgresql+asyncpg")
    host = url.query.get("host")
    arguments = {"host": host} if host else {}
    made = create_async_engine(url.set(query={}), connect_args=arguments)
    yield made
    await made.dispose()


async def test_asyncpg_submits_looks_and_applies(
    asyncpg_engine: AsyncEngine, engine: AsyncEngine, psql: Psql
) -> None:
    """Every statement of an application works on either driver; a worker elsewhere goes on."""
    pipeline = pipeline_with(asyncpg_engine)
    sent = await pipeline.submit(b"one\n\ntwo", source_uri="mem:a", metadata={"k": 1})
    assert (await pipeline.get(sent.document_id)).metadata == {"k": 1}
    await pipeline.operations.describe(sent.document_id, {"groups": ["a"]})
    assert (await pipeline.get(sent.document_id)).metadata == {"k": 1, "groups": ["a"]}
    assert (await pipeline.submit(b"new", source_uri="mem:a")).outcome == "changed"
    pauses = pipeline.operations
    paused = await pauses.pause(stage="queue_parse", reason="bills", for_=timedelta(hours=1))
    lasting = await pauses.pause(tenant="default", reason="bills", until=LATER)
    explained = await pipeline.explain(sent.document_id)
    assert (explained.lane, explained.obstacles.pauses) == ("ready", (paused, lasting))
    assert await pauses.resume(stage="queue_parse") == [paused]
    assert await pauses.resume(tenant="default") == [lasting]
    async with AsyncSession(asyncpg_engine) as session:
        await pipeline.submit(b"gone", session=session)
        await session.rollback()
    answers = await pipeline.operations.submit_many(
        [Incoming(b"two", source_uri="mem:b", not_before=LATER), b"three", "/nowhere"]
    )
    assert [getattr(one, "outcome", "refused") for one in answers] == ["new", "new", "refused"]
    assert await pipeline.counts() == {"uploaded": 3}
    worker = pipeline_with(engine)
    psql.execute("UPDATE work SET run_at = now()")
    assert await completed(worker, sent.document_id) == ["complete"]
    (waited,) = await pipeline.wait(sent.document_id, timeout=BRIEFLY)
    assert waited.state == "complete"
    applied = await pipeline.apply("reprocess", state="complete", tenant="default", reason="again")
    assert len(applied.moved) == 3
    page = await pipeline.documents(limit=2)
    assert len(await pipeline.documents(after=page[-1].id)) == 1
    assert [hit.text for hit in await pipeline.search("new", limit=1)] == ["new"]
    ((steps,),) = psql.execute("SELECT count(*) FROM transition").fetchall()
    events = await pipeline.operations.events(limit=3)
    async with asyncio.timeout(BRIEFLY.total_seconds()):
        # Whoever writes anywhere on the server, autovacuum too, holds the newest back for a while.
        while len(events) < steps:
            events += await pipeline.operations.events(after=events[-1].cursor if events else None)
    assert len(events) == steps
    history = await pipeline.history(sent.document_id)
    assert history == await worker.history(sent.document_id)
    with pytest.raises(SchemaMissing):
        await pipeline_with(asyncpg_engine, schema="nowhere").counts()


async def test_a_lock_that_lasts_is_told_alike_on_asyncpg(
    asyncpg_engine: AsyncEngine, psql: Psql
) -> None:
    """What may pass is DatabaseUnavailable, on whichever driver."""
    impatient = Timeouts(lock=timedelta(seconds=0.05))
    pipeline = Pipeline(asyncpg_engine, timeouts=impatient)
    sent = await pipeline.submit(b"text")
    with psql.transaction():
        psql.execute("SELECT FROM document FOR UPDATE")
        with pytest.raises(DatabaseUnavailable, match="applying cancel"):
            await pipeline.apply("cancel", sent.document_id, reason="no")


async def test_a_runner_on_asyncpg_is_refused(asyncpg_engine: AsyncEngine) -> None:
    """At the start and not at its first claim."""
    with pytest.raises(DefinitionError, match="wants an engine on psycopg, got one on asyncpg"):
        pipeline_with(asyncpg_engine).runner()


async def test_asyncpg_migrates(asyncpg_engine: AsyncEngine) -> None:
    """Tables can be made from an application's own engine."""
    pipeline = pipeline_with(asyncpg_engine, schema="another")
    assert "nothing -> 0001" in str(await pipeline.migrate())
    assert (await pipeline.submit(b"text")).outcome == "new"
