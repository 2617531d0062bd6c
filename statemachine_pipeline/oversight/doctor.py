"""Makes every check, one after another, and keeps one that breaks from ending the others."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.database.cures import told
from statemachine_pipeline.oversight.checks.catalogue import CHECKS, DATABASE, SCHEMA
from statemachine_pipeline.oversight.checks.verdicts import fail, skip

if TYPE_CHECKING:
    from statemachine_pipeline.oversight.checks.catalogue import Check
    from statemachine_pipeline.oversight.checks.verdicts import Status, Subject, Verdict

PATIENCE_SECONDS: Final = 15.0
"""Longest that one check may take, connecting included."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What one check found.

    Attributes:
        id: The check, as the reference lists it.
        status: ``ok``; ``warn`` works and may not for long; ``fail`` does not work or no longer
            holds; ``skip`` had nothing to look at.
        message: What was found.
        fix: A command or a sentence; None when there is nothing to mend.
        docs: The page that says more, from the project's root.
        seconds: How long it took.
    """

    id: str
    status: Status
    message: str
    fix: str | None
    docs: str
    seconds: float


async def examine(subject: Subject) -> list[Diagnosis]:
    """Make every check and return what each found, in their order.

    One that raises, or takes longer than 15 seconds, has failed by that. Where the database does
    not answer, or the tables are missing, what needs them is skipped.
    """
    made: dict[str, Diagnosis] = {}
    for check in CHECKS:
        began = time.monotonic()
        verdict = _spared(check, made) or await _made(check, subject)
        made[check.id] = Diagnosis(
            id=check.id,
            status=verdict.status,
            message=verdict.message,
            fix=verdict.fix,
            docs=check.docs,
            seconds=time.monotonic() - began,
        )
    return list(made.values())


def _spared(check: Check, made: dict[str, Diagnosis]) -> Verdict | None:
    """Say why a check is not made; None if it is."""
    if check.needs == "nothing":
        return None
    if made[DATABASE.id].status == "fail":
        return skip("the database does not answer")
    if check.needs == "tables" and made[SCHEMA.id].status == "fail":
        return skip(f"the tables cannot be used: see {SCHEMA.id}")
    return None


async def _made(check: Check, subject: Subject) -> Verdict:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await check.look(subject)
    except TimeoutError:
        return fail(
            f"no answer within {PATIENCE_SECONDS:g} s", "see whether the server is overloaded"
        )
    except Exception as error:  # noqa: BLE001 - whatever breaks a check has failed it
        known = told(error)
        return fail(known.found, known.fix or "mend what it names")
