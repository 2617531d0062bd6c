"""Frozen values that cross a module border, and the ids computed from them.

Nothing here does I/O or knows a database; a record is made once and never changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID, uuid5

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from statemachine_pipeline.letters import DeadLetter
    from statemachine_pipeline.obstacles import Awaited, Obstacles

NAMESPACE = UUID("0d5a4f7e-6c1b-5e0f-9a55-2f1f0a9f5d11")
"""Root of every id; a change would give every document another id."""

CHILD_SCHEME = "child:"
"""How the ``source_uri`` of documents found in documents begins; no other may."""
CHILD_NAME_LIMIT_CHARS = 1_000


def _empty() -> Mapping[str, Any]:
    return MappingProxyType({})


Lane = Literal["ready", "deferred", "held", "claimed"]
KeyKind = Literal["bytes", "text"]
Change = Literal["new", "changed", "unchanged"]
SearchMode = Literal["hybrid", "vector", "text"]


def document_id(tenant: str, source_uri: str) -> UUID:
    """Name a document by where it comes from: the same tenant and source, the same id."""
    return uuid5(uuid5(NAMESPACE, tenant), source_uri)


def child_uri(parent: UUID, stage: str, name: str = "", occurrence: int = 0) -> str:
    """Say where a document found inside another comes from.

    The same for every revision of the parent in which the stage finds a child of that name again;
    no two parents, stages or siblings share one. Without a name, it is how all children of a stage
    begin.

    Args:
        parent: The document it was found in.
        stage: The trigger of the stage whose hook found it.
        name: Its name in there.
        occurrence: 1-based count among the siblings of that name, in the order of the hook.
    """
    start = f"{CHILD_SCHEME}{parent}/{stage}/"
    return f"{start}{occurrence}/{name}" if occurrence else start


def chunk_id(document: UUID, text: str, occurrence: int) -> UUID:
    """Name a chunk by its text, so that changed text can never stand under an old id.

    Args:
        document: The document the chunk belongs to.
        text: The chunk's text.
        occurrence: 0-based count of earlier chunks of the document with the same text.
    """
    return uuid5(document, f"{sha256_hex(text)}:{occurrence}")


def idempotency_key(document: UUID, stage: str, input_sha256: str, fingerprint: str) -> UUID:
    """Name one stage's work on one input: equal over attempts, crashes and requeues."""
    return uuid5(document, f"{stage}:{input_sha256}:{fingerprint}")


def sha256_hex(content: str | bytes) -> str:
    """Hash text (as UTF-8) or bytes, as 64 hexadecimal digits."""
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()


