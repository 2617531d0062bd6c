"""Who owns which bytes and which text, and who rests on whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from statemachine_pipeline.database.statements.rows import ID, rows

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables

KEYS = {"tenant": sa.Text, "kind": sa.Text, "sha256": sa.Text, "document_id": ID}


def _order(key: Any) -> tuple[Any, ...]:
    return key.c.tenant, key.c.kind, key.c.sha256


def _same(table: Any, key: Any) -> Any:
    return sa.and_(*(a == b for a, b in zip(_order(table), _order(key), strict=True)))


def take(t: Tables) -> Any:
    """Become the owner of keys that nobody owns; in key order, so that takers never deadlock."""
    key = rows("key", KEYS)
    return (
        insert(t.text_owner)
        .from_select(list(KEYS), sa.select(key).order_by(*_order(key)))
        .on_conflict_do_nothing()
    )


def owners(t: Tables, *, lock: bool) -> Any:
    """Read who owns keys, in key order; ``lock`` keeps the owners until the transaction ends."""
    key = rows("key", KEYS)
    found = (
        sa.select(t.text_owner).join(key, _same(t.text_owner, key)).order_by(*_order(t.text_owner))
    )
    return found.with_for_update(read=True, of=t.text_owner) if lock else found


def lock_stale(t: Tables) -> Any:
    """Lock keys that the documents ``ids`` hold and should not.

    That is all of them in the states ``ended``, else those of earlier bytes and texts.
    """
    d, k = t.document, t.text_owner
    current = sa.case(
        (k.c.kind == "bytes", k.c.sha256 == d.c.content_sha256),
        else_=k.c.sha256 == sa.func.coalesce(d.c.text_sha256, k.c.sha256),
    )
    ended = d.c.state == sa.any_(sa.bindparam("ended", type_=ARRAY(sa.Text)))
    return (
        sa.select(k)
        .join(d, d.c.id == k.c.document_id)
        .where(
            k.c.document_id == sa.any_(sa.bindparam("ids", type_=ARRAY(ID))),
            sa.or_(ended, sa.not_(current)),
        )
        .order_by(*_order(k))
        .with_for_update(of=k)
    )


def heir(t: Tables) -> Any:
    """Name the document that has rested longest on a key of ``owner``, and lock it.

    The document before the row that says on whom it rests, as whoever moves the document does.
    """
    r, d = t.duplicate_of, t.document
    return (
        sa.select(r.c.document_id)
        .join(d, d.c.id == r.c.document_id)
        .where(
            r.c.owner == sa.bindparam("owner", type_=ID),
            r.c.kind == sa.bindparam("kind"),
            r.c.sha256 == sa.bindparam("sha256"),
        )
        .order_by(r.c.at, r.c.document_id)
        .limit(1)
        .with_for_update(key_share=True, of=(d, r))
    )


def hand_over(t: Tables) -> list[Any]:
    """Make ``heir`` the owner of a key, and let the others rest on it."""
    k, r = t.text_owner, t.duplicate_of
    given: dict[str, Any] = {
        name: sa.bindparam(f"key_{name}") for name in ("tenant", "kind", "sha256")
    }
    heir_id = sa.bindparam("heir", type_=ID)
    return [
        sa.update(k)
        .where(*(k.c[name] == bind for name, bind in given.items()))
        .values(document_id=heir_id),
        sa.update(r)
        .where(
            r.c.owner == sa.bindparam("previous", type_=ID),
            r.c.kind == given["kind"],
            r.c.sha256 == given["sha256"],
        )
        .values(owner=heir_id),
    ]


def drop(t: Tables) -> Any:
    """Free a key that nobody rests on."""
    k = t.text_owner
    return sa.delete(k).where(
        *(k.c[name] == sa.bindparam(f"key_{name}") for name in ("tenant", "kind", "sha256"))
    )


def rest_on(t: Tables) -> Any:
    """Record on whom duplicates rest."""
    given: Any = rows("rest", {"document_id": ID, "owner": ID, "kind": sa.Text, "sha256": sa.Text})
    stored = insert(t.duplicate_of).from_select(
        ["document_id", "owner", "kind", "sha256"], sa.select(given)
    )
    return stored.on_conflict_do_update(
        index_elements=["document_id"],
        set_={name: stored.excluded[name] for name in ("owner", "kind", "sha256")},
    )
