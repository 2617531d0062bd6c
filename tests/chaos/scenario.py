"""One fault on a living fleet: a stream of documents, the fault, its end, the rest, the proof.

The same for the tests and for ``make soak``. Recovery is measured by the database's clock, from the
moment when the fault has ended.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import fleet as fleets
import program
import proof

from statemachine_pipeline.graph import RESTARTS, SUBMIT
from statemachine_pipeline.testing import services as embedding

if TYPE_CHECKING:
    import uuid
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from faults import Fault
    from fleet import Fleet, Sent

GRAPH = program.AuditedLifecycle.graph
REST_SECONDS = 120
"""Nobody promises to be this fast: after so long a document counts as stuck."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What one fault did.

    Attributes:
        fault: Its name.
        in_flight: Documents under way when it happened.
        documents: Documents that were submitted around it.
        first_seconds: From its end to the first progress; None when all rested before.
        last_seconds: To the last one, after which everything rests.
        charged: Attempts that it cost, by code.
        repeated: Texts that were embedded once more than needed.
    """

    fault: str
    in_flight: int
    documents: int
    first_seconds: float | None
    last_seconds: float | None
    charged: Mapping[str, int]
    repeated: int

    def __str__(self) -> str:
        if self.first_seconds is None or self.last_seconds is None:
            recovery = "nothing was left to do"
        else:
            recovery = (
                f"first progress after {self.first_seconds:.1f} s, "
                f"all at rest after {self.last_seconds:.1f} s"
            )
        paid = ", ".join(f"{count} {code}" for code, count in sorted(self.charged.items()))
        return (
            f"{self.fault}: {self.in_flight} of {self.documents} documents in flight, {recovery}; "
            f"attempts spent: {paid or 'none'}; texts embedded again: {self.repeated}"
        )


def strike(fleet: Fleet, fault: Fault, *, warm: int = 5) -> Report:
    """Let one fault happen to a fleet at work, and prove that every promise was kept.

    Args:
        fleet: Whole, and with nothing to do.
        fault: What happens.
        warm: Documents that come to rest before it does.

    Raises:
        proof.Broken: A promise was not kept.
    """
    fleet.until(fleet.is_whole, "every process is one living worker")
    begun = _now(fleet)
    before = set(fleet.stream.sent)
    embedded = fleet.service.embedded.copy()
    rested = "SELECT count(*) FROM smp.transition WHERE at > %s AND to_state = 'complete'"
    fleet.stream.start()
    try:
        fleet.until(lambda: fleet.one(rested, begun) >= warm, "documents complete undisturbed")
        in_flight = fleet.one("SELECT count(*) FROM smp.work")
        fault.inject(fleet)
        fault.heal(fleet)
        healed = _now(fleet)
    finally:
        fleet.stream.stop()
    proof.demand(not fleet.stream.failures, "submit raises nothing else", fleet.stream.failures)
    sent = {id_: one for id_, one in fleet.stream.sent.items() if id_ not in before}
    _rest(fleet, fault, sent)
    charged = _prove(fleet, fault, sent, begun)
    repeated = _embedded(fault, sent, fleet.service.embedded - embedded)
    first, last = _recovery(fleet, fault, healed)
    return Report(fault.name, in_flight, len(sent), first, last, charged, repeated)


def prove_end(fleet: Fleet) -> None:
    """Drain the whole fleet and prove that it leaves nothing behind.

    Raises:
        proof.Broken: A worker, a child, a connection or a claim is left, or somebody complained.
    """
    codes = fleet.drain()
    proof.demand(not any(codes), "workers that are told to end do so with 0", fleet.said())
    workers = fleet.ask("SELECT id, pid, dead_at FROM smp.worker WHERE dead_at IS NULL")
    proof.demand(not workers, "no worker is left over", workers)
    fleet.until(lambda: not _backends(fleet), "no connection is left over", 60)
    fleet.until(lambda: not fleet.strangers(), "no process is left over", 60)


def _backends(fleet: Fleet) -> list[Any]:
    return fleet.ask(
        "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND application_name <> %s",
        fleets.OURS,
    )


def _now(fleet: Fleet) -> datetime:
    found: datetime = fleet.one("SELECT clock_timestamp()")
    return found


def _rest(fleet: Fleet, fault: Fault, sent: Mapping[uuid.UUID, Sent]) -> None:
    """Wait until nothing is at work any more, then compare where documents stand."""

    def nothing_left() -> bool:
        fault.tend(fleet)
        return fleet.one("SELECT count(*) FROM smp.work") == 0

    try:
        fleet.until(nothing_left, "every document rests", REST_SECONDS)
    except proof.Broken as broken:
        stuck = fleet.ask(
            "SELECT w.*, d.last_error FROM smp.work w JOIN smp.document d ON d.id = w.document_id "
            "ORDER BY w.document_id LIMIT 5"
        )
        raise proof.Broken(str(broken), stuck) from None
    stands = dict(fleet.ask("SELECT id, state FROM smp.document"))
    lost = [id_ for id_ in sent if id_ not in stands]
    proof.demand(not lost, "no document is lost", lost)
    wrong = {id_: stands[id_] for id_, one in sent.items() if stands[id_] not in one.ends}
    reasons = fleet.ask(
        "SELECT document_id, state, code, reason FROM smp.dead_letter WHERE document_id = ANY(%s)",
        list(wrong),
    )
    proof.demand(not wrong, "every document comes to the end that it should", (wrong, reasons))
    twins: dict[str, list[str]] = collections.defaultdict(list)
    for id_, one in fleet.stream.sent.items():  # the first of them may have come before
        if one.twin is not None:
            twins[one.twin].append(stands[id_])
    doubled = {name: ends for name, ends in twins.items() if ends.count("complete") != 1}
    proof.demand(not doubled, "of twins exactly one completes", doubled)


def _prove(
    fleet: Fleet, fault: Fault, sent: Mapping[uuid.UUID, Sent], begun: datetime
) -> Mapping[str, int]:
    """Prove what the database can tell; return the attempts that were spent, by code."""
    with fleet.connection() as connection:
        broken = proof.faults(connection)
    proof.demand(not broken, "nothing stands in the database that should not", broken)
    _histories(fleet, begun)
    _products(fleet, sent)
    fleet.until(fleet.is_whole, "every process is one living worker again", 90)
    fleet.until(lambda: not fleet.strangers(), "no process is left over", 60)
    errors = [
        line for line in fleet.said().splitlines() if "| ERROR" in line or "Traceback" in line
    ]
    proof.demand(not errors, "no worker meets a defect of its own", fleet.said())
    fault.prove(fleet)
    hoarders = [id_ for id_, one in sent.items() if one.ends == {"dead_letter"}]
    spent = dict(
        fleet.ask(
            "SELECT error, count(*) FROM smp.transition WHERE trigger = 'retry' AND at > %s "
            "AND NOT document_id = ANY(%s) GROUP BY error",
            begun,
            hoarders,
        )
    )
    free = {code: count for code, count in spent.items() if code not in fault.charges}
    proof.demand(not free, "no attempt is spent on what is nobody's fault", free)
    if fault.most_charged is not None:
        most = fault.most_charged * len(fleet.workers)
        proof.demand(sum(spent.values()) <= most, f"an outage costs at most {most} attempts", spent)
    return spent


def _histories(fleet: Fleet, begun: datetime) -> None:
    """Walk every history through the declared graph, whatever the database has checked."""
    rows = fleet.ask(
        "SELECT document_id, version, life, trigger, from_state, to_state FROM smp.transition "
        "WHERE document_id IN (SELECT document_id FROM smp.transition WHERE at > %s) "
        "ORDER BY document_id, version",
        begun,
    )
    for document, steps in itertools.groupby(rows, key=lambda row: row[0]):
        problem = illegal([step[1:] for step in steps])
        proof.demand(not problem, "every history is a legal path of the graph", (document, problem))


def illegal(steps: Sequence[tuple[int, int, str, str | None, str]]) -> str | None:
    """Return why the steps of a document are no path of the declared graph; None when they are.

    Args:
        steps: Version, life, trigger, from and to, in order.
    """
    legal = set(GRAPH.codes())
    stands, life = None, 1
    for number, (version, lived, trigger, origin, target) in enumerate(steps, start=1):
        life += trigger in RESTARTS
        if (version, lived) != (number, life):
            return f"step {number} says version {version} of life {lived}, not {life}"
        if origin != stands or (origin is None) != (trigger == SUBMIT):
            return f"step {number} leaves {origin} by {trigger}, and the document stood in {stands}"
        if f"{origin or ''}>{trigger}>{target}" not in legal:
            return f"step {number} takes no edge: {origin} {trigger} {target}"
        stands = target
    return None


def _products(fleet: Fleet, sent: Mapping[uuid.UUID, Sent]) -> None:
    """Compare what readers see with what was submitted: each once, and each with its own vector."""
    written = dict(fleet.ask("SELECT document, count(*) FROM ledger GROUP BY document"))
    passages: dict[uuid.UUID, list[tuple[str, str]]] = collections.defaultdict(list)
    found = fleet.ask(
        "SELECT c.document_id, c.text, v.vector::text FROM smp.chunk c "
        "LEFT JOIN smp.chunk_vector v ON v.chunk_id = c.id WHERE c.document_id = ANY(%s) "
        "ORDER BY c.document_id, c.index",
        list(sent),
    )
    for document, text, vector in found:
        passages[document].append((text, vector))
    complete = fleet.ask(
        "SELECT id FROM smp.document WHERE state = 'complete' AND id = ANY(%s)", list(sent)
    )
    completed = {id_ for (id_,) in complete}
    for document, one in sent.items():
        expected = one.texts if document in completed else ()
        seen = passages[document]
        proof.demand(
            [text for text, _ in seen] == list(expected),
            "readers see each passage once, in order",
            (document, seen),
        )
        strange = [text for text, vector in seen if not _belongs(text, vector)]
        proof.demand(not strange, "each passage has its own vector, once", strange)
        times = written.get(document, 0)
        proof.demand(times == (document in completed), "a product is written once", document)


def _belongs(text: str, vector: str | None) -> bool:
    if vector is None:
        return False
    (expected,) = embedding.drawn(program.DIMENSIONS)([text])
    found = [float(number) for number in vector.strip("[]").split(",")]
    return all(abs(a - b) < 1e-5 for a, b in zip(expected, found, strict=True))


def _embedded(
    fault: Fault, sent: Mapping[uuid.UUID, Sent], counts: collections.Counter[str]
) -> int:
    """Return how many texts were embedded again; at most what was in flight at the fault."""
    known = {text for one in sent.values() for text in one.texts}
    extra = {text: count - 1 for text, count in counts.items() if text in known and count > 1}
    much = {text: count for text, count in extra.items() if count > fault.repeats}
    proof.demand(not much, f"a text is embedded again at most {fault.repeats} times", much)
    return sum(extra.values())


def _recovery(
    fleet: Fleet, fault: Fault, healed: datetime
) -> tuple[float, float] | tuple[None, None]:
    forward = fault.stage and [fault.stage]
    first, last = fleet.ask(
        "SELECT extract(epoch FROM min(at) FILTER (WHERE trigger = ANY(%s)) - %s)::float, "
        "extract(epoch FROM max(at) - %s)::float FROM smp.transition "
        "WHERE at > %s AND trigger <> ALL('{submit,retry}')",
        forward or list(GRAPH.forward_triggers()),
        healed,
        healed,
        healed,
    )[0]
    return (first, last) if first is not None else (None, None)
