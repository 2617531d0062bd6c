"""Checks of the ways out of a state: never taken, open at once, a branch forgotten.

Within one trigger two ways must exclude each other, but for a last one without guards, which is
for all the rest. Triggers of one state are tried in declared order, so that one being open besides
another is no fault: a twin is looked for before what it saves. Only an edge that no facts lead to
is one.

That no way is open is meant where a check fails, such as "all chunks are stored", and is not meant
where a branch was forgotten. Told apart are the two as follows.

1. A special case of a way that is tried later adds nothing, and is left aside.
2. What every way out asks is a check, and so is all that a single way out asks.
3. Of ways told apart by a question and its opposite, each side is looked at by itself.
4. Else facts about which several ways ask by different guards are a branch. A value of them on
   which none of these ways is open, whatever the other facts are, was forgotten.
5. A way declared after all that ask so is the way for the rest, with its own checks.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

import networkx as nx

from statemachine_pipeline.records import Facts
from statemachine_pipeline.testing.linting.findings import Finding, found
from statemachine_pipeline.testing.linting.subjects import taken
from statemachine_pipeline.testing.linting.witnesses import (
    agree,
    find,
    guards_of,
    reads,
    sample,
    with_values,
)
from statemachine_pipeline.testing.verdicts import basis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from statemachine_pipeline.graph import Edge, Guard
    from statemachine_pipeline.testing.linting.subjects import Subject

_Branch = tuple["tuple[Guard, ...]", ...]
"""Ways out of a state in order, each as the guards that it still asks."""


def check(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with the ways out of each state."""
    for state in subject.working:
        for choice in subject.choices(state):
            never = list(_never(choice))
            yield from never
            if never:
                continue
            yield from _overlaps(choice)
            if not subject.is_by_hand(state):
                yield from _gap(state, choice)


def _never(choice: Sequence[Edge]) -> Iterator[Finding]:
    guards = guards_of(choice)
    for number, edge in enumerate(choice):
        before = choice[:number]
        rivals = [one for one in before if one.trigger == edge.trigger]
        if not edge.guards and any(not rival.guards for rival in rivals):
            yield found("L10", edge.code, "an earlier way under this trigger asks for nothing too")
            continue
        if find(guards, functools.partial(_is_taken, edge, before)) is not None:
            continue
        opened = find(edge.guards, functools.partial(agree, edge.guards))
        if opened is None:
            names = " and ".join(guard.label for guard in edge.guards)
            yield found("L11", edge.code, f"{names} never agree together")
            continue
        first = taken(before, opened)
        shown = first.code if first else "another"
        yield found("L11", edge.code, f"whenever it is open, {shown} is taken before it", opened)


def _is_taken(edge: Edge, before: Sequence[Edge], facts: Facts) -> bool:
    return agree(edge.guards, facts) and taken(before, facts) is None


def _overlaps(choice: Sequence[Edge]) -> Iterator[Finding]:
    for one, other in itertools.combinations(choice, 2):
        is_asked = one.trigger == other.trigger and one.guards and other.guards
        if not is_asked or one.to_state == other.to_state:
            continue
        guards = (*one.guards, *other.guards)
        witness = find(guards, functools.partial(agree, guards))
        if witness is not None:
            yield found("L12", other.code, f"{one.code} is open on the same facts", witness)


def _gap(state: str, choice: Sequence[Edge]) -> Iterator[Finding]:
    witness = _forgotten(choice, tuple(edge.guards for edge in choice), ())
    if witness is not None:
        ways = ", ".join(edge.code for edge in choice)
        yield found("L13", state, f"no way out is open, none of {ways}", witness)


def _forgotten(choice: Sequence[Edge], branch: _Branch, given: tuple[Guard, ...]) -> Facts | None:
    """Return facts of a branch that was forgotten, of those on which ``given`` hold."""
    branch = tuple(way for n, way in enumerate(branch) if not _is_within(way, branch[n + 1 :]))
    checks = tuple(guard for guard in branch[0] if all(guard in way for way in branch))
    branch, given = _without(branch, checks), given + checks
    if len(branch) < 2 or not all(branch):  # noqa: PLR2004 - a choice is among two
        return None
    for one, opposite in itertools.combinations(guards_of(choice), 2):
        yes = tuple(way for way in branch if one in way)
        no = tuple(way for way in branch if opposite in way and one not in way)
        if not (yes and no) or len(yes) + len(no) < len(branch) or not _differ(one, opposite):
            continue
        sides = ((yes, one), (no, opposite))
        found_in = (_forgotten(choice, _without(w, (g,)), (*given, g)) for w, g in sides)
        return next((facts for facts in found_in if facts is not None), None)
    for names in _questions(branch):
        facts = _unanswered(choice, branch, given, names)
        if facts is not None:
            return facts
    return None


def _without(branch: _Branch, guards: Sequence[Guard]) -> _Branch:
    return tuple(tuple(guard for guard in way if guard not in guards) for way in branch)


def _is_within(way: tuple[Guard, ...], later: _Branch) -> bool:
    """Tell whether a way is a special case of one that is tried later."""
    for other in later:
        tried = sample((*way, *other))
        if all(agree(other, facts) for facts in tried if agree(way, facts)):
            return True
    return False


def _differ(one: Guard, other: Guard) -> bool:
    """Tell whether of two guards always exactly one agrees."""
    differing = (one.judge(f).holds is not other.judge(f).holds for f in sample((one, other)))
    return all(differing)


def _questions(branch: _Branch) -> Iterator[frozenset[str]]:
    """Yield the facts about which several ways ask by different guards, as far as they connect."""
    shared = nx.Graph()
    for one, other in itertools.combinations(branch, 2):
        for asked, else_asked in itertools.product(one, other):
            both = sorted(reads(asked) & reads(else_asked)) if asked != else_asked else []
            nx.add_path(shared, both)
    yield from map(frozenset, nx.connected_components(shared))


def _unanswered(
    choice: Sequence[Edge], branch: _Branch, given: tuple[Guard, ...], names: frozenset[str]
) -> Facts | None:
    """Return facts whose named values leave every way closed, whatever the others are."""
    asking = [n for n, way in enumerate(branch) if any(reads(guard) & names for guard in way)]
    ways = [w for n, w in enumerate(branch) if n in asking or n > asking[-1]]
    guards = guards_of(choice)
    tried: set[str] = set()
    for facts in basis(guards):
        if not agree(given, facts) or taken(choice, facts) is not None:
            continue
        if any(guard.judge(facts).error for guard in guards):
            continue  # a type that the hook does not report
        value = repr(with_values(Facts(), facts, names))
        if value in tried:
            continue
        tried.add(value)

        def is_open(other: Facts, facts: Facts = facts) -> bool:
            alike = with_values(other, facts, names)
            return any(agree(way, alike) for way in ways)

        if find(guards, is_open) is None:
            return facts
    return None