def chain_sha256(*parts: str) -> str:
    """Hash a sequence of texts so that no two sequences give the same input."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What guards read: a snapshot of one document at one decision.

    Attributes:
        attempt: 1-based try at the current stage.
        attempts_allowed: Tries the stage's policy grants.
        crashes: How often the stage took down its worker, or a child process.
        crashes_allowed: Crashes after which the document is parked.
        permanent: The hook said that another try cannot help.
        duplicate_of: The other document that owns the same bytes or text, if any.
        duplicate_by: Which of the two is shared.
        text_chars: Length of the parsed text in characters.
        chunks_expected: Chunks the chunker returned; 0 before.
        chunks_stored: Chunks counted in the database after the write.
        vectors_expected: Chunks that need a vector.
        vectors_stored: Chunks that have one, counted in the database.
        reported: What this stage's hook said in ``Done(..., key=value)``.
    """

    attempt: int = 1
    attempts_allowed: int = 5
    crashes: int = 0
    crashes_allowed: int = 3
    permanent: bool = False
    duplicate_of: UUID | None = None
    duplicate_by: KeyKind | None = None
    text_chars: int = 0
    chunks_expected: int = 0
    chunks_stored: int = 0
    vectors_expected: int = 0
    vectors_stored: int = 0
    reported: Mapping[str, object] = dataclasses.field(default_factory=_empty)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document as its row stands.

    Attributes:
        id: uuid5 of tenant and ``source_uri``.
        source_uri: Where it comes from: ``file://`` and the resolved path, the caller's own, or
            ``sha256:<hex>`` for bytes without one.
        name: For display; never identity.
        version: Number of transitions taken; equal to its newest history row's version.
        generation: 1-based number of the bytes: grows when the source changes.
        life: 1-based run of the machine: grows with every restart.
        content_sha256: Hash of the current bytes.
        input_sha256: Hash of what the current stage reads.
        text_sha256: Normalised hash of the validated text, once there is one.
        chunk_count: Published chunks.
        vector_count: Published vectors.
        last_error: Why the document last failed or was retried; None after success.
        parent_id: The document it was found in; None for one that was submitted.
        depth: How many documents it lies in: 0 for one that was submitted.
        traceparent: W3C trace context in which it, or what it was found in, was submitted.
        children: How many documents each stage found in it when it last ran; empty if none did.
    """

    id: UUID
    tenant: str
    source_uri: str
    name: str
    state: str
    version: int
    generation: int
    life: int
    media_type: str | None
    size_bytes: int
    content_sha256: str
    input_sha256: str
    text_sha256: str | None
    text_chars: int
    chunk_count: int
    vector_count: int
    correlation_id: str
    last_error: str | None
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    parent_id: UUID | None = None
    depth: int = 0
    traceparent: str | None = None
    children: Mapping[str, int] = dataclasses.field(default_factory=_empty)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """An edge taken: one row of history, never updated.

    Attributes:
        from_state: None for the first row, whose trigger is ``submit``.
        hop: The edge was walked without running its hook, because its product was current.
        attempt: The try that earned the edge; None where no hook was run.
        worker: Id of the worker that settled it; None for people and for ``submit``.
        by: Who asked, when no worker did.
        run_seconds: How long the hook ran.
        tokens: What requests of this attempt, and of those given back before it, were charged for,
            as the provider counted them, else as estimated; None for nothing.
        error: Code of the failure, for ``retry`` and ``fail``.
    """

    document_id: UUID
    version: int
    life: int
    generation: int
    trigger: str
    from_state: str | None
    to_state: str
    hop: bool
    attempt: int | None
    worker: int | None
    claim_seq: int | None
    by: str | None
    reason: str | None
    correlation_id: str
    run_seconds: float | None
    error: str | None
    at: datetime
    tokens: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The bytes of a document, in memory or in a file.

    Attributes:
        name: File name for display and for hints; may lie about the type.
        media_type: What the first bytes say, once intake has looked.
        size_bytes: Length of the content.
        data: The content, or None when it is read from ``path``.
        path: The file that holds the content when ``data`` is None.
    """

    name: str
    media_type: str | None
    size_bytes: int
    data: bytes | None = None
    path: Path | None = None

    def read(self) -> bytes:
        """Return the whole content; blocks on the disk when it is a file."""
        if self.data is not None:
            return self.data
        if self.path is None:
            raise ValueError(f"source {self.name!r} has neither data nor path")
        return self.path.read_bytes()


@dataclasses.dataclass(frozen=True, slots=True)
class Child:
    """A document found inside another, as a hook returns it in ``Done(children=...)``.

    Attributes:
        name: What it is called in there, perhaps with folders. Siblings may share a name; by name
            and order a child is the same document when its parent comes again.
        data: Its bytes.
        metadata: JSON values to keep beside it, over those of its parent.
    """

    name: str
    data: bytes = dataclasses.field(repr=False)
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=_empty)

    def __post_init__(self) -> None:
        if not isinstance(self.data, bytes):
            raise TypeError(f"a child's data must be bytes, found {type(self.data).__name__}")
        if not self.name.strip() or len(self.name) > CHILD_NAME_LIMIT_CHARS:
            raise ValueError(f"a child needs a name of 1 to {CHILD_NAME_LIMIT_CHARS:,} characters")
        if not self.name.isprintable():  # lone surrogates are not printable either
            raise ValueError("a child's name may not hold control characters")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A page's place in the parsed text.

    Attributes:
        page: 1-based page number.
        start: Offset of its first character in the text.
        end: Offset after its last character.
    """

    page: int
    start: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class ParsedText:
    """What a parser returns: text, where its pages lie, and what was lost.

    Attributes:
        text: The document as Markdown or plain text; holds no NUL character.
        spans: Pages in order, empty for formats without pages.
        warnings: Sentences for people about what could not be read.
        made_by: Fingerprint of a parser that stood in for the stage's; ``reprocess`` runs it again.
    """

    text: str
    spans: tuple[Span, ...] = ()
    warnings: tuple[str, ...] = ()
    made_by: str | None = None

    def __post_init__(self) -> None:
        if "\x00" in self.text:
            raise ValueError("parsed text may not hold NUL characters")
        self.text.encode()  # lone surrogates are no text either

    @property
    def sha256(self) -> str:
        """Hash of the text and its pages."""
        pages = (f"{span.page},{span.start},{span.end}" for span in self.spans)
        return chain_sha256(self.text, *pages)

    def replace(self, *, text: str) -> ParsedText:
        """Return a copy with other text; pages are dropped, since their offsets moved."""
        spans = self.spans if text == self.text else ()
        return ParsedText(text, spans, self.warnings)

    def page_at(self, offset: int) -> int | None:
        """Return the page that holds the character at ``offset``, if the format has pages."""
        for span in self.spans:
            if span.start <= offset < span.end:
                return span.page
        return None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage of a document, as a chunker returns it.

    Attributes:
        index: 0-based place in reading order.
        text: The passage; never empty.
        start: Offset of its first character in the parsed text.
        end: Offset after its last character.
        headings: Titles above it, outermost first.
        page: 1-based page it starts on, where the format has pages.
        metadata: Anything the chunker wants to keep, as JSON values.
        id: Given by the store (``chunk_id``); None while a chunker holds it.
    """

    index: int
    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=_empty)
    id: UUID | None = None


