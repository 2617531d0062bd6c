"""Every check, in the order in which they are made and shown."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, Literal

from statemachine_pipeline.oversight.checks import (
    connecting,
    failing,
    fleet,
    hooks,
    roles,
    schema,
    server,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from statemachine_pipeline.oversight.checks.verdicts import Subject, Verdict

_OWN_SERVER = "docs/how-to/use-your-own-postgresql.md"
_POOLER = "docs/how-to/run-behind-pgbouncer.md"
_ROLES = "docs/how-to/use-least-privilege.md"
_BACKUP = "docs/how-to/back-up-and-restore.md"
_LIFECYCLE = "docs/how-to/change-a-lifecycle.md"
_WORKERS = "docs/how-to/run-workers.md"
_OBJECTS = "docs/how-to/keep-files-in-object-storage.md"
_HOOKS = "docs/how-to/write-a-hook.md"
_EMBEDDING = "docs/how-to/use-an-embedding-service.md"
_TABLES = "docs/reference/tables.md"
_SEARCH = "docs/how-to/search.md"
_EVENTS = "docs/how-to/follow-events.md"
_LETTERS = "docs/how-to/handle-dead-letters.md"
_BAD = "docs/how-to/contain-bad-documents.md"
_PAUSES = "docs/how-to/pause-and-resume.md"


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        look: What it does.
        docs: The page that says more, from the project's root.
        needs: What has to be there for it.
    """

    look: Callable[[Subject], Awaitable[Verdict]]
    docs: str
    needs: Literal["nothing", "database", "tables"] = "tables"

    @property
    def id(self) -> str:
        """What it is called, in diagnoses and in the reference."""
        return self.look.__name__


DATABASE: Final = Check(server.database, _OWN_SERVER, "nothing")
SCHEMA: Final = Check(schema.schema, _OWN_SERVER, "database")

CHECKS: Final = (
    DATABASE,
    Check(server.server_version, _OWN_SERVER, "database"),
    Check(server.clock_skew, _OWN_SERVER, "database"),
    Check(server.durability, _BACKUP, "database"),
    Check(server.autovacuum, _OWN_SERVER, "database"),
    Check(server.idle_transactions, _OWN_SERVER, "database"),
    Check(server.oldest_transaction, _OWN_SERVER, "database"),
    Check(server.disk, _OWN_SERVER, "database"),
    Check(roles.role, _ROLES, "database"),
    SCHEMA,
    Check(server.connections, _OWN_SERVER),
    Check(connecting.pooler, _POOLER, "database"),
    Check(connecting.notifications, _POOLER, "database"),
    Check(schema.lifecycle, _LIFECYCLE),
    Check(schema.unknown_states, _LIFECYCLE),
    Check(schema.guards, _TABLES),
    Check(schema.indexes, _TABLES),
    Check(schema.event_order, _EVENTS),
    Check(hooks.hooks, _HOOKS, "nothing"),
    Check(hooks.vectors, _EMBEDDING),
    Check(schema.vector_indexes, _SEARCH),
    Check(hooks.blobs, _OBJECTS),
    Check(hooks.providers, _EMBEDDING),
    Check(connecting.claim, _WORKERS),
    Check(connecting.stuck_claims, _WORKERS),
    Check(fleet.workers, _WORKERS),
    Check(fleet.worker_versions, _WORKERS),
    Check(fleet.work, _WORKERS),
    Check(failing.fault_pauses, _PAUSES),
    Check(failing.crashes, _BAD),
    Check(failing.dead_letters, _LETTERS),
)
