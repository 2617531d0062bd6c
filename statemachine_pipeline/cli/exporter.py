"""`exporter`: serve the numbers of the whole pipeline to Prometheus, once for the whole fleet."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.cli.ending import OK, Failed
from statemachine_pipeline.cli.narrating import Narration, narrate
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.output import say
from statemachine_pipeline.cli.signals import stopping
from statemachine_pipeline.database.cures import first_line
from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.observability import instruments
from statemachine_pipeline.oversight.listening import Answer, Listening

if TYPE_CHECKING:
    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.database.gauges import Gauges
    from statemachine_pipeline.observability.metrics import Metrics

ANSWER_SECONDS: Final = 60.0
OK_PAGE, UNAVAILABLE = 200, 503


async def export(target: Target, host: str, port: int, narration: Narration) -> int:
    """Serve `/metrics` until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    if narration.is_asked:
        narrate(narration)  # what is said from here on
    async with opened(target, "stored") as pipeline:
        narrate(narration)  # after the app was imported, which may log in a way of its own
        gauges = pipeline.operations.oversight.gauges()
        reading = _Reading(gauges, asyncio.get_running_loop())
        try:
            listening = Listening(host, port, {"/metrics": reading.page})
        except OSError as error:
            raise Failed(f"cannot listen at {host} port {port}: {error.strerror}") from error
        try:
            with stopping(stopped.set, "serving no more") as stops:
                say(f"serving http://{host}:{listening.port}/metrics; stop with Ctrl-C or SIGTERM")
                await stopped.wait()
        finally:
            await asyncio.to_thread(listening.stop)
    return stops.exit_code if len(stops) > 1 else OK


class _Reading:
    """Reads gauges from threads, and says once when that fails and once when it works again.

    Args:
        gauges: What is read.
        loop: Where.
    """

    def __init__(self, gauges: Gauges, loop: asyncio.AbstractEventLoop) -> None:
        from statemachine_pipeline.observability import prometheus

        self._gauges, self._loop, self._prometheus = gauges, loop, prometheus
        self._turn, self._fails = threading.Lock(), False

    def page(self) -> Answer:
        """Return the numbers, or why there are none."""
        try:
            metrics = self._read()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next may be answered
            told = first_line(getattr(error, "orig", None) or error)
            self._note(f"{told}; /metrics answers 503 meanwhile", fails=True)
            return Answer(UNAVAILABLE, f"{told}\n".encode(), "text/plain; charset=utf-8")
        self._note("the database answers again", fails=False)
        text = self._prometheus.exposition(metrics, instruments.OF_THE_DATABASE, process=False)
        return Answer(OK_PAGE, text, self._prometheus.CONTENT_TYPE)

    def _note(self, told: str, *, fails: bool) -> None:
        with self._turn:
            if fails is not self._fails:
                say(told, fails=fails)
            self._fails = fails

    def _read(self) -> Metrics:
        asked = asyncio.run_coroutine_threadsafe(self._gauges.metrics(), self._loop)
        try:
            return asked.result(ANSWER_SECONDS)
        except TimeoutError:
            doing, says = "reading gauges", f"nothing came within {ANSWER_SECONDS:g} s"
            raise DatabaseUnavailable(doing, says) from None
        finally:
            asked.cancel()
