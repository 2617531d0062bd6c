"""Histories that production wrote, held against a changed lifecycle: does it explain every step?

Reads records one by one and keeps one line per document and per kind of finding, so that a history
of any length can be streamed through. Writes nothing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from statemachine_pipeline.database.successors import check_successors
from statemachine_pipeline.events import Event
from statemachine_pipeline.graph import Edge
from statemachine_pipeline.records import Transition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.lifecycle import Lifecycle
    from statemachine_pipeline.pipeline import Pipeline

_PAGE = 5_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What was held against a lifecycle, and found good.

    Attributes:
        documents: How many documents the steps are of.
        steps: How many rows of history.
        edges: How often each edge was taken, as ``from>trigger>to``. Old states appear as those
            that succeed them; what became one state leaves no edge.
    """

    documents: int
    steps: int
    edges: Mapping[str, int]


class _Step(NamedTuple):
    document: UUID
    version: int
    trigger: str
    from_state: str | None
    to_state: str
    at: object


class _Stand(NamedTuple):
    version: int
    state: str
    at: object


@dataclasses.dataclass(slots=True)
class _Finding:
    """One kind of finding: where it was first seen, and how often."""

    step: _Step
    advice: str
    count: int = 0

    def line(self, what: str) -> str:
        step = self.step
        example = f"document {step.document}, version {step.version}, at {step.at}"
        return f"  {what}: {self.count:,} x, as in {example}; {self.advice}"


def assert_replays(
    history: Iterable[Transition | Event | Mapping[str, Any]],
    lifecycle: type[Lifecycle],
    *,
    states: Mapping[str, str] | None = None,
) -> Replayed:
    """Assert that a lifecycle explains every step of histories, and every place they end at.

    Each step has to be an edge of the class once its states are mapped; versions of a document have
    to follow one another, beginning with any; and where a document stands has to be a state of the
    class, or no worker would ever take it.

    Args:
        history: Rows as ``Pipeline.history`` and ``operations.events`` return them, or as ``show
            --json`` prints them; those of one document in their order. A generator is never held.
        lifecycle: The changed class.
        states: States that it does not know any more, each with its successor: what
            ``migrate --map`` is told. A step between two states that became one is good.

    Raises:
        AssertionError: It does not; each missing edge, broken history and unknown state is named
            once with its count, an example, and what to do. Or there was no history at all.
        DefinitionError: ``states`` names an old state that the class knows, or no state of it.
        ValueError: A record is no row of history.
    """
    replay = _Replay(lifecycle.graph, states or {})
    for record in history:
        replay.read(record)
    return replay.end()


async def assert_database_replays(
    pipeline: Pipeline, lifecycle: type[Lifecycle], *, states: Mapping[str, str] | None = None
) -> Replayed:
    """Assert as ``assert_replays`` does, of all histories of a database; it only reads.

    Args:
        pipeline: One that the database knows: ``Pipeline(url, lifecycle=None)`` always is.
        lifecycle: As there.
        states: As there.
    """
    replay = _Replay(lifecycle.graph, states or {})
    operations, after = pipeline.operations, None
    while page := await operations.events(after=after, limit=_PAGE):
        for event in page:
            replay.read(event)
        after = page[-1].cursor
    return replay.end()


class _Replay:
    """Histories on their way past a graph."""

    def __init__(self, graph: Graph, states: Mapping[str, str]) -> None:
        check_successors(graph, (), states)
        self._graph, self._states = graph, dict(states)
        self._legal = frozenset(graph.codes())
        self._stands: dict[UUID, _Stand] = {}
        self._edges: Counter[str] = Counter()
        self._steps = 0
        self._missing: dict[str, _Finding] = {}
        self._broken: dict[str, _Finding] = {}

    def read(self, record: object) -> None:
        """Hold one record against the graph."""
        for step in _steps(record):
            self._steps += 1
            self._follow(step)
            self._check_edge(step)
            self._stands[step.document] = _Stand(step.version, step.to_state, step.at)

    def end(self) -> Replayed:
        """Return what was read, or raise what was found."""
        name = self._graph.name
        parts = {
            f"{name} has no such step": self._missing,
            f"{name} would leave documents where none of its workers looks": self._lost(),
            "the history itself is broken": self._broken,
        }
        lines = []
        for title, findings in parts.items():
            if findings:
                lines.append(f"{title}:")
                lines += [one.line(what) for what, one in sorted(findings.items())]
        if lines:
            raise AssertionError("\n".join(lines))
        if not self._steps:
            raise AssertionError("there was no history, which shows nothing; is it the right one?")
        return Replayed(
            documents=len(self._stands),
            steps=self._steps,
            edges=MappingProxyType(dict(self._edges)),
        )

    def _follow(self, step: _Step) -> None:
        before = self._stands.get(step.document)
        if before is None:
            return
        if step.version != before.version + 1:
            said = "a version does not follow the one before"
            advice = f"{before.version} came before it; read the rows of a document in their order"
            _count(self._broken, said, step, advice)
        elif step.from_state != before.state:
            said = "a step does not begin where the one before ended"
            _count(self._broken, said, step, f"that was {before.state!r}")

    def _check_edge(self, step: _Step) -> None:
        became = self._states.get
        source = None if step.from_state is None else became(step.from_state, step.from_state)
        target = became(step.to_state, step.to_state)
        if source == target and step.from_state != step.to_state:
            return  # both are one state now
        code = Edge(step.trigger, source, target).code
        if code in self._legal:
            self._edges[code] += 1
            return
        unknown = [one for one in (source, target) if one and one not in self._graph.states]
        advice = _map_advice(unknown) if unknown else f"keep {step.trigger!r} from {source!r}"
        _count(self._missing, code, step, advice)

    def _lost(self) -> dict[str, _Finding]:
        found: dict[str, _Finding] = {}
        for document, stand in self._stands.items():
            if self._states.get(stand.state, stand.state) not in self._graph.states:
                step = _Step(document, stand.version, "", None, stand.state, stand.at)
                _count(found, stand.state, step, _map_advice([stand.state]))
        return found


def _count(findings: dict[str, _Finding], name: str, step: _Step, advice: str) -> None:
    findings.setdefault(name, _Finding(step, advice)).count += 1


def _map_advice(unknown: Iterable[str]) -> str:
    names = sorted(set(unknown))
    options = " ".join(f"--map {one}=NEW" for one in names)
    given = ", ".join(f'"{one}": NEW' for one in names)
    return f"keep {', '.join(names)}, or `migrate {options}` and states={{{given}}} here"


def _steps(record: object) -> Iterator[_Step]:
    """Read a row of history, or all that a JSON object of ``show`` holds."""
    if isinstance(record, Event):
        record = record.transition
    if isinstance(record, Transition):
        yield _Step(
            record.document_id,
            record.version,
            record.trigger,
            record.from_state,
            record.to_state,
            record.at,
        )
    elif isinstance(record, Mapping) and "history" in record:
        for row in record["history"]:
            yield _read(row)
    elif isinstance(record, Mapping):
        yield _read(record.get("transition", record))
    else:
        raise _unreadable(record)


def _read(row: Mapping[str, Any]) -> _Step:
    try:
        return _Step(
            UUID(str(row["document_id"])),
            int(row["version"]),
            row["trigger"],
            row["from_state"],
            row["to_state"],
            row["at"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(row) from error


def _unreadable(record: object) -> ValueError:
    return ValueError(
        f"no row of history: {record!r:.200}; give what Pipeline.history or operations.events "
        "return, or the objects that `show --json` prints"
    )
