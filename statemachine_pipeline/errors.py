"""Every exception raised on purpose, in one tree, each built from values.

A message says what was asked, what was found and what to do. Nothing here imports the rest of the
package, and no driver error leaves ``database/`` without being turned into one of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID


_DIFFERENCES_SHOWN = 5


class PipelineError(Exception):
    """Anything this package raises on purpose."""


class DefinitionError(PipelineError):
    """A lifecycle, stage or set of hooks cannot work as declared."""


class SourceRefused(PipelineError):
    """A document, or metadata for one, cannot be taken; nothing was written.

    Attributes:
        source: What was asked for, as text.
        reason: What was found, and what to do.
    """

    def __init__(self, source: str, found: str, advice: str) -> None:
        self.source, self.reason = source, f"{found}; {advice}"
        super().__init__(f"cannot take {source!r}: {self.reason}")


class TransitionRefused(PipelineError):
    """A trigger was asked for that this document may not take; nothing was written.

    Attributes:
        state: Where the document stands.
        trigger: What was asked for.
        reason: ``unknown_trigger``, ``wrong_state``, ``guard_refused:<guard>`` or
            ``guard_error:<guard>``.
    """

    def __init__(self, state: str, trigger: str, reason: str, allowed: Iterable[str]) -> None:
        self.state, self.trigger, self.reason = state, trigger, reason
        names = ", ".join(sorted(allowed)) or "nothing"
        super().__init__(
            f"{trigger!r} refused in state {state!r} ({reason}); possible here: {names}"
        )


class StaleClaim(PipelineError):
    """A write was refused because its claim is no longer held; nothing was written.

    The document was rescued, cancelled, revised or moved by hand meanwhile.
    """

    def __init__(self, document_id: UUID, stage: str, sequence: int) -> None:
        self.document_id, self.stage, self.sequence = document_id, stage, sequence
        super().__init__(
            f"claim {sequence} on document {document_id} at {stage!r} is no longer held; "
            "its work was dropped and whoever holds the document now goes on"
        )


class PauseRefused(PipelineError):
    """A pause cannot be made, or lifted, as it was asked for; nothing was written."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(f"cannot pause or resume: {found}; {advice}")


class PruneRefused(PipelineError):
    """Documents cannot be removed as it was asked for; nothing was."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(f"cannot prune: {found}; {advice}")


class DocumentNotFound(PipelineError):
    """No document has this id."""

    def __init__(self, document_id: UUID | str) -> None:
        self.document_id = document_id
        super().__init__(
            f"no document {document_id} in this pipeline; `list` shows those there are"
        )


class SearchRefused(PipelineError, ValueError):
    """A search cannot be made of what was given; nothing was searched."""

    def __init__(self, what: str, given: object, advice: str) -> None:
        super().__init__(f"search cannot use {what}: {given!r}; {advice}")


class DatabaseUnusable(PipelineError):
    """The database cannot be worked with as it is.

    Attributes:
        found: What was found, without what to do.
        fix: What to do; empty where nobody can say.
    """

    def __init__(self, found: str, fix: str = "") -> None:
        self.found, self.fix = found, fix
        super().__init__("; ".join(filter(None, (found, fix))))


class SchemaMissing(DatabaseUnusable):
    """The database does not hold this pipeline's tables, or holds older ones."""

    def __init__(self, schema: str, found: str) -> None:
        self.schema = schema
        super().__init__(
            f"schema {schema!r} is not ready: {found}", "run `statemachine-pipeline migrate`"
        )


class SchemaAhead(DatabaseUnusable):
    """The tables are of a revision that this version does not know; it leaves them alone."""

    def __init__(self, schema: str, found: str, needed: str) -> None:
        self.schema = schema
        super().__init__(
            f"schema {schema!r} is at revision {found}, and this version knows none after "
            f"{needed}: a newer one migrated it",
            "upgrade this program",
        )


class LifecycleMismatch(PipelineError):
    """The lifecycle in the code is not among those the database was migrated to."""

    def __init__(self, lifecycle: str, difference: Iterable[str]) -> None:
        self.difference = tuple(difference)
        shown = self.difference[:_DIFFERENCES_SHOWN]
        more = len(self.difference) - len(shown)
        lines = "; ".join((*shown, *([f"and {more} more"] if more else ())))
        super().__init__(
            f"lifecycle {lifecycle!r} differs from the one in the database ({lines}); "
            "run `statemachine-pipeline migrate` with this lifecycle, or use another schema"
        )


