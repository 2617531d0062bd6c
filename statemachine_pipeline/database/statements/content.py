"""What stages make: text, chunks, vectors, and what readers see of them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from statemachine_pipeline.database.reals import RealArray
from statemachine_pipeline.database.statements.rows import ID, rows

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables

TEXTS = {
    "document_id": ID,
    "generation": sa.Integer,
    "fingerprint": sa.Text,
    "sha256": sa.Text,
    "text": sa.Text,
    "spans": JSONB,
    "warnings": JSONB,
}
PASSAGES = {
    "document_id": ID,
    "set_sha256": sa.Text,
    "id": ID,
    "index": sa.Integer,
    "text": sa.Text,
    "start": sa.Integer,
    "end": sa.Integer,
    "headings": JSONB,
    "page": sa.Integer,
    "metadata": JSONB,
}
_PASSAGE = [name for name in PASSAGES if name not in {"document_id", "set_sha256", "id"}]


def _ids() -> Any:
    return sa.any_(sa.bindparam("ids", type_=ARRAY(ID)))


def put_texts(t: Tables) -> Any:
    """Keep parsed texts in place of earlier ones; the same text again changes nothing."""
    stored = insert(t.parsed_document).from_select(list(TEXTS), sa.select(rows("text", TEXTS)))
    changed = [name for name in TEXTS if name != "document_id"]
    return stored.on_conflict_do_update(
        index_elements=["document_id"],
        set_={name: stored.excluded[name] for name in changed},
        where=sa.or_(
            *(
                t.parsed_document.c[name] != stored.excluded[name]
                for name in ("sha256", "generation", "fingerprint")
            )
        ),
    )


def text(t: Tables) -> Any:
    """Read the parsed text of one document."""
    p = t.parsed_document
    return sa.select(p.c.text, p.c.spans, p.c.warnings).where(
        p.c.document_id == sa.bindparam("document", type_=ID)
    )


def drop_other_chunks(t: Tables) -> Any:
    """Clear buffered chunks that belong to another set than the one about to be written."""
    given = rows("chunk_set", {"document_id": ID, "sha256": sa.Text})
    return sa.delete(t.chunk_buffer).where(
        t.chunk_buffer.c.document_id == given.c.document_id,
        t.chunk_buffer.c.set_sha256 != given.c.sha256,
    )


def put_chunks(t: Tables) -> Any:
    """Buffer chunks; the same set again changes nothing."""
    passage = rows("passage", PASSAGES)
    return (
        insert(t.chunk_buffer)
        .from_select(list(PASSAGES), sa.select(passage))
        .on_conflict_do_nothing()
    )


def count_chunks(t: Tables) -> Any:
    """Count the buffered chunks of documents."""
    b = t.chunk_buffer
    return (
        sa.select(b.c.document_id, sa.func.count().label("stored"))
        .where(b.c.document_id == _ids())
        .group_by(b.c.document_id)
    )


def chunks(t: Tables) -> Any:
    """Read the buffered chunks of one document in reading order."""
    b = t.chunk_buffer
    return (
        sa.select(b.c.id, *(b.c[name] for name in _PASSAGE))
        .where(b.c.document_id == sa.bindparam("document", type_=ID))
        .order_by(b.c.index)
    )


def vectors(t: Tables) -> Any:
    """Read the buffered vectors of one document, in the order of their chunks."""
    b, v = t.chunk_buffer, t.vector_buffer
    return (
        sa.select(v.c.vector)
        .join(b, sa.and_(b.c.document_id == v.c.document_id, b.c.id == v.c.chunk_id))
        .where(b.c.document_id == sa.bindparam("document", type_=ID))
        .order_by(b.c.index)
    )


def refill(t: Tables) -> list[Any]:
    """Buffer what one document has published again, for a stage behind the chunker."""
    c, b, v = t.chunk, t.chunk_buffer, t.chunk_vector
    document = sa.bindparam("document", type_=ID)
    own_set = t.document.c.published_sha256
    chunks = sa.select(c.c.document_id, own_set, c.c.id, *(c.c[name] for name in _PASSAGE)).join(
        t.document, t.document.c.id == c.c.document_id
    )
    empty = ~sa.exists().where(b.c.document_id == document)
    again = insert(b).from_select(
        ["document_id", "set_sha256", "id", *_PASSAGE],
        chunks.where(c.c.document_id == document, own_set.is_not(None), empty),
    )
    vectors = insert(t.vector_buffer).from_select(
        ["document_id", "embedder_id", "chunk_id", "vector"],
        sa.select(b.c.document_id, v.c.embedder_id, v.c.chunk_id, v.c.vector)
        .join(v, v.c.chunk_id == b.c.id)
        .where(b.c.document_id == document),
    )
    return [again.on_conflict_do_nothing(), vectors.on_conflict_do_nothing()]


def know_embedder(t: Tables) -> Any:
    """Give an embedder its number, once."""
    return (
        insert(t.embedder)
        .values(fingerprint=sa.bindparam("fingerprint"), dimensions=sa.bindparam("dimensions"))
        .on_conflict_do_nothing(index_elements=["fingerprint"])
    )


def embedder(t: Tables) -> Any:
    """Read the number and dimensions of an embedder."""
    return sa.select(t.embedder.c.id, t.embedder.c.dimensions).where(
        t.embedder.c.fingerprint == sa.bindparam("fingerprint")
    )


def reuse_vectors(t: Tables) -> Any:
    """Buffer the published vectors of chunks whose text did not change."""
    b, v = t.chunk_buffer, t.chunk_vector
    return (
        insert(t.vector_buffer)
        .from_select(
            ["document_id", "embedder_id", "chunk_id", "vector"],
            sa.select(b.c.document_id, v.c.embedder_id, v.c.chunk_id, v.c.vector)
            .join(v, v.c.chunk_id == b.c.id)
            .where(
                b.c.document_id == sa.bindparam("document", type_=ID),
                v.c.embedder_id == sa.bindparam("embedder", type_=sa.SmallInteger),
            ),
        )
        .on_conflict_do_nothing()
    )


def chunks_without_vector(t: Tables) -> Any:
    """Read the buffered chunks of one document that ``embedder`` has not done, in order."""
    b, v = t.chunk_buffer, t.vector_buffer
    done = sa.exists().where(
        v.c.document_id == b.c.document_id,
        v.c.embedder_id == sa.bindparam("embedder", type_=sa.SmallInteger),
        v.c.chunk_id == b.c.id,
    )
    return (
        sa.select(b.c.id, b.c.index, b.c.text)
        .where(b.c.document_id == sa.bindparam("document", type_=ID), ~done)
        .order_by(b.c.index)
    )


def put_vectors(t: Tables) -> Any:
    """Buffer vectors of documents, given as one flat array; the same again changes nothing.

    One flat array travels in binary; one text per vector costs 5 to 11 times as much.
    """
    given = rows("vector", {"document_id": ID, "chunk_id": ID, "place": sa.Integer})
    dimensions = sa.bindparam("dimensions", type_=sa.Integer)
    numbers = sa.cast(sa.bindparam("flat", type_=RealArray()), ARRAY(sa.REAL))
    flat = sa.select(numbers.label("flat")).cte("block")
    first = (given.c.place - 1) * dimensions + 1
    values = flat.c.flat[first : first + dimensions - 1]
    return (
        insert(t.vector_buffer)
        .from_select(
            ["document_id", "embedder_id", "chunk_id", "vector"],
            sa.select(
                given.c.document_id,
                sa.bindparam("embedder", type_=sa.SmallInteger),
                given.c.chunk_id,
                sa.cast(values, VECTOR()),
            ).select_from(given.join(flat, sa.true())),
        )
        .on_conflict_do_nothing()
    )


def drop_other_vectors(t: Tables) -> Any:
    """Clear buffered vectors of other embedders, and of chunks that are no longer buffered."""
    v, b = t.vector_buffer, t.chunk_buffer
    given = rows("embedded", {"document_id": ID, "fingerprint": sa.Text})
    buffered = sa.exists().where(b.c.document_id == v.c.document_id, b.c.id == v.c.chunk_id)
    return sa.delete(v).where(
        v.c.document_id == given.c.document_id,
        v.c.embedder_id == t.embedder.c.id,
        sa.or_(t.embedder.c.fingerprint != given.c.fingerprint, ~buffered),
    )


def count_vectors(t: Tables) -> Any:
    """Count buffered chunks of documents, and those that have a vector."""
    b, v = t.chunk_buffer, t.vector_buffer
    return (
        sa.select(
            b.c.document_id,
            sa.func.count().label("expected"),
            sa.func.count(v.c.chunk_id).label("stored"),
        )
        .outerjoin(v, sa.and_(v.c.document_id == b.c.document_id, v.c.chunk_id == b.c.id))
        .where(b.c.document_id == _ids())
        .group_by(b.c.document_id)
    )


@functools.cache
def publish(t: Tables) -> list[Any]:
    """Make the buffers of documents what readers see, by difference, and empty the buffers."""
    b, vb, c, v, d = t.chunk_buffer, t.vector_buffer, t.chunk, t.chunk_vector, t.document
    still = sa.exists().where(b.c.document_id == c.c.document_id, b.c.id == c.c.id)
    gone = sa.delete(c).where(c.c.document_id == _ids(), ~still)
    shown = insert(c).from_select(
        ["id", "document_id", *_PASSAGE],
        sa.select(b.c.id, b.c.document_id, *(b.c[name] for name in _PASSAGE))
        .where(b.c.document_id == _ids())
        .order_by(b.c.id),
    )
    moved = [name for name in _PASSAGE if name != "text"]
    shown = shown.on_conflict_do_update(
        index_elements=["id"],
        set_={name: shown.excluded[name] for name in moved},
        where=sa.or_(*(c.c[name].is_distinct_from(shown.excluded[name]) for name in moved)),
    )
    kept = sa.exists().where(
        vb.c.document_id == c.c.document_id,
        vb.c.chunk_id == v.c.chunk_id,
        vb.c.embedder_id == v.c.embedder_id,
    )
    outdated = sa.delete(v).where(v.c.chunk_id == c.c.id, c.c.document_id == _ids(), ~kept)
    embedded = (
        insert(v)
        .from_select(
            ["chunk_id", "embedder_id", "vector"],
            sa.select(vb.c.chunk_id, vb.c.embedder_id, vb.c.vector)
            .join(b, sa.and_(b.c.document_id == vb.c.document_id, b.c.id == vb.c.chunk_id))
            .where(vb.c.document_id == _ids())
            .order_by(vb.c.chunk_id),
        )
        .on_conflict_do_nothing()
    )
    seen = sa.select(sa.func.count()).where(c.c.document_id == d.c.id).scalar_subquery()
    vectors = (
        sa.select(sa.func.count())
        .select_from(v.join(c, c.c.id == v.c.chunk_id))
        .where(c.c.document_id == d.c.id)
        .scalar_subquery()
    )
    chunk_set = (
        sa.select(sa.func.min(b.c.set_sha256)).where(b.c.document_id == d.c.id).scalar_subquery()
    )
    counted = (
        sa.update(d)
        .where(d.c.id == _ids())
        .values(chunk_count=seen, vector_count=vectors, published_sha256=chunk_set)
    )
    emptied = [sa.delete(table).where(table.c.document_id == _ids()) for table in (vb, b)]
    return [gone, shown, outdated, embedded, counted, *emptied]


def forget(t: Tables) -> list[Any]:
    """Empty the buffers of documents whose content readers see already."""
    shown = sa.exists().where(t.document.c.published_sha256.is_not(None))
    return [
        sa.delete(table).where(
            table.c.document_id == _ids(), shown.where(t.document.c.id == table.c.document_id)
        )
        for table in (t.vector_buffer, t.chunk_buffer)
    ]


def withdraw(t: Tables) -> list[Any]:
    """Take from readers what documents published before they came to rest on others."""
    emptied = [
        sa.delete(table).where(table.c.document_id == _ids())
        for table in (t.vector_buffer, t.chunk_buffer, t.chunk)
    ]
    counted = (
        sa.update(t.document)
        .where(t.document.c.id == _ids(), t.document.c.published_sha256.is_not(None))
        .values(chunk_count=0, vector_count=0, published_sha256=None)
    )
    return [*emptied, counted]


@functools.cache
def products(t: Tables) -> Any:
    """Read what earlier lives of documents earned."""
    earned = sa.select(t.product).where(t.product.c.document_id == _ids())
    return earned.order_by(t.product.c.at, t.product.c.stage)


def earned_in_this_life(t: Tables) -> Any:
    """Read what guards saw at the stages of each document's current life, the latest last.

    With the other document that owns the same bytes or text, if there is one.
    """
    d, p, h, o = t.document, t.product, t.transition, t.text_owner
    another = sa.and_(
        o.c.tenant == d.c.tenant,
        o.c.kind == p.c.key_kind,
        o.c.sha256 == p.c.key_sha256,
        o.c.document_id != d.c.id,
    )
    earned = sa.and_(h.c.document_id == d.c.id, h.c.life == d.c.life, h.c.trigger == p.c.stage)
    return (
        sa.select(d.c.id, p.c.reported, p.c.facts, p.c.key_kind, o.c.document_id.label("owner"))
        .select_from(d.join(p, p.c.document_id == d.c.id).join(h, earned).outerjoin(o, another))
        .where(d.c.id == _ids())
        .order_by(d.c.id, h.c.version)
    )


@functools.cache
def standing(t: Tables) -> Any:
    """Read whose data is still stored: texts, chunk sets, and complete sets of vectors."""
    d, p, b, vb, v, c = (
        t.document,
        t.parsed_document,
        t.chunk_buffer,
        t.vector_buffer,
        t.chunk_vector,
        t.chunk,
    )
    buffered = (
        sa.select(sa.func.min(b.c.set_sha256)).where(b.c.document_id == d.c.id).scalar_subquery()
    )
    waiting = (
        sa.select(sa.func.count())
        .select_from(
            b.outerjoin(vb, sa.and_(vb.c.document_id == b.c.document_id, vb.c.chunk_id == b.c.id))
        )
        .where(b.c.document_id == d.c.id, vb.c.chunk_id.is_(None))
        .scalar_subquery()
    )
    published = (
        sa.select(sa.func.array_agg(sa.distinct(t.embedder.c.fingerprint)))
        .select_from(
            v.join(c, c.c.id == v.c.chunk_id).join(t.embedder, t.embedder.c.id == v.c.embedder_id)
        )
        .where(c.c.document_id == d.c.id)
        .scalar_subquery()
    )
    in_buffer = (
        sa.select(sa.func.array_agg(sa.distinct(t.embedder.c.fingerprint)))
        .select_from(vb.join(t.embedder, t.embedder.c.id == vb.c.embedder_id))
        .where(vb.c.document_id == d.c.id)
        .scalar_subquery()
    )
    return (
        sa.select(
            d.c.id,
            p.c.sha256.label("text_sha256"),
            buffered.label("buffered_sha256"),
            d.c.published_sha256,
            (sa.and_(d.c.chunk_count > 0, d.c.chunk_count == d.c.vector_count)).label("is_whole"),
            waiting.label("without_vector"),
            in_buffer.label("buffered_embedders"),
            published.label("published_embedders"),
        )
        .outerjoin(p, p.c.document_id == d.c.id)
        .where(d.c.id == _ids())
    )


def has_vectors(t: Tables) -> Any:
    """Tell whether an embedder has at least ``least`` published vectors."""
    v = t.chunk_vector
    some = (
        sa.select(sa.literal(1))
        .where(v.c.embedder_id == sa.bindparam("embedder", type_=sa.SmallInteger))
        .limit(sa.bindparam("least", type_=sa.Integer))
        .subquery()
    )
    return sa.select(sa.func.count() >= sa.bindparam("least")).select_from(some)
