"""`worker`: serve stages until told to stop."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import collector
from statemachine_pipeline.cli.ending import OK
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.output import say
from statemachine_pipeline.cli.signals import stopping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.cli.opening import Target


async def work(target: Target, triggers: Sequence[str] | None, drain_seconds: float) -> int:
    """Run until SIGINT or SIGTERM.

    Returns:
        0 after a drain, which is how a worker's life ends; 130 or 143 after a second signal.
    """
    async with opened(target, "new") as pipeline:
        runner = pipeline.runner(triggers=triggers, drain=timedelta(seconds=drain_seconds))
        served = ", ".join(triggers) if triggers else "all stages"
        say(f"worker of {pipeline.graph.name} serves {served}; stop it with Ctrl-C or SIGTERM")
        collector.spare()
        with stopping(runner.stop) as stops:
            await runner.run()
        say("worker stopped; nothing is held")
        return stops.exit_code if len(stops) > 1 else OK
