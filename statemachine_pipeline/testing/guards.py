"""Checks of guards by themselves: pure, total, undecided beforehand, and known by a name."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from statemachine_pipeline.graph import FAILURE_TRIGGERS
from statemachine_pipeline.testing.findings import Finding, found
from statemachine_pipeline.testing.purity import impurities, wavering
from statemachine_pipeline.testing.verdicts import basis
from statemachine_pipeline.testing.witnesses import find

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from statemachine_pipeline.graph import Edge, Guard
    from statemachine_pipeline.records import Facts
    from statemachine_pipeline.testing.subjects import Subject

_KINDS = {bool: "number", int: "number", float: "number", str: "text", type(None): "nothing"}
_NAMELESS = "<lambda>"


def judged(subject: Subject) -> tuple[list[Finding], frozenset[Guard]]:
    """Return what is wrong with guards, and those whose verdicts prove nothing."""
    findings = list(_names(subject))
    doubted: set[Guard] = set()
    for edge, guard in _guards(subject):
        # The first that holds: what an impure guard says else means nothing.
        if finding := _impure(edge, guard) or _raises(edge, guard):
            findings.append(finding)
            doubted.add(guard)
    for edge in subject.forward:
        for guard in edge.guards:
            if guard not in doubted and (finding := _constant(edge, guard)):
                findings.append(finding)
                doubted.add(guard)
    return findings, frozenset(doubted)


def _guards(subject: Subject) -> Iterator[tuple[Edge, Guard]]:
    """Yield every function that guards a way on, with the first edge that it guards."""
    seen = set()
    for edge in subject.forward:
        for guard in edge.guards:
            if guard.function not in seen:
                seen.add(guard.function)
                yield edge, guard


def _names(subject: Subject) -> Iterator[Finding]:
    known = {
        guard.name: guard.function
        for edge in subject.graph.edges
        if edge.trigger in FAILURE_TRIGGERS
        for guard in edge.guards
    }
    for edge, guard in _guards(subject):
        if guard.name == _NAMELESS:
            yield found("L09", edge.code, "its guard is a lambda, so it has no name at all")
        elif known.setdefault(guard.name, guard.function) is not guard.function:
            yield found("L09", edge.code, f"another guard is named {guard.name} too")


def _impure(edge: Edge, guard: Guard) -> Finding | None:
    witness = wavering(guard)
    told = [*([witness[0]] if witness else []), *impurities(guard)]
    if not told:
        return None
    what = f"guard {guard.name} {' and '.join(told)}"
    return found("L06", edge.code, what, witness[1] if witness else None)


def _raises(edge: Edge, guard: Guard) -> Finding | None:
    bad = [facts for facts in basis([guard]) if guard.judge(facts).error is not None]
    witness = _untyped(bad)
    if not bad:
        # What a report may hold is for its hook to say; counts may be anything.
        witness = find([guard], lambda f: not f.reported and guard.judge(f).error is not None)
    if witness is None:
        return None
    return found("L07", edge.code, f"guard {guard.name}: {guard.judge(witness).error}", witness)


def _untyped(bad: list[Facts]) -> Facts | None:
    """Return facts on which a guard raises, whatever type each reported value is meant to be of.

    A hook reports a key as numbers, as text or not at all; a guard may count on its type, but not
    on its being there.
    """
    if not bad:
        return None
    kinds = [_kinds(facts.reported) for facts in bad]
    keys = sorted({key for one in kinds for key in one})
    for types in itertools.product(("number", "text"), repeat=len(keys)):
        meant = dict(zip(keys, types, strict=True)).items()
        if not any(one.items() <= meant for one in kinds):
            return None
    return min(bad, key=lambda facts: len(facts.reported))


def _kinds(reported: Mapping[str, object]) -> dict[str, str]:
    return {key: _KINDS.get(type(value), "other") for key, value in reported.items()}


def _constant(edge: Edge, guard: Guard) -> Finding | None:
    for says, word in ((True, "no"), (False, "yes")):
        if find([guard], lambda facts, says=says: guard.judge(facts).holds is says) is None:
            return found("L08", edge.code, f"guard {guard.label} says {word} to everything")
    return None