class LifecycleRetired(LifecycleMismatch):
    """The lifecycle in the code knows states that documents were moved out of; nothing was done.

    Attributes:
        moves: The states that were left, each with the one that succeeds it.
    """

    def __init__(self, lifecycle: str, newer: str, moves: Mapping[str, str]) -> None:
        self.moves = dict(moves)
        self.difference = tuple(f"{old!r} became {new!r}" for old, new in moves.items())
        PipelineError.__init__(
            self,
            f"lifecycle {lifecycle!r} was retired when the database was migrated to {newer!r} "
            f"({', '.join(self.difference)}); run the newer code, or go back by "
            "`statemachine-pipeline migrate` with this lifecycle",
        )


class StatesUnmapped(PipelineError):
    """Documents stand in states that a new lifecycle does not know; they were left there.

    Attributes:
        counts: How many stand in each.
    """

    def __init__(self, lifecycle: str, counts: Mapping[str, int]) -> None:
        self.counts = dict(counts)
        stood = ", ".join(f"{count:,} in {state!r}" for state, count in counts.items())
        options = " ".join(f"--map {state}=NEW" for state in counts)
        super().__init__(
            f"lifecycle {lifecycle!r} does not know the states of documents ({stood}); say which "
            f"succeed them, `statemachine-pipeline migrate {options}`, or bring the documents to "
            "other states with the code that knows these"
        )


class RoleRefused(PipelineError):
    """A role cannot be given just what work with the pipeline needs; nothing was changed."""

    def __init__(self, role: str, found: str, advice: str) -> None:
        self.role = role
        super().__init__(f"cannot prepare role {role!r}: {found}; {advice}")


class RightsMissing(PipelineError):
    """The role of this connection may not do what was asked for; nothing was changed."""

    def __init__(self, doing: str, role: str, found: str, advice: str) -> None:
        self.role = role
        super().__init__(f"role {role!r} cannot {doing}: {found}; {advice}")


class EmbedderMismatch(PipelineError):
    """An embedder has other dimensions than the vectors it is known by in the database."""

    def __init__(self, fingerprint: str, stored: int, found: int) -> None:
        self.stored, self.found = stored, found
        super().__init__(
            f"embedder {fingerprint!r} has {found} dimensions, but its vectors in the database "
            f"have {stored}; give its stage another version, Stage(..., version=...), and "
            "`reprocess` embeds the documents anew"
        )


class QuestionNotEmbedded(PipelineError):
    """A search could not turn its question into a vector; trying again may work."""

    def __init__(self, fingerprint: str, found: str) -> None:
        super().__init__(f"the question could not be embedded by {fingerprint!r}: {found}")


class DatabaseUnavailable(DatabaseUnusable):
    """The database could not be reached, or broke off; trying again may work."""

    def __init__(
        self, doing: str, cause: str, *, answer: str = "did not answer", fix: str = ""
    ) -> None:
        super().__init__(f"the database {answer} while {doing}: {cause}", fix)


class NotHeard(PipelineError):
    """Notifications do not arrive, though they can be sent."""

    def __init__(self, channel: str) -> None:
        super().__init__(
            f"notifications on {channel!r} do not arrive; a pooler in transaction mode takes "
            "LISTEN and delivers nothing, and so may a connection that is dead"
        )


class PoolerInTheWay(PipelineError):
    """A pooler gives each transaction another connection, and prepared statements got lost."""

    def __init__(self, doing: str, cause: str) -> None:
        super().__init__(
            f"a prepared statement got lost while {doing}: {cause}; behind a pooler in transaction "
            "mode turn them off by `?prepare_threshold=none` in the URL, or by "
            "connect_args={'prepare_threshold': None} of your engine"
        )


class HistoryAhead(PipelineError):
    """History was restored from another server, so its events have no common order yet."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        super().__init__(
            f"history in schema {schema!r} is numbered beyond this server's transactions, as after "
            "restoring a dump of another; run `statemachine-pipeline migrate`, which sets it right"
        )


class BlobsUnavailable(PipelineError):
    """The object store could not be reached, or broke off; trying again may work."""

    def __init__(self, doing: str, cause: str) -> None:
        super().__init__(f"the object store did not answer while {doing}: {cause}")


class BlobsRefused(PipelineError):
    """The object store cannot be used as it is set up; nothing was written."""

    def __init__(self, doing: str, cause: str) -> None:
        super().__init__(
            f"the object store refused {doing}: {cause}; check `blobs=`, its credentials and rights"
        )


class MissingExtra(PipelineError):
    """An optional dependency is needed and not installed."""

    def __init__(self, wanted: str, extra: str) -> None:
        super().__init__(f"{wanted} is not installed; pip install 'statemachine-pipeline[{extra}]'")


class EmbeddedServerError(PipelineError):
    """The embedded PostgreSQL could not be started or reached."""
