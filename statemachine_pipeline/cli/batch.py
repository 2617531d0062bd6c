"""The documents of one `ingest`: handed over, and watched until all of them rest."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import time
from typing import TYPE_CHECKING

from statemachine_pipeline.errors import DatabaseUnavailable, SourceRefused
from statemachine_pipeline.graph import CANCELLED, DEAD_LETTER, DELETED, MARK_DUPLICATE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from pathlib import Path
    from uuid import UUID

    from statemachine_pipeline.cli.walking import Found
    from statemachine_pipeline.pipeline import Pipeline
    from statemachine_pipeline.records import Document
    from statemachine_pipeline.runner.loop import Runner

PAGE = 1000
"""Documents looked at in one query."""
LOOK_SECONDS_FIRST, LOOK_SECONDS_LAST = 0.2, 1.0
LOOK_SHARE = 10
"""A slow look is followed by a longer pause: the runner shares the event loop."""
OUTAGE_SECONDS = 60.0
STANDSTILL_SECONDS = 5.0
"""Longer than most stages take, much shorter than until a dead worker's claims are taken."""
SUBMITTERS = 2
"""Files read and stored at the same time; each may hold 25 MB."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Item:
    """One path, or a document found in the one of a path, and what became of it.

    Attributes:
        place: Where it stands in the report: its number, behind that of what it was found in.
        path: As it was found.
        outcome: ``refused``, or what ``submit`` did: new, changed, unchanged; or ``found``.
        document: As last seen; None when refused.
        reason: Why it is not simply complete.
    """

    place: tuple[int, ...]
    path: Path
    outcome: str
    id: UUID | None = None
    parent_id: UUID | None = None
    document: Document | None = None
    reason: str | None = None


async def together(*work: Coroutine[None, None, None], stop: Callable[[], None]) -> None:
    """Run until all are done, or until one raises and the others have ended by being told to.

    They are not cancelled, which would break off their queries. Unlike a task group it raises that
    one's error itself, which is what gives the exit code.
    """
    tasks = [asyncio.create_task(one) for one in work]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    if others:
        stop()
        await asyncio.wait(others)
    errors = [one.exception() for one in (*done, *others)]
    for error in filter(None, errors):
        raise error


async def children_of(pipeline: Pipeline, document: UUID) -> list[Document]:
    """Return what was found in a document, in the order it came."""
    found: list[Document] = []
    while True:
        after = found[-1].id if found else None
        page = await pipeline.documents(parent=document, after=after, limit=PAGE)
        found += page
        if len(page) < PAGE:
            return found


class Batch:
    """Submits files and follows their documents.

    Args:
        pipeline: An open pipeline; the runner works on it meanwhile.
        runner: Whose claims are this process's own.
        tenant: Whose documents these are.

    Attributes:
        is_submitting: More files may be handed over.
        has_left_some: It gave up before all files were handed over.
        standstill: What the oldest document waits for, while none has moved for some seconds.
    """

    def __init__(self, pipeline: Pipeline, runner: Runner, tenant: str) -> None:
        self._pipeline, self._runner, self._tenant = pipeline, runner, tenant
        self._moved = time.monotonic()
        self.standstill: str | None = None
        self._submitted: dict[UUID, Item] = {}
        self._refused: list[Item] = []
        self._moving: dict[UUID, None] = {}  # those not looked at for longest come first
        self._held: dict[str, str | None] = {}
        self.is_submitting, self.has_left_some = True, False
        self._has_given_up = False

    def give_up(self) -> None:
        """Hand over nothing more and stop watching; the documents are safe where they stand."""
        self._has_given_up = True

    @property
    def items(self) -> list[Item]:
        """Every path that was dealt with, in the order found, each before its children."""
        found = (*self._submitted.values(), *self._refused)
        return sorted(found, key=lambda item: item.place)

    @property
    def total(self) -> int:
        """Documents handed over, and found in them."""
        return len(self._submitted)

    @property
    def moving(self) -> int:
        """Documents that do not rest yet."""
        return len(self._moving)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many of these documents stood in each state when last seen, in declared order."""
        seen = collections.Counter(
            item.document.state for item in self._submitted.values() if item.document
        )
        known = self._pipeline.graph.states
        return {one: seen[one] for one in (*known, *sorted(set(seen) - set(known))) if one in seen}

    async def submit(self, found: Iterable[Found]) -> None:
        """Hand over files; what is refused is kept with its reason and stops nothing else."""
        entries, turn = enumerate(found), asyncio.Lock()
        submitters = (self._submit_some(entries, turn) for _ in range(SUBMITTERS))
        await together(*submitters, stop=self.give_up)
        self.has_left_some = await asyncio.to_thread(next, entries, None) is not None
        self.is_submitting = False

    async def _submit_some(self, entries: enumerate[Found], turn: asyncio.Lock) -> None:
        while not self._has_given_up:
            async with turn:  # a generator serves one at a time
                entry = await asyncio.to_thread(next, entries, None)
            if entry is None:
                return
            number, found = entry
            item = Item(place=(number,), path=found.path, outcome="refused")
            if found.refused is not None:
                item.reason = found.refused
                self._refused.append(item)
                continue
            try:
                sent = await self._pipeline.submit(found.path, tenant=self._tenant)
            except SourceRefused as error:
                item.reason = str(error).removeprefix(f"cannot take {error.source!r}: ")
                self._refused.append(item)
                continue
            item.outcome, item.id = sent.outcome, sent.document_id
            self._submitted[sent.document_id] = item
            self._moving[sent.document_id] = None

    async def watch(self) -> None:
        """Look at the documents until all of them rest, or wait for a person.

        Raises:
            DatabaseUnavailable: It has not answered for a minute; the runner may still go on.
        """
        answered = time.monotonic()
        while (self.is_submitting or self._moving) and not self._has_given_up:
            began = time.monotonic()
            try:
                await self.look()
                await self._explain_standstill()
                answered = time.monotonic()
            except DatabaseUnavailable:
                if time.monotonic() - answered > OUTAGE_SECONDS:
                    raise
            taken = time.monotonic() - began
            pause = min(LOOK_SHARE * taken, LOOK_SECONDS_LAST)
            await asyncio.sleep(max(LOOK_SECONDS_FIRST, pause))

    async def look(self) -> None:
        """Look once at the next page of the documents that moved when last seen."""
        page = list(itertools.islice(self._moving, PAGE))
        for document in await self._pipeline.documents(ids=page) if page else ():
            item = self._submitted[document.id]
            if item.document is None or item.document.version != document.version:
                self._moved, self.standstill = time.monotonic(), None
            item.document = document
            rests = self._pipeline.graph.is_resting(document.state)
            if not rests:
                item.reason = await self._waits_for_a_person(document)
            stays = rests or item.reason is not None
            if stays and document.children:
                await self._follow(item, document)
            del self._moving[document.id]
            if not stays:
                self._moving[document.id] = None

    async def _follow(self, parent: Item, document: Document) -> None:
        """Watch what was found in a document too, once it rests: now nothing more is lost."""
        for number, child in enumerate(await children_of(self._pipeline, document.id)):
            if child.state == DELETED or child.id in self._submitted:
                continue
            self._submitted[child.id] = Item(
                place=(*parent.place, number),
                path=parent.path / child.name,
                outcome="found",
                id=child.id,
                parent_id=document.id,
            )
            self._moving[child.id] = None

    async def _explain_standstill(self) -> None:
        """Find out, once, what the oldest moving document waits for when none moves."""
        seconds = time.monotonic() - self._moved
        if self.standstill is not None or not self._moving or seconds < STANDSTILL_SECONDS:
            return
        oldest = next(one for one in self._submitted if one in self._moving)
        found = await self._pipeline.explain(oldest)
        told = f"nothing has moved for {seconds:.0f} s; {found.document.name} is {found.sentence}"
        limit = found.obstacles.holder_dead_after_seconds
        if limit is not None and found.worker != self._runner.worker:
            told += (
                "; should that worker be dead, its documents are taken over "
                f"{limit:.0f} s after its last sign of life"
            )
        self.standstill = told

    async def look_at_all(self) -> None:
        """See every moving document once more, for a report that is up to date."""
        for _ in range(-(-len(self._moving) // PAGE)):
            await self.look()

    async def _waits_for_a_person(self, document: Document) -> str | None:
        """Ask once per state whether documents wait there for somebody to apply a trigger."""
        if document.state not in self._held:
            found = await self._pipeline.explain(document.id)
            if found.document.state != document.state:
                return None  # it moved on meanwhile
            self._held[document.state] = found.sentence if found.lane == "held" else None
        return self._held[document.state]

    async def give_reasons(self) -> None:
        """Say of every document that is not simply complete why."""
        for item in self._submitted.values():
            document = item.document
            if document is None or item.reason is not None:
                continue
            if document.state in {DEAD_LETTER, CANCELLED}:
                again = f"; to try again: statemachine-pipeline requeue {document.id}"
                hint = again if item.outcome == "unchanged" else ""
                item.reason = f"{document.last_error or document.state}{hint}"
            elif document.state == DELETED:
                item.reason = "it was deleted"
            elif not self._pipeline.graph.is_resting(document.state):
                item.reason = f"not finished: {document.last_error or 'still on its way'}"
            elif document.chunk_count == 0 and MARK_DUPLICATE in self._pipeline.graph.triggers:
                explained = (await self._pipeline.explain(document.id)).sentence
                item.reason = explained.partition(": ")[2]
