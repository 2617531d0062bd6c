"""Take work, give it back, and move it on under a claim."""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from statemachine_pipeline.database.statements.levels import is_shut
from statemachine_pipeline.database.statements.rows import (
    ID,
    LANE_CLAIMED,
    LANE_DEFERRED,
    LANE_READY,
    any_of,
    clock,
    rows,
    seconds,
)
from statemachine_pipeline.database.statements.turns import closed_at, places, ready_in_turn, waits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from statemachine_pipeline.database.tables import Tables

SETTLED = {
    "id": ID,
    "seq": sa.BigInteger,
    "state": sa.Text,
    "steps": sa.JSON,
    "step_count": sa.Integer,
    "lane": sa.Text,
    "after": sa.Double,
    "give_back": sa.Integer,
    "crashed": sa.Integer,
    "reenters": sa.Boolean,
    "alone": sa.Boolean,
    "deadline": sa.Double,
    "next_input_sha256": sa.Text,
    "error": sa.Text,
    "tokens": sa.BigInteger,
    "media_type": sa.Text,
    "text_sha256": sa.Text,
    "text_chars": sa.Integer,
    "children": JSONB,
    "stage": sa.Text,
    "input_sha256": sa.Text,
    "fingerprint": sa.Text,
    "output_sha256": sa.Text,
    "kind": sa.Text,
    "key_kind": sa.Text,
    "key_sha256": sa.Text,
    "reported": JSONB,
    "facts": JSONB,
    "failed_in": sa.Text,
    "failed_stage": sa.Text,
    "code": sa.Text,
    "attempts": sa.Integer,
    "crashes": sa.Integer,
    "error_type": sa.Text,
    "traceback": sa.Text,
}
"""One settled claim. ``steps`` holds one object per transition, in order.

What is usual is left out of a record and reads as NULL: both sides parse half as much.
"""

NO_PROVIDERS: Mapping[str, str] = MappingProxyType({})

STEPS = {
    "offset": sa.Integer,
    "trigger": sa.Text,
    "from_state": sa.Text,
    "to_state": sa.Text,
    "hop": sa.Boolean,
    "attempt": sa.SmallInteger,
    "error": sa.Text,
    "reason": sa.Text,
    "run_seconds": sa.Double,
}
_PRODUCT = (
    "stage",
    "input_sha256",
    "fingerprint",
    "output_sha256",
    "kind",
    "key_kind",
    "key_sha256",
    "reported",
    "facts",
)


def claim(
    t: Tables,
    stages: Sequence[tuple[str, Sequence[str]]],
    *,
    alone: bool,
    providers: Mapping[str, str] = NO_PROVIDERS,
    probing: bool = False,
) -> Any:
    """Take ready documents for each stage, at most as many as it has free slots.

    Every stage is asked in a round of its tenants, by ordered index probes, so a backlog elsewhere
    costs nothing. MATERIALIZED keeps the planner from running a locking probe twice.

    Args:
        t: The tables.
        stages: For each stage its name and the states that lead to it; see ``turns.places`` for
            its parameters. All together give at most ``documents`` rows.
        alone: Take documents that took a worker down, instead of the others.
        providers: Whom stages ask, by stage: nothing is taken for one that is shut.
        probing: This worker holds the probe of a provider, so that it is not shut for it.
    """
    me = sa.bindparam("worker", type_=sa.BigInteger)
    place = places(stages, providers)
    closed = _closed(t, place, asking=bool(providers), holder=me if probing else None)
    leg = ready_in_turn(t, place, alone=alone)
    # What is nearest to its end comes first; later probes are not even made once enough is found.
    picked = (
        sa.select(leg.c.document_id)
        .select_from(place.join(leg, sa.true()))
        .where(place.c.free > sa.literal_column("0"), sa.not_(closed))
        .limit(sa.bindparam("documents", type_=sa.Integer))
        .cte("picked")
        .prefix_with("MATERIALIZED")
    )
    # Where ways fork behind a waiting state, two stages lead there and may pick one document.
    deadline = sa.select(sa.func.max(place.c.deadline)).where(
        t.work.c.state == sa.any_(place.c.states)
    )
    claimed = (
        sa.update(t.work)
        .where(
            # An array made once: the right plan even where the table was never analysed.
            t.work.c.document_id == any_of(sa.select(picked.c.document_id)),
            t.work.c.lane == LANE_READY,
            sa.exists().where(t.worker.c.id == me, t.worker.c.dead_at.is_(None)),
        )
        .values(
            lane="claimed",
            worker=me,
            claim_seq=t.claim_seq.next_value(),
            attempt=t.work.c.attempt + 1,
            deadline_at=clock() + seconds(deadline.scalar_subquery()),
        )
        .returning(*_held_columns(t))
        .cte("claimed")
    )
    return (
        sa.select(claimed, *_document_columns(t))
        .join(t.document, t.document.c.id == claimed.c.document_id)
        .order_by(claimed.c.document_id)
    )


