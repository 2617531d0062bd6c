"""What the package logs: the closed list of its ``event_name``s, each with its level."""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


@dataclasses.dataclass(frozen=True, slots=True)
class LogEvent:
    """One kind of line.

    Attributes:
        name: Its ``event_name``.
        level: Always the same.
        says: When it is logged.
    """

    name: str
    level: Level
    says: str


SUBMITTED: Final = LogEvent("document.submitted", "INFO", "A document was handed over.")
MOVED: Final = LogEvent("documents.moved", "INFO", "Somebody moved documents by a trigger.")
CLAIMED: Final = LogEvent("document.claimed", "DEBUG", "A worker took a document.")
STAGE_STARTED: Final = LogEvent("stage.started", "DEBUG", "A hook is called.")
STAGE_SUCCEEDED: Final = LogEvent("stage.succeeded", "INFO", "A stage was earned.")
STAGE_POSTPONED: Final = LogEvent("stage.postponed", "INFO", "An attempt was given back, unspent.")
STAGE_FAILED: Final = LogEvent("stage.failed", "WARNING", "An attempt failed.")
STAGE_CRASHED: Final = LogEvent("stage.crashed", "WARNING", "A hook took its child process down.")
DOCUMENT_ENDED: Final = LogEvent("document.ended", "INFO", "A document came to rest.")
DEAD_LETTERED: Final = LogEvent("document.dead_lettered", "WARNING", "A document failed for good.")
CLAIM_LOST: Final = LogEvent("claim.lost", "WARNING", "A write was refused: the claim had passed.")
RESCUED: Final = LogEvent("document.rescued", "WARNING", "A claim was taken from the dead or late.")
CLAIMS_RESCUED: Final = LogEvent("claims.rescued", "WARNING", "Claims were taken from the dead.")
DROPPED: Final = LogEvent("document.dropped", "ERROR", "A defect of the runner ended a walk.")
UNSETTLED: Final = LogEvent("settle.refused", "ERROR", "PostgreSQL refused even the failure.")
MIGRATED: Final = LogEvent("schema.migrated", "INFO", "The tables are those of this lifecycle.")
WORKER_STARTED: Final = LogEvent("worker.started", "INFO", "A worker has its number.")
WORKER_FENCED: Final = LogEvent("worker.fenced", "WARNING", "A worker counts as dead, and stops.")
WORKER_STOPPED: Final = LogEvent("worker.stopped", "INFO", "A worker has ended.")
LEAVING_FAILED: Final = LogEvent("worker.leaving_failed", "WARNING", "The end was not clean.")
RUNNER_FAILED: Final = LogEvent("runner.failed", "ERROR", "A runner in the background ended.")
CHORE_FAILED: Final = LogEvent("chore.failed", "ERROR", "A repeated task raised; it goes on.")
DATABASE_LOST: Final = LogEvent("database.lost", "WARNING", "The database does not answer.")
DATABASE_BACK: Final = LogEvent("database.back", "INFO", "The database answers again.")
CONNECTION_CUT: Final = LogEvent("connection.cut", "WARNING", "A connection was given up.")
LISTENER_DEAF: Final = LogEvent("listener.deaf", "WARNING", "Notifications do not arrive.")
PAUSE_BEGAN: Final = LogEvent("pause.began", "WARNING", "A stage or tenant is not claimed from.")
PAUSE_ENDED: Final = LogEvent("pause.ended", "INFO", "It is claimed from again.")
PROVIDER_DOWN: Final = LogEvent("provider.down", "WARNING", "A provider is not asked for now.")
PROVIDER_BACK: Final = LogEvent("provider.back", "INFO", "It is asked again.")
REQUEST_ANSWERED: Final = LogEvent("request.answered", "DEBUG", "A provider answered a request.")
REQUEST_FAILED: Final = LogEvent("request.failed", "INFO", "A request to a provider failed.")
WITHDRAWAL_FAILED: Final = LogEvent("withdrawal.failed", "WARNING", "A withdrawal is tried again.")
ERASURE_WAITS: Final = LogEvent("erasure.waits", "WARNING", "Bytes of the deleted are still there.")
INDEX_MISSING: Final = LogEvent("index.missing", "WARNING", "Only the owner can make an index.")

LOG_EVENTS: Final = tuple(value for value in list(globals().values()) if type(value) is LogEvent)
