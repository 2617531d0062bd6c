"""Documents found in documents: who they are, and what their parent knows of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from statemachine_pipeline.database.statements import documents
from statemachine_pipeline.database.statements.rows import ID, rows

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables


def children(t: Tables) -> Any:
    """Name the children of the documents ``ids``, deleted ones too."""
    d = t.document
    return (
        sa.select(d.c.id, d.c.source_uri, d.c.content_sha256, d.c.state)
        .where(d.c.parent_id == sa.any_(sa.bindparam("ids", type_=ARRAY(ID))))
        .order_by(d.c.id)
    )


def inherited(t: Tables) -> Any:
    """Read what a document that is being worked on hands down to its children."""
    d, w = t.document, t.work
    return (
        sa.select(w.c.priority, d.c.metadata)
        .join(d, d.c.id == w.c.document_id)
        .where(w.c.document_id == sa.bindparam("document", type_=ID))
    )


def describe(t: Tables) -> Any:
    """Set names in the metadata of the locked documents ``ids``; a child's origin stays."""
    d = t.document
    given = sa.cast(sa.bindparam("given", type_=JSONB), JSONB)
    origin = sa.cast(sa.literal_column("'parent'"), sa.Text)
    less = given.op("-", return_type=JSONB)(origin)
    return (
        sa.update(d)
        .where(d.c.id == sa.any_(sa.bindparam("ids", type_=ARRAY(ID))))
        .values(metadata=d.c.metadata.concat(sa.case((d.c.parent_id.is_(None), given), else_=less)))
    )


def forget_products(t: Tables) -> Any:
    """Drop products of stages, so that these have to run again before what follows them."""
    given = rows("stage", {"document_id": ID, "stage": sa.Text})
    return sa.delete(t.product).where(
        t.product.c.document_id == given.c.document_id, t.product.c.stage == given.c.stage
    )


def listing(t: Tables) -> Any:
    """List the children of ``parent`` in the order they came, deleted ones too."""
    mine = t.document.c.parent_id == sa.bindparam("parent", type_=ID)
    return documents.listing(t).where(mine)
