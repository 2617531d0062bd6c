"""The tables of one pipeline, for a schema. Declares, executes nothing.

``document`` is wide and cold, ``work`` narrow and hot, ``transition`` append-only. No index covers
a column of ``document`` that a transition changes, and nothing references ``work``: both would take
away heap-only updates. What must hold whatever client writes is in ``checks.py``.
"""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, REGCONFIG, TSVECTOR, UUID

VERSION_TABLE = "alembic_version"
CLAIM_SEQUENCE = "claim_seq"

WORDS_READ_CHARS = 100_000
"""Characters of a chunk whose words can be searched; a tsvector holds at most 1 MB."""

_now = sa.text("clock_timestamp()")
_xact = sa.text("pg_current_xact_id()::text::bigint")


class Tables:
    """Every table of the pipeline in ``schema``, as attributes."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.metadata = sa.MetaData(schema=schema, naming_convention=_NAMES)
        self.claim_seq = sa.Sequence(CLAIM_SEQUENCE, metadata=self.metadata)
        self.lifecycle = _lifecycle(self.metadata)
        self.document = _document(self.metadata)
        self.transition = _transition(self.metadata)
        self.work = _work(self.metadata, self.claim_seq)
        self.worker = _worker(self.metadata)
        self.dead_letter = _dead_letter(self.metadata)
        self.product = _product(self.metadata)
        self.blob_object = _blob_object(self.metadata)
        self.blob = _blob(self.metadata)
        self.text_owner = _text_owner(self.metadata)
        self.duplicate_of = _duplicate_of(self.metadata)
        self.pause = _pause(self.metadata)
        self.breaker = _breaker(self.metadata)
        self.breaker_change = _breaker_change(self.metadata)
        self.budget = _budget(self.metadata)
        self.restore = _restore(self.metadata)
        self.placement = _placement(self.metadata)
        self.parsed_document = _parsed_document(self.metadata)
        self.chunk_buffer = _chunk_buffer(self.metadata)
        self.chunk = _chunk(self.metadata, f'"{schema}".words')
        self.embedder = _embedder(self.metadata)
        self.vector_buffer = _vector_buffer(self.metadata)
        self.chunk_vector = _chunk_vector(self.metadata)

    @property
    def configuration(self) -> sa.ColumnElement[Any]:
        """What says which words a text has, for the column and for questions alike."""
        return sa.literal_column(f"'\"{self.schema}\".words'::regconfig", REGCONFIG)

    @property
    def channel(self) -> str:
        """The NOTIFY channel that says there is work."""
        return f"{self.schema}_work"


_NAMES = {
    "pk": "%(table_name)s_pkey",
    "ck": "%(table_name)s_%(constraint_name)s",
    "fk": "%(table_name)s_%(referred_table_name)s_fkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
}


@functools.cache
def tables(schema: str) -> Tables:
    """Return the tables of ``schema``, made once."""
    return Tables(schema)


def _text(name: str, *, nullable: bool = False, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=nullable, **options)


def _tenant(*, nullable: bool = False) -> sa.Column[Any]:
    """Name a tenant where tenants take turns: ordered by code points, as Python orders them."""
    return sa.Column("tenant", sa.Text(collation="C"), nullable=nullable)


def _count(name: str, default: int | None = 0, kind: Any = sa.Integer) -> sa.Column[Any]:
    given = None if default is None else str(default)
    return sa.Column(name, kind, nullable=False, server_default=given)


def _time(name: str, *, nullable: bool = False, default: bool = True) -> sa.Column[Any]:
    given = _now if default else None
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable, server_default=given)


def _owned(*, primary_key: bool = True) -> sa.Column[Any]:
    """Name the document a row belongs to; the row goes when the document does."""
    return sa.Column(
        "document_id",
        UUID(as_uuid=True),
        sa.ForeignKey("document.id", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
    )


def _lifecycle(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "lifecycle",
        metadata,
        sa.Column("version", sa.Integer, sa.Identity(always=True), primary_key=True),
        _text("name"),
        _text("fingerprint", unique=True),
        sa.Column("graph", JSONB, nullable=False),
        # Triggers, of the hooks and not of the class: so no part of the graph and its fingerprint.
        sa.Column("by_hand", JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")),
        sa.Column("earned", JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")),
        # Pairs of a state that documents were moved out of for this lifecycle, and the next one.
        sa.Column("successors", JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")),
        _time("at"),
        comment="The lifecycles this schema was migrated to, newest last, as JSON",
    )


def _document(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "document",
        metadata,
        sa.Column("id", UUID(as_uuid=True), primary_key=True),
        _text("tenant"),
        _text("source_uri"),
        _text("name"),
        _text("state"),
        _count("version", None),
        _count("life", None),
        _count("generation", None),
        _text("media_type", nullable=True),
        _count("size_bytes", None, sa.BigInteger),
        _text("path", nullable=True),
        _text("content_sha256"),
        _text("input_sha256"),
        _text("text_sha256", nullable=True),
        _text("published_sha256", nullable=True),
        _count("text_chars"),
        _count("chunk_count"),
        _count("vector_count"),
        _text("correlation_id"),
        # Of the trace in which it was submitted, as W3C writes it.
        _text("traceparent", nullable=True),
        _text("last_error", nullable=True),
        sa.Column("metadata", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        # No cascade: a document's row goes after the rows of those found in it.
        sa.Column("parent_id", UUID(as_uuid=True), sa.ForeignKey("document.id")),
        sa.Column("depth", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("children", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        _time("created_at"),
        _time("updated_at"),
        sa.ForeignKeyConstraint(
            ["id", "version", "state"],
            ["transition.document_id", "transition.version", "transition.to_state"],
            name="document_stands_at_its_newest_transition",
        ),
        sa.Index(None, "created_at", "id"),
        sa.CheckConstraint("(parent_id IS NULL) = (depth = 0)", name="child_has_depth"),
        sa.Index(
            "document_parent_idx",
            "parent_id",
            "created_at",
            "id",
            postgresql_where=sa.literal_column("parent_id IS NOT NULL"),
        ),
        sa.Index(None, "tenant"),
        sa.Index(
            None,
            "metadata",
            postgresql_using="gin",
            postgresql_ops={"metadata": "jsonb_path_ops"},
        ),
        postgresql_with={"fillfactor": "70"},
        comment="One row per document: where it comes from and where it stands",
    )


def _transition(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "transition",
        metadata,
        sa.Column("document_id", UUID(as_uuid=True), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        _count("life", None),
        _count("generation", None),
        _text("trigger"),
        _text("from_state", nullable=True),
        _text("to_state"),
        sa.Column("hop", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("attempt", sa.SmallInteger),
        sa.Column("worker", sa.BigInteger),
        sa.Column("claim_seq", sa.BigInteger),
        _text("by", nullable=True),
        _text("reason", nullable=True),
        _text("correlation_id"),
        sa.Column("run_seconds", sa.Double),
        sa.Column("tokens", sa.BigInteger),
        _text("error", nullable=True),
        _time("at"),
        # Stored: PostgreSQL 18 makes generated columns virtual by default, and a foreign key
        # needs a stored one.
        # Where the feed of events has it: in which transaction, as a number that only grows.
        sa.Column("xact", sa.BigInteger, nullable=False, server_default=_xact),
        sa.Column("prev", sa.Integer, sa.Computed("nullif(version - 1, 0)", persisted=True)),
        # Only ever grows at its right end, and one entry stands for all rows of a transaction.
        sa.Index(None, "xact"),
        sa.Index(
            "transition_spent_idx",
            "at",
            postgresql_where=sa.literal_column("tokens IS NOT NULL"),
        ),
        sa.UniqueConstraint("document_id", "version", "to_state", name="transition_state_key"),
        sa.CheckConstraint("version >= 1", name="version_starts_at_one"),
        sa.CheckConstraint("(version = 1) = (from_state IS NULL)", name="only_the_first_is_born"),
        sa.ForeignKeyConstraint(
            ["document_id", "prev", "from_state"],
            ["transition.document_id", "transition.version", "transition.to_state"],
            name="transition_continues_its_predecessor",
        ),
        comment="History: one row per edge taken, never changed; a path of the graph",
    )


def _work(metadata: sa.MetaData, claim_seq: sa.Sequence) -> sa.Table:
    lane = sa.Column("lane", sa.Text, nullable=False)
    return sa.Table(
        "work",
        metadata,
        _owned(),
        _tenant(),
        _text("state"),
        lane,
        sa.Column("priority", sa.SmallInteger, nullable=False, server_default="0"),
        _time("run_at"),
        _time("entered_at"),
        sa.Column(
            "claim_seq", sa.BigInteger, nullable=False, server_default=claim_seq.next_value()
        ),
        sa.Column("attempt", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("crashes", sa.SmallInteger, nullable=False, server_default="0"),
        # A document that took a worker down with it is claimed by a worker that holds nothing else.
        sa.Column("alone", sa.Boolean, nullable=False, server_default=sa.false()),
        # What its attempts since the last transition were charged for.
        _count("tokens", kind=sa.BigInteger),
        sa.Column("worker", sa.BigInteger),
        _time("deadline_at", nullable=True, default=False),
        sa.CheckConstraint("lane IN ('ready', 'deferred', 'held', 'claimed')", name="lane_known"),
        sa.CheckConstraint(
            "(lane = 'claimed') = (worker IS NOT NULL AND deadline_at IS NOT NULL)",
            name="claimed_by_someone_until",
        ),
        sa.CheckConstraint("crashes > 0 OR NOT alone", name="alone_after_a_crash"),
        sa.Index(
            "work_ready_idx",
            "state",
            "alone",
            # Before what orders its documents: another tenant's backlog is stepped over, not read.
            "tenant",
            "priority",
            "run_at",
            "document_id",
            postgresql_where=lane == sa.literal_column("'ready'"),
        ),
        sa.Index(
            "work_deferred_idx",
            "run_at",
            postgresql_where=lane == sa.literal_column("'deferred'"),
        ),
        sa.Index(
            "work_claimed_idx", "worker", postgresql_where=lane == sa.literal_column("'claimed'")
        ),
        postgresql_with={
            "fillfactor": "70",
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
            "autovacuum_analyze_scale_factor": "0",
            "autovacuum_analyze_threshold": "1000",
        },
        comment="One row per document that does not rest: who may take it, when, and who has it",
    )


def _worker(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "worker",
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        _text("host"),
        _count("pid", None),
        _text("version"),
        # Fingerprint of the lifecycle that it runs.
        _text("lifecycle", nullable=True),
        _time("started_at"),
        _time("beat_at"),
        # What it said of itself, by which others judge it; else as Liveness has it.
        _count("beat_seconds", 10, sa.Double),
        _count("dead_after_seconds", 60, sa.Double),
        # With the beat: outcomes it has written that brought a document on, and when the last was.
        _count("settled", 0, sa.BigInteger),
        _time("settled_at", nullable=True, default=False),
        sa.Column("draining", sa.Boolean, nullable=False, server_default=sa.false()),
        # Stages by their triggers, each with the provider that it asks or null.
        sa.Column("serves", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        _time("dead_at", nullable=True, default=False),
        # The id under which its process works since it lost this one: it is no process that died.
        sa.Column("goes_on_as", sa.BigInteger),
        postgresql_with={"fillfactor": "50"},
        comment="Running and recently dead workers, and when each last gave a sign of life",
    )


def _dead_letter(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "dead_letter",
        metadata,
        _owned(),
        _text("stage"),
        _text("state"),
        _text("code"),
        _text("reason"),
        _count("attempts", None),
        _count("crashes", None),
        _text("error_type", nullable=True),
        _text("traceback", nullable=True),
        _time("at"),
        sa.CheckConstraint("stage <> '' AND code <> ''", name="has_stage_and_code"),
        sa.CheckConstraint("attempts >= 0 AND crashes >= 0", name="counts_from_zero"),
        sa.Index(None, "at", "document_id"),
        comment="Why documents failed for good, for lists and groups; gone once they start again",
    )


def _product(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "product",
        metadata,
        _owned(),
        _text("stage", primary_key=True),
        _text("input_sha256"),
        _text("fingerprint"),
        _text("output_sha256"),
        _text("kind"),
        _text("key_kind", nullable=True),
        _text("key_sha256", nullable=True),
        sa.Column("reported", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("facts", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        _time("at"),
        postgresql_with={"fillfactor": "90"},
        comment="What each stage made of which input; what a later life may hop over",
    )


def _blob_object(metadata: sa.MetaData) -> sa.Table:
    """Declare what was ever put into the object store and not yet erased there."""
    erasing = sa.Column("erasing", sa.Boolean, nullable=False, server_default=sa.false())
    return sa.Table(
        "blob_object",
        metadata,
        _text("key", primary_key=True),
        _text("content"),
        erasing,
        _time("seen_at"),
        sa.Index("blob_object_content_key", "content", unique=True, postgresql_where=~erasing),
        comment="Objects in the object store, and which of them are being erased",
    )


def _blob(metadata: sa.MetaData) -> sa.Table:
    key = sa.Column("key", sa.Text, sa.ForeignKey("blob_object.key"))
    return sa.Table(
        "blob",
        metadata,
        _owned(),
        _text("sha256"),
        sa.Column("content", BYTEA),
        key,
        sa.CheckConstraint("(content IS NULL) <> (key IS NULL)", name="here_or_in_the_store"),
        sa.Index("blob_key_idx", key, postgresql_where=key.is_not(None)),
        comment="The submitted bytes of each document, or the object that holds them",
    )


def _text_owner(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "text_owner",
        metadata,
        _text("tenant", primary_key=True),
        _text("kind", primary_key=True),
        _text("sha256", primary_key=True),
        _owned(primary_key=False),
        sa.Index(None, "document_id"),
        sa.CheckConstraint("kind IN ('bytes', 'text')", name="kind_known"),
        comment="Which document stands for some bytes or text of a tenant",
    )


def _duplicate_of(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "duplicate_of",
        metadata,
        _owned(),
        sa.Column("owner", UUID(as_uuid=True), nullable=False),
        _text("kind"),
        _text("sha256"),
        _time("at"),
        sa.Index(None, "owner", "at"),
        comment="Which document rests on which, and since when; the oldest takes over",
    )


def _pause(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "pause",
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        _text("stage", nullable=True),
        _tenant(nullable=True),
        # Beside what a person says, not instead of it: neither shortens the other.
        sa.Column("fault", sa.Boolean, nullable=False, server_default=sa.false()),
        _text("reason"),
        _text("by"),
        _time("until", nullable=True, default=False),
        _time("at"),
        sa.UniqueConstraint(
            # Tenants first: a claim looks each one up that it comes by.
            *("tenant", "stage", "fault"),
            name="pause_place_key",
            postgresql_nulls_not_distinct=True,
        ),
        sa.CheckConstraint("stage IS NOT NULL OR tenant IS NOT NULL", name="of_something"),
        sa.CheckConstraint("NOT fault OR until IS NOT NULL", name="faults_end"),
        comment="Stages, tenants, or stages for one tenant that nobody claims for, and why",
    )


def _breaker(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "breaker",
        metadata,
        _text("provider", primary_key=True),
        _text("state", server_default="closed"),
        _text("reason", nullable=True),
        _time("opened_at", nullable=True, default=False),
        _time("until", nullable=True, default=False),
        sa.Column("probe_worker", sa.BigInteger),
        _time("probe_until", nullable=True, default=False),
        _time("at"),
        sa.CheckConstraint("state IN ('closed', 'open', 'half_open')", name="state_known"),
        sa.CheckConstraint(
            "(state = 'closed') = (reason IS NULL) AND (state = 'closed') = (opened_at IS NULL)"
            " AND (state = 'closed') = (until IS NULL)",
            name="open_for_a_reason_until",
        ),
        sa.CheckConstraint(
            "(state = 'half_open') = (probe_worker IS NOT NULL)"
            " AND (state = 'half_open') = (probe_until IS NOT NULL)",
            name="half_open_for_one_probe",
        ),
        comment="Whether each provider is asked, and which worker tries one that was down",
    )


def _breaker_change(metadata: sa.MetaData) -> sa.Table:
    breaker = sa.ForeignKey("breaker.provider", ondelete="CASCADE")
    return sa.Table(
        "breaker_change",
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("provider", sa.Text, breaker, nullable=False),
        _text("state"),
        _text("reason", nullable=True),
        sa.Column("worker", sa.BigInteger, nullable=False),
        _time("at"),
        sa.Index(None, "provider", "id"),
        comment="The newest changes of each provider's breaker, and which worker made them",
    )


def _budget(metadata: sa.MetaData) -> sa.Table:
    above_zero = " AND ".join(
        f"coalesce({kind}_{what}, 1) > 0"
        for kind in ("requests", "tokens")
        for what in ("limit", "told")
    )
    return sa.Table(
        "budget",
        metadata,
        _text("provider", primary_key=True),
        sa.Column("requests_limit", sa.Double),
        sa.Column("requests_told", sa.Double),
        sa.Column("requests_level", sa.Double),
        sa.Column("tokens_limit", sa.Double),
        sa.Column("tokens_told", sa.Double),
        sa.Column("tokens_level", sa.Double),
        sa.Column("per_seconds", sa.Double, nullable=False),
        sa.Column("hold_seconds", sa.Double, nullable=False),
        _time("levels_at"),
        _time("blocked_until", nullable=True, default=False),
        _time("taken_until", nullable=True, default=False),
        sa.CheckConstraint(above_zero, name="limits_above_zero"),
        sa.CheckConstraint("per_seconds > 0 AND hold_seconds >= 0", name="times_make_sense"),
        postgresql_with={"fillfactor": "50"},
        comment="What each provider lets the fleet ask for, and how much of it is left",
    )


def _restore(metadata: sa.MetaData) -> sa.Table:
    """Keep what is added to transaction numbers since histories came from another server."""
    return sa.Table(
        "restore",
        metadata,
        sa.Column("offset", sa.BigInteger, primary_key=True, autoincrement=False),
        _time("at"),
        comment="What to add to transaction numbers of histories that another server wrote",
    )


def _placement(metadata: sa.MetaData) -> sa.Table:
    withdraw_at = _time("withdraw_at", nullable=True, default=False)
    return sa.Table(
        "placement",
        metadata,
        # No cascade: whoever removes a document for good has to withdraw it first.
        sa.Column(
            "document_id", UUID(as_uuid=True), sa.ForeignKey("document.id"), primary_key=True
        ),
        _text("stage", primary_key=True),
        _time("placed_at"),
        _time("writing_until", default=False),
        withdraw_at,
        _time("run_at", nullable=True, default=False),
        sa.Column("claim_seq", sa.BigInteger),
        _count("attempts"),
        _text("last_error", nullable=True),
        sa.CheckConstraint("(withdraw_at IS NULL) = (run_at IS NULL)", name="withdrawn_some_time"),
        sa.Index(
            "placement_withdrawn_idx",
            "stage",
            "run_at",
            postgresql_where=withdraw_at.is_not(None),
        ),
        comment="Documents in stores outside the database, and when they have to leave them",
    )


def _parsed_document(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "parsed_document",
        metadata,
        _owned(),
        _count("generation", None),
        _text("fingerprint"),
        _text("sha256"),
        _text("text"),
        sa.Column("spans", JSONB, nullable=False),
        sa.Column("warnings", JSONB, nullable=False),
        comment="The text of each document as its parser left it, with pages and warnings",
    )


def _passage() -> list[sa.Column[Any]]:
    return [
        _count("index", None),
        _text("text"),
        _count("start", None),
        _count("end", None),
        sa.Column("headings", JSONB, nullable=False),
        sa.Column("page", sa.Integer),
        sa.Column("metadata", JSONB, nullable=False),
    ]


def _chunk_buffer(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "chunk_buffer",
        metadata,
        _owned(),
        _text("set_sha256", primary_key=True),
        sa.Column("id", UUID(as_uuid=True), primary_key=True),
        *_passage(),
        comment="Passages on their way; read chunk for what is published",
    )


def _chunk(metadata: sa.MetaData, configuration: str) -> sa.Table:
    # A configuration of the schema's own: who needs another language alters it there, and what is
    # stored can never disagree with what is asked.
    create = f"CREATE TEXT SEARCH CONFIGURATION {configuration} (COPY = pg_catalog.english)"
    sa.event.listen(metadata, "before_create", sa.DDL(create))  # type: ignore[no-untyped-call]
    words = f"to_tsvector('{configuration}'::regconfig, \"left\"(text, {WORDS_READ_CHARS}))"
    return sa.Table(
        "chunk",
        metadata,
        sa.Column("id", UUID(as_uuid=True), primary_key=True),
        _owned(primary_key=False),
        *_passage(),
        sa.Column("words", TSVECTOR, sa.Computed(words, persisted=True)),
        sa.Index(None, "document_id", "index"),
        sa.Index(None, "words", postgresql_using="gin"),
        comment="Published passages, in reading order by index",
    )


def _embedder(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "embedder",
        metadata,
        sa.Column("id", sa.SmallInteger, sa.Identity(always=True), primary_key=True),
        _text("fingerprint", unique=True),
        sa.Column("dimensions", sa.Integer, nullable=False),
        comment="A number for each embedder whose vectors are stored, with their length",
    )


def _embedder_id() -> sa.Column[Any]:
    return sa.Column(
        "embedder_id",
        sa.SmallInteger,
        sa.ForeignKey("embedder.id"),
        primary_key=True,
        autoincrement=False,
    )


# A vector stays in its row as long as that fits on a page, up to 2,020 dimensions.
_WHOLE_PAGES = {"toast_tuple_target": "8160"}


def _vector_buffer(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "vector_buffer",
        metadata,
        _owned(),
        _embedder_id(),
        sa.Column("chunk_id", UUID(as_uuid=True), primary_key=True),
        sa.Column("vector", VECTOR(), nullable=False),
        comment="Vectors on their way; read chunk_vector for what is published",
        postgresql_with=_WHOLE_PAGES,
    )


def _chunk_vector(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "chunk_vector",
        metadata,
        sa.Column(
            "chunk_id",
            UUID(as_uuid=True),
            sa.ForeignKey("chunk.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        _embedder_id(),
        sa.Column("vector", VECTOR(), nullable=False),
        comment="Published vectors, one for each passage and embedder",
        postgresql_with=_WHOLE_PAGES,
    )