def identify(document: UUID, chunks: Sequence[Chunk]) -> list[Chunk]:
    """Give each chunk its id; chunks with the same text are told apart by their order."""
    seen: dict[str, int] = {}
    named = []
    for chunk in chunks:
        occurrence = seen.get(chunk.text, 0)
        seen[chunk.text] = occurrence + 1
        named.append(dataclasses.replace(chunk, id=chunk_id(document, chunk.text, occurrence)))
    return named


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Product of intake: the bytes are readable, and of this type.

    Attributes:
        media_type: Sniffed from the content.
        sha256: Hash of the content, equal to the document's.
    """

    media_type: str
    sha256: str

    @property
    def key(self) -> tuple[KeyKind, str]:
        """What another document must not own too."""
        return "bytes", self.sha256


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """Product of validation: the text is whole, and this is its normalised hash."""

    text_sha256: str

    @property
    def key(self) -> tuple[KeyKind, str]:
        """What another document must not own too."""
        return "text", self.text_sha256


@dataclasses.dataclass(frozen=True, slots=True)
class Chunks:
    """Product of chunking: the passages in reading order."""

    chunks: tuple[Chunk, ...]

    @property
    def sha256(self) -> str:
        """Hash of everything about the chunks that later stages read."""
        return chain_sha256(
            *(
                f"{c.index}|{c.start}|{c.end}|{c.page}|{c.headings}|{dict(c.metadata)}|{c.text}"
                for c in self.chunks
            )
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Product of embedding: one vector for each chunk id.

    Attributes:
        embedder: Fingerprint of the embedder that made them.
        dimensions: Length of every vector.
        chunk_ids: ``n`` ids.
        values: ``n`` vectors of that length, in the order of ``chunk_ids``.
    """

    embedder: str
    dimensions: int
    chunk_ids: tuple[UUID, ...] = ()
    values: tuple[Sequence[float], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Product of publishing: make the buffered chunks and vectors the document's visible ones."""


@dataclasses.dataclass(frozen=True, slots=True)
class Incoming:
    """A document on its way in: one item of ``submit_many``, with the arguments of ``submit``."""

    source: str | Path | bytes
    _: dataclasses.KW_ONLY
    source_uri: str | None = None
    name: str | None = None
    metadata: Mapping[str, Any] | None = None
    priority: int = 0
    not_before: datetime | None = None
    correlation_id: str | None = None
    traceparent: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What ``submit`` did.

    Attributes:
        outcome: ``new``; ``changed`` when the source was known with other bytes and starts again;
            ``unchanged`` when nothing was written.
        state: Where the document stands now.
    """

    document_id: UUID
    outcome: Change
    state: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An item of ``submit_many`` that cannot become a document; nothing of it was written.

    Attributes:
        source: What was asked for, as text.
        reason: What was found, and what to do.
    """

    source: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One passage found by a search.

    Attributes:
        score: What hits are ordered by; higher is better. In mode ``vector`` the cosine similarity,
            in mode ``text`` PostgreSQL's ``ts_rank``, in mode ``hybrid`` the reciprocal ranks put
            together (1 when first by both, 0.5 when first by one only); with a reranker, its score.
            Scores of different modes, or of different questions, cannot be compared.
        text: The passage.
        page: 1-based page it starts on, where the format has pages.
        headings: Titles above it, outermost first.
        index: 0-based place among the document's chunks, in reading order.
        start: Offset of its first character in the document's text.
        end: Offset after its last character.
        metadata: What the chunker kept with it.
        vector_rank: 1-based place by vector; None when it was not among the candidates.
        vector_score: Cosine similarity of question and passage, at most 1.
        text_rank: 1-based place by words; None when it was not among the candidates.
        text_score: PostgreSQL's ``ts_rank``, at least 0.
    """

    score: float
    text: str
    page: int | None
    headings: tuple[str, ...]
    index: int
    start: int
    end: int
    metadata: Mapping[str, Any]
    vector_rank: int | None
    vector_score: float | None
    text_rank: int | None
    text_score: float | None
    chunk_id: UUID
    document: Document


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a guard says of some facts.

    Attributes:
        guard: The function's name, with ``not `` before it when the edge wants it false.
        holds: Whether the edge's wish is met.
        error: What the guard raised, if it did; then ``holds`` is False.
    """

    guard: str
    holds: bool
    error: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One trigger as seen from a state: where it leads and what its guards say."""

    trigger: str
    to_state: str
    verdicts: tuple[Verdict, ...]

    @property
    def is_open(self) -> bool:
        """Whether every guard agrees."""
        return all(verdict.holds for verdict in self.verdicts)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a document stands where it stands, and what comes next.

    Attributes:
        sentence: The answer in one sentence for people.
        lane: Whether a worker may take it; None when it rests.
        worker: Who holds it, while claimed.
        until: When it becomes claimable (deferred) or is timed out (claimed).
        options: Every trigger declared for the state, with each guard's verdict.
        warnings: The parser's, about the text that is stored: what it left out or guessed.
        dead_letter: What is known of the failure, when it is one.
        crash: When it was last taken over from a worker that died or was late, in this life.
        stages: The stages it is at or waits for, by their triggers; empty when it rests.
        obstacles: What else stands in its way.
        waits_for: The same in words for programs: a ``worker`` that is free, or none is alive; the
            ``time`` it is due; a ``person`` who applies a trigger; the ``resume`` or end of a
            pause; a ``provider``; an ``idle_worker``, that holds nothing else; the ``rescue`` from
            a silent worker; its ``withdrawal`` from other stores.
    """

    document: Document
    sentence: str
    lane: Lane | None
    attempt: int
    crashes: int
    worker: int | None
    until: datetime | None
    options: tuple[Option, ...]
    warnings: tuple[str, ...]
    stages: tuple[str, ...]
    obstacles: Obstacles
    waits_for: tuple[Awaited, ...]
    dead_letter: DeadLetter | None = None
    crash: Transition | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A document that ``apply`` left where it was, and why."""

    document_id: UUID
    state: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What ``apply`` did, or with ``dry_run`` would do.

    Attributes:
        matched: Documents that were asked for and exist.
        moved: Those that took the trigger.
        refused: Those that did not, with reasons.
    """

    matched: tuple[UUID, ...]
    moved: tuple[UUID, ...]
    refused: tuple[Refusal, ...]
