"""What readers ask of published passages: by vector, by words, and whole by their ids.

``narrow`` names the conditions beside the tenant; each has a parameter of its name, from
``filters.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, JSONPATH, TSQUERY, aggregate_order_by

from statemachine_pipeline.database.statements.rows import ID

if TYPE_CHECKING:
    from collections.abc import Collection

    from statemachine_pipeline.database.tables import Tables

# A lexeme as a tsquery reads it: in quotes, with quotes and backslashes doubled.
_QUOTED: sa.ColumnElement[str] = sa.literal_column(
    r"""'''' || regexp_replace(word.lexeme, '([''\\])', '\1\1', 'g') || ''''"""
)
_OR: sa.ColumnElement[str] = sa.literal_column("' | '")
_LIMIT = sa.bindparam("limit", type_=sa.Integer)


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
    order = distance + sa.literal_column("0") if exact else distance
    return (
        sa.select(v.c.chunk_id, (sa.literal_column("1") - distance).label("score"))
        .join(c, c.c.id == v.c.chunk_id)
        .join(d, d.c.id == c.c.document_id)
        .where(v.c.embedder_id == sa.literal_column(str(embedder)), *_in_scope(t, narrow))
        .order_by(order)
        .limit(_LIMIT)
    )


def _distance(vector: Any, dimensions: int) -> Any:
    """Return the cosine distance to the question; the cast is what the index is made on."""
    kind = VECTOR(dimensions)
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
    d, c = t.document.c.metadata, t.chunk.c.metadata
    conditions = {
        "contains": d.contains(sa.bindparam("contains", type_=JSONB)),
        "matches": d.path_match(_path("matches")),
        "groups": d.path_match(_path("groups")),
        "chunk_contains": c.contains(sa.bindparam("chunk_contains", type_=JSONB)),
        "chunk_matches": c.path_match(_path("chunk_matches")),
        "documents": t.document.c.id == sa.any_(sa.bindparam("documents", type_=ARRAY(ID))),
    }
    given = [condition for name, condition in conditions.items() if name in narrow]
    return [t.document.c.tenant == sa.bindparam("tenant"), *given]


def _path(name: str) -> Any:
    return sa.cast(sa.bindparam(name, type_=sa.Text), JSONPATH)