def _closed(t: Tables, place: Any, *, asking: bool, holder: Any) -> Any:
    """Tell whether nobody may claim at a place now, whatever the tenant.

    Asked place by place: as a join it could change their order.
    """
    closed = closed_at(t, place.c.stage)
    if asking:
        closed = sa.or_(closed, is_shut(t, place.c.provider, worker=holder))
    return sa.select(closed).scalar_subquery()


def _held_columns(t: Tables) -> list[Any]:
    names = (
        "document_id",
        "claim_seq",
        "attempt",
        "crashes",
        "worker",
        "run_at",
        "deadline_at",
        "entered_at",
        "tokens",
    )
    return [t.work.c[name] for name in names]


def _document_columns(t: Tables) -> list[Any]:
    return [column for column in t.document.c if column.name != "path"]


@functools.cache
def hold(t: Tables, *, skip_locked: bool) -> Any:
    """Lock the claims of a batch and their documents, in id order.

    A claim that is gone gives no row; nor, with ``skip_locked``, one that someone else has locked.
    """
    given = rows("given", {"id": ID, "seq": sa.BigInteger})
    return (
        sa.select(given.c.id, _patience())
        .join(t.work, _is_held(t, given))
        .join(t.document, t.document.c.id == given.c.id)
        .order_by(given.c.id)
        .with_for_update(key_share=True, skip_locked=skip_locked, of=(t.work, t.document))
    )


def extend(t: Tables, *, skip_locked: bool) -> Any:
    """Hold the claims of a batch, move their deadlines and note what they were charged for.

    Rows are those of ``hold``.
    """
    held = hold(t, skip_locked=skip_locked).cte("held")
    given = rows("given", {"id": ID, "tokens": sa.BigInteger})
    return (
        sa.update(t.work)
        .where(
            t.work.c.document_id == any_of(sa.select(held.c.id)),
            t.work.c.document_id == given.c.id,
        )
        .values(
            deadline_at=clock() + seconds(sa.bindparam("deadline", type_=sa.Double)),
            tokens=_charged(t, given),
        )
        .returning(t.work.c.document_id)
    )


def _charged(t: Tables, given: Any) -> Any:
    """Return what a document was charged for since its last transition.

    An attempt tells all of it each time, not what was added: told twice, since an answer was lost,
    or told by nobody, since its worker died after a save, it is counted once.
    """
    return sa.func.greatest(t.work.c.tokens, given.c.tokens)


def _patience() -> Any:
    """Bound, in this transaction, how long its locks outlast a worker that was frozen inside it.

    Rescue skips locked rows, so without it a stopped process would keep its documents for ever.
    """
    limit = sa.bindparam("patience", type_=sa.Text)
    is_local = sa.true()
    return sa.func.set_config("idle_in_transaction_session_timeout", limit, is_local)


