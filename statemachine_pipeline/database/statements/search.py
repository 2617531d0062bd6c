"""What readers ask of published passages: by vector, by words, and whole by their ids.

``narrow`` names the conditions beside the tenant; each has a parameter of its name, from
``filters.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, JSONPATH, TSQUERY, aggregate_order_by

from statemachine_pipeline.database.statements.rows import ID, compared_as

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from statemachine_pipeline.database.tables import Tables

# A lexeme as a tsquery reads it: in quotes, with quotes and backslashes doubled.
_QUOTED: sa.ColumnElement[str] = sa.literal_column(
    r"""'''' || regexp_replace(word.lexeme, '([''\\])', '\1\1', 'g') || ''''"""
)
_OR: sa.ColumnElement[str] = sa.literal_column("' | '")
_LIMIT = sa.bindparam("limit", type_=sa.Integer)


def size(t: Tables, narrow: Collection[str] = ()) -> Any:
    """Count the passages of the documents in scope, up to the first ``most`` documents."""
    d = t.document.c
    most = sa.bindparam("most", type_=sa.Integer)
    conditions = _of_documents(t, narrow)
    some = (
        sa.select(d.chunk_count)
        .where(*conditions, d.chunk_count > sa.literal_column("0"))
        .limit(most)
        .subquery()
    )
    return sa.select(sa.func.coalesce(sa.func.sum(some.c.chunk_count), sa.literal_column("0")))


def nearest(
    t: Tables,
    embedder: int,
    dimensions: int,
    narrow: Collection[str] = (),
    *,
    exact: bool = False,
) -> Any:
    """Find the passages whose vectors are nearest to ``question``, nearest first.

    The embedder is a literal, as in its index: a parameter would lose the index. ``exact`` orders
    by an expression the index does not have, so that every passage in scope is compared.
    """
    v, c, d = t.chunk_vector, t.chunk, t.document
    distance = _distance(v.c.vector, dimensions)
    found = (
        sa.select(v.c.chunk_id, distance.label("distance"))
        .join(c, c.c.id == v.c.chunk_id)
        .join(d, d.c.id == c.c.document_id)
        .where(v.c.embedder_id == sa.literal_column(str(embedder)), *_in_scope(t, narrow))
        .order_by(distance + sa.literal_column("0") if exact else distance)
        .limit(_LIMIT)
        .cte("found")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    # Sorted again, since an index read in relaxed order returns a few rows too late.
    similarity: Any = sa.literal_column("1") - found.c.distance
    return sa.select(found.c.chunk_id, similarity.label("score")).order_by(
        found.c.distance, found.c.chunk_id
    )


def _distance(vector: Any, dimensions: int) -> Any:
    """Return the cosine distance to the question; the cast is what the index is made on."""
    kind = compared_as(dimensions)
    question = sa.cast(sa.bindparam("question", type_=ARRAY(sa.Double)), kind)
    return sa.cast(vector, kind).cosine_distance(question)


def matching(t: Tables, narrow: Collection[str] = ()) -> Any:
    """Find the passages that share words with ``text``, those with most and closest ones first.

    One word is enough: passages seldom hold every word of a question. ``ts_rank`` rewards each
    further one.
    """
    c, d = t.chunk, t.document
    query = _any_word(t).cte("asked").prefix_with("MATERIALIZED", dialect="postgresql")
    score = sa.func.ts_rank(c.c.words, query.c.query, type_=sa.Float)
    return (
        sa.select(c.c.id.label("chunk_id"), score.label("score"))
        .select_from(query.join(c, c.c.words.bool_op("@@")(query.c.query)))
        .join(d, d.c.id == c.c.document_id)
        .where(*_in_scope(t, narrow))
        .order_by(score.desc(), c.c.id)
        .limit(_LIMIT)
    )


def _any_word(t: Tables) -> Any:
    """Return a query for any word of ``text``, each quoted, so that none is read as an operator."""
    vector = sa.func.to_tsvector(t.configuration, sa.bindparam("text", type_=sa.Text))
    words = sa.func.unnest(vector).table_valued("lexeme").render_derived(name="word")
    joined = sa.func.string_agg(_QUOTED, aggregate_order_by(_OR, words.c.lexeme))
    return sa.select(sa.cast(joined, TSQUERY).label("query")).select_from(words)


def passages(t: Tables) -> Any:
    """Read passages and their documents by the passages' ids."""
    c, d = t.chunk, t.document
    own = (c.c.text.label("passage"), c.c.index, c.c.start, c.c.end, c.c.page, c.c.headings)
    return (
        sa.select(c.c.id.label("chunk_id"), c.c.metadata.label("chunk_metadata"), *own, d)
        .join(d, d.c.id == c.c.document_id)
        .where(c.c.id == sa.any_(sa.bindparam("ids", type_=ARRAY(ID))))
    )


def _in_scope(t: Tables, narrow: Collection[str]) -> list[Any]:
    metadata = t.chunk.c.metadata
    conditions = {
        "chunk_contains": metadata.contains(sa.bindparam("chunk_contains", type_=JSONB)),
        "chunk_matches": metadata.path_match(_path("chunk_matches")),
    }
    return [*_of_documents(t, narrow), *_given(conditions, narrow)]


def _of_documents(t: Tables, narrow: Collection[str]) -> list[Any]:
    d = t.document.c
    conditions = {
        "contains": d.metadata.contains(sa.bindparam("contains", type_=JSONB)),
        "matches": d.metadata.path_match(_path("matches")),
        "groups": d.metadata.path_match(_path("groups")),
        "documents": d.id == sa.any_(sa.bindparam("documents", type_=ARRAY(ID))),
    }
    return [d.tenant == sa.bindparam("tenant"), *_given(conditions, narrow)]


def _given(conditions: Mapping[str, Any], narrow: Collection[str]) -> list[Any]:
    return [condition for name, condition in conditions.items() if name in narrow]


def _path(name: str) -> Any:
    return sa.cast(sa.bindparam(name, type_=sa.Text), JSONPATH)
