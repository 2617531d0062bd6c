"""Documents that are removed for good, and why some are left: values, and the reasons. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from statemachine_pipeline.graph import CANCELLED, DEAD_LETTER, DELETED, MARK_DUPLICATE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from uuid import UUID

    from statemachine_pipeline.graph import Graph


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A document that was asked for and stays, and why."""

    document_id: UUID
    state: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What ``prune`` did, or with ``dry_run`` would do.

    Attributes:
        pruned: Documents that are gone, with their histories.
        left: Those that others need, with reasons.
        forbidden: Of a dry run, why this connection's role may not do it; None when it may.
    """

    pruned: tuple[UUID, ...]
    left: tuple[Left, ...]
    forbidden: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ties:
    """What holds a resting document.

    Attributes:
        children: Documents that were found in it and are not removed.
        resting: How many rest on it as duplicates.
        placed: Stages whose publishers have it in stores of their own.
        bytes_in_use: It refers to an object in the object store.
        bytes_left: Its bytes were given up there, and are not known to be erased.
        newest: History ends with it.
    """

    children: tuple[UUID, ...] = ()
    resting: int = 0
    placed: tuple[str, ...] = ()
    bytes_in_use: bool = False
    bytes_left: bool = False
    newest: bool = False

    def reason(self, gone: Collection[UUID]) -> str | None:
        """Say why the document has to stay; None when it may go.

        Args:
            gone: Documents that go before it.
        """
        return next(self._reasons(gone), None)

    def _reasons(self, gone: Collection[UUID]) -> Iterator[str]:
        if self.resting:
            yield f"{self.resting} rest on it as duplicates; they take over when it is deleted"
        if left := sum(child not in gone for child in self.children):
            yield f"{left} that were found in it are still there"
        if self.placed:
            stages = ", ".join(self.placed)
            yield f"it is still in the store of the publisher of {stages}; `delete` withdraws it"
        if self.bytes_in_use:
            yield "its bytes are in the object store; `delete` erases them"
        if self.bytes_left:
            yield "its bytes may still be in the object store; `sweep` erases them"
        if self.newest:
            yield "it has the newest event of all, from which numbers go on after a restore"


def prunable(graph: Graph) -> frozenset[str]:
    """Return the states in which documents rest without being complete."""
    twins = {edge.to_state for edge in graph.edges if edge.trigger == MARK_DUPLICATE}
    return frozenset({DEAD_LETTER, CANCELLED, DELETED, *twins})