def _is_held(t: Tables, given: Any) -> Any:
    return sa.and_(
        t.work.c.document_id == given.c.id,
        t.work.c.claim_seq == given.c.seq,
        t.work.c.lane == LANE_CLAIMED,
    )


@functools.cache
def settle(t: Tables, *, skip_locked: bool) -> Any:
    """Write history, document, products and work of a batch of held claims, in one statement.

    Rows whose claim is gone, or with ``skip_locked`` whose document someone else has locked, are
    left out; the answer names those that were written. Steps lie inside their record and nothing
    is joined to anything but by primary key: the planner takes each CTE for one row, and would
    compare every row of a batch with every other.
    """
    given = rows("given", SETTLED)
    held = (
        sa.select(
            given,
            t.document.c.version.label("base"),
            _charged(t, given).label("spent"),
        )
        .select_from(
            given.join(t.work, _is_held(t, given)).join(t.document, t.document.c.id == given.c.id)
        )
        .order_by(given.c.id)
        .with_for_update(key_share=True, skip_locked=skip_locked, of=(t.work, t.document))
        .cte("held")
    )
    me = sa.bindparam("worker", type_=sa.BigInteger)
    moved = _move_documents(t, held)
    kept = _keep_work(t, held, me)
    resting = sa.select(held.c.id).where(held.c.lane.is_(None))
    rested = sa.delete(t.work).where(t.work.c.document_id == any_of(resting))
    handed_over = (
        sa.select(sa.func.pg_notify(t.channel, ""))
        .select_from(kept)
        .where(kept.c.lane == "ready")
        .limit(1)
        .scalar_subquery()
    )
    gone_on = sa.select(
        kept.c.document_id.label("id"),
        kept.c.claim_seq,
        kept.c.deadline_at,
        kept.c.entered_at,
        handed_over.label("notified"),
    )
    ended = resting.add_columns(*(sa.null() for _ in range(4)))
    return gone_on.union_all(ended).add_cte(
        _tell(t, moved, me).cte("told"),
        rested.cte("rested"),
        _keep_products(t, held).cte("kept_products"),
        _park(t, held).cte("parked"),
    )


def _move_documents(t: Tables, held: Any) -> Any:
    d = t.document
    coalesced = ("media_type", "text_sha256", "text_chars", "children")
    return (
        sa.update(d)
        .where(d.c.id == held.c.id)
        .values(
            state=held.c.state,
            version=held.c.base + held.c.step_count,
            input_sha256=sa.func.coalesce(held.c.next_input_sha256, d.c.input_sha256),
            last_error=held.c.error,
            updated_at=clock(),
            **{name: sa.func.coalesce(held.c[name], d.c[name]) for name in coalesced},
        )
        .returning(
            d.c.id,
            d.c.life,
            d.c.generation,
            d.c.correlation_id,
            held.c.base,
            held.c.seq,
            held.c.steps,
            held.c.spent,
        )
        .cte("moved")
    )


def _tell(t: Tables, moved: Any, me: Any) -> Any:
    named: list[Any] = [sa.column(name, kind) for name, kind in STEPS.items()]
    step = sa.func.json_to_recordset(moved.c.steps).table_valued(*named)
    step = step.render_derived(name="step", with_types=True)
    own = [name for name in STEPS if name not in {"offset", "hop"}]
    return insert(t.transition).from_select(
        ["document_id", "version", "life", "generation", "worker", "claim_seq", "correlation_id"]
        + ["hop", "tokens", *own],
        sa.select(
            moved.c.id,
            moved.c.base + step.c.offset,
            moved.c.life,
            moved.c.generation,
            me,
            moved.c.seq,
            moved.c.correlation_id,
            sa.func.coalesce(step.c.hop, sa.false()),
            sa.case((step.c.offset == 1, sa.func.nullif(moved.c.spent, 0))),
            *(step.c[name] for name in own),
        ).select_from(moved.join(step, sa.true())),
    )


