"""Dead letters: listed, grouped, found for a requeue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, distinct_on

from statemachine_pipeline.database.statements.rows import ID

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables


def one(t: Tables) -> Any:
    """Read the dead letter of one document."""
    return _letters(t).where(t.dead_letter.c.document_id == sa.bindparam("document", type_=ID))


def listing(t: Tables) -> Any:
    """List dead letters that match, newest first, after a given one."""
    letter = t.dead_letter
    at = sa.bindparam("after_at", type_=letter.c.at.type)
    after = sa.bindparam("after_id", type_=ID)
    return (
        _letters(t)
        .where(
            *_matches(t),
            sa.or_(
                after.is_(None),
                sa.tuple_(letter.c.at, letter.c.document_id) < sa.tuple_(at, after),
            ),
        )
        .order_by(letter.c.at.desc(), letter.c.document_id.desc())
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )


def groups(t: Tables) -> Any:
    """Count dead letters that match by stage and code, each with its newest."""
    letter = t.dead_letter
    matching = (
        sa.select(letter)
        .join(t.document, t.document.c.id == letter.c.document_id)
        .where(*_matches(t))
        .cte("matching")
        .prefix_with("MATERIALIZED")
    )
    kind = (matching.c.stage, matching.c.code)
    counted = (
        sa.select(
            *kind,
            sa.func.count().label("count"),
            sa.func.min(matching.c.at).label("first_at"),
            sa.func.max(matching.c.at).label("last_at"),
        )
        .group_by(*kind)
        .cte("counted")
    )
    newest = (
        sa.select(*kind, matching.c.document_id, matching.c.reason)
        .ext(distinct_on(*kind))
        .order_by(*kind, matching.c.at.desc(), matching.c.document_id)
        .cte("newest")
    )
    same = sa.and_(newest.c.stage == counted.c.stage, newest.c.code == counted.c.code)
    return (
        sa.select(counted, newest.c.document_id.label("example"), newest.c.reason)
        .join(newest, same)
        .order_by(counted.c["count"].desc(), counted.c.stage, counted.c.code)
    )


def matching(t: Tables) -> Any:
    """Name documents whose dead letters match, by id, with how many others each lies in."""
    after = sa.bindparam("after_id", type_=ID)
    return (
        sa.select(t.document.c.id, t.document.c.depth)
        .join(t.dead_letter, t.dead_letter.c.document_id == t.document.c.id)
        .where(*_matches(t), sa.or_(after.is_(None), t.document.c.id > after))
        .order_by(t.document.c.id)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )


def still(t: Tables) -> Any:
    """Name those of the locked documents ``ids`` whose dead letters match."""
    ids = sa.any_(sa.bindparam("ids", type_=ARRAY(ID)))
    return (
        sa.select(t.document.c.id)
        .join(t.dead_letter, t.dead_letter.c.document_id == t.document.c.id)
        .where(t.document.c.id == ids, *_matches(t))
        .order_by(t.document.c.id)
    )


def _letters(t: Tables) -> Any:
    return sa.select(t.dead_letter, t.document.c.tenant, t.document.c.name).join(
        t.document, t.document.c.id == t.dead_letter.c.document_id
    )


def _matches(t: Tables) -> list[Any]:
    """Return the conditions of ``Matching``; None as a filter takes all."""
    letter = t.dead_letter
    columns = {"stage": letter.c.stage, "code": letter.c.code, "tenant": t.document.c.tenant}
    given = {name: sa.bindparam(name, type_=sa.Text) for name in columns}
    since = sa.bindparam("since", type_=letter.c.at.type)
    return [
        *(sa.or_(given[name].is_(None), column == given[name]) for name, column in columns.items()),
        sa.or_(since.is_(None), letter.c.at >= since),
    ]
