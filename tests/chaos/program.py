"""A program as users write it, to be disturbed: its own lifecycle, hooks, product and provider.

``SERVICE`` names the embedding service. Documents are told what to do by their first word:
``refuse`` is rejected by the parser, ``hoard`` makes it allocate without end.
"""

from __future__ import annotations

import itertools
import os
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from statemachine_pipeline import (
    Done,
    Lifecycle,
    Pipeline,
    Stage,
    State,
    all_chunks_stored,
    all_embeddings_stored,
    has_text,
    is_duplicate,
    is_unique,
)
from statemachine_pipeline.adapters.openai import Limits, OpenAIEmbedder, Timeouts
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.lifecycle import same_bytes
from statemachine_pipeline.providers import Breaker, Provider
from statemachine_pipeline.records import Chunk, ParsedText

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline import Claim
    from statemachine_pipeline.records import Source

DIMENSIONS = 8
FAILURES, INPUTS = 3, 4
GIVEN_UP_SECONDS = 5.0
"""Longer than a service that is well is silent on a loaded machine: it costs attempts."""
LEDGER = "CREATE TABLE ledger (document uuid, claim_seq bigint)"
REFUSE, HOARD = "refuse", "hoard"
_BLOCK_BYTES = 2**26


class AuditedLifecycle(Lifecycle):
    """The shipped main line with a stage of the user's own between validation and chunking."""

    uploaded = State(initial=True)
    parse_queued, parse_complete, parse_validated = State(), State(), State()
    audited, chunks_stored = State(), State()
    embedding_queued, embedding_in_progress, embeddings_stored = State(), State(), State()
    complete, duplicate = State(final=True), State(final=True)

    mark_duplicate = uploaded.to(duplicate, cond=same_bytes) | parse_complete.to(
        duplicate, cond=is_duplicate
    )
    queue_parse = uploaded.to(parse_queued)
    finish_parse = parse_queued.to(parse_complete)
    accept_parse = parse_complete.to(parse_validated, cond=[has_text, is_unique])
    audit = parse_validated.to(audited)
    store_chunks = audited.to(chunks_stored, cond=all_chunks_stored)
    queue_embedding = chunks_stored.to(embedding_queued)
    start_embedding = embedding_queued.to(embedding_in_progress)
    store_embeddings = embedding_in_progress.to(embeddings_stored, cond=all_embeddings_stored)
    finalize = embeddings_stored.to(complete)


class PlainParser:
    """Reads text, refuses some, and may be driven over its limit of memory."""

    fingerprint = "plain/1"

    def parse(self, source: Source) -> ParsedText:
        """Return the text, unless its first word says otherwise."""
        text = source.read().decode()
        if text.startswith(REFUSE):
            raise Reject("it wants to be refused", "refused")
        if text.startswith(HOARD):
            # Zeroed pages count against the limit and take no memory from others.
            hoarded = [bytes(_BLOCK_BYTES) for _ in itertools.count()]
            return ParsedText(str(len(hoarded)))
        return ParsedText(text)


class Paragraphs:
    """Cuts at empty lines."""

    fingerprint = "paragraphs/1"

    def split(self, text: ParsedText) -> Sequence[Chunk]:
        """Return the paragraphs."""
        starts = itertools.accumulate(
            (len(part) + 2 for part in text.text.split("\n\n")), initial=0
        )
        return [
            Chunk(index=index, text=part, start=start, end=start + len(part))
            for index, (part, start) in enumerate(
                zip(text.text.split("\n\n"), starts, strict=False)
            )
        ]


class Entry:
    """A product that writes one line of a ledger; a second line would show."""

    async def write(self, connection: AsyncConnection, claim: Claim) -> None:
        """Insert the line; nothing makes it unique."""
        await connection.execute(
            sa.text("INSERT INTO ledger VALUES (:document, :seq)"),
            {"document": claim.document.id, "seq": claim.sequence},
        )


async def audit(claim: Claim) -> Done:
    """Return a product that enters the document in the ledger."""
    return Done(Entry())


def hooks(service: str) -> dict[str, object]:
    """Return the hooks; the embedder asks the service at this address."""
    embedder = OpenAIEmbedder(
        "model-1",
        dimensions=DIMENSIONS,
        base_url=f"{service}/v1",
        limits=Limits(inputs=INPUTS),
        timeouts=Timeouts(connect=GIVEN_UP_SECONDS, read=GIVEN_UP_SECONDS, total=GIVEN_UP_SECONDS),
    )
    provider = Provider(
        "embeddings", breaker=Breaker(failures=FAILURES, open_for=timedelta(seconds=0.5))
    )
    return {
        # An attempt is spent on what runs over its memory, which takes every attempt it gets.
        "finish_parse": Stage(PlainParser(), run="process", concurrency=2, attempts=2),
        "audit": audit,
        "store_chunks": Paragraphs(),
        # A service that is away for seconds, beside backoff that may draw nothing.
        "store_embeddings": Stage(embedder, provider=provider, concurrency=8, attempts=10),
    }


def pipeline(url: str, service: str | None = None) -> Pipeline:
    """Return the user's pipeline on a database."""
    address = service or os.environ["SERVICE"]
    return Pipeline(url, lifecycle=AuditedLifecycle, hooks=hooks(address))
