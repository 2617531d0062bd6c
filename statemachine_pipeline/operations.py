"""What applications need less often than a Pipeline's ten methods: ``pipeline.operations``."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.arrivals import each, next_batch
from statemachine_pipeline.database.sessions import connection_of
from statemachine_pipeline.errors import DefinitionError, SourceRefused
from statemachine_pipeline.graph import REQUEUE
from statemachine_pipeline.letters import Matching
from statemachine_pipeline.records import Refused

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Collection,
        Iterable,
        Mapping,
        Sequence,
    )
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline.database.describing import Describing
    from statemachine_pipeline.database.documents import Documents, Submission
    from statemachine_pipeline.database.feed import Feed
    from statemachine_pipeline.database.letters import DeadLetters
    from statemachine_pipeline.database.objects import Objects
    from statemachine_pipeline.database.pauses import Pauses
    from statemachine_pipeline.database.providers import Providers, ProviderStanding
    from statemachine_pipeline.database.pruning import Pruning
    from statemachine_pipeline.database.sessions import Session
    from statemachine_pipeline.events import Event
    from statemachine_pipeline.letters import DeadLetter, DeadLetterGroup
    from statemachine_pipeline.obstacles import Pause
    from statemachine_pipeline.oversight.oversight import Oversight
    from statemachine_pipeline.pruning import Pruned
    from statemachine_pipeline.records import Applied, Incoming, Submitted


class Operations:
    """Many documents at once, their failures, events and pauses. Made by ``Pipeline.operations``.

    Args:
        documents: The documents of the pipeline's schema.
        describing: Their metadata.
        feed: Their history in one order.
        letters: Those that failed for good.
        pauses: What nobody claims for now.
        ready: Awaited before the first statement on an own connection: checks the schema.
        objects: Where the bytes go, if not into the database.
        store_limit_bytes: What that store takes of one document.
        providers: The services that stages ask.
        oversight: Looks at the whole.
        pruning: Removes documents and their histories.

    Attributes:
        oversight: Questions about the pipeline as a whole.
    """

    def __init__(
        self,
        documents: Documents,
        describing: Describing,
        feed: Feed,
        letters: DeadLetters,
        pauses: Pauses,
        ready: Callable[[], Awaitable[None]],
        objects: Objects | None,
        store_limit_bytes: int | None,
        providers: Providers,
        oversight: Oversight,
        pruning: Pruning,
    ) -> None:
        self._documents, self._describing, self._feed = documents, describing, feed
        self._letters, self._pauses, self._ready = letters, pauses, ready
        self._providers, self.oversight, self._pruning = providers, oversight, pruning
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
        incoming = each(items)
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

    async def dead_letters(
        self,
        *,
        stage: str | None = None,
        code: str | None = None,
        tenant: str | None = None,
        since: datetime | None = None,
        after: DeadLetter | None = None,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """Return documents that failed for good, and how, the newest first.

        Args:
            stage: Only those that did not earn this trigger.
            code: Only those that failed with this code.
            tenant: Only this tenant's.
            since: Only those that failed at this time or later; with a time zone.
            after: The last one of the page before, even if it was requeued since.
            limit: Most dead letters.

        Raises:
            ValueError: ``since`` has no time zone.
        """
        which = Matching(stage=stage, code=code, tenant=tenant, since=since)
        await self._ready()
        return await self._letters.listing(which, after, limit)

    async def dead_letter_groups(
        self,
        *,
        stage: str | None = None,
        code: str | None = None,
        tenant: str | None = None,
        since: datetime | None = None,
    ) -> list[DeadLetterGroup]:
        """Return how many failed for good at each stage and with each code, the most first.

        Args:
            stage: As for ``dead_letters``, like the others.
            code: As there.
            tenant: As there.
            since: As there.
        """
        which = Matching(stage=stage, code=code, tenant=tenant, since=since)
        await self._ready()
        return await self._letters.groups(which)

    async def requeue(
        self,
        *documents: UUID,
        stage: str | None = None,
        code: str | None = None,
        tenant: str | None = None,
        since: datetime | None = None,
        reason: str,
        by: str = "application",
        dry_run: bool = False,
    ) -> Applied:
        """Take dead letters up again where they failed: those named, or all that match.

        All that match are requeued in batches of 500 that commit by themselves, each document once,
        while workers run. After an error those before it are requeued, and the same call again
        takes the others. For all there are: ``Pipeline.apply("requeue", state="dead_letter")``.

        Args:
            *documents: Which ones; those that were cancelled can be named too.
            stage: As for ``dead_letters``, like the others; at least one when none is named.
            code: As there.
            tenant: As there.
            since: As there.
            reason: Why, for history.
            by: Who asks, for history.
            dry_run: Only say what would be done.

        Returns:
            Those that were found, moved, and refused with the reason.

        Raises:
            DocumentNotFound: One of ``documents`` is not there; nothing was written.
            ValueError: Neither documents nor what has to match, or both.
        """
        which = Matching(stage=stage, code=code, tenant=tenant, since=since)
        if bool(documents) == which.is_narrow:
            raise ValueError(
                "requeue wants either document ids or one of stage, code, since, tenant"
            )
        await self._ready()
        if not documents:
            return await self._letters.requeue(which, by=by, reason=reason, dry_run=dry_run)
        return await self._documents.apply(
            REQUEUE, documents, state=None, tenant=None, by=by, reason=reason, dry_run=dry_run
        )

    async def sweep(
        self, *, older_than: timedelta = timedelta(hours=24), dry_run: bool = False
    ) -> int:
        """Erase objects that no document refers to, and return how many.

        They are what rolled-back transactions, revisions and crashes leave behind in the object
        store; deleted documents' bytes are erased at once where the store answers. Harmless at any
        time and in any number of processes; run it once a day.

        Args:
            older_than: Only those whose bytes nobody submitted for so long.
            dry_run: Only count them.

        Raises:
            PipelineError: This pipeline has no object store, or it did not answer.
        """
        await self._ready()
        if self._objects is None:
            raise DefinitionError("this pipeline keeps bytes in the database; name a store: blobs=")
        return await self._objects.sweep(older_than, dry_run=dry_run)

    async def prune(
        self,
        *,
        older_than: timedelta,
        states: Collection[str] = (),
        tenant: str | None = None,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        """Remove documents for good that rest and are not complete, each with its whole history.

        Batches of 500 commit by themselves. What others need is left, and named with the reason.

        Args:
            older_than: How long they have rested at least.
            states: Where; by default dead letters, cancelled, deleted and duplicates.
            tenant: Only this tenant's.
            limit: Most documents.
            dry_run: Only say what would be done, by any role; whether this one may is told too.

        Raises:
            PruneRefused: A state is not among those, or the tables belong to another role.
        """
        await self._ready()
        return await self._pruning.prune(older_than, states, tenant, limit, dry_run=dry_run)

    async def pause(
        self,
        *,
        stage: str | None = None,
        tenant: str | None = None,
        reason: str,
        until: datetime | None = None,
        for_: timedelta | None = None,
        by: str = "application",
    ) -> Pause:
        """Stop workers from taking documents: at a stage, of a tenant, or of a tenant at a stage.

        Nothing is claimed from then on. Workers finish what they are at, and within about a second
        stop walking on into what is paused; those documents stand there as ready. A pause of the
        same stage and tenant is replaced, unless the pipeline made it itself after a stage fault:
        that one stays beside it, and documents wait until both have ended.

        Args:
            stage: The trigger that the stage earns; None for every stage of ``tenant``.
            tenant: Whose documents; None for everybody's.
            reason: Why, for whoever asks what a document waits for.
            until: When it ends by itself, with a time zone; None until ``resume``.
            for_: How long from now, instead.
            by: Who pauses.

        Raises:
            PauseRefused: Neither stage nor tenant, an unknown stage, no reason, or an end that has
                passed; nothing was written.
        """
        await self._ready()
        return await self._pauses.pause(
            stage=stage, tenant=tenant, reason=reason, by=by, until=until, duration=for_
        )

    async def resume(self, *, stage: str | None = None, tenant: str | None = None) -> list[Pause]:
        """Lift the pauses of exactly this stage and tenant, the pipeline's own too.

        Workers are told and go on at once. A pause of the tenant everywhere outlasts a resume of
        the tenant at one stage.

        Returns:
            What was lifted; empty when nothing was paused under these names.

        Raises:
            PauseRefused: Neither stage nor tenant, or an unknown stage.
        """
        await self._ready()
        return await self._pauses.resume(stage=stage, tenant=tenant)

    async def pauses(self) -> list[Pause]:
        """Return the pauses in force, oldest first."""
        await self._ready()
        return await self._pauses.current()

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
            ValueError: ``after`` is no cursor, or ``limit`` no number of events.
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
