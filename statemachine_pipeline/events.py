"""What happened to documents, told to the world outside: named transitions with a cursor. Pure.

A trigger goes in; an event is the fact afterwards.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from statemachine_pipeline.graph import (
    CANCEL,
    DELETE,
    FAIL,
    MARK_DUPLICATE,
    MIGRATE,
    REPROCESS,
    REQUEUE,
    RETRY,
    REVISE,
    SUBMIT,
)

if TYPE_CHECKING:
    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.records import Transition

_NAMES = {
    SUBMIT: "DocumentSubmitted",
    RETRY: "DocumentRetried",
    FAIL: "DocumentFailed",
    CANCEL: "DocumentCancelled",
    REQUEUE: "DocumentRequeued",
    REPROCESS: "DocumentReprocessed",
    REVISE: "DocumentRevised",
    DELETE: "DocumentDeleted",
    MIGRATE: "DocumentMigrated",
    MARK_DUPLICATE: "DocumentMarkedDuplicate",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One transition, told after it committed.

    Attributes:
        name: ``DocumentSubmitted``, ``DocumentAdvanced`` (one state further), ``DocumentCompleted``
            (came to an end that the lifecycle declares), ``DocumentMarkedDuplicate``,
            ``DocumentRetried``, ``DocumentFailed``, ``DocumentCancelled``, ``DocumentMigrated`` (to
            the successor of its state), or of a restart ``DocumentRequeued``,
            ``DocumentReprocessed``, ``DocumentRevised``, ``DocumentDeleted``.
        transition: The whole of it; ``(document_id, version)`` is unique, for who must not act
            twice.
        cursor: Where to go on after this event; keep it as text.
    """

    name: str
    transition: Transition
    cursor: str


class Place(NamedTuple):
    """Where a transition stands in the feed; what a cursor says."""

    xact: int
    document: UUID
    version: int

    def __str__(self) -> str:
        return f"{self.xact}:{self.document}:{self.version}"


BEGINNING = Place(0, UUID(int=0), 0)


def place_of(cursor: str | None) -> Place:
    """Read a cursor; None is before everything.

    Raises:
        ValueError: It is none of ours.
    """
    if cursor is None:
        return BEGINNING
    try:
        xact, document, version = cursor.split(":")
        return Place(int(xact), UUID(document), int(version))
    except ValueError:
        raise ValueError(f"{cursor!r} is no cursor of events; pass one as it was given") from None


def name_of(graph: Graph, transition: Transition) -> str:
    """Return an event's name: by the trigger where the library knows it, else by where it led."""
    known = _NAMES.get(transition.trigger)
    led = "DocumentCompleted" if graph.is_resting(transition.to_state) else "DocumentAdvanced"
    return known or led
