"""Stages that the pipeline itself has paused, and what requests have shown of providers.

Parts of health. A key that is refused opens no breaker, as the provider answers; what tells of it
is the pause of the stage that asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.database.mapping import answering
from statemachine_pipeline.database.pauses import Pauses
from statemachine_pipeline.database.providers import Providers
from statemachine_pipeline.database.statements import workers
from statemachine_pipeline.obstacles import TIME
from statemachine_pipeline.oversight.status import Component

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.providers import ProviderStanding
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.obstacles import Pause
    from statemachine_pipeline.stages import Stages


async def look(engine: AsyncEngine, t: Tables, stages: Stages) -> list[Component]:
    """Return a part for each stage that is paused by fault, and one for each provider.

    Raises:
        DatabaseUnavailable: It did not answer.
    """
    faults = [one for one in await Pauses(engine, t, stages).current() if one.fault]
    asking = await _asking(engine, t, stages) if faults else set()
    at_fault = {name: one for one in faults for stage, name in asking if stage == one.stage}
    known = await Providers(engine, t).standings()
    told = (_provider(one, at_fault.get(one.provider)) for one in known)
    return [*map(_paused, faults), *told]


async def _asking(engine: AsyncEngine, t: Tables, stages: Stages) -> set[tuple[str, str]]:
    """Return stages with the providers that they ask, here or in any worker."""
    with answering("looking at workers"):
        async with engine.connect() as connection:
            fleet = (await connection.execute(workers.known(t))).all()
    own = {one.trigger: one.stage.provider.name for one in stages if one.stage.provider}
    served = (own, *(worker.serves for worker in fleet if worker.dead_at is None))
    return {(stage, name) for asked in served for stage, name in asked.items() if name}


def _paused(fault: Pause) -> Component:
    until = "somebody resumes it" if fault.until is None else f"{fault.until:{TIME}}"
    says = f"could work for no document, and is paused until {until}: {fault.reason}"
    resume = f"`statemachine-pipeline resume --stage {fault.stage}`"
    fix = f"mend what it names, then {resume}; without that a document tries it at that time"
    return Component(fault.place, "failed", says, fix)


def _provider(one: ProviderStanding, fault: Pause | None) -> Component:
    name = f"provider {one.provider}"
    if one.state != "closed":
        fix = "mend the provider or its account; one request tries it again by itself"
        when = f"not asked since {one.since:{TIME}}, tried again from {one.until:{TIME}}"
        return Component(name, "degraded", f"{when}: {one.reason}", fix)
    if fault is not None:
        says = f"not asked by {fault.stage}, which is paused by fault: {fault.reason}"
        return Component(name, "degraded", says, f"as of {fault.place}")
    if one.blocked_until is not None:
        fix = "nothing, if it is seldom; else lower the budget, or have the limit raised"
        told = f"wants to be left alone until {one.blocked_until:{TIME}}"
        return Component(name, "degraded", told, fix)
    last = next(iter(one.changes), None)
    known = f"was down until {last.at:{TIME}}" if last else "was never found to be down"
    return Component(name, "ok", f"is asked; it {known}")
