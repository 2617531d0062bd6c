"""The pipeline as applications use it: submit, look, apply, search, run."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from statemachine_pipeline import explain as explaining
from statemachine_pipeline import sources
from statemachine_pipeline.adapters.shipped import shipped_hooks
from statemachine_pipeline.database import migrate as migrations
from statemachine_pipeline.database.documents import Documents, Submission
from statemachine_pipeline.database.filters import Scope, check_search
from statemachine_pipeline.database.mapping import answering, to_document
from statemachine_pipeline.database.ranking import reordered
from statemachine_pipeline.database.reader import ContentReader
from statemachine_pipeline.database.search import CANDIDATES, Near, Passages
from statemachine_pipeline.database.store import Store
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.database.workers import Workers
from statemachine_pipeline.errors import DefinitionError, DocumentNotFound, PipelineError
from statemachine_pipeline.lifecycle import DocumentLifecycle, Lifecycle
from statemachine_pipeline.records import Applied, document_id
from statemachine_pipeline.runner.loop import Liveness, Runner
from statemachine_pipeline.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType
    from uuid import UUID

    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.hooks import Rerank
    from statemachine_pipeline.records import (
        Document,
        Explanation,
        Hit,
        SearchMode,
        Submitted,
        Transition,
    )
    from statemachine_pipeline.stages import Bound

EMBEDDED = "embedded"
WAIT_POLL_SECONDS = 0.2


class Pipeline:
    """Documents of one schema, their lifecycle and its hooks.

    An async context manager: entering it starts the embedded server, if that is asked for, and
    leaving it gives up what was opened. An engine that was handed in is left open.

    Args:
        database: ``"embedded"``, a PostgreSQL URL, or an async engine on psycopg 3.
        lifecycle: The declared class. None reads the graph that the database was migrated to: then
            documents can be looked at and moved, but not run or searched.
        hooks: For triggers, a Stage, a bare hook, ``by_hand`` or None; beside the shipped ones.
        schema: The PostgreSQL schema that holds everything.
        directory: Where the embedded server keeps its data.

    Raises:
        DefinitionError: A trigger has no hook, or a hook does not fit.
    """

    def __init__(
        self,
        database: str | AsyncEngine = EMBEDDED,
        *,
        lifecycle: type[Lifecycle] | None = DocumentLifecycle,
        hooks: Mapping[str, Any] | None = None,
        schema: str = "smp",
        directory: Path | None = None,
    ) -> None:
        migrations.quoted(schema)
        self.schema = schema
        self._tables = tables(schema)
        self._database, self._directory = database, directory
        self._own_engine = not isinstance(database, AsyncEngine)
        self._engine = database if isinstance(database, AsyncEngine) else None
        self._server: Any = None
        self._checked = False
        self._lifecycle, self._hooks = lifecycle, hooks
        self._stages = None if lifecycle is None else _stages(lifecycle.graph, hooks or {})

    def at(
        self, database: str | AsyncEngine | None = None, *, schema: str | None = None
    ) -> Pipeline:
        """Return a pipeline of the same lifecycle and hooks on another database.

        Args:
            database: As for a new pipeline; this one's by default.
            schema: As for a new pipeline; this one's by default.
        """
        return Pipeline(
            database or self._database,
            lifecycle=self._lifecycle,
            hooks=self._hooks,
            schema=schema or self.schema,
            directory=self._directory,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._own_engine and self._engine is not None:
            await self._engine.dispose()
            self._engine = None
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)
            self._server = None

    @property
    def engine(self) -> AsyncEngine:
        """The engine in use.

        Raises:
            PipelineError: The pipeline has not been entered.
        """
        if self._engine is None:
            raise PipelineError("this pipeline is not open; use it inside `async with pipeline:`")
        return self._engine

    @property
    def graph(self) -> Graph:
        """The lifecycle as data."""
        return self._known_stages.graph

    @property
    def is_embedded(self) -> bool:
        """Whether it starts the embedded server, having no database of its own."""
        return self._database == EMBEDDED

    @property
    def server(self) -> Any:
        """The embedded server, once entered; None with a database of your own."""
        return self._server

    async def migrate(self) -> str:
        """Create or update the tables and register the lifecycle; say what was done."""
        with answering("migrating"):
            async with self.engine.begin() as connection:
                return await connection.run_sync(migrations.migrate, self.schema, self.graph)

    async def submit(
        self,
        source: str | Path | bytes,
        *,
        source_uri: str | None = None,
        name: str | None = None,
        tenant: str = "default",
        metadata: Mapping[str, Any] | None = None,
        priority: int = 0,
        not_before: datetime | None = None,
        correlation_id: str | None = None,
        session: AsyncSession | AsyncConnection | None = None,
    ) -> Submitted:
        """Hand over a document; the same source again is recognised.

        Args:
            source: A path, or the bytes.
            source_uri: What makes it the same document next time. By default the resolved path as
                ``file://``, or the hash of the bytes.
            name: For display; the file name by default.
            tenant: Whose it is; tenants never share text or duplicates.
            metadata: JSON values to keep beside it.
            priority: Smaller is taken first.
            not_before: No worker takes it before this time.
            correlation_id: On every history row; made up when None.
            session: A session or connection of yours: the document, bytes included, commits or
                vanishes with it.

        Raises:
            SourceRefused: It cannot be read; nothing was written.
        """
        content = await asyncio.to_thread(sources.read, source, source_uri, name)
        submission = Submission(
            id=document_id(tenant, content.source_uri),
            tenant=tenant,
            source_uri=content.source_uri,
            name=content.name,
            size_bytes=content.size_bytes,
            content_sha256=content.sha256,
            correlation_id=correlation_id or uuid.uuid4().hex,
            content=content.data,
            path=content.path,
            metadata=metadata or {},
            priority=priority,
            not_before=not_before,
            by=None,
        )
        if session is None:
            await self._ready()
        elif isinstance(session, AsyncSession):
            session = await session.connection()
        return await self._documents().submit(submission, session)

    async def get(self, document: UUID) -> Document:
        """Return one document as it stands.

        Raises:
            DocumentNotFound: There is none.
        """
        await self._ready()
        return to_document(await self._documents().standing(document))

    async def history(self, document: UUID) -> list[Transition]:
        """Return every transition of one document, oldest first.

        Raises:
            DocumentNotFound: There is none.
        """
        await self._ready()
        return await self._documents().history(document)

    async def explain(self, document: UUID) -> Explanation:
        """Say why a document stands where it stands, what it waits for and what can be done.

        Raises:
            DocumentNotFound: There is none.
        """
        await self._ready()
        row = await self._documents().standing(document)
        return explaining.explain(
            self._known_stages,
            to_document(row),
            lane=row.lane,
            attempt=row.attempt or 0,
            crashes=row.crashes or 0,
            worker=row.worker,
            until=row.deadline_at or row.run_at,
            owner=row.owner,
        )

    async def wait(self, *documents: UUID, timeout: timedelta) -> list[Document]:  # noqa: ASYNC109
        """Return the documents once all of them rest.

        Raises:
            TimeoutError: Some do not, after ``timeout``.
            DocumentNotFound: One of them is not there.
        """
        until = time.monotonic() + timeout.total_seconds()
        while True:
            found = await self._all(documents)
            if all(self.graph.is_resting(one.state) for one in found):
                return found
            if time.monotonic() > until:
                moving = sum(not self.graph.is_resting(one.state) for one in found)
                raise TimeoutError(f"{moving} of {len(found)} documents still move after {timeout}")
            await asyncio.sleep(WAIT_POLL_SECONDS)

    async def _all(self, wanted: Sequence[UUID]) -> list[Document]:
        found = {one.id: one for one in await self.documents(ids=wanted)}
        for document in wanted:
            if document not in found:
                raise DocumentNotFound(document)
        return [found[document] for document in wanted]

    async def documents(
        self,
        *,
        ids: Collection[UUID] | None = None,
        state: str | None = None,
        tenant: str | None = None,
        after: UUID | None = None,
        limit: int = 100,
    ) -> list[Document]:
        """Return documents in the order they came; ``after`` the last one of the page before.

        With ``ids`` those of them that exist, in no order, and nothing else is looked at.
        """
        await self._ready()
        if ids is not None:
            return await self._documents().several(ids)
        return await self._documents().listing(state=state, tenant=tenant, after=after, limit=limit)

    async def counts(self, *, tenant: str | None = None) -> Mapping[str, int]:
        """Return how many documents stand in each state that has any."""
        await self._ready()
        return await self._documents().counts(tenant)

    async def apply(
        self,
        trigger: str,
        *documents: UUID,
        state: str | None = None,
        tenant: str | None = None,
        reason: str,
        by: str = "application",
        dry_run: bool = False,
    ) -> Applied:
        """Move documents by hand: cancel, requeue, reprocess, delete, and edges kept ``by_hand``.

        Whoever holds a moved document can no longer write. Documents that cannot take the trigger
        stay where they are and are named with the reason.

        Args:
            trigger: What to do.
            *documents: Which ones; or else all in ``state``, of ``tenant`` if given.
            state: With no ids: where they stand.
            tenant: With ``state``: whose.
            reason: Why, for history.
            by: Who asks, for history.
            dry_run: Only say what would be done.

        Raises:
            DocumentNotFound: One of ``documents`` is not there; nothing was written.
            ValueError: Neither ids nor a state, or both.
        """
        if bool(documents) == bool(state):
            raise ValueError("apply wants either document ids or a state")
        await self._ready()
        found = self._documents()
        ids: Sequence[UUID] = documents
        if state is not None:
            ids = await found.matching(state, tenant)
        matched, moved, refused = await found.apply(
            trigger, ids, by=by, reason=reason, dry_run=dry_run
        )
        return Applied(matched=tuple(matched), moved=tuple(moved), refused=tuple(refused))

    async def search(
        self,
        text: str,
        *,
        tenant: str = "default",
        limit: int = 5,
        mode: SearchMode = "hybrid",
        where: Mapping[str, Any] | None = None,
        groups: Collection[str] | None = None,
        documents: Collection[UUID] | None = None,
        rerank: Rerank | None = None,
    ) -> list[Hit]:
        """Return the published passages that fit a question best, best first.

        Args:
            text: The question. No character of it is an operator.
            tenant: Whose documents.
            limit: Most passages, 1 to 1000.
            mode: ``vector`` compares meanings; ``text`` finds passages with any word of the
                question; ``hybrid`` fuses the two rankings.
            where: What a document's metadata has to be: a name and its value, which for lists and
                objects may be a part of what is stored; or ``{"$gte": 2020}`` with any of ``$gt``,
                ``$gte``, ``$lt``, ``$lte`` and ``$in``, never true of another type or a missing
                name. A name that begins with ``chunk.`` is looked up in the chunk's metadata.
            groups: Whoever asks is in these: a document is shown if ``metadata["groups"]`` names
                one of them, and not if it has no such list. None shows every document.
            documents: Only these documents.
            rerank: Scores the best 50 candidates, or ``limit`` if that is more.

        Raises:
            SearchRefused: One of these cannot be used, or ``rerank`` returned no score for a hit.
            DefinitionError: The mode needs an embedder and no stage has one.
        """
        check_search(text, limit, mode)
        scope = Scope(tenant=tenant, where=where or {}, groups=groups, documents=documents)
        near = None
        await self._ready()
        if mode != "text":
            bound = self._embedder
            vector = await bound.stage.hook.embed_query(text)
            near = Near(vector=vector, embedder=bound.fingerprint)
        hits = await Passages(self.engine, self._tables).search(
            scope,
            near=near,
            text=None if mode == "vector" else text,
            limit=limit if rerank is None else max(limit, CANDIDATES),
        )
        return hits if rerank is None else reordered(hits, await rerank(text, hits))[:limit]

    def runner(
        self,
        *,
        triggers: Sequence[str] | None = None,
        drain: timedelta = timedelta(seconds=30),
        liveness: Liveness | None = None,
        documents: int | None = None,
    ) -> Runner:
        """Return a runner of this pipeline's stages, or of those that earn ``triggers``.

        Args:
            triggers: Lets fleets split, for example before ``store_embeddings``.
            drain: How long hooks may go on after ``stop``.
            liveness: When a worker counts as dead.
            documents: Most documents it holds at a time. By default as many as its stages have
                slots together; less keeps what is claimed from queueing up before a narrow stage.
        """
        stages, engine = self._known_stages, self.engine
        alive = liveness or Liveness()
        return Runner(
            prepare=self._ready,
            after_load=self._after_load,
            store=Store(
                engine,
                self._tables,
                stages,
                ContentReader(engine, self._tables),
                # Well before others take over what a frozen worker held.
                patience=alive.dead_after / 2,
            ),
            workers=Workers(engine, self._tables),
            stages=stages,
            served=stages.served(triggers),
            drain=drain,
            liveness=alive,
            documents=documents,
        )

    async def _open(self) -> None:
        if self._engine is None and self._database == EMBEDDED:
            from statemachine_pipeline.database.embedded import EmbeddedServer

            self._server = EmbeddedServer(self._directory)
            self._engine = create_async_engine(await asyncio.to_thread(self._server.start))
            if self._stages is not None:
                await self.migrate()
        elif self._engine is None:
            self._engine = create_async_engine(_psycopg(str(self._database)))
        if self._stages is None:
            with answering("reading the lifecycle"):
                async with self.engine.connect() as connection:
                    graph = await connection.run_sync(migrations.stored_graph, self.schema)
            self._stages = Stages(graph, dict.fromkeys(graph.forward_triggers()))
            self._checked = True

    async def _ready(self) -> None:
        """Check once that the database was migrated to this lifecycle."""
        if self._checked:
            return
        with answering("checking the schema"):
            async with self.engine.connect() as connection:
                await connection.run_sync(migrations.check, self.schema, self.graph)
        self._checked = True

    async def _after_load(self) -> Mapping[str, int]:
        embedders = [b for b in self._known_stages if b.stage.kind == "embedder"]
        for bound in embedders:
            await Passages(self.engine, self._tables).build_index(bound.fingerprint)
        return await self.counts()

    @property
    def _known_stages(self) -> Stages:
        if self._stages is None:
            raise PipelineError(
                "this pipeline has read no lifecycle yet; use it inside `async with`"
            )
        return self._stages

    @property
    def _embedder(self) -> Bound:
        for bound in self._known_stages:
            if bound.stage.kind == "embedder":
                return bound
        raise DefinitionError(
            f"{self.graph.name}: no stage has an embedder; only mode='text' can search"
        )

    def _documents(self) -> Documents:
        return Documents(self.engine, self._tables, self._known_stages)


def _stages(graph: Graph, hooks: Mapping[str, Any]) -> Stages:
    shipped = shipped_hooks()
    known = {t: shipped[t] for t in graph.forward_triggers() if t in shipped}
    return Stages(graph, known | dict(hooks))


def _psycopg(url: str) -> str:
    """Name the driver where the URL does not; ``postgres://`` is what hosts hand out."""
    if url.startswith("postgres://"):
        url = "postgresql://" + url.removeprefix("postgres://")
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)
