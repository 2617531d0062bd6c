"""What applications need less often than a Pipeline's ten methods: ``pipeline.operations``."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

from statemachine_pipeline.database.arrivals import next_batch
from statemachine_pipeline.errors import PipelineError, SourceRefused
from statemachine_pipeline.records import Incoming, Refused

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from pathlib import Path
    from uuid import UUID

    from statemachine_pipeline.database.describing import Describing
    from statemachine_pipeline.database.documents import Documents, Submission
    from statemachine_pipeline.database.feed import Feed
    from statemachine_pipeline.database.objects import Objects
    from statemachine_pipeline.database.providers import Providers, ProviderStanding
    from statemachine_pipeline.events import Event
    from statemachine_pipeline.records import Submitted

Session: TypeAlias = AsyncSession | async_scoped_session[AsyncSession] | AsyncConnection


class Operations:
    """Many documents at once, their metadata, their events. Made by ``Pipeline.operations``.

    Args:
        documents: The documents of the pipeline's schema.
        describing: Their metadata.
        feed: Their history in one order.
        ready: Awaited before the first statement on an own connection: checks the schema.
        objects: Where the bytes go, if not into the database.
        store_limit_bytes: What that store takes of one document.
        providers: The services that stages ask.
    """

    def __init__(
        self,
        documents: Documents,
        describing: Describing,
        feed: Feed,
        ready: Callable[[], Awaitable[None]],
        objects: Objects | None,
        store_limit_bytes: int | None,
        providers: Providers,
    ) -> None:
        self._documents, self._describing, self._feed = documents, describing, feed
        self._ready, self._providers = ready, providers
        self._objects, self._store_limit_bytes = objects, store_limit_bytes

    async def submit_many(
        self,
        items: Iterable[Incoming | str | Path | bytes],
        *,
        tenant: str = "default",
        session: Session | None = None,
    ) -> list[Submitted | Refused]:
        """Hand over many documents, hundreds in a statement, as if one after another.

        Each comes to what ``submit`` would have said: new, changed or unchanged, and a source that
        was given twice is seen by the second as the first left it. One that cannot be read or
        stored is refused by itself: nothing of it is written, and the others go on.

        Without a session each batch of up to 500 documents or about 32 MB commits by itself, and
        with ``blobs`` each document. After an error those before it are kept, and the same items
        again find them unchanged.

        Args:
            items: Paths, bytes, or ``Incoming`` with more to say. A generator is run in a thread, a
                batch at a time.
            tenant: Whose they are.
            session: A session or connection of yours: all of them commit or vanish with it.

        Returns:
            For each item, in order, what was done or why it was refused.
        """
        connection = await connection_of(session)
        if connection is None:
            await self._ready()
        incoming = _each(items)
        answers: list[Submitted | Refused] = []
        limit = self._store_limit_bytes
        while batch := await asyncio.to_thread(next_batch, incoming, tenant, limit):
            taken = [one for one in batch if not isinstance(one, Refused)]
            done = iter(await self._submit(taken, connection))
            answers += [one if isinstance(one, Refused) else next(done) for one in batch]
        return answers

    async def _submit(
        self, taken: Sequence[Submission], connection: AsyncConnection | None
    ) -> Sequence[Submitted | Refused]:
        if self._objects is None:
            return await self._documents.submit_many(taken, connection) if taken else []
        # Uploads take longest by far, so that one statement for all would gain nothing.
        return [await self._upload(self._objects, one, connection) for one in taken]

    async def _upload(
        self, objects: Objects, one: Submission, connection: AsyncConnection | None
    ) -> Submitted | Refused:
        try:
            return await objects.submit(self._documents, one, connection)
        except SourceRefused as error:  # a file that changed since it was hashed
            return Refused(source=error.source, reason=error.reason)

    async def describe(
        self, document: UUID, metadata: Mapping[str, Any], *, session: Session | None = None
    ) -> None:
        """Change the metadata of a document, and of all that was found in it, with no new bytes.

        These names get these values, at once and for every reader; other names stay. The document
        is not moved, history has no row of it, and no stage runs again: what a hook made of earlier
        metadata stays until its bytes change or its fingerprint does.

        Args:
            document: Which one.
            metadata: JSON values by their names. ``groups`` is what access lists are.
            session: A session or connection of yours: the change commits or vanishes with it.

        Raises:
            DocumentNotFound: There is none; nothing was written.
            SourceRefused: The values cannot be stored, or the document is deleted.
        """
        connection = await connection_of(session)
        if connection is None:
            await self._ready()
        await self._describing.describe(document, metadata, connection)

    async def sweep(self, *, older_than: timedelta = timedelta(hours=24)) -> int:
        """Erase objects that no document refers to, and return how many.

        They are what rolled-back transactions, revisions and crashes leave behind in the object
        store; deleted documents' bytes are erased at once where the store answers. Harmless at any
        time and in any number of processes; run it once a day.

        Args:
            older_than: Only those whose bytes nobody submitted for so long.

        Raises:
            PipelineError: This pipeline has no object store, or it did not answer.
        """
        await self._ready()
        if self._objects is None:
            raise PipelineError("nothing to sweep: this pipeline keeps bytes in the database")
        return await self._objects.sweep(older_than)

    async def breakers(self) -> list[ProviderStanding]:
        """Return how every provider stands that a worker ever named: its breaker and its budget.

        Returns:
            In order of their names.
        """
        await self._ready()
        return await self._providers.standings()

    async def events(self, *, after: str | None = None, limit: int = 500) -> list[Event]:
        """Return a page of events that follow a cursor, over all documents.

        Who goes on after the last cursor it kept gets every transition at least once, and those of
        one document in their order. The order of documents is that in which their transactions
        first wrote. An event is told once no transaction that began to write before it still runs:
        one that stays open for long, on any database of this server, holds the feed back.

        Args:
            after: The cursor of the last event dealt with; None begins with the first there is.
            limit: Most events.

        Returns:
            Oldest first; empty when nothing new can be told yet.

        Raises:
            ValueError: ``after`` is no cursor.
            HistoryAhead: A dump of another server was restored, and ``migrate`` not run since.
        """
        await self._ready()
        return await self._feed.page(after, limit)

    async def now(self) -> str:
        """Return the cursor from which ``events`` tells what commits from now on.

        Of transactions that run already it tells everything, even what they wrote before.
        """
        await self._ready()
        return await self._feed.horizon()

    async def follow(
        self, *, after: str | None = None, poll: timedelta = timedelta(seconds=1)
    ) -> AsyncIterator[Event]:
        """Yield events without an end, looking for more every ``poll`` once there are none.

        Args:
            after: As for ``events``.
            poll: Pause before looking again.

        Raises:
            DatabaseUnavailable: It did not answer; go on after the last cursor.
        """
        while True:
            page = await self.events(after=after)
            for event in page:
                yield event
                after = event.cursor
            if not page:
                await asyncio.sleep(poll.total_seconds())


def _each(items: Iterable[Incoming | str | Path | bytes]) -> Iterator[Incoming]:
    if isinstance(items, str | bytes):
        raise TypeError("submit_many wants several documents; for one there is submit")
    return (one if isinstance(one, Incoming) else Incoming(one) for one in items)


async def connection_of(session: Session | None) -> AsyncConnection | None:
    """Return the connection that a session works on.

    Raises:
        TypeError: It is not one of SQLAlchemy's asynchronous ones.
    """
    if session is None or isinstance(session, AsyncConnection):
        return session
    if isinstance(session, AsyncSession | async_scoped_session):
        return await session.connection()
    raise TypeError(
        f"session= wants an AsyncSession or AsyncConnection, got a {type(session).__name__}; "
        "on a synchronous one use pipeline.blocking"
    )
