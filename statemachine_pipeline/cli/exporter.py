"""`exporter`: serve the numbers of the whole pipeline to Prometheus, once for the whole fleet."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.cli.ending import OK, Failed
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.output import say
from statemachine_pipeline.cli.signals import stopping
from statemachine_pipeline.errors import PipelineError
from statemachine_pipeline.observability import instruments
from statemachine_pipeline.oversight.listening import Answer, Listening

if TYPE_CHECKING:
    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.database.gauges import Gauges
    from statemachine_pipeline.observability.metrics import Metrics

ANSWER_SECONDS: Final = 60.0
OK_PAGE, UNAVAILABLE = 200, 503


async def export(target: Target, host: str, port: int) -> int:
    """Serve `/metrics` until SIGINT or SIGTERM."""
    from statemachine_pipeline.observability.prometheus import CONTENT_TYPE, exposition

    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    async with opened(target, "stored") as pipeline:
        gauges = pipeline.operations.oversight.gauges()

        def page() -> Answer:
            try:
                metrics = _read(gauges, loop)
            except (PipelineError, TimeoutError, concurrent.futures.TimeoutError) as error:
                return Answer(UNAVAILABLE, f"{error}\n".encode(), "text/plain; charset=utf-8")
            text = exposition(metrics, instruments.OF_THE_DATABASE, process=False)
            return Answer(OK_PAGE, text, CONTENT_TYPE)

        try:
            listening = Listening(host, port, {"/metrics": page})
        except OSError as error:
            raise Failed(f"cannot listen at {host} port {port}: {error.strerror}") from error
        try:
            with stopping(stopped.set) as stops:
                say(f"serving http://{host}:{listening.port}/metrics; stop with Ctrl-C or SIGTERM")
                await stopped.wait()
        finally:
            await asyncio.to_thread(listening.stop)
    return stops.exit_code if len(stops) > 1 else OK


def _read(gauges: Gauges, loop: asyncio.AbstractEventLoop) -> Metrics:
    """Read gauges from another thread than the loop's."""
    asked = asyncio.run_coroutine_threadsafe(gauges.metrics(), loop)
    try:
        return asked.result(ANSWER_SECONDS)
    finally:
        asked.cancel()
