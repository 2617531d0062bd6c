"""Checks of what guards can know where they stand: which facts hooks bring there, and which not.

Guards of a state with a hook see what this hook brought: a parser the text, a chunker and an
embedder their counts, a function whatever it returns. Counts of the stages before are not kept, but
for the length of the text. Where there is nothing to earn, guards see what the stage before
brought, and from where people choose on, what any stage before brought. ``permanent`` is set after
failures only, when no way on is chosen; a guard that reads it is found without hooks too.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING

import networkx as nx

from statemachine_pipeline.records import Facts
from statemachine_pipeline.testing.linting.findings import Finding, found
from statemachine_pipeline.testing.linting.subjects import taken
from statemachine_pipeline.testing.linting.witnesses import TWIN_FACT, guards_of, reads, with_values
from statemachine_pipeline.testing.verdicts import basis

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from statemachine_pipeline.stages import Bound, Kind, Stages
    from statemachine_pipeline.testing.linting.subjects import Subject

_FIELDS = [field.name for field in dataclasses.fields(Facts)]
_CHUNKS = frozenset(name for name in _FIELDS if name.startswith("chunks_"))
_VECTORS = frozenset(name for name in _FIELDS if name.startswith("vectors_"))
_TEXT = frozenset({"text_chars"})
_ALWAYS = frozenset({"attempt", "attempts_allowed", "crashes", "crashes_allowed"})
_BROUGHT: Mapping[Kind, frozenset[str]] = MappingProxyType(
    {
        "parser": _TEXT | {"reported"},
        "chunker": _CHUNKS,
        "embedder": _VECTORS,
        "publisher": frozenset(),
        "function": _TEXT | _CHUNKS | _VECTORS | {"reported", TWIN_FACT},
    }
)
_TOO_FEW = MappingProxyType(
    {
        "chunker": Facts(chunks_expected=2, chunks_stored=1),
        "embedder": Facts(vectors_expected=2, vectors_stored=1),
    }
)
_PERMANENT = "permanent"


def check(subject: Subject) -> Iterator[Finding]:
    """Yield guards that cannot know what they read, and counts that no guard compares."""
    for edge in subject.forward:
        for guard in edge.guards:
            if _PERMANENT in reads(guard):
                what = f"guard {guard.label} reads {_PERMANENT}, which is set after failures only"
                yield found("L14", edge.code, what)
    if subject.stages is not None:
        yield from _unknown(subject, subject.stages)
        for bound in subject.stages:
            yield from _uncounted(subject, bound)


def _unknown(subject: Subject, stages: Stages) -> Iterator[Finding]:
    walks = nx.DiGraph([(edge.from_state, edge.to_state) for edge in subject.forward])
    for edge in subject.forward:
        state = str(edge.from_state)
        known = _known(stages, state, nx.ancestors(walks, state) | {state}) | {_PERMANENT}
        for guard in edge.guards:
            unknown = sorted(name for name in reads(guard) if name.partition(".")[0] not in known)
            if unknown:
                what = f"guard {guard.label} reads {', '.join(unknown)}, which no hook brings there"
                yield found("L14", edge.code, what)


def _known(stages: Stages, state: str, upstream: Collection[str]) -> frozenset[str]:
    """Return what may differ from the defaults where the ways out of a state are chosen."""
    before = [bound for bound in map(stages.at, upstream) if bound is not None]
    led = [bound for bound in before if bound.trigger in stages.before(state)]
    here = stages.at(state)
    if here is not None:
        led = [here]
    elif any(map(stages.is_by_hand, upstream)):
        led = before
    brought = frozenset().union(*(_BROUGHT[bound.stage.kind] for bound in led))
    # The length of the text stays with the document, whoever reads it later.
    kept = _TEXT & frozenset().union(*(_BROUGHT[bound.stage.kind] for bound in before))
    return _ALWAYS | brought | kept


def _uncounted(subject: Subject, bound: Bound) -> Iterator[Finding]:
    lacking = _TOO_FEW.get(bound.stage.kind)
    if lacking is None:
        return
    for choice in subject.choices(bound.state):
        seen: dict[str, Facts] = {}
        for facts in basis(guards_of(choice)):
            short = with_values(facts, lacking, _BROUGHT[bound.stage.kind])
            edge = taken(choice, short)
            if edge is not None:
                seen.setdefault(edge.code, short)
        for code, witness in seen.items():
            yield found("L16", code, "it is taken with one of two stored", witness)
