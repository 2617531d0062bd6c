"""Documents that rest and may be removed for good, what holds them, and the removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, REGCLASS

from statemachine_pipeline.database.statements.rows import ID, clock, rows, seconds

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables


def owner(t: Tables) -> Any:
    """Tell whose the history is, who asks, and whether that is the same."""
    relation = sa.table("pg_class", sa.column("oid"), sa.column("relowner"), schema="pg_catalog")
    history = sa.cast(sa.literal(f'"{t.schema}".transition'), REGCLASS)
    return sa.select(
        sa.func.pg_get_userbyid(relation.c.relowner).label("owner"),
        sa.func.current_user().label("role"),
        sa.func.pg_has_role(relation.c.relowner, "USAGE").label("is_owner"),
    ).where(relation.c.oid == history)


def resting(t: Tables) -> Any:
    """Name documents that have rested for long enough, what was found in others before these."""
    d = t.document
    tenant = sa.bindparam("tenant", type_=sa.Text)
    return (
        sa.select(d.c.id)
        .join(t.transition, _is_newest(t))
        .where(*_rests(t), sa.or_(tenant.is_(None), d.c.tenant == tenant))
        .order_by(d.c.depth.desc(), d.c.id)
    )


def lock(t: Tables) -> Any:
    """Lock those of the documents ``ids`` that rest still and nobody else has locked."""
    d = t.document
    return (
        sa.select(d.c.id, d.c.state, d.c.tenant, d.c.content_sha256)
        .join(t.transition, _is_newest(t))
        .where(d.c.id == _ids(), *_rests(t))
        .order_by(d.c.depth, d.c.id)
        .with_for_update(of=d, skip_locked=True)
    )


def lock_keys(t: Tables) -> Any:
    """Lock the keys of the documents ``ids``, so that nobody comes to rest on these meanwhile."""
    o = t.text_owner
    return (
        sa.select(o.c.document_id)
        .where(o.c.document_id == _ids())
        .order_by(o.c.tenant, o.c.kind, o.c.sha256)
        .with_for_update()
    )


def ties(t: Tables) -> Any:
    """Read what holds locked documents, those removed last first in the order they may go."""
    d, given = t.document, rows("given", {"id": ID, "content": sa.Text})
    child, twin, placed = t.document.alias("child"), t.duplicate_of, t.placement
    bytes_, thing = t.blob, t.blob_object
    newest = sa.select(sa.func.max(t.transition.c.xact)).scalar_subquery()
    children = sa.select(sa.func.array_agg(child.c.id)).where(child.c.parent_id == d.c.id)
    resting_on = sa.select(sa.func.count()).where(twin.c.owner == d.c.id)
    stages = sa.select(sa.func.array_agg(placed.c.stage)).where(placed.c.document_id == d.c.id)
    in_use = sa.exists().where(bytes_.c.document_id == d.c.id, bytes_.c.key.is_not(None))
    is_loose = ~sa.exists().where(bytes_.c.key == thing.c.key)
    return (
        sa.select(
            d.c.id,
            children.scalar_subquery().label("children"),
            resting_on.scalar_subquery().label("resting"),
            stages.scalar_subquery().label("placed"),
            in_use.label("bytes_in_use"),
            sa.exists().where(thing.c.content == given.c.content, is_loose).label("bytes_left"),
            sa.exists()
            .where(t.transition.c.document_id == d.c.id, t.transition.c.xact == newest)
            .label("newest"),
        )
        .join(given, given.c.id == d.c.id)
        .order_by(d.c.depth.desc(), d.c.id)
    )


def remove(t: Tables) -> list[Any]:
    """Remove the documents ``ids`` with all that is theirs, and then their histories whole."""
    return [
        sa.delete(t.document).where(t.document.c.id == _ids()),
        sa.delete(t.transition).where(t.transition.c.document_id == _ids()),
    ]


def _is_newest(t: Tables) -> Any:
    d, h = t.document, t.transition
    return sa.and_(h.c.document_id == d.c.id, h.c.version == d.c.version)


def _rests(t: Tables) -> list[Any]:
    age = seconds(sa.bindparam("older_than", type_=sa.Double))
    states = sa.any_(sa.bindparam("states", type_=ARRAY(sa.Text)))
    return [t.document.c.state == states, t.transition.c.at <= clock() - age]


def _ids() -> Any:
    return sa.any_(sa.bindparam("ids", type_=ARRAY(ID)))
