"""What may happen to a living fleet: a small vocabulary, shared by the tests and the soak."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from typing import TYPE_CHECKING, Protocol

import fleet as fleets
import program
import proof

from statemachine_pipeline.testing import services as embedding

if TYPE_CHECKING:
    import random
    import subprocess
    from collections.abc import Callable, Collection

    from fleet import Fleet

EMBED = "store_embeddings"
SETTLED = "SELECT count(*) FROM smp.transition WHERE claim_seq = ANY(%s) AND error IS NULL"
KILL_EVERY_SECONDS = 0.05
MOST_CHARGED = program.FAILURES * program.INPUTS
"""Attempts of one worker: those in the requests that fail before its breaker opens."""


class Fault(Protocol):
    """Something that happens to a fleet, and how it ends.

    Attributes:
        name: For people.
        stage: The trigger whose next success is the first sign of recovery; None takes any.
        charges: Codes of failures that may cost a document an attempt.
        repeats: How often one text may have to be embedded again because of it.
        most_charged: Most attempts that it may cost per worker; None where nothing bounds them but
            the number of documents.
    """

    name: str
    stage: str | None
    charges: Collection[str]
    repeats: int
    most_charged: int | None

    def inject(self, fleet: Fleet) -> None:
        """Let it happen; return when it has lasted long enough."""

    def heal(self, fleet: Fleet) -> None:
        """End it; return when everything is there again."""

    def tend(self, fleet: Fleet) -> None:
        """Do what a person does again and again until all documents rest."""

    def prove(self, fleet: Fleet) -> None:
        """Check what this fault alone promises, once all documents rest."""


@dataclasses.dataclass
class _Fault:
    name: str
    stage: str | None = None
    charges: Collection[str] = ()
    repeats: int = 0
    most_charged: int | None = None

    def tend(self, fleet: Fleet) -> None:
        """Leave it to the fleet."""

    def prove(self, fleet: Fleet) -> None:
        """Promise nothing of its own."""


class WorkerKilled(_Fault):
    """SIGKILL to a worker that holds documents; somebody starts another one."""

    def __init__(self) -> None:
        super().__init__("worker killed", charges={"crashed"}, repeats=1)

    def inject(self, fleet: Fleet) -> None:
        """Kill the one that holds most."""
        self._victim = _busiest(fleet)
        self._victim.send_signal(signal.SIGKILL)
        self._victim.wait()

    def heal(self, fleet: Fleet) -> None:
        """Start another one."""
        fleet.replace(self._victim)
        self.tend(fleet)

    def tend(self, fleet: Fleet) -> None:
        """Wait for no dead limit, which is long."""
        fleet.bury(self._victim)


class WorkerStopped(_Fault):
    """SIGSTOP for longer than the dead limit, then SIGCONT: it must notice that it was dead."""

    def __init__(self) -> None:
        super().__init__("worker stopped, then continued", charges={"crashed"}, repeats=1)

    def inject(self, fleet: Fleet) -> None:
        """Stop it until others are at work on what it held."""
        self._victim = _busiest(fleet)
        fleet.until(lambda: self._is_stopped_with_claims(fleet), "a worker is stopped with claims")
        held = "SELECT document_id FROM smp.work WHERE claim_seq = ANY(%s)"
        documents = [document for (document,) in fleet.ask(held, self._frozen)]
        fleet.until(lambda: self._is_robbed(fleet), "what it held is taken from it")
        # By now all that it had sent before was either settled or refused.
        self._settled = fleet.one(SETTLED, self._frozen)
        again = "SELECT count(*) FROM smp.work WHERE document_id = ANY(%s) AND lane <> 'claimed'"
        fleet.until(
            lambda: fleet.one(again, documents) < max(len(documents), 1), "others go on with it"
        )

    def _is_stopped_with_claims(self, fleet: Fleet) -> bool:
        self._victim.send_signal(signal.SIGSTOP)
        self._frozen = fleet.held(self._victim)
        if not self._frozen:
            self._victim.send_signal(signal.SIGCONT)
        return bool(self._frozen)

    def _is_robbed(self, fleet: Fleet) -> bool:
        fleet.bury(self._victim)
        lost = "SELECT count(*) FROM smp.work WHERE claim_seq = ANY(%s)"
        return bool(fleet.one(lost, self._frozen) == 0)

    def heal(self, fleet: Fleet) -> None:
        """Let it go on, with claims that are no longer its own."""
        self._victim.send_signal(signal.SIGCONT)

    def prove(self, fleet: Fleet) -> None:
        """What it tried to write afterwards is in no history."""
        settled = fleet.one(SETTLED, self._frozen)
        proof.demand(settled == self._settled, "a worker that lost its claim wrote")


class WorkerDrained(_Fault):
    """SIGTERM in the middle of everything."""

    def __init__(self) -> None:
        super().__init__("worker drained")

    def inject(self, fleet: Fleet) -> None:
        """Tell it to end; it finishes what runs and gives back the rest."""
        self._victim = _busiest(fleet)
        self._victim.send_signal(signal.SIGTERM)
        proof.demand(proof.end(self._victim, 60) == 0, "a drained worker ends with 0", fleet.said())

    def heal(self, fleet: Fleet) -> None:
        """Start another one."""
        fleet.replace(self._victim)


class BackendsTerminated(_Fault):
    """Every 50 ms a random connection to the database is terminated by the server."""

    def __init__(self, draw: random.Random, seconds: float) -> None:
        # A text may be with the service each time that its document's connection goes.
        super().__init__("backends terminated", repeats=int(seconds / KILL_EVERY_SECONDS))
        self._draw, self._seconds = draw, seconds
        self.count = 0

    def inject(self, fleet: Fleet) -> None:
        """Terminate them one after another."""
        ours = (
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND application_name <> %s ORDER BY pid"
        )
        until = time.monotonic() + self._seconds
        while time.monotonic() < until:
            pids = [pid for (pid,) in fleet.ask(ours, fleets.OURS)]
            if pids:
                fleet.ask("SELECT pg_terminate_backend(%s)", self._draw.choice(pids))
                self.count += 1
            time.sleep(KILL_EVERY_SECONDS)

    def heal(self, fleet: Fleet) -> None:
        """Nothing is to be mended: everybody connects anew."""

    def prove(self, fleet: Fleet) -> None:
        """It hit somebody."""
        proof.demand(self.count > 0, "backends were there to be terminated")


class ServerRestarted(_Fault):
    """The database server is stopped, stays away for a while, and is started again.

    Args:
        mode: ``fast`` ends sessions and checkpoints; ``immediate`` is a crash, with recovery.
        seconds: How long it stays away.
    """

    def __init__(self, mode: str, seconds: float) -> None:
        super().__init__(f"server restarted ({mode})", repeats=1)
        self._signal = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        self._seconds = seconds

    def inject(self, fleet: Fleet) -> None:
        """Stop it as ``pg_ctl stop`` does."""
        data = fleet.server.directory / "postgres"
        process = int((data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(process, self._signal)
        proof.until(lambda: not _runs(process), 30, "the server has stopped")
        time.sleep(self._seconds)

    def heal(self, fleet: Fleet) -> None:
        """Start it; returns once it answers."""
        fleet.server.start()


class ServiceDown(_Fault):
    """The embedding service refuses connections."""

    def __init__(self, seconds: float) -> None:
        super().__init__("service down", EMBED, {"retry"}, most_charged=MOST_CHARGED)
        self._seconds = seconds

    def inject(self, fleet: Fleet) -> None:
        """Close its port."""
        fleet.service.goes_down()
        time.sleep(self._seconds)

    def heal(self, fleet: Fleet) -> None:
        """Open it again."""
        fleet.service.comes_up()


class ServiceIll(_Fault):
    """The embedding service answers, and not as it should.

    Args:
        name: What is wrong, for people.
        said: Its answer.
        seconds: How long.
        late: It comes only after the asker has given up.
        costs: Whether a document may be charged.
    """

    def __init__(
        self,
        name: str,
        said: embedding.Said,
        seconds: float,
        *,
        late: bool = False,
        costs: bool = True,
    ) -> None:
        super().__init__(
            f"service {name}",
            EMBED,
            {"retry"} if costs else (),
            most_charged=MOST_CHARGED if costs else 0,
        )
        self._trouble = embedding.Trouble(said, late=late)
        self._seconds = seconds

    def inject(self, fleet: Fleet) -> None:
        """Let it answer so."""
        fleet.service.ails(self._trouble)
        time.sleep(self._seconds)

    def heal(self, fleet: Fleet) -> None:
        """Let it answer well."""
        fleet.service.recovers()

    def tend(self, fleet: Fleet) -> None:
        """Lift the pause that the stage took; what was under way may have brought another one."""
        fleet.ask("DELETE FROM smp.pause RETURNING stage")


class MemoryHoarded(_Fault):
    """Documents whose parser allocates without end, among ordinary ones.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        super().__init__("children over their memory")
        self._count = count

    def inject(self, fleet: Fleet) -> None:
        """Submit them, and wait until they are parked."""
        fleet.stream.add(program.HOARD, self._count)
        before = self._parked(fleet)
        fleet.until(lambda: self._parked(fleet) == before + self._count, "hoarders are parked")

    def heal(self, fleet: Fleet) -> None:
        """Nothing is to be mended: their children are gone."""

    @staticmethod
    def _parked(fleet: Fleet) -> int:
        where = "state = 'parse_queued' AND code <> 'refused'"
        return int(fleet.one(f"SELECT count(*) FROM smp.dead_letter WHERE {where}"))


