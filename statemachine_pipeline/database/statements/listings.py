"""Documents that match, listed and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from statemachine_pipeline.database.statements import documents
from statemachine_pipeline.database.statements.rows import clock, rows, seconds

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables


def matching(t: Tables) -> Any:
    """List documents that match, in the order they came; None as a filter takes all."""
    return documents.listing(t).join(t.dead_letter, _is_its(t), isouter=True).where(*_matches(t))


def groups(t: Tables, *, by: str) -> Any:
    """Count documents that match by state, stage, tenant or code: the newest ``most`` of them.

    A row of ``served`` for each state says which stage awaits there; of a dead letter it is the
    one that was not earned.
    """
    d, letter = t.document, t.dead_letter
    served = rows("served", {"state": sa.Text, "stage": sa.Text})
    keys = {
        "state": d.c.state,
        "stage": sa.func.coalesce(letter.c.stage, served.c.stage),
        "tenant": d.c.tenant,
        "code": letter.c.code,
    }
    found = (
        sa.select(keys[by].label("key"))
        .select_from(d.outerjoin(letter, _is_its(t)).outerjoin(served, served.c.state == d.c.state))
        .where(*_which(t), *_matches(t))
        .order_by(d.c.created_at.desc(), d.c.id.desc())
        .limit(sa.bindparam("most", type_=sa.Integer))
        .cte("found")
    )
    count = sa.func.count().label("count")
    return (
        sa.select(found.c.key, count).group_by(found.c.key).order_by(sa.desc("count"), found.c.key)
    )


def counts(t: Tables) -> Any:
    """Count documents by state, of ``tenant`` if one is given."""
    d = t.document
    tenant = sa.bindparam("tenant", type_=sa.Text)
    return (
        sa.select(d.c.state, sa.func.count().label("count"))
        .where(sa.or_(tenant.is_(None), d.c.tenant == tenant))
        .group_by(d.c.state)
        .order_by(d.c.state)
    )


def _which(t: Tables) -> list[Any]:
    columns = {"state": t.document.c.state, "tenant": t.document.c.tenant}
    given = {name: sa.bindparam(name, type_=sa.Text) for name in columns}
    return [
        sa.or_(given[name].is_(None), column == given[name]) for name, column in columns.items()
    ]


def _matches(t: Tables) -> list[Any]:
    """Return the conditions of ``Which`` beside state and tenant."""
    d, letter = t.document, t.dead_letter
    stage, code, contains = (
        sa.bindparam(name, type_=sa.Text) for name in ("stage", "code", "contains")
    )
    states = sa.any_(sa.bindparam("states", type_=ARRAY(sa.Text)))
    # Without the cast PostgreSQL cannot tell the type of a parameter that may be NULL.
    older_than = sa.cast(sa.bindparam("older_than", type_=sa.Double), sa.Double)
    part = sa.func.lower(contains)
    named = sa.func.strpos(sa.func.lower(d.c.name), part) > 0
    return [
        sa.or_(stage.is_(None), d.c.state == states, letter.c.stage == stage),
        sa.or_(code.is_(None), letter.c.code == code),
        sa.or_(older_than.is_(None), d.c.updated_at <= clock() - seconds(older_than)),
        sa.or_(contains.is_(None), named, sa.func.strpos(sa.cast(d.c.id, sa.Text), part) > 0),
    ]


def _is_its(t: Tables) -> Any:
    return t.dead_letter.c.document_id == t.document.c.id
