"""Probes of one worker: does it live, is it ready, has it started, what does it count."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import json
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self

from statemachine_pipeline.errors import MissingExtra
from statemachine_pipeline.observability import instruments
from statemachine_pipeline.oversight.health import ANSWER_SECONDS, STANDSTILL
from statemachine_pipeline.oversight.listening import Answer, Listening
from statemachine_pipeline.oversight.status import Component, Health

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from statemachine_pipeline.observability.metrics import Metrics
    from statemachine_pipeline.runner.vitals import Phase, Vitals

HOST: Final = "127.0.0.1"
LOOP_SECONDS: Final = ANSWER_SECONDS + 2.0
"""Longest that `/readyz` waits for the loop, which may come round late to what it is asked."""
KEPT_SECONDS: Final = 1.0
"""How long an answer of `/readyz` is given again, so that who asks often is no load."""
OK, UNAVAILABLE, NOT_HERE = 200, 503, 501


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """From when on a worker is said not to live, or not to be ready.

    Attributes:
        loop: How long its event loop may be blocked.
        claims: How long it may take to come round to look for work. All waits for a database end
            long before, so more is a defect.
        fenced: How long it may take, once it counts as dead, to stop what it does.
        standstill: How long work may be due while nothing moves.
    """

    loop: timedelta = timedelta(seconds=30)
    claims: timedelta = timedelta(minutes=10)
    fenced: timedelta = timedelta(minutes=2)
    standstill: timedelta = STANDSTILL


class Probes:
    """Serves the probes of one runner. Made by ``oversight.probes``.

    An async context manager: listens from entering on, and no more once left.

    Args:
        vitals: How the runner does.
        readiness: Asks the database, the schema and whether documents move.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        patience: From when on something is wrong.
    """

    def __init__(
        self,
        vitals: Vitals,
        readiness: Callable[[], Coroutine[None, None, Health]],
        *,
        host: str,
        port: int,
        patience: Patience,
    ) -> None:
        self._vitals, self._readiness, self._patience = vitals, readiness, patience
        self._address = host, port
        self._turn = threading.Lock()
        self._ready, self._asked_at = Health(()), float("-inf")

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        pages = {
            "/livez": lambda: answered(self.live()),
            "/readyz": lambda: answered(self.ready()),
            "/startupz": lambda: answered(self.started()),
            "/metrics": lambda: counted(self._vitals.metrics),
        }
        self._listening = Listening(*self._address, pages)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # In a thread: what is being answered may need the loop.
        await asyncio.shield(asyncio.create_task(asyncio.to_thread(self._listening.stop)))

    @property
    def port(self) -> int:
        """The port it listens at."""
        return self._listening.port

    def live(self) -> Health:
        """Tell whether the process does what it is for; never asks the database.

        A database that is away makes no worker live any better for being started anew: one that
        counts as dead takes another id by itself once the database is back.
        """
        vitals, patience, now = self._vitals, self._patience, time.monotonic()
        phase, since, ticked_at = vitals.phase, vitals.since, vitals.ticked_at
        blocked = 0.0 if ticked_at is None else now - ticked_at
        checks = (
            ("runner", phase == "failed", "it ended with an error; its log says which"),
            (
                "event loop",
                blocked > patience.loop.total_seconds(),
                f"it is blocked for {blocked:.0f} s; run what blocks in a thread or process",
            ),
            (
                "claims",
                phase == "working" and now - vitals.looked_at > patience.claims.total_seconds(),
                f"it has not looked for work for {now - vitals.looked_at:.0f} s",
            ),
            (
                "heartbeat",
                phase == "fenced" and now - since > patience.fenced.total_seconds(),
                f"it counts as dead for {now - since:.0f} s and has not stopped",
            ),
        )
        return Health(tuple(_component(*check) for check in checks))

    def ready(self) -> Health:
        """Tell whether the worker takes documents: database, schema, not draining, and progress."""
        lives = self.live()
        if lives.status == "failed":
            return lives
        phase = self._vitals.phase
        if phase != "working":
            return Health((_idle(phase, self._vitals.outage.since),))
        with self._turn:
            if time.monotonic() - self._asked_at > KEPT_SECONDS:
                self._ready, self._asked_at = self._ask(), time.monotonic()
            return self._ready

    def _ask(self) -> Health:
        asked = asyncio.run_coroutine_threadsafe(self._readiness(), self._loop)
        try:
            return asked.result(LOOP_SECONDS)
        except (TimeoutError, concurrent.futures.TimeoutError):
            asked.cancel()
            says = f"it did not answer within {LOOP_SECONDS:g} s"
        except Exception as error:  # noqa: BLE001 - a probe answers, whatever is wrong
            says = f"it could not be asked: {type(error).__name__}"
        return Health((Component("event loop", "failed", says),))

    def started(self) -> Health:
        """Tell whether the worker ever had an id, which it gets when the schema is right."""
        is_started = self._vitals.has_worked
        return Health((_component("runner", not is_started, "it has not begun to work"),))


def _component(name: str, is_bad: bool, says: str) -> Component:
    if is_bad:
        return Component(name, "failed", says, "restart the worker, if it does not end by itself")
    return Component(name, "ok", "works")


def _idle(phase: Phase, lost_at: float | None) -> Component:
    """Return why a runner takes nothing that is not at work, and what to do where something is."""
    says, fix = f"it is {phase}, and takes nothing", ""
    if phase in {"fenced", "registering"}:
        says = "it counts as dead, and takes nothing until it has another number"
        fix = "nothing; it takes one by itself"
        if lost_at is not None:
            away = time.monotonic() - lost_at
            says += f": the database has not been reached for {away:.0f} s"
            fix = "see why it does not reach the database; the rest it does by itself"
    return Component("runner", "failed", says, fix)


def answered(health: Health) -> Answer:
    """Return health as a page: 503 where something failed, and all of it as JSON."""
    told = {
        "status": health.status,
        "components": [dataclasses.asdict(component) for component in health.components],
    }
    code = UNAVAILABLE if health.status == "failed" else OK
    return Answer(code, json.dumps(told).encode() + b"\n")


def counted(metrics: Metrics) -> Answer:
    """Return what a process counts as Prometheus reads it."""
    try:
        from statemachine_pipeline.observability import prometheus
    except MissingExtra as error:
        return Answer(NOT_HERE, f"{error}\n".encode(), "text/plain; charset=utf-8")
    text = prometheus.exposition(metrics, instruments.OF_A_PROCESS, process=True)
    return Answer(OK, text, prometheus.CONTENT_TYPE)