def services(seconds: float) -> dict[str, Callable[[], Fault]]:
    """Return what an embedding service may do wrong, each for so long."""
    said = embedding.Said
    vectors = {"object": "list", "data": [], "model": "model-1"}
    return {
        "down": lambda: ServiceDown(seconds),
        "says-429": lambda: ServiceIll(
            "says 429", said(429, headers={"Retry-After": "1"}), seconds, costs=False
        ),
        "says-500": lambda: ServiceIll("says 500", said(500, "oh no"), seconds),
        "talks-nonsense": lambda: ServiceIll("talks nonsense", said(200, "<html>"), seconds),
        "has-another-shape": lambda: ServiceIll(
            "has another shape", said(200, {"vectors": []}), seconds, costs=False
        ),
        "breaks-off": lambda: ServiceIll(
            "breaks off", said(200, {**vectors, "padding": "x" * 9_000}, breaks_off=True), seconds
        ),
        # As long as it takes until those who ask have given up at least once.
        "is-slow": lambda: ServiceIll(
            "is slow", said(503), max(seconds, program.GIVEN_UP_SECONDS + 0.5), late=True
        ),
    }


def machines(draw: random.Random, seconds: float) -> dict[str, Callable[[], Fault]]:
    """Return what may happen to workers, children and the database."""
    return {
        "worker-killed": WorkerKilled,
        "worker-stopped": WorkerStopped,
        "worker-drained": WorkerDrained,
        "backends-terminated": lambda: BackendsTerminated(draw, seconds),
        "server-restarted-fast": lambda: ServerRestarted("fast", seconds),
        "server-restarted-immediate": lambda: ServerRestarted("immediate", seconds),
        "memory-hoarded": lambda: MemoryHoarded(3),
    }


def _busiest(fleet: Fleet) -> subprocess.Popen[bytes]:
    """Return the worker that holds most, once one holds anything."""
    holding: dict[int, int] = {}

    def some() -> bool:
        holding.clear()
        holding.update((place, len(fleet.held(one))) for place, one in enumerate(fleet.workers))
        return any(holding.values())

    fleet.until(some, "a worker holds a document")
    return fleet.workers[max(holding, key=lambda place: holding[place])]


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
