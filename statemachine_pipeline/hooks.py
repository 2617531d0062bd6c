"""What users write: the protocols of hooks, what a hook may return and what it may raise.

Hooks run with no database transaction open, and at least once: a worker that dies after a hook and
before its settle makes another worker run it again, with the same ``idempotency_key``.
"""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from statemachine_pipeline.records import idempotency_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline.records import Child, Chunk, Document, Hit, ParsedText, Source


class Reader(Protocol):
    """Reads what earlier stages left for a claim; implemented by the store."""

    async def read_source(self, claim: Claim) -> Source:
        """Return the document's bytes."""

    async def read_text(self, claim: Claim) -> ParsedText:
        """Return the stored text."""

    async def read_chunks(self, claim: Claim) -> Sequence[Chunk]:
        """Return the buffered chunks in reading order."""

    async def forget(self, claim: Claim) -> None:
        """Remove what was made for one attempt, which is over: files of ``Source.path``."""

    async def read_vectors(self, claim: Claim) -> Sequence[Sequence[float]]:
        """Return the buffered vectors in the order of their chunks."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One worker's right to one attempt at one stage.

    It is the ticket to every write of the attempt; nothing on it can write. Each write is refused
    with ``StaleClaim`` once the claim was rescued, cancelled or moved by hand.

    Attributes:
        document: The document as it was claimed.
        stage: The trigger this attempt tries to earn.
        sequence: The fence: unique for ever, higher for every later claim.
        attempt: 1-based try at this stage.
        crashes: How often the stage took down its worker, or a child process.
        worker: Id of the worker that holds it.
        due_at: From when on it could be claimed (UTC).
        deadline_at: When the hook is stopped and the attempt counts as timed out (UTC).
        entered_at: When the document came to stand where it stands (UTC).
        fingerprint: Identity of the hook and its settings.
        tokens: What requests were charged for since its last transition, before this attempt.
    """

    document: Document
    stage: str
    sequence: int
    attempt: int
    crashes: int
    worker: int
    due_at: datetime
    deadline_at: datetime
    entered_at: datetime
    fingerprint: str
    reader: Reader = dataclasses.field(repr=False, compare=False)
    tokens: int = 0

    @property
    def idempotency_key(self) -> UUID:
        """The same for this document, stage, input and hook over attempts, crashes and requeues.

        Another as soon as input or hook differ.
        """
        read = self.document.input_sha256
        return idempotency_key(self.document.id, self.stage, read, self.fingerprint)

    async def source(self) -> Source:
        """Return the document's bytes; a file of ``Source.path`` is there until the attempt ends.

        Raises:
            Reject: A file that was kept by its path, or an object, has gone or changed since it was
                submitted.
            Retry: The object store did not answer.
            StageFault: The object store cannot be used as it is set up.
        """
        return await self.reader.read_source(self)

    async def text(self) -> ParsedText:
        """Return the text of the current generation, as the last stage that wrote it left it."""
        return await self.reader.read_text(self)

    async def chunks(self) -> Sequence[Chunk]:
        """Return the buffered chunks in reading order, each with its id."""
        return await self.reader.read_chunks(self)

    async def vectors(self) -> Sequence[Sequence[float]]:
        """Return the buffered vectors; vector ``i`` belongs to chunk ``i`` of ``chunks``.

        Empty before the embedder is done; all of them once ``store_embeddings`` was earned.
        """
        return await self.reader.read_vectors(self)


@runtime_checkable
class Product(Protocol):
    """A value that knows how to write itself, inside the settle of its stage.

    A product may also have ``sha256``, the hash of what later stages read of it. Without one, its
    output counts as changed exactly when the stage's input or fingerprint did.
    """

    async def write(self, connection: AsyncConnection, claim: Claim) -> None:
        """Write the product on ``connection``, whose transaction also moves the document.

        The claim's fence is locked before the call. Never commit or roll back; what is raised
        undoes the whole settle, and the attempt has failed.
        """


class Done:
    """What a hook returns on success.

    Args:
        product: What it made, or None when only the transition matters.
        children: Documents found inside this one. They are submitted in the transaction that
            writes the product and moves the document, once, each with a life of its own. When the
            stage runs again, those it no longer returns are deleted and changed ones start anew.
        **reported: Facts for this stage's guards (``facts.reported``); JSON values, kept with the
            product for ``explain``.
    """

    __slots__ = ("children", "product", "reported")

    def __init__(
        self,
        product: object | None = None,
        /,
        *,
        children: Iterable[Child] = (),
        **reported: Any,
    ) -> None:
        self.product = product
        self.children = tuple(children)
        self.reported: Mapping[str, Any] = MappingProxyType(reported)

    def __repr__(self) -> str:
        found = f", children={self.children!r}" if self.children else ""
        return f"Done({self.product!r}{found}, reported={dict(self.reported)!r})"


class Signal(Exception):
    """Base of what a hook raises to tell its outcome."""


