"""Writes products inside a settle, merged over the batch, and counts what then stands there."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from statemachine_pipeline.database.mapping import may_pass, took_too_long
from statemachine_pipeline.database.proposal import ProductFailed
from statemachine_pipeline.database.statements import content
from statemachine_pipeline.database.statements.rows import parameters
from statemachine_pipeline.records import Chunks, ParsedText, Publication, Vectors, identify

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from statemachine_pipeline.database.proposal import Proposal
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.records import Facts


async def write(
    connection: AsyncConnection, t: Tables, proposals: Sequence[Proposal]
) -> dict[UUID, Facts]:
    """Write the products of locked claims.

    Returns:
        For each document whose guards read counts, its facts with what the database counted.

    Raises:
        ProductFailed: A user's product raised.
    """
    facts: dict[UUID, Facts] = {}
    # What needs no count is written only if it is earned: a refused guard keeps nothing of it.
    proposals = [
        p
        for p in proposals
        if p.kind in {"chunks", "vectors"} or p.decide(p.facts).input_sha256 is not None
    ]
    await _write_texts(connection, t, _having(proposals, ParsedText))
    facts |= await _write_chunks(connection, t, _having(proposals, Chunks))
    facts |= await _count_vectors(connection, t, _having(proposals, Vectors))
    published = [p.claim.document.id for p in _having(proposals, Publication)]
    if published:
        for statement in content.publish(t):
            await connection.execute(statement, {"ids": sorted(published)})
    for proposal in proposals:
        if proposal.kind == "other":
            await _write_own(connection, proposal)
    return facts


def _having(proposals: Sequence[Proposal], product: type) -> list[Proposal]:
    return [p for p in proposals if isinstance(p.product, product)]


async def _write_own(connection: AsyncConnection, proposal: Proposal) -> None:
    product: Any = proposal.product
    try:
        await product.write(connection, proposal.claim)
    except Exception as error:  # a user's product may raise anything
        if isinstance(error, exc.DBAPIError) and may_pass(error) and not took_too_long(error):
            raise  # the database's trouble and not the product's
        raise ProductFailed(proposal.claim, error) from error


async def _write_texts(connection: AsyncConnection, t: Tables, proposals: list[Proposal]) -> None:
    if not proposals:
        return
    records = []
    for p in proposals:
        text: Any = p.product
        records.append(
            {
                "document_id": p.claim.document.id,
                "generation": p.claim.document.generation,
                "fingerprint": text.made_by or p.claim.fingerprint,
                "sha256": text.sha256,
                "text": text.text,
                "spans": [[span.page, span.start, span.end] for span in text.spans],
                "warnings": list(text.warnings),
            }
        )
    await connection.execute(content.put_texts(t), parameters("text", records))


async def _write_chunks(
    connection: AsyncConnection, t: Tables, proposals: list[Proposal]
) -> dict[UUID, Facts]:
    if not proposals:
        return {}
    sets, passages = [], []
    for p in proposals:
        product: Any = p.product
        document, set_sha256 = p.claim.document.id, product.sha256
        sets.append({"document_id": document, "sha256": set_sha256})
        passages += [
            {
                "document_id": document,
                "set_sha256": set_sha256,
                "id": chunk.id,
                "index": chunk.index,
                "text": chunk.text,
                "start": chunk.start,
                "end": chunk.end,
                "headings": list(chunk.headings),
                "page": chunk.page,
                "metadata": dict(chunk.metadata),
            }
            for chunk in identify(document, product.chunks)
        ]
    await connection.execute(content.drop_other_chunks(t), parameters("chunk_set", sets))
    await connection.execute(content.put_chunks(t), parameters("passage", passages))
    ids = sorted(p.claim.document.id for p in proposals)
    found = await connection.execute(content.count_chunks(t), {"ids": ids})
    stored = {row.document_id: row.stored for row in found}
    facts = {}
    for p in proposals:
        product = p.product
        facts[p.claim.document.id] = dataclasses.replace(
            p.facts,
            chunks_expected=len(product.chunks),
            chunks_stored=stored.get(p.claim.document.id, 0),
        )
    return facts


async def _count_vectors(
    connection: AsyncConnection, t: Tables, proposals: list[Proposal]
) -> dict[UUID, Facts]:
    if not proposals:
        return {}
    records = [
        {"document_id": p.claim.document.id, "fingerprint": p.claim.fingerprint} for p in proposals
    ]
    await connection.execute(
        content.drop_other_vectors(t),
        parameters("embedded", records),
    )
    ids = sorted(p.claim.document.id for p in proposals)
    found = await connection.execute(content.count_vectors(t), {"ids": ids})
    counted = {row.document_id: row for row in found}
    facts = {}
    for p in proposals:
        row = counted.get(p.claim.document.id)
        facts[p.claim.document.id] = dataclasses.replace(
            p.facts,
            vectors_expected=row.expected if row else 0,
            vectors_stored=row.stored if row else 0,
        )
    return facts
