"""Texts of many documents that wait to be embedded, and which of them the next request holds.

Pure: no clock, no tasks. Tenants take turns text by text, so that one with ten thousand texts does
not hold up another's three; within a tenant documents go in the order of their arrival, and the
texts of a document in theirs.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from statemachine_pipeline.batching import Limits


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """One chunk's text.

    Attributes:
        chunk: Id of its chunk.
        index: The chunk's 0-based place in its document.
        text: What is embedded.
        tokens: How many it counts for, in a request.
    """

    chunk: UUID
    index: int
    text: str
    tokens: int


@dataclasses.dataclass(slots=True, eq=False)
class Line:
    """The texts of one document that wait, first come first.

    Attributes:
        tenant: Whose document it is.
        texts: What still waits; a queue takes from its front.
        since: When they were handed in, in seconds of whatever clock.
        alone: No request may hold texts of another document beside these.
    """

    tenant: str
    texts: deque[Text]
    since: float = 0.0
    alone: bool = False


Taken = tuple[Line, Text]


class Queue:
    """The lines of all documents of one stage.

    Args:
        limits: What one request may hold.

    Attributes:
        limits: The same; a provider may say later that it takes less.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        # The tenant whose turn it is stands in front.
        self._turns: deque[str] = deque()
        self._lines: dict[str, deque[Line]] = {}
        self._inputs = self._tokens = 0

    @property
    def lines(self) -> Sequence[Line]:
        """The lines that wait, by tenant and arrival."""
        return [line for tenant in self._turns for line in self._lines[tenant]]

    @property
    def is_full(self) -> bool:
        """Whether waiting longer would not make the next request larger."""
        return (
            self._inputs >= self.limits.inputs
            or self._tokens >= self.limits.tokens
            or any(line.alone for line in self.lines)
        )

    @property
    def oldest(self) -> float | None:
        """When the text was handed in that waits longest; None when none waits."""
        return min((line.since for line in self.lines), default=None)

    def add(self, line: Line) -> None:
        """Let a line wait behind those of its tenant."""
        if not line.texts:
            return
        if line.tenant not in self._lines:
            self._lines[line.tenant] = deque()
            self._turns.append(line.tenant)
        self._lines[line.tenant].append(line)
        self._inputs += len(line.texts)
        self._tokens += sum(text.tokens for text in line.texts)

    def remove(self, line: Line) -> None:
        """Let a line wait no longer; one that does not wait is no error."""
        lines = self._lines.get(line.tenant, ())
        if line not in lines:
            return
        self._lines[line.tenant].remove(line)
        self._inputs -= len(line.texts)
        self._tokens -= sum(text.tokens for text in line.texts)
        if not lines:
            del self._lines[line.tenant]
            self._turns.remove(line.tenant)

    def take(self) -> list[Taken]:
        """Take the texts of the next request out of the queue; empty when none waits.

        It ends before the first text that would be one too many, or have too many tokens. A tenant
        whose next text may not be in this request keeps its turn for the next.
        """
        taken: list[Taken] = []
        passed: list[str] = []
        room = self.limits.tokens
        while self._turns and len(taken) < self.limits.inputs:
            line = self._lines[self._turns[0]][0]
            text = line.texts[0]
            if taken and text.tokens > room:
                break
            if taken and not _may_share(taken[0][0], line):
                passed.append(self._turns.popleft())
                continue
            taken.append((line, line.texts.popleft()))
            room -= text.tokens
            self._inputs, self._tokens = self._inputs - 1, self._tokens - text.tokens
            self._turns.rotate(-1)
            if not line.texts:
                self.remove(line)
        self._turns.extendleft(reversed(passed))
        return taken


def _may_share(one: Line, other: Line) -> bool:
    return one is other or not (one.alone or other.alone)
