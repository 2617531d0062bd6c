"""Documents and their history: born, moved by people, read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, insert

from statemachine_pipeline.database.statements.rows import (
    ID,
    any_of,
    clock,
    rows,
    transition_columns,
)

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables

MOVED = {
    "id": ID,
    "base": sa.Integer,
    "steps": sa.Integer,
    "state": sa.Text,
    "lane": sa.Text,
    "lives": sa.Integer,
    "error": sa.Text,
}
MOVES = {
    "id": ID,
    "offset": sa.Integer,
    "trigger": sa.Text,
    "from_state": sa.Text,
    "to_state": sa.Text,
    "restarts": sa.Integer,
    "hop": sa.Boolean,
    "by": sa.Text,
    "reason": sa.Text,
}
_REPLACED = ("name", "size_bytes", "path", "content_sha256", "correlation_id", "traceparent")
"""What new bytes bring with them."""
_GIVEN = ("id", "tenant", "source_uri", *_REPLACED, "parent_id", "depth")


def submit(t: Tables) -> Any:
    """Write a new document, its first history row, its bytes and its work; no row if it exists.

    One statement, since the foreign keys between document and history are checked at its end.
    """
    d = t.document
    values = {name: sa.bindparam(name, type_=d.c[name].type) for name in _GIVEN}
    born = (
        insert(d)
        .values(
            **values,
            metadata=sa.bindparam("metadata", type_=JSONB),
            state=sa.bindparam("state"),
            input_sha256=values["content_sha256"],
            version=1,
            life=1,
            generation=1,
        )
        .on_conflict_do_nothing(index_elements=["id"])
        .returning(d.c.id, d.c.state, d.c.tenant, d.c.correlation_id, d.c.content_sha256)
        .cte("born")
    )
    told = insert(t.transition).from_select(
        ["document_id", "version", "life", "generation", "trigger", "to_state", "by", "reason"]
        + ["correlation_id"],
        sa.select(
            born.c.id,
            sa.literal(1),
            sa.literal(1),
            sa.literal(1),
            sa.literal("submit"),
            born.c.state,
            sa.bindparam("by", type_=sa.Text),
            sa.bindparam("reason", type_=sa.Text),
            born.c.correlation_id,
        ),
    )
    queued = insert(t.work).from_select(
        ["document_id", "tenant", "state", "lane", "priority", "run_at"],
        sa.select(born.c.id, born.c.tenant, born.c.state, *_schedule(t)),
    )
    # Without the cast PostgreSQL cannot tell the type of a parameter that is only compared.
    content = sa.cast(sa.bindparam("content", type_=BYTEA), BYTEA)
    key = sa.cast(sa.bindparam("blob_key", type_=sa.Text), sa.Text)
    is_kept = sa.or_(content.is_not(None), key.is_not(None))
    kept = insert(t.blob).from_select(
        ["document_id", "sha256", "content", "key"],
        sa.select(born.c.id, born.c.content_sha256, content, key).where(is_kept),
    )
    return sa.select(born.c.id, sa.func.pg_notify(t.channel, "").label("notified")).add_cte(
        told.cte("told"), queued.cte("queued"), kept.cte("kept")
    )


def _schedule(t: Tables) -> tuple[Any, Any, Any]:
    """Return lane, priority and time of a document that a caller hands over."""
    lane = sa.bindparam("lane", type_=sa.Text)
    run_at = sa.bindparam("run_at", type_=t.work.c.run_at.type)
    later = sa.and_(lane == "ready", run_at > clock())
    return (
        sa.case((later, "deferred"), else_=lane),
        sa.bindparam("priority", type_=sa.SmallInteger),
        sa.func.coalesce(run_at, clock()),
    )


def reschedule(t: Tables) -> Any:
    """Give a document that was handed over again the priority and time it was given now."""
    lane, priority, run_at = _schedule(t)
    return (
        sa.update(t.work)
        .where(t.work.c.document_id == sa.bindparam("document", type_=ID))
        .values(lane=lane, priority=priority, run_at=run_at)
    )


def lock_work(t: Tables) -> Any:
    """Lock the work rows of ``ids``, in id order, before their documents."""
    return (
        sa.select(t.work.c.document_id, t.work.c.lane, t.work.c.attempt, t.work.c.crashes)
        .where(t.work.c.document_id == sa.any_(sa.bindparam("ids", type_=ARRAY(ID))))
        .order_by(t.work.c.document_id)
        .with_for_update(key_share=True)
    )


def lock_documents(t: Tables) -> Any:
    """Lock the documents ``ids``, in id order."""
    return (
        sa.select(t.document)
        .where(t.document.c.id == sa.any_(sa.bindparam("ids", type_=ARRAY(ID))))
        .order_by(t.document.c.id)
        .with_for_update(key_share=True)
    )


def move(t: Tables) -> Any:
    """Write the edges that people or webhooks took; their documents are locked by the caller.

    The fence moves: whoever held a claim can no longer write.
    """
    given, step = rows("given", MOVED), rows("step", MOVES)
    d, w = t.document, t.work
    moved = (
        sa.update(d)
        .where(d.c.id == given.c.id, d.c.version == given.c.base)
        .values(
            state=given.c.state,
            version=given.c.base + given.c.steps,
            life=d.c.life + given.c.lives,
            input_sha256=sa.case((given.c.lives > 0, d.c.content_sha256), else_=d.c.input_sha256),
            last_error=given.c.error,
            updated_at=clock(),
        )
        .returning(
            d.c.id,
            d.c.tenant,
            d.c.life,
            d.c.generation,
            d.c.correlation_id,
            given.c.base,
            given.c.lives,
            given.c.state,
            given.c.lane,
        )
        .cte("moved")
    )
    told = insert(t.transition).from_select(
        ["document_id", "version", "life", "generation", "trigger", "from_state", "to_state", "hop"]
        + ["tokens", "by", "reason", "correlation_id"],
        sa.select(
            step.c.id,
            moved.c.base + step.c.offset,
            # A walk may end one life and begin the next: cancel, then delete.
            moved.c.life - moved.c.lives + step.c.restarts,
            moved.c.generation,
            step.c.trigger,
            step.c.from_state,
            step.c.to_state,
            step.c.hop,
            sa.case((step.c.offset == 1, sa.func.nullif(w.c.tokens, 0))),
            step.c.by,
            step.c.reason,
            moved.c.correlation_id,
        ).select_from(step.join(moved, moved.c.id == step.c.id).outerjoin(w, _work_of(w, moved))),
    )
    queued = insert(w).from_select(
        ["document_id", "tenant", "state", "lane"],
        sa.select(moved.c.id, moved.c.tenant, moved.c.state, moved.c.lane).where(
            moved.c.lane.is_not(None)
        ),
    )
    queued = queued.on_conflict_do_update(
        index_elements=["document_id"],
        set_={
            "state": queued.excluded.state,
            "lane": queued.excluded.lane,
            "claim_seq": t.claim_seq.next_value(),
            "attempt": 0,
            "crashes": 0,
            "tokens": 0,
            "alone": False,
            "worker": None,
            "deadline_at": None,
            "run_at": clock(),
            "entered_at": clock(),
        },
    )
    ended = sa.select(moved.c.id).where(moved.c.lane.is_(None))
    rested = sa.delete(w).where(w.c.document_id == any_of(ended))
    left = sa.select(moved.c.id)
    risen = sa.delete(t.dead_letter).where(t.dead_letter.c.document_id == any_of(left))
    alone = sa.delete(t.duplicate_of).where(t.duplicate_of.c.document_id == any_of(left))
    said = (
        sa.select(sa.func.pg_notify(t.channel, ""))
        .select_from(moved)
        .where(moved.c.lane == "ready")
        .limit(1)
    )
    return (
        sa.select(moved.c.id, said.scalar_subquery().label("notified"))
        .order_by(moved.c.id)
        .add_cte(
            told.cte("told"),
            queued.cte("queued"),
            rested.cte("rested"),
            risen.cte("risen"),
            alone.cte("alone"),
        )
    )


def _work_of(work: Any, document: Any) -> Any:
    return work.c.document_id == document.c.id


def replace_content(t: Tables) -> Any:
    """Give a locked document its new bytes; the restart that follows reads them."""
    return (
        sa.update(t.document)
        .where(t.document.c.id == sa.bindparam("document", type_=ID))
        .values(
            **{n: sa.bindparam(n, type_=t.document.c[n].type) for n in _REPLACED},
            metadata=sa.bindparam("metadata", type_=JSONB),
            generation=t.document.c.generation + 1,
        )
    )


def replace_blob(t: Tables) -> Any:
    """Keep the bytes of a document in place of the earlier ones."""
    stored = insert(t.blob).values(
        document_id=sa.bindparam("document", type_=ID),
        sha256=sa.bindparam("content_sha256"),
        content=sa.bindparam("content", type_=BYTEA),
        key=sa.bindparam("blob_key", type_=sa.Text),
    )
    names = ("sha256", "content", "key")
    return stored.on_conflict_do_update(
        index_elements=["document_id"],
        set_={name: stored.excluded[name] for name in names},
    )


def forget_blob(t: Tables) -> Any:
    """Drop the bytes of a document that is now kept by its path."""
    return sa.delete(t.blob).where(t.blob.c.document_id == sa.bindparam("document", type_=ID))


def source(t: Tables) -> Any:
    """Read where the bytes of a document are, and the bytes where they are kept here."""
    return (
        sa.select(t.document.c.path, t.blob.c.sha256, t.blob.c.content, t.blob.c.key)
        .outerjoin(t.blob, t.blob.c.document_id == t.document.c.id)
        .where(t.document.c.id == sa.bindparam("document", type_=ID))
    )


def erase(t: Tables) -> list[Any]:
    """Remove all that was made of the documents ``ids``, and their bytes; history stays."""
    ids = sa.any_(sa.bindparam("ids", type_=ARRAY(ID)))
    owned = (t.chunk, t.chunk_buffer, t.vector_buffer, t.parsed_document, t.product, t.blob)
    gone = [sa.delete(table).where(table.c.document_id == ids) for table in owned]
    blank = (
        sa.update(t.document)
        .where(t.document.c.id == ids)
        .values(
            path=None,
            text_sha256=None,
            published_sha256=None,
            media_type=None,
            text_chars=0,
            chunk_count=0,
            vector_count=0,
            metadata=sa.text("'{}'::jsonb"),
            children=sa.text("'{}'::jsonb"),
        )
    )
    return [*gone, blank]


def one(t: Tables) -> Any:
    """Read one document with its work row and the warnings on its text, if it has them."""
    w, p = t.work, t.parsed_document
    return (
        sa.select(
            t.document,
            w.c.lane,
            w.c.attempt,
            w.c.crashes,
            w.c.alone,
            w.c.worker,
            w.c.deadline_at,
            w.c.run_at,
            t.duplicate_of.c.owner,
            p.c.warnings,
        )
        .outerjoin(w, w.c.document_id == t.document.c.id)
        .outerjoin(t.duplicate_of, t.duplicate_of.c.document_id == t.document.c.id)
        .outerjoin(
            p,
            sa.and_(p.c.document_id == t.document.c.id, p.c.generation == t.document.c.generation),
        )
        .where(t.document.c.id == sa.bindparam("document", type_=ID))
    )


def several(t: Tables) -> Any:
    """Read the documents ``ids``, those that exist."""
    ids = sa.any_(sa.bindparam("ids", type_=ARRAY(ID)))
    return sa.select(t.document).where(t.document.c.id == ids).order_by(t.document.c.id)


def listing(t: Tables) -> Any:
    """List documents in the order they came; None as a filter takes all."""
    d = t.document
    state, tenant = (sa.bindparam(name, type_=sa.Text) for name in ("state", "tenant"))
    after = sa.bindparam("after", type_=ID)
    born = sa.select(d.c.created_at).where(d.c.id == after).scalar_subquery()
    return (
        sa.select(d)
        .where(
            sa.or_(state.is_(None), d.c.state == state),
            sa.or_(tenant.is_(None), d.c.tenant == tenant),
            sa.or_(after.is_(None), sa.tuple_(d.c.created_at, d.c.id) > sa.tuple_(born, after)),
        )
        .order_by(d.c.created_at, d.c.id)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )


def matching(t: Tables) -> Any:
    """Name the documents in ``state``, of ``tenant`` if one is given."""
    d = t.document
    tenant = sa.bindparam("tenant", type_=sa.Text)
    return (
        sa.select(d.c.id)
        .where(d.c.state == sa.bindparam("state"), sa.or_(tenant.is_(None), d.c.tenant == tenant))
        .order_by(d.c.id)
    )


def history(t: Tables) -> Any:
    """Read the transitions of one document in order."""
    return (
        sa.select(*transition_columns(t))
        .where(t.transition.c.document_id == sa.bindparam("document", type_=ID))
        .order_by(t.transition.c.version)
    )
