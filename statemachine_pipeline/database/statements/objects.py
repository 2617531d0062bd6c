"""Objects in a store beside the database: known before they are written, until they are erased.

A key is never used twice. ``erasing`` is final: nothing can refer to the object any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from statemachine_pipeline.database.statements.rows import ID, clock, seconds

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables

BATCH = 500
GIVE_UP_BATCH = 10_000
"""Every look for what nobody refers to reads all objects: 5 s for a million."""


def announce(t: Tables) -> Any:
    """Return the key of content: the one it has, or ``key``; either is young from now on."""
    given = insert(t.blob_object).values(
        key=sa.bindparam("key", type_=sa.Text), content=sa.bindparam("content", type_=sa.Text)
    )
    return given.on_conflict_do_update(
        index_elements=["content"],
        index_where=~t.blob_object.c.erasing,
        set_={"seen_at": clock()},
    ).returning(t.blob_object.c.key)


def hold(t: Tables) -> Any:
    """Keep an object from being erased until the transaction ends; no row if it is too late."""
    o = t.blob_object
    return (
        sa.select(o.c.key)
        .where(o.c.key == sa.bindparam("key", type_=sa.Text), ~o.c.erasing)
        .order_by(o.c.key)
        .with_for_update(read=True, key_share=True)
    )


def is_live(t: Tables) -> Any:
    """Name the object ``key`` unless it was given up."""
    o = t.blob_object
    return sa.select(o.c.key).where(o.c.key == sa.bindparam("key", type_=sa.Text), ~o.c.erasing)


def of_documents(t: Tables) -> Any:
    """Name the objects that the documents ``ids`` refer to."""
    b = t.blob
    ids = sa.any_(sa.bindparam("ids", type_=ARRAY(ID)))
    return sa.select(b.c.key).where(b.c.document_id == ids, b.c.key.is_not(None)).distinct()


def lock_old(t: Tables) -> Any:
    """Lock objects that nobody refers to and nobody announced lately.

    Whoever is about to refer to one holds it, and it is skipped.
    """
    return _locked(t, _is_old(t)).limit(GIVE_UP_BATCH)


def count_old(t: Tables) -> Any:
    """Count what ``lock_old`` would lock, batch by batch."""
    o = t.blob_object
    return sa.select(sa.func.count()).select_from(o).where(_is_old(t), ~o.c.erasing, _is_loose(t))


def lock_named(t: Tables) -> Any:
    """Lock those of the objects ``keys`` that nobody refers to, or is about to."""
    return _locked(t, t.blob_object.c.key == _keys())


def _locked(t: Tables, which: Any) -> Any:
    o = t.blob_object
    return (
        sa.select(o.c.key)
        .where(which, ~o.c.erasing, _is_loose(t))
        .order_by(o.c.key)
        .with_for_update(skip_locked=True)
    )


def give_up(t: Tables) -> Any:
    """Let locked objects go that still nobody refers to: whoever did so before the lock is seen."""
    o = t.blob_object
    lost = sa.update(o).where(o.c.key == _keys(), _is_loose(t)).values(erasing=sa.true())
    return lost.returning(o.c.key)


def to_erase(t: Tables) -> Any:
    """Name objects that were given up and may be in the store, in order, those after ``after``."""
    o = t.blob_object
    after = sa.bindparam("after", type_=sa.Text)
    return sa.select(o.c.key).where(o.c.erasing, o.c.key > after).order_by(o.c.key).limit(BATCH)


def forget(t: Tables) -> Any:
    """Forget erased objects, unless an upload that began before may still bring one back."""
    o = t.blob_object
    return sa.delete(o).where(o.c.key == _keys(), o.c.erasing, _is_old(t))


def _is_old(t: Tables) -> Any:
    age = seconds(sa.bindparam("older_than", type_=sa.Double))
    return t.blob_object.c.seen_at <= clock() - age


def _keys() -> Any:
    return sa.any_(sa.bindparam("keys", type_=ARRAY(sa.Text)))


def _is_loose(t: Tables) -> Any:
    return ~sa.exists().where(t.blob.c.key == t.blob_object.c.key)