def _keep_work(t: Tables, held: Any, me: Any) -> Any:
    w = t.work
    claimed = held.c.lane == "claimed"
    entered = (held.c.state != w.c.state) | sa.func.coalesce(held.c.reenters, sa.false())
    return (
        sa.update(w)
        .where(w.c.document_id == held.c.id, held.c.lane.is_not(None))
        .values(
            state=held.c.state,
            lane=held.c.lane,
            claim_seq=t.claim_seq.next_value(),
            worker=sa.case((claimed, me)),
            deadline_at=sa.case((claimed, clock() + seconds(held.c.deadline))),
            run_at=clock() + seconds(sa.func.coalesce(held.c.after, 0.0)),
            entered_at=sa.case((entered, clock()), else_=w.c.entered_at),
            attempt=sa.case(
                (entered, sa.case((claimed, 1), else_=0)),
                else_=w.c.attempt - sa.func.coalesce(held.c.give_back, 0),
            ),
            # What passed a stage was not what crashed there, or does so no more.
            crashes=sa.case((entered, 0), else_=w.c.crashes + sa.func.coalesce(held.c.crashed, 0)),
            alone=~entered & (w.c.alone | sa.func.coalesce(held.c.alone, sa.false())),
            # Told by the next transition.
            tokens=sa.case((held.c.step_count == 0, held.c.spent), else_=0),
        )
        .returning(w.c.document_id, w.c.claim_seq, w.c.deadline_at, w.c.entered_at, w.c.lane)
        .cte("kept")
    )


def _keep_products(t: Tables, held: Any) -> Any:
    nothing = sa.literal_column("'{}'::jsonb", JSONB)
    told = {name: sa.func.coalesce(held.c[name], nothing) for name in ("reported", "facts")}
    stored = insert(t.product).from_select(
        ["document_id", *_PRODUCT],
        sa.select(held.c.id, *(told.get(name, held.c[name]) for name in _PRODUCT)).where(
            held.c.stage.is_not(None)
        ),
    )
    changed = {name: stored.excluded[name] for name in _PRODUCT if name != "stage"}
    return stored.on_conflict_do_update(
        index_elements=["document_id", "stage"], set_=changed | {"at": clock()}
    )


def _park(t: Tables, held: Any) -> Any:
    told = ("code", "attempts", "crashes", "error_type", "traceback")
    columns = ("stage", "state", "reason", *told)
    stored = insert(t.dead_letter).from_select(
        ["document_id", *columns],
        sa.select(
            held.c.id,
            held.c.failed_stage,
            held.c.failed_in,
            held.c.error,
            *(held.c[name] for name in told),
        ).where(held.c.failed_in.is_not(None)),
    )
    changed = {name: stored.excluded[name] for name in columns}
    return stored.on_conflict_do_update(
        index_elements=["document_id"], set_=changed | {"at": clock()}
    )


@functools.cache
def promote(t: Tables) -> Any:
    """Make deferred documents ready whose time has come, at most 1,000."""
    waiting = t.work.alias("w")
    due = (
        sa.select(waiting.c.document_id)
        # statement_timestamp is stable, so that it can be the bound of an index scan.
        .where(waiting.c.lane == LANE_DEFERRED, waiting.c.run_at <= sa.func.statement_timestamp())
        .order_by(waiting.c.run_at)
        .limit(1000)
        .with_for_update(key_share=True, skip_locked=True)
        .cte("due")
        .prefix_with("MATERIALIZED")
    )
    ready = (
        sa.update(t.work)
        .where(
            t.work.c.document_id == any_of(sa.select(due.c.document_id)),
            t.work.c.lane == LANE_DEFERRED,
        )
        .values(lane="ready")
        .returning(t.work.c.document_id)
        .cte("ready")
    )
    counted = sa.select(sa.func.count()).select_from(ready).scalar_subquery()
    said = sa.select(sa.func.pg_notify(t.channel, "")).select_from(ready).limit(1)
    return sa.select(counted.label("count"), said.scalar_subquery().label("notified"))


