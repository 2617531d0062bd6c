"""Files on their way into a pipeline: what is asked, and what is told of each."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import UsageError
from statemachine_pipeline.records import Incoming
from statemachine_pipeline.sources import tenant_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from uuid import UUID

    from statemachine_pipeline.cli import batch
    from statemachine_pipeline.pipeline import Pipeline
    from statemachine_pipeline.records import Document

PAGE: Final = 500


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line said about files.

    Attributes:
        paths: Where they are.
        tenant: Whose they are.
        source_uri: What makes the only file the same document next time; None for its path.
        correlation_id: On every row of their histories; None makes one up for each.
    """

    paths: Sequence[Path]
    tenant: str
    source_uri: str | None = None
    correlation_id: str | None = None

    def check(self) -> None:
        """Refuse a tenant that is none, and one source for several files.

        Raises:
            UsageError: It is such a thing.
        """
        check_tenant(self.tenant)
        if self.source_uri is not None and (len(self.paths) > 1 or self.paths[0].is_dir()):
            raise UsageError("--source is what makes one file the same again; name just one PATH")

    def incoming(self, path: Path) -> Incoming:
        """Return a file as it is submitted."""
        return Incoming(path, source_uri=self.source_uri, correlation_id=self.correlation_id)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A path and what became of it, or would.

    Attributes:
        path: As it was found.
        outcome: What ``submit`` says, or ``refused``.
        id: Of its document; None when refused.
        source_uri: Of its document, if that is known.
        reason: Why it was refused.
    """

    path: Path
    outcome: str
    id: UUID | None = None
    source_uri: str | None = None
    reason: str | None = None


def check_tenant(tenant: str) -> None:
    """Refuse a tenant that is none.

    Raises:
        UsageError: It is such a thing.
    """
    problem = tenant_problem(tenant)
    if problem:
        raise UsageError(f"{problem}; use a name of printable characters")


async def stored(pipeline: Pipeline, ids: Sequence[UUID]) -> dict[UUID, Document]:
    """Return those of the documents that are there."""
    found: dict[UUID, Document] = {}
    for start in range(0, len(ids), PAGE):
        page = await pipeline.documents(ids=ids[start : start + PAGE])
        found |= {one.id: one for one in page}
    return found


def emit(
    one: Item | batch.Item,
    document: Document | None,
    *,
    parent_id: UUID | None = None,
    source_uri: str | None = None,
) -> None:
    """Write what became of a path as a line of JSON; ``source_uri`` where no document tells it."""
    output.emit(
        {
            "document_id": one.id,
            "parent_id": parent_id,
            "source_uri": document.source_uri if document else source_uri or str(one.path),
            "name": document.name if document else one.path.name,
            "outcome": one.outcome,
            "state": document.state if document else None,
            "reason": one.reason,
            "chunks": document.chunk_count if document else 0,
        }
    )


def show(items: Iterable[Item], known: Mapping[UUID, Document], *, as_json: bool) -> None:
    """Print each path with its document as it stands."""
    stood = [(one, None if one.id is None else known.get(one.id)) for one in items]
    if as_json:
        for one, document in stood:
            emit(one, document, source_uri=one.source_uri)
        return
    rows = [
        (
            one.id or "-",
            one.outcome,
            document.state if document else "-",
            f"{one.path}: {one.reason}" if one.reason else one.path,
        )
        for one, document in stood
    ]
    output.table(("DOCUMENT", "OUTCOME", "STATE", "PATH"), rows, state=2)


def summed(items: Iterable[Item]) -> str:
    """Return how many there are of each outcome."""
    counts = collections.Counter(one.outcome for one in items)
    return ", ".join(f"{n:,} {name}" for name, n in counts.items()) or "nothing"