class Retry(Signal):
    """Try this stage again; counts an attempt.

    Args:
        reason: A sentence for people; must hold no document text.
        after: Wait at least this long; the stage's backoff when None.
    """

    def __init__(self, reason: str, after: timedelta | None = None) -> None:
        if after is not None and not isinstance(after, timedelta):
            raise TypeError(f"after must be a timedelta, got {after!r}")
        self.reason, self.after = reason, after
        super().__init__(reason)


class Reject(Signal):
    """This input will never pass: the document goes to ``dead_letter``.

    Args:
        reason: A sentence for people; must hold no document text.
        code: One word for grouping.
    """

    def __init__(self, reason: str, code: str = "rejected") -> None:
        self.reason, self.code = reason, code
        super().__init__(reason)


class RateLimited(Signal):
    """The provider asked to wait; the attempt is given back.

    Args:
        after: How long, as the provider said.
    """

    def __init__(self, after: timedelta) -> None:
        self.after = after
        super().__init__(f"rate limited for {after.total_seconds():g} s")


class StageFault(Signal):
    """The stage itself cannot work (wrong key, wrong dimension): no document is charged.

    The stage is paused for a while with this reason, and the attempt is given back.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Wait(Signal):
    """The work goes on elsewhere; look again later. The attempt is given back.

    Args:
        poll_after: When to look again.
    """

    def __init__(self, poll_after: timedelta = timedelta(seconds=30)) -> None:
        self.poll_after = poll_after
        super().__init__(f"waiting; next look in {poll_after.total_seconds():g} s")


@runtime_checkable
class Parser(Protocol):
    """Turns bytes into text."""

    def parse(self, source: Source) -> ParsedText | Done:
        """Read ``source`` whole; blocking is fine, the runner calls it off the event loop.

        Returns:
            The text; within ``Done(text, children=...)`` when other documents lie in this one.

        Raises:
            Reject: The content cannot be read and never will be; say why in a sentence.
        """


@runtime_checkable
class Chunker(Protocol):
    """Cuts text into passages."""

    def split(self, text: ParsedText) -> Sequence[Chunk]:
        """Cut ``text`` into passages in reading order; blocking is fine."""


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors.

    The runner forms requests from the texts of many documents, saves each answer at once, and calls
    ``embed`` several times at the same time. Raise ``Reject`` for a request that holds a text which
    will never pass: it is halved until that text is found, and only its document is rejected.

    It may also have ``limits``, a ``Limits`` of texts and tokens in one request; then also
    ``count_tokens(text)``, what a text counts for, which runs in a thread and may raise ``Reject``
    for a text that is too long. And ``call_timeout``, the longest that one call takes, which is
    refused unless it is below the stage's deadline.

    Attributes:
        dimensions: Length of every vector.
        batch_size: Most texts the runner hands over in one call.
    """

    dimensions: int
    batch_size: int

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Embed ``n`` texts, ``n >= 1``; vector ``i`` belongs to text ``i``.

        Returns:
            ``n`` vectors, shape ``(n, dimensions)``, finite and not all zero: lists, arrays, or the
            rows of one array of numpy's.
        """

    async def embed_query(self, text: str) -> Sequence[float]:
        """Embed one question, comparable with what ``embed`` returns."""


@runtime_checkable
class Publisher(Protocol):
    """Makes a document's chunks and vectors visible to readers.

    A publisher writes to a store of its own unless it has ``stores_elsewhere = False``, as the
    shipped one for this database has. For one that does, the pipeline notes before each ``publish``
    that the document may stand there, and calls ``withdraw`` once it must not any more: after a
    delete, and when it comes to rest as the duplicate of another document.

    Both run with no transaction open and at least once; never both at a time for one document, as
    long as no worker outlives its claim. For one that does, ``claim.sequence`` tells which call is
    the later: it is higher for every later publish or withdrawal.
    """

    async def publish(self, claim: Claim) -> object:
        """Make ``claim.chunks()`` and ``claim.vectors()`` all that readers see of the document.

        Returns:
            A product; ``Publication`` shows the passages in this database too and empties the
            buffers, so that unchanged text keeps its vector.
        """

    async def withdraw(self, claim: Claim) -> object:
        """Take everything of ``claim.document`` away from readers; nothing there is no error.

        Only the document's row can be read here: its bytes, text and chunks may be gone. What is
        raised is tried again with growing pauses, without end.

        Returns:
            None, or a product that is written in the transaction that forgets the withdrawal.
        """


Rerank: TypeAlias = "Callable[[str, Sequence[Hit]], Awaitable[Sequence[float]]]"
"""Called by a search with the question and its candidates, best first.

Returns one finite score for each, in their order; the higher the better.
"""

Hook: TypeAlias = (
    "Callable[[Claim], Awaitable[Done | Product | None]] | Callable[[Claim], Done | Product | None]"
)
"""A plain function of the claim, ``def`` or ``async def``."""
