"""`worker`: serve stages until told to stop, in this process or as the parent of several."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import collector, fleet, output, reloading
from statemachine_pipeline.cli.ending import OK, Failed
from statemachine_pipeline.cli.narrating import Narration, narrate
from statemachine_pipeline.cli.output import say
from statemachine_pipeline.cli.signals import stopping
from statemachine_pipeline.counting import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.pipeline import Pipeline
    from statemachine_pipeline.runner.loop import Runner


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a worker was asked to do.

    Attributes:
        triggers: Of the stages to serve, as they were written; None for all.
        drain_seconds: Time for hooks to finish.
        probes: Address and port of the first worker's probes, if it is to have any.
        narration: How it logs.
    """

    triggers: str | None
    drain_seconds: float
    probes: tuple[str, int] | None
    narration: Narration

    @property
    def words(self) -> list[str]:
        """The same as words of a command line."""
        words = ["--drain", str(self.drain_seconds)]
        if self.triggers is not None:
            words += ["--triggers", self.triggers]
        if self.probes is not None:
            host, port = self.probes
            words += ["--probe-host", host, "--probe-port", str(port)]
        return words

    @property
    def names(self) -> list[str] | None:
        """The triggers one by one."""
        return None if self.triggers is None else [one.strip() for one in self.triggers.split(",")]


async def work(target: Target, asked: Asked, seat: int | None) -> int:
    """Run until SIGINT or SIGTERM; a database that does not answer yet is waited for.

    Args:
        target: App and database.
        asked: What is to be done.
        seat: Number among the workers of one parent, whose end is the same as a first SIGTERM;
            None for a worker without one.

    Returns:
        0 after a drain, which is how a worker's life ends; 130 or 143 after a second signal.
    """
    from statemachine_pipeline.cli.awaiting import Awaiting
    from statemachine_pipeline.cli.opening import check, opened

    if seat is not None:
        output.speak_as(f"worker {seat}")
    if asked.narration.is_asked:
        narrate(asked.narration)  # what is said from here on
    async with opened(target, "worker") as pipeline:
        narrate(asked.narration)  # after the app was imported, which may log in a way of its own
        drain = timedelta(seconds=asked.drain_seconds)
        runner = pipeline.runner(triggers=asked.names, drain=drain)
        awaiting = Awaiting(pipeline.metrics)

        def stop() -> None:
            awaiting.stop()
            runner.stop()

        async with contextlib.AsyncExitStack() as stack:
            # Before it says that it works: who reads that may send a signal at once.
            stops = stack.enter_context(stopping(stop))
            if seat is not None:
                stack.enter_context(fleet.following_parent(stops.lose_parent))
            if asked.probes is not None:
                await stack.enter_async_context(_probed(pipeline, runner, asked.probes, seat))
            if await awaiting.answered(functools.partial(check, target, pipeline)):
                served = ", ".join(asked.names or ()) or "all stages"
                of = pipeline.graph.name
                say(f"worker of {of} serves {served}; stop it with Ctrl-C or SIGTERM")
                collector.spare()
                await runner.run()
        say("worker stopped")
        return stops.exit_code if len(stops) > 1 else OK


@contextlib.asynccontextmanager
async def _probed(
    pipeline: Pipeline, runner: Runner, probes: tuple[str, int], seat: int | None
) -> AsyncIterator[None]:
    host, first = probes
    port = first + (seat or 1) - 1
    served = pipeline.operations.oversight.probes(runner, host=host, port=port)
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(served)
        except OSError as error:
            # Not a usage error, after which nobody starts it again: the port may be free by then.
            raise Failed(f"cannot listen at {host} port {port}: {error.strerror}") from error
        say(f"probes at http://{host}:{port}/livez, /readyz, /startupz and /metrics")
        yield


async def lead(target: Target, asked: Asked, workers: int, *, reload: bool) -> int:
    """Keep worker processes running until SIGINT or SIGTERM.

    Returns:
        What one worker would; 1 when a worker dies again and again.
    """
    if reload:
        reloading.require()
    words, variables = fleet.command(asked.words), fleet.environment(target)
    variables |= asked.narration.variables()
    if asked.narration.format == "json":
        narrate(asked.narration)
    led = fleet.Fleet(words, workers, variables, reloads=reload)
    say(f"{counted(workers, 'worker')}; stop with Ctrl-C or SIGTERM")
    with stopping(led.stop) as stops:
        code = await _reloading(led) if reload else await led.run()
    return code or (stops.exit_code if len(stops) > 1 else OK)


async def _reloading(led: fleet.Fleet) -> int:
    watching = asyncio.create_task(reloading.watch(Path.cwd(), led.restart))
    running = asyncio.create_task(led.run())
    await asyncio.wait({watching, running}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        led.stop()  # nobody watches any more; its error is told once the workers have drained
    code = await running
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    return code