@functools.cache
def overdue(t: Tables) -> Any:
    """Lock claims of dead workers, and claims past deadline and ``grace`` seconds; at most 100.

    Only those in ``states``: what another lifecycle's workers hold is theirs to judge.
    They are found first, or the order would make the planner read the queue by its key. Locking
    compares fence and deadline again: a claim that somebody else got or extended in the same moment
    is not taken from them.
    """
    w, k = t.work, t.worker
    passed = w.c.deadline_at + seconds(sa.bindparam("grace", type_=sa.Double))
    # Known before the server last started and not heard of since: nobody could say that it lives.
    restart = sa.func.pg_postmaster_start_time()
    unheard = sa.and_(k.c.started_at < restart, k.c.beat_at < restart)
    late = (
        sa.select(
            w.c.document_id,
            w.c.claim_seq,
            w.c.deadline_at,
            k.c.dead_at,
            k.c.id.label("known"),
            unheard.label("unheard"),
        )
        .outerjoin(k, k.c.id == w.c.worker)
        .where(
            w.c.lane == LANE_CLAIMED,
            w.c.state == sa.any_(sa.bindparam("states", type_=ARRAY(sa.Text))),
            sa.or_(
                k.c.id.is_(None), k.c.dead_at.is_not(None), passed < sa.func.statement_timestamp()
            ),
        )
        .cte("late")
        .prefix_with("MATERIALIZED")
    )
    same = sa.and_(
        late.c.document_id == w.c.document_id,
        late.c.claim_seq == w.c.claim_seq,
        late.c.deadline_at == w.c.deadline_at,
    )
    found = (late.c.dead_at, late.c.known, late.c.unheard)
    return (
        sa.select(*_held_columns(t), *_document_columns(t), *found, _patience())
        .select_from(w.join(t.document, t.document.c.id == w.c.document_id).join(late, same))
        .where(w.c.document_id == any_of(sa.select(late.c.document_id)))
        .order_by(w.c.document_id)
        .limit(100)
        .with_for_update(key_share=True, skip_locked=True, of=(w, t.document))
    )


@functools.cache
def release(t: Tables) -> Any:
    """Give back claims of the worker ``me`` unspent, on all documents but ``keep``."""
    mine = t.work.alias("w")
    keep = sa.bindparam("keep", type_=ARRAY(ID))
    held = (
        sa.select(mine.c.document_id)
        .where(
            mine.c.lane == LANE_CLAIMED,
            mine.c.worker == sa.bindparam("me", type_=sa.BigInteger),
            mine.c.document_id != sa.all_(keep),
        )
        .order_by(mine.c.document_id)
        .with_for_update(key_share=True, skip_locked=True)
        .cte("mine")
        .prefix_with("MATERIALIZED")
    )
    return (
        sa.update(t.work)
        .where(t.work.c.document_id == any_of(sa.select(held.c.document_id)))
        .values(
            lane="ready",
            worker=sa.null(),
            deadline_at=sa.null(),
            claim_seq=t.claim_seq.next_value(),
            attempt=t.work.c.attempt - 1,
        )
        .returning(t.work.c.document_id)
    )


@functools.cache
def is_held(t: Tables) -> Any:
    """Tell whether a claim is still held."""
    return sa.select(sa.func.count()).where(
        t.work.c.document_id == sa.bindparam("id", type_=ID),
        t.work.c.claim_seq == sa.bindparam("seq", type_=sa.BigInteger),
        t.work.c.lane == LANE_CLAIMED,
    )


@functools.cache
def suspects(t: Tables) -> Any:
    """Tell whether documents wait at stages of ``served`` that took a worker down."""
    return sa.select(waits(t, alone=sa.true()))
