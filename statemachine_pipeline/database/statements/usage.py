"""What requests were charged for, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from statemachine_pipeline.database.statements.rows import rows

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables


def spent(t: Tables, *, by: str) -> Any:
    """Add up tokens by tenant, day, stage or document, the most first.

    A row of ``served`` for each state says which stage an attempt there was made for; its edge
    alone says so only of those that succeeded.
    """
    h, d = t.transition, t.document
    served = rows("served", {"state": sa.Text, "stage": sa.Text})
    priced = rows("priced", {"stage": sa.Text, "price": sa.Double})
    stage = sa.func.coalesce(served.c.stage, h.c.trigger)
    keys = {
        "tenant": d.c.tenant,
        "day": sa.func.to_char(sa.func.timezone("UTC", h.c.at), "YYYY-MM-DD"),
        "stage": stage,
        "document": sa.cast(h.c.document_id, sa.Text),
    }
    key, total = keys[by].label("key"), sa.func.sum(h.c.tokens).label("tokens")
    since = sa.bindparam("since", type_=h.c.at.type)
    tenant = sa.bindparam("tenant", type_=sa.Text)
    cost = sa.func.sum(h.c.tokens * priced.c.price) / 1_000_000
    return (
        sa.select(key, sa.cast(total, sa.BigInteger).label("tokens"), cost.label("cost"))
        .select_from(
            h.join(d, d.c.id == h.c.document_id)
            .outerjoin(served, served.c.state == h.c.from_state)
            .outerjoin(priced, priced.c.stage == stage)
        )
        .where(
            h.c.tokens.is_not(None),
            sa.or_(since.is_(None), h.c.at >= since),
            sa.or_(tenant.is_(None), d.c.tenant == tenant),
        )
        .group_by(key)
        .order_by(sa.desc("tokens"), key)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )
