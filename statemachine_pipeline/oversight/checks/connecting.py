"""What gets through between this program and the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from statemachine_pipeline.counting import counted
from statemachine_pipeline.database.statements import inspection
from statemachine_pipeline.database.statements import pauses as pausing
from statemachine_pipeline.oversight.checks.verdicts import Verdict, fail, ok, skip, warn

if TYPE_CHECKING:
    from statemachine_pipeline.oversight.checks.verdicts import Subject

DRIVER: Final = "psycopg"
RESCUED_AFTER_SECONDS = 60.0
"""Past its deadline a claim is rescued after half of it, unless nobody is there to."""


async def pooler(subject: Subject) -> Verdict:
    """Whether a pooler stands between, and how statements are prepared.

    Warns of a pooler while prepared statements are on: in transaction mode it may lose them.
    Skipped with another driver than psycopg.
    """
    if subject.inspection.driver != DRIVER:
        return skip(f"the engine is on {subject.inspection.driver}")
    is_between, is_prepared = await subject.inspection.pooler()
    if not is_between:
        return ok("this program talks to the server itself")
    if is_prepared:
        return warn(
            "a pooler stands between, and statements are prepared: in transaction mode they get "
            "lost",
            "end the database URL in ?prepare_threshold=none, or give connect_args of your engine "
            "prepare_threshold=None",
        )
    return ok("a pooler stands between, and nothing is prepared")


async def notifications(subject: Subject) -> Verdict:
    """Whether a notification that is sent arrives.

    Warns when none comes within three seconds, as behind a pooler in transaction mode: workers then
    poll, and idle ones take a new document up to two seconds later. Skipped with another driver
    than psycopg, and where the engine has one connection only.
    """
    if subject.inspection.driver != DRIVER:
        return skip(f"the engine is on {subject.inspection.driver}")
    if subject.inspection.pool_size == 1:
        return skip("who listens cannot be told by the only connection of this engine's pool")
    if await subject.inspection.hears():
        return ok("notifications arrive")
    is_between, _ = await subject.inspection.pooler()
    why = "a pooler in transaction mode stands between" if is_between else "LISTEN is taken"
    return warn(
        f"notifications do not arrive ({why}); idle workers poll",
        "give workers the URL of the server itself, or of a pool in session mode",
    )


async def claim(subject: Subject) -> Verdict:
    """Whether a document can be submitted and claimed.

    A document of its own is, in a transaction that is rolled back. Fails when PostgreSQL refuses a
    step of it, or when nothing can be claimed though no stage is paused. Skipped when the hooks are
    not known, and with another driver than psycopg, on which no worker runs.
    """
    if subject.inspection.driver != DRIVER:
        return skip(f"the engine is on {subject.inspection.driver}")
    if not list(subject.stages):
        return skip("the hooks are not known; name the pipeline with --app")
    if await subject.inspection.rehearse(subject.stages):
        return ok("a document can be submitted and claimed; it was rolled back")
    if subject.stages.is_by_hand(subject.stages.graph.initial):
        return ok("a document can be submitted; the first step is a person's")
    if await subject.inspection.rows(pausing.current):
        return ok("a document can be submitted; none can be claimed, for something is paused")
    return fail(
        "a document was submitted and could not be claimed",
        "run `statemachine-pipeline migrate` with the hooks that the workers have (--app)",
    )


async def stuck_claims(subject: Subject) -> Verdict:
    """Whether claims are past their deadline, and nobody took them back.

    Warns of those that are by more than a minute: any running worker would have rescued them.
    """
    (row,) = await subject.inspection.rows(inspection.overdue, grace=RESCUED_AFTER_SECONDS)
    if not row.count:
        return ok("no claim is past its deadline")
    return warn(
        f"{counted(row.count, 'claim is past its', 'claims are past their')} deadline, the oldest "
        f"since "
        f"{row.oldest_at:%Y-%m-%d %H:%M:%S} {row.oldest_at:%Z}",
        "run a worker, which rescues them: statemachine-pipeline worker",
    )
