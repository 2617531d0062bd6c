"""The pipeline as applications use it: submit, look, apply, search, run."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from statemachine_pipeline.adapters.blobs import ObjectBlobs
from statemachine_pipeline.adapters.shipped import stages_of
from statemachine_pipeline.blobs import Blobs
from statemachine_pipeline.blocking import Blocking
from statemachine_pipeline.database import migrate as migrations
from statemachine_pipeline.database.arrivals import prepare
from statemachine_pipeline.database.describing import Describing
from statemachine_pipeline.database.documents import Documents
from statemachine_pipeline.database.feed import Feed
from statemachine_pipeline.database.filters import Scope, check_search
from statemachine_pipeline.database.inspection import Inspection
from statemachine_pipeline.database.letters import DeadLetters
from statemachine_pipeline.database.objects import Objects
from statemachine_pipeline.database.pauses import Pauses
from statemachine_pipeline.database.providers import Providers
from statemachine_pipeline.database.pruning import Pruning
from statemachine_pipeline.database.reader import ContentReader
from statemachine_pipeline.database.sessions import connection_of
from statemachine_pipeline.database.store import Store
from statemachine_pipeline.database.stored import stored_stages
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.database.timeouts import BoundedEngine, Timeouts, connecting
from statemachine_pipeline.database.withdrawals import Withdrawals
from statemachine_pipeline.database.workers import Workers
from statemachine_pipeline.errors import DefinitionError, PipelineError, StatesUnmapped
from statemachine_pipeline.graph import DELETE
from statemachine_pipeline.lifecycle import DocumentLifecycle, Lifecycle
from statemachine_pipeline.liveness import USUAL, Liveness
from statemachine_pipeline.observability.metrics import Metrics
from statemachine_pipeline.operations import Operations
from statemachine_pipeline.oversight.health import Checkup
from statemachine_pipeline.oversight.oversight import Oversight
from statemachine_pipeline.records import Incoming
from statemachine_pipeline.runner.loop import Runner
from statemachine_pipeline.searching import Searching

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType
    from uuid import UUID

    from statemachine_pipeline.database.migrated import Migrated
    from statemachine_pipeline.database.sessions import Session
    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.hooks import Rerank
    from statemachine_pipeline.records import (
        Applied,
        Document,
        Explanation,
        Hit,
        SearchMode,
        Submitted,
        Transition,
    )
    from statemachine_pipeline.stages import Stages

EMBEDDED = "embedded"
RUNS_ON = "psycopg"


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
        blobs: Where bytes are kept instead of the database: ``s3://bucket/prefix``, ``gs://``,
            ``az://``, ``file:///folder``, a store of obstore, or a ``Blobs`` of your own. Every
            process of the pipeline needs it, and a prefix belongs to one pipeline.
        timeouts: How long to wait for the database.

    Attributes:
        schema: The PostgreSQL schema.
        metrics: What this process counts of its runners' work.

    Raises:
        DefinitionError: A trigger has no hook, a hook does not fit, or ``blobs`` is no store.
        MissingExtra: ``blobs`` needs obstore, and it is not installed.
    """

    def __init__(
        self,
        database: str | AsyncEngine = EMBEDDED,
        *,
        lifecycle: type[Lifecycle] | None = DocumentLifecycle,
        hooks: Mapping[str, Any] | None = None,
        schema: str = "smp",
        directory: Path | None = None,
        blobs: object | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        migrations.quoted(schema)
        self.schema, self.metrics = schema, Metrics()
        self._tables = tables(schema)
        self._database, self._directory = database, directory
        self._own_engine = not isinstance(database, AsyncEngine)
        self._timeouts = timeouts or Timeouts()
        self._engine: AsyncEngine | None = None
        if isinstance(database, AsyncEngine):
            self._engine = BoundedEngine(database, self._timeouts)
        self._server: Any = None
        self._checked = False
        self._blobs = blobs if blobs is None or isinstance(blobs, Blobs) else ObjectBlobs(blobs)
        self._lifecycle, self._hooks = lifecycle, hooks
        self._stages = None if lifecycle is None else stages_of(lifecycle.graph, hooks or {})

    def at(
        self,
        database: str | AsyncEngine | None = None,
        *,
        schema: str | None = None,
        blobs: object | None = None,
        timeouts: Timeouts | None = None,
    ) -> Pipeline:
        """Return a pipeline of the same lifecycle and hooks on another database.

        Args:
            database: As for a new pipeline; this one's by default.
            schema: As for a new pipeline; this one's by default.
            blobs: As for a new pipeline; this one's by default.
            timeouts: As for a new pipeline; this one's by default.
        """
        return Pipeline(
            database or self._database,
            lifecycle=self._lifecycle,
            hooks=self._hooks,
            schema=schema or self.schema,
            directory=self._directory,
            blobs=blobs or self._blobs,
            timeouts=timeouts or self._timeouts,
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
        """The engine in use; on its connections nobody waits longer than ``timeouts`` say.

        Raises:
            PipelineError: The pipeline has not been entered.
        """
        if self._engine is None:
            raise PipelineError("this pipeline is not open; use it inside `async with pipeline:`")
        return self._engine

    @property
    def graph(self) -> Graph:
        """The lifecycle as data."""
        return self.stages.graph

    @property
    def stages(self) -> Stages:
        """The hooks of the lifecycle, each in its place.

        Raises:
            PipelineError: The lifecycle is read from the database, which is not open yet.
        """
        if self._stages is None:
            raise PipelineError(
                "this pipeline has read no lifecycle yet; use it inside `async with`"
            )
        return self._stages

    @property
    def is_embedded(self) -> bool:
        """Whether it starts the embedded server, having no database of its own."""
        return self._database == EMBEDDED

    @property
    def server(self) -> Any:
        """The embedded server, once entered; None with a database of your own."""
        return self._server

    @property
    def blocking(self) -> Blocking:
        """Submit, look and apply on a synchronous connection of yours; needs no open pipeline."""
        return Blocking(self._tables, self.stages, has_store=self._blobs is not None)

    @property
    def operations(self) -> Operations:
        """What is needed less often: many documents at once, dead letters, events, pauses."""
        engine, t, stages = at = self.engine, self._tables, self.stages
        checkup = Checkup(*at, self._ready_to_run, self._blobs, self._server)
        return Operations(
            self._documents(),
            Describing(engine, t),
            Feed(engine, t, self.graph),
            DeadLetters(engine, t, stages),
            self._pauses,
            self._ready,
            self._objects,
            self._store_limit_bytes,
            Providers(engine, t),
            Oversight(engine, t, stages, self._ready, self._blobs, checkup),
            Pruning(engine, t, stages.graph),
        )

    @property
    def withdrawals(self) -> Withdrawals:
        """Documents that still have to go from stores outside the database."""
        engine, t = self.engine, self._tables
        return Withdrawals(engine, t, ContentReader(engine, t))

    async def migrate(
        self,
        states: Mapping[str, str] = migrations.NO_STATES,
        *,
        app_role: str | None = None,
        dry_run: bool = False,
    ) -> Migrated:
        """Create or update the tables and register the lifecycle; say what was done.

        Documents in a state that the class does not know move to the one that ``states`` names and
        are tried there anew; what was made of them stays. Lifecycles that know a state which was
        left are retired: their workers lose what they hold, and end. Documents move in batches of
        500 that commit by themselves; the same call again goes on after an error. Vector indexes
        that are worth it are made, unless a worker makes them now.

        Args:
            states: Old states, each with its successor; both working, or both ends.
            app_role: A role that gets what workers and applications need, and keeps no other right.
            dry_run: Only say what would be made and how many documents would move.

        Raises:
            DefinitionError: Such a move is not wanted or not possible; nothing was changed.
            RightsMissing: This connection's role does not own the tables; nothing was changed.
            RoleRefused: The role is not there, or may change histories; nothing was changed.
            StatesUnmapped: Documents stand in other states that the class does not know; nothing
                was changed, unless a worker brought them there meanwhile.
        """
        at = self.engine, self.schema, self.stages
        done = await migrations.bring(*at, states, app_role, dry_run=dry_run)
        if not dry_run:
            await self._searching.build_indexes()
        return done

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
        traceparent: str | None = None,
        session: Session | None = None,
    ) -> Submitted:
        """Hand over a document; the same source again is recognised.

        Args:
            source: A path, or the bytes.
            source_uri: What makes it the same document next time. By default the resolved path as
                ``file://``, or the hash of the bytes.
            name: For display; the file name by default.
            tenant: Whose it is; tenants never share text or duplicates.
            metadata: JSON values to keep beside it; on the document in claims and hits too.
            priority: Smaller is taken first among its tenant's, at every stage; -32768 to 32767.
            not_before: No worker takes it before this time, which has a time zone.
            correlation_id: On every history row, line of the log and request to a provider; made up
                when None.
            traceparent: W3C trace context in which it is submitted, as the header came: on lines
                of the log as ``trace_id``, and on requests to providers.
            session: A session or connection of yours: the document, bytes included, commits or
                vanishes with it. With ``blobs`` the upload comes first: submit, then do the rest.

        Raises:
            SourceRefused: It cannot be read or stored, its source is a child's, or ``traceparent``
                is none; nothing was written.
            PipelineError: Database or object store cannot be used; no document was written.
        """
        incoming = Incoming(
            source,
            source_uri=source_uri,
            name=name,
            metadata=metadata,
            priority=priority,
            not_before=not_before,
            correlation_id=correlation_id,
            traceparent=traceparent,
        )
        submission = await asyncio.to_thread(prepare, incoming, tenant, self._store_limit_bytes)
        connection = await connection_of(session)
        if connection is None:
            await self._ready()
        if self._objects is None:
            return await self._documents().submit(submission, connection)
        return await self._objects.submit(self._documents(), submission, connection)

    async def get(self, document: UUID) -> Document:
        """Return one document as it stands.

        Raises:
            DocumentNotFound: There is none.
        """
        await self._ready()
        return await self._documents().get(document)

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
        return await self._documents().explain(document)

    async def wait(self, *documents: UUID, timeout: timedelta) -> list[Document]:  # noqa: ASYNC109
        """Return the documents once all of them rest.

        Polls; of many it looks only at those that did not rest yet, and pauses longer the longer a
        look takes. What a person has to move does not rest.

        Returns:
            The documents as they were seen at rest, in the order of ``documents``.

        Raises:
            TimeoutError: Some do not, after ``timeout``; the message counts them by state.
            DocumentNotFound: One of them is not there.
        """
        await self._ready()
        return await self._documents().wait(documents, timeout)

    async def documents(
        self,
        *,
        ids: Collection[UUID] | None = None,
        state: str | None = None,
        tenant: str | None = None,
        parent: UUID | None = None,
        after: UUID | None = None,
        limit: int = 100,
    ) -> list[Document]:
        """Return documents in the order they came; ``after`` the last one of the page before.

        A page is read by an index, however many documents there are. With ``state`` or ``tenant``,
        in whose order there is none, all that come after are read until the page is full: 25 to
        80 ms for 100,000. What is submitted meanwhile stands at the end, unless its transaction
        commits late; who must miss nothing reads ``operations.events``.

        With ``ids`` those of them that exist, in no order, and nothing else is looked at; with
        ``parent`` those that were found in it, deleted ones too.

        Raises:
            DocumentNotFound: There is no document ``after``.
            ValueError: ``limit`` is no number of documents.
        """
        await self._ready()
        if ids is not None:
            return await self._documents().several(ids)
        return await self._documents().listing(
            state=state, tenant=tenant, parent=parent, after=after, limit=limit
        )

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

        ``delete`` takes along what was found in a document. No other trigger does: children have
        lives of their own.

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
        await self._ready()
        found = self._documents()
        asked: Any = {"state": state, "tenant": tenant, "by": by, "reason": reason}
        keys: Sequence[str] = ()
        if self._objects is not None and trigger == DELETE and not dry_run:
            would = await found.apply(trigger, documents, **asked, dry_run=True)
            keys = await self._objects.of_documents(would.moved)
        applied = await found.apply(trigger, documents, **asked, dry_run=dry_run)
        if self._objects is not None:
            await self._objects.erase(keys)
        return applied

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
            QuestionNotEmbedded: The embedder failed, or returned what is no vector of its own.
            EmbedderMismatch: Its vectors in the database have other dimensions.
            DefinitionError: The mode needs an embedder and no stage has one.
        """
        check_search(text, limit, mode)
        scope = Scope(tenant=tenant, where=where or {}, groups=groups, documents=documents)
        await self._ready()
        return await self._searching.search(text, scope, limit=limit, mode=mode, rerank=rerank)

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

        Raises:
            DefinitionError: The engine is not on psycopg.
        """
        stages, engine = self.stages, self.engine
        if engine.dialect.driver != RUNS_ON:
            raise DefinitionError(
                f"a runner wants an engine on {RUNS_ON}, got one on {engine.dialect.driver}: "
                f"Pipeline('postgresql+{RUNS_ON}://...'); the other methods work on both"
            )
        alive = liveness or USUAL
        return Runner(
            prepare=self._ready_to_run,
            after_load=self._after_load,
            store=Store(
                engine,
                self._tables,
                stages,
                ContentReader(engine, self._tables, self._blobs),
                # Well before others take over what a frozen worker held.
                patience=alive.dead_after / 2,
            ),
            pauses=self._pauses,
            workers=Workers(engine, self._tables, self._timeouts, alive),
            withdrawals=self.withdrawals,
            providers=Providers(engine, self._tables),
            stages=stages,
            served=stages.served(triggers),
            drain=drain,
            liveness=alive,
            documents=documents,
            metrics=self.metrics,
        )

    async def _open(self) -> None:
        if self._engine is None and self._database == EMBEDDED:
            from statemachine_pipeline.database.embedded import EmbeddedServer

            self._server = EmbeddedServer(self._directory)
            self._engine = self._made(await asyncio.to_thread(self._server.start))
            if self._stages is not None:
                # Who migrates with `states` next has to get in; anybody else is refused later.
                with contextlib.suppress(StatesUnmapped):
                    await migrations.bring(self.engine, self.schema, self.stages)
        elif self._engine is None:
            self._engine = self._made(str(self._database))
        if self._stages is None:
            self._stages = await stored_stages(self.engine, self.schema)
            self._checked = True

    def _made(self, url: str) -> AsyncEngine:
        return BoundedEngine(create_async_engine(**connecting(url, self._timeouts)), self._timeouts)

    async def _ready(self) -> None:
        """Check once that the database was migrated to this lifecycle."""
        if self._checked:
            return
        await Inspection(self.engine, self._tables).check_schema(self.stages)
        self._checked = True

    async def _ready_to_run(self) -> None:
        """Check too that no embedder has other dimensions than its vectors in the database.

        Anew each time: the lifecycle may have been retired since.
        """
        self._checked = False
        await self._ready()
        await self._searching.check()

    @property
    def _store_limit_bytes(self) -> int | None:
        return None if self._blobs is None else self._blobs.limit_bytes

    async def _after_load(self) -> Mapping[str, int]:
        await self._searching.build_indexes()
        return await self.counts()

    @property
    def _searching(self) -> Searching:
        return Searching(self.engine, self._tables, self.stages)

    @property
    def _pauses(self) -> Pauses:
        return Pauses(self.engine, self._tables, self.stages)

    def _documents(self) -> Documents:
        return Documents(self.engine, self._tables, self.stages)

    @property
    def _objects(self) -> Objects | None:
        return None if self._blobs is None else Objects(self.engine, self._tables, self._blobs)
