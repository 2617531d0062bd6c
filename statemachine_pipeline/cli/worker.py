"""`worker`: serve stages until told to stop, in this process or as the parent of several."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import collector, fleet, output, reloading
from statemachine_pipeline.cli.ending import OK
from statemachine_pipeline.cli.narrating import Narration, narrate
from statemachine_pipeline.cli.output import say
from statemachine_pipeline.cli.signals import stopping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.cli.opening import Target


async def work(
    target: Target,
    triggers: Sequence[str] | None,
    drain_seconds: float,
    seat: int | None,
    narration: Narration,
) -> int:
    """Run until SIGINT or SIGTERM.

    Args:
        target: App and database.
        triggers: Of the stages to serve; None for all.
        drain_seconds: Time for hooks to finish.
        seat: Number among the workers of one parent, whose end is the same as a first SIGTERM;
            None for a worker without one.
        narration: How it logs.

    Returns:
        0 after a drain, which is how a worker's life ends; 130 or 143 after a second signal.
    """
    from statemachine_pipeline.cli.opening import opened

    if seat is not None:
        output.speak_as(f"worker {seat}")
    if narration.is_asked:
        narrate(narration)  # what is said from here on
    async with opened(target, "new") as pipeline:
        narrate(narration)  # after the app was imported, which may log in a way of its own
        runner = pipeline.runner(triggers=triggers, drain=timedelta(seconds=drain_seconds))
        with contextlib.ExitStack() as stack:
            # Before it says that it works: who reads that may send a signal at once.
            stops = stack.enter_context(stopping(runner.stop))
            if seat is not None:
                stack.enter_context(fleet.following_parent(stops.lose_parent))
            served = ", ".join(triggers) if triggers else "all stages"
            say(f"worker of {pipeline.graph.name} serves {served}; stop it with Ctrl-C or SIGTERM")
            collector.spare()
            await runner.run()
        say("worker stopped; nothing is held")
        return stops.exit_code if len(stops) > 1 else OK


async def lead(
    target: Target,
    triggers: str | None,
    drain_seconds: float,
    workers: int,
    narration: Narration,
    *,
    reload: bool,
) -> int:
    """Keep worker processes running until SIGINT or SIGTERM.

    Returns:
        What one worker would; 1 when a worker dies again and again.
    """
    if reload:
        reloading.require()
    words, variables = fleet.command(triggers, drain_seconds), fleet.environment(target)
    variables |= narration.variables()
    if narration.format == "json":
        narrate(narration)
    led = fleet.Fleet(words, workers, variables, reloads=reload)
    say(f"{workers} worker{'s' * (workers > 1)}; stop with Ctrl-C or SIGTERM")
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
