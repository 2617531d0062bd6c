"""How one situation follows another: what workers, faults and people may do at any moment.

Only lanes, fences and who holds what are modelled here; which edges are taken is asked of the
library. Each action is one statement or transaction of ``database/``, so it happens whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from statemachine_pipeline.decide import Crashed, Failed, Succeeded
from statemachine_pipeline.graph import REPROCESS, REQUEUE, RETRY, REVISE
from statemachine_pipeline.testing.modelling.actions import Action, Cause, Step
from statemachine_pipeline.testing.modelling.choices import DIED
from statemachine_pipeline.testing.modelling.situations import (
    IDLE,
    LATE,
    Row,
    Situation,
    Visit,
    Worker,
    replaced,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.decide import Decision, Outcome
    from statemachine_pipeline.testing.modelling.choices import Choice, Choices, Request
    from statemachine_pipeline.testing.modelling.protocol import Protocol

_COSTS = {REVISE: "duplicates", REQUEUE: "restarts", REPROCESS: "restarts"}
"""What begins another life, and would go on for ever without a budget."""


class Steps:
    """The steps of one lifecycle under one protocol.

    Args:
        choices: What the library decides.
        protocol: The rules.
        tracks: Remember the states that a life has come through.
    """

    def __init__(self, choices: Choices, protocol: Protocol, *, tracks: bool) -> None:
        self.choices, self._rules, self._tracks = choices, protocol, tracks
        self._stages, self._graph = choices.stages, choices.stages.graph

    def beginning(self, situation: Situation) -> Situation:
        """Return the situation with a document that was just submitted."""
        initial = self._graph.initial
        lane: Literal["held", "ready"] = "held" if self._stages.is_by_hand(initial) else "ready"
        passed = frozenset({initial}) if self._tracks else frozenset[str]()
        return situation._replace(row=Row(initial, lane, passed=passed))

    def after(self, situation: Situation) -> Iterator[Step]:
        """Yield everything that may happen next."""
        workers = situation.workers
        for number, worker in enumerate(workers):
            if number and worker == workers[number - 1]:
                continue  # what one of two equal workers may do, the other may
            yield from self._of_worker(situation, number, worker)
        yield from self._of_anybody(situation)
        yield from self._of_people(situation)

    def _of_worker(self, at: Situation, number: int, worker: Worker) -> Iterator[Step]:
        match worker.doing:
            case "idle":
                yield from self._claim(at, number)
            case "working":
                yield from self._settle(at, number, worker)
            case "late":
                yield from self._repeat(at, number, worker)
            case "unsure":
                yield from self._ask(at, number, worker)
            case "lost" if worker.is_current:
                yield self._give_back(at, number, "release", "worker")
            case "lost":
                yield Step("ask", "worker", number, self._freed(at, number))
        if worker.is_current and at.budget.crashes:
            spent = _spent(at, "crashes")
            yield Step("die", "fault", number, self._freed(spent, number))
            if worker.doing == "working":
                yield self._give_back(spent, number, "leave", "fault")

    def _of_anybody(self, at: Situation) -> Iterator[Step]:
        row = at.row
        if row.lane == "deferred" and self._rules.promotes:
            ready = at._replace(row=row._replace(lane="ready"))
            yield Step("promote", "worker", None, ready)
        if row.lane != "claimed" or self._graph.is_resting(row.state):
            return
        if not any(worker.is_current for worker in at.workers):
            if self._rules.rescues:
                yield self._rescue(at, "rescue", "worker")
            return
        if at.budget.crashes and self._rules.rescues:
            yield self._rescue(_spent(at, "crashes"), "rescue late", "fault")
        if not self._rules.rescues_only_lost:
            yield self._rescue(at, "rescue", "worker")._replace(robs=True)

    def _claim(self, at: Situation, number: int) -> Iterator[Step]:
        row = at.row
        is_live = row.lane == "claimed" and any(w.is_current for w in at.workers)
        if row.lane != "ready" and (self._rules.claims_only_ready or not is_live):
            return
        attempt = row.attempt + self._rules.counts_attempts
        taken = row._replace(lane="claimed", attempt=attempt)
        workers = at.workers
        if self._rules.has_new_fence_by_workers:
            workers = self._unfenced(workers, "open")
        mine = Worker("working", True, row.state, attempt, row.crashes)
        after = at._replace(row=taken, workers=replaced(workers, number, mine))
        yield Step("claim", "worker", number, after, robs=is_live)

    def _settle(self, at: Situation, number: int, worker: Worker) -> Iterator[Step]:
        """Settle what an attempt, or a walk over what is there already, came to."""
        if not self._is_let_through(at, worker):
            yield from self._refused(at, number, worker)
            return
        for choice in self._offered(at.row, worker):
            base = at
            if choice.waits:
                if not at.budget.waits:
                    continue
                base = _spent(at, "waits")
            written = self._written(base, number, worker, choice)
            yield written
            # One that goes on has its hands full: whoever takes its place shows as much.
            if at.budget.duplicates and not choice.decision.goes_on:
                twice = _spent(written.after, "duplicates")
                late = self._told(worker, choice, written.after.row)._replace(doing="late")
                twice = twice._replace(workers=replaced(twice.workers, number, late))
                yield written._replace(action="settle twice", cause="fault", after=twice)
            if at.budget.crashes:
                unheard = _spent(written.after, "crashes")
                one = self._told(worker, choice, written.after.row)._replace(doing="unsure")
                if choice.decision.goes_on:
                    one = written.after.workers[number]._replace(doing="lost")
                unheard = unheard._replace(workers=replaced(unheard.workers, number, one))
                yield written._replace(action="settle unheard", cause="fault", after=unheard)
        if at.budget.crashes:
            unsent = _spent(at, "crashes")
            waiting = replaced(at.workers, number, worker._replace(doing="unsure"))
            yield Step("settle unsent", "fault", number, unsent._replace(workers=waiting))

    def _repeat(self, at: Situation, number: int, worker: Worker) -> Iterator[Step]:
        """Let a settle arrive a second time."""
        if self._rules.checks_repeats and not self._is_let_through(at, worker):
            yield from self._refused(at, number, worker)
            return
        for choice in self._offered(at.row, worker):
            if not choice.waits:
                yield self._written(at, number, worker, choice)

    def _ask(self, at: Situation, number: int, worker: Worker) -> Iterator[Step]:
        """Find out what became of a settle whose answer was lost."""
        if not self._rules.asks_when_unsure:
            for choice in self._offered(at.row, worker):
                if not choice.waits:
                    yield self._written(at, number, worker, choice)
            return
        if worker.is_current and at.row.lane == "claimed":
            working = replaced(at.workers, number, worker._replace(doing="working"))
            yield Step("ask", "worker", number, at._replace(workers=working))
        else:
            yield Step("ask", "worker", number, self._freed(at, number))

    def _is_let_through(self, at: Situation, worker: Worker) -> bool:
        match self._rules.settle_compares:
            case "fence":
                return worker.is_current and at.row.lane == "claimed"
            case "state":
                return at.row.lane == "claimed" and at.row.state == worker.state
            case "nothing":
                return not self._graph.is_resting(at.row.state)

    def _refused(self, at: Situation, number: int, worker: Worker) -> Iterator[Step]:
        repeats = not self._rules.has_products_in_settle and worker.visit == "earned"
        yield Step("refused", "worker", number, self._freed(at, number), repeats=repeats)

    def _offered(self, row: Row, worker: Worker) -> Iterator[Choice]:
        """Yield what may be settled: hops, or what comes of the hook."""
        hops: tuple[Choice | None, ...] = (None,)
        if worker.is_current:
            one = (worker.state, worker.attempt, worker.crashes)
            hops = self.choices.hops(*one, row.is_restarted, row.earned)
        for hop in hops:
            if hop is not None:
                yield hop
        if None in hops:
            yield from self.choices.attempts(worker.state, worker.attempt, worker.crashes)

    def _written(self, at: Situation, number: int, worker: Worker, choice: Choice) -> Step:
        decision = choice.decision
        row = self._moved(at.row, decision, choice.outcome)
        if choice.earns:
            stage, _ = choice.earns
            row = row._replace(
                earned=(*(one for one in row.earned if one[0] != stage), choice.earns)
            )
        workers = at.workers
        if self._rules.has_new_fence_by_workers or row.lane is None:
            workers = self._unfenced(workers, _visit_after(decision, at.row, choice))
        mine = IDLE
        if decision.goes_on:
            mine = Worker("working", True, row.state, 1, 0)  # as ``following.next_claim`` has it
        return Step(
            "settle",
            "worker",
            number,
            at._replace(row=row, workers=replaced(workers, number, mine)),
            choice.words,
            choice,
            tuple(step.edge for step in decision.steps),
            is_own=worker.is_current and at.row.lane == "claimed",
            repeats=choice.earns is not None and worker.visit == "earned",
        )

    def _moved(self, row: Row, decision: Decision, outcome: Outcome | None) -> Row:
        """Return the row as a settle leaves it; what ``statements.claims.settle`` does."""
        has_entered = decision.state != row.state or decision.reenters
        counts_crash = decision.crashed and self._rules.counts_crashes
        attempt = row.attempt - (decision.give_back and self._rules.gives_back)
        crashes = row.crashes + counts_crash
        # What should be counted, by what happened and not by what was decided on it.
        tried = row.tried + isinstance(outcome, Succeeded | Failed | Crashed)
        lost = row.lost + isinstance(outcome, Crashed)
        if has_entered:
            crashes = tried = lost = 0
            attempt = int(decision.goes_on)
            if not self._rules.counts_anew:
                attempt += row.attempt
        lane = decision.lane
        if lane == "deferred" and not self._rules.keeps_place:
            lane = None
        if lane is None and not self._rules.drops_place:
            lane = "claimed"
        if decision.lane is None:
            attempt = 0
        passed = row.passed
        if self._tracks:
            passed |= {step.edge.to_state for step in decision.steps}
        return row._replace(
            state=decision.state,
            lane=lane,
            attempt=attempt,
            crashes=crashes,
            tried=tried,
            lost=lost,
            passed=passed,
        )

    def _told(self, worker: Worker, choice: Choice, row: Row) -> Worker:
        """Return a worker that does not know that its settle was written."""
        if not self._rules.has_new_fence_by_workers and row.lane is not None:
            return worker
        return self._lost_claim(worker, "earned" if choice.earns else "left")

    def _rescue(self, at: Situation, action: Action, cause: Cause) -> Step:
        row = at.row
        decision = self.choices.rescued(row.state, row.attempt, row.crashes)
        moved = self._moved(row, decision, DIED)
        workers = at.workers
        if self._rules.has_new_fence_by_rescue or moved.lane is None:
            workers = self._unfenced(workers, _visit_after(decision, row))
        edges = tuple(step.edge for step in decision.steps)
        return Step(action, cause, None, at._replace(row=moved, workers=workers), edges=edges)

    def _give_back(self, at: Situation, number: int, action: Action, cause: Cause) -> Step:
        attempt = at.row.attempt - self._rules.gives_back
        row = at.row._replace(lane="ready", attempt=attempt)
        return Step(action, cause, number, self._freed(at._replace(row=row), number))

    def _of_people(self, at: Situation) -> Iterator[Step]:
        row, budget = at.row, at.budget
        here = self.choices.asked(row.state, row.attempt, row.crashes, works=row.lane is not None)
        for request in here:
            cost = _COSTS.get(request.trigger)
            if cost is None:
                yield self._asked(at, request)
            elif getattr(budget, cost):
                yield self._asked(_spent(at, cost), request)
            if request.trigger == REVISE and not self._rules.compares_bytes:
                yield self._asked(at, request)._replace(is_idle=True)

    def _asked(self, at: Situation, request: Request) -> Step:
        row = at.row
        passed = row.passed
        if self._tracks:
            passed = frozenset[str]() if request.begins else passed
            passed |= {edge.to_state for edge in request.edges}
        moved = Row(
            request.state,
            request.lane,
            is_restarted=row.is_restarted or request.begins,
            earned=() if request.trigger == REVISE else row.earned,
            passed=passed,
        )
        workers = at.workers
        if self._rules.has_new_fence_by_people or moved.lane is None:
            workers = self._unfenced(workers, "left")
        action: Action = "submit" if request.trigger == REVISE else "apply"
        after = at._replace(row=moved, workers=workers)
        return Step(action, "person", None, after, request.trigger, edges=request.edges)

    def _freed(self, at: Situation, number: int) -> Situation:
        return at._replace(workers=replaced(at.workers, number, IDLE))

    def _unfenced(self, workers: tuple[Worker, ...], visit: Visit) -> tuple[Worker, ...]:
        """Return the workers after a new fence was drawn, which none of them knows."""
        return tuple(self._lost_claim(worker, visit) for worker in workers)

    def _lost_claim(self, worker: Worker, visit: Visit) -> Worker:
        if worker.doing == "idle":
            return worker
        if self._rules.is_fenced:
            return LATE
        if worker.visit != "open":
            visit = worker.visit
        return worker._replace(is_current=False, visit=visit)


def _visit_after(decision: Decision, row: Row, choice: Choice | None = None) -> Visit:
    if choice is not None and choice.earns:
        return "earned"
    edges = [step.edge for step in decision.steps]
    goes_on = decision.state == row.state and all(edge.trigger == RETRY for edge in edges)
    return "open" if goes_on else "left"


def _spent(at: Situation, name: str) -> Situation:
    budget = at.budget
    return at._replace(budget=budget._replace(**{name: getattr(budget, name) - 1}))
