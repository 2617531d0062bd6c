"""Checks of guards by themselves: pure, total, undecided beforehand, and known by a name.

A state with a guard that is found fault with is looked at no further, for the verdicts of such a
guard prove nothing. The same holds, without a finding, for a guard that said the same to all and
compares by what its code does not show, such as a pattern. That a guard always says the same is a
statement on everything that was tried: allow the rule at its place where it is wrong.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, TypeAlias

from statemachine_pipeline.graph import FAILURE_TRIGGERS
from statemachine_pipeline.testing.linting.findings import Finding, found
from statemachine_pipeline.testing.linting.purity import computes, impurities, is_opaque, wavering
from statemachine_pipeline.testing.linting.witnesses import find, guards_of
from statemachine_pipeline.testing.verdicts import basis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from statemachine_pipeline.graph import Edge, Guard
    from statemachine_pipeline.records import Facts
    from statemachine_pipeline.testing.linting.subjects import Subject

_KINDS = {bool: "number", int: "number", float: "number", str: "text", type(None): "nothing"}
_NAMELESS = "<lambda>"

_Asked: TypeAlias = "list[tuple[Edge, Guard]]"
_Told: TypeAlias = "tuple[Edge, Guard, str, Facts | None]"


def judged(subject: Subject) -> tuple[list[Finding], frozenset[Guard]]:
    """Return what is wrong with guards, and those whose verdicts prove nothing."""
    findings = list(_names(subject))
    doubted = set()
    # Each asks only guards of which the ones before had nothing to say.
    for check in (_impure, _raising, _constant):
        asked = [(edge, guard) for edge, guard in _guards(subject) if guard.function not in doubted]
        for edge, guard, what, witness in check(asked):
            doubted.add(guard.function)
            if check is not _constant or not is_opaque(guard):
                findings.append(found(_RULES[check], edge.code, f"guard {what}", witness))
    guards = guards_of(subject.forward)
    return findings, frozenset(guard for guard in guards if guard.function in doubted)


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


def _impure(asked: _Asked) -> Iterator[_Told]:
    for edge, guard in asked:
        witness = wavering(guard)
        told = [*([witness[0]] if witness else []), *impurities(guard)]
        if told:
            what = f"{guard.name} {' and '.join(told)}"
            yield edge, guard, what, witness[1] if witness else None


def _raising(asked: _Asked) -> Iterator[_Told]:
    silent = []
    for edge, guard in asked:
        bad = [facts for facts in basis([guard]) if guard.judge(facts).error is not None]
        witness = _untyped(bad)
        if witness is not None:
            yield edge, guard, f"{guard.name}: {guard.judge(witness).error}", witness
        elif not bad and computes(guard):
            silent.append((edge, guard))
    while witness := find([guard for _, guard in silent], lambda f: bool(_raised(silent, f))):
        edge, guard = _raised(silent, witness)[0]
        yield edge, guard, f"{guard.name}: {guard.judge(witness).error}", witness
        silent.remove((edge, guard))


def _raised(asked: _Asked, facts: Facts) -> _Asked:
    """Return the guards that raise on counts alone; what a report holds is for its hook to say."""
    if facts.reported:
        return []
    return [(edge, guard) for edge, guard in asked if guard.judge(facts).error is not None]


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


def _constant(asked: _Asked) -> Iterator[_Told]:
    for edge, guard in asked:
        for verdict, word in ((True, "no"), (False, "yes")):
            if find([guard], functools.partial(_says, guard, verdict)) is None:
                yield edge, guard, f"{guard.label} says {word} to everything", None
                break


def _says(guard: Guard, verdict: bool, facts: Facts) -> bool:
    return guard.judge(facts).holds is verdict


_RULES = {_impure: "L06", _raising: "L07", _constant: "L08"}
