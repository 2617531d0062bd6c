"""Facts that show something about guards, and what guards read.

A search tries the basis first, on which guards differ wherever they compare with constants, then
random facts by Hypothesis with a fixed seed: for conditions between fields, such as one count being
twice another. The same search finds the same facts in every run. That none were found is no proof
that there are none.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import hypothesis
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample, Unsatisfiable

from statemachine_pipeline.records import Facts
from statemachine_pipeline.testing.verdicts import TWIN, basis, numbers_around, vocabulary

if TYPE_CHECKING:
    from statemachine_pipeline.graph import Edge, Guard

TRIED = 2_000
"""Facts on which a guard is watched; of a larger basis as many, evenly spread."""
TWIN_FACT = "duplicate_of"
"""Stands for ``duplicate_by`` too, since the two change together."""

_SEARCH = hypothesis.settings(
    max_examples=100,
    database=None,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate, Phase.shrink),
)
_WORD_CHARS = 40
_MOST = 10_000
_REPORTS = 500
_KEPT = 0.5


def find(guards: Collection[Guard], holds: Callable[[Facts], bool]) -> Facts | None:
    """Return facts for which ``holds`` is true, the plainest that were found, or None."""
    known = next((facts for facts in basis(guards) if holds(facts)), None)
    if known is not None or not guards:
        return known
    try:
        return hypothesis.find(_random_facts(guards), holds, settings=_SEARCH)
    except (NoSuchExample, Unsatisfiable):
        return None


def agree(guards: Iterable[Guard], facts: Facts) -> bool:
    """Tell whether all guards say yes."""
    return all(guard.judge(facts).holds for guard in guards)


def guards_of(edges: Iterable[Edge]) -> tuple[Guard, ...]:
    """Return the guards of edges, each once."""
    return tuple(dict.fromkeys(guard for edge in edges for guard in edge.guards))


def sample(guards: Collection[Guard]) -> tuple[Facts, ...]:
    """Return the basis, or as much of it as is tried of each guard."""
    facts = basis(guards)
    return facts[:: len(facts) // TRIED + 1]


@functools.lru_cache(maxsize=512)
def reads(guard: Guard) -> frozenset[str]:
    """Return the facts that a guard was seen to read: fields, and ``reported.<key>``."""
    seen: set[str] = set()
    for facts in sample([guard]):
        guard.judge(_Watched(facts, seen))  # type: ignore[arg-type]
    return frozenset(seen)


def with_values(facts: Facts, others: Facts, names: Iterable[str]) -> Facts:
    """Return facts that have the named values of others; names as ``reads`` returns them."""
    given: dict[str, Any] = {}
    reported = dict(facts.reported)
    for name in names:
        field, _, key = name.partition(".")
        if name == TWIN_FACT:
            given |= {"duplicate_of": others.duplicate_of, "duplicate_by": others.duplicate_by}
        elif field != "reported":
            given[field] = getattr(others, field)
        elif key in others.reported:
            reported[key] = others.reported[key]
        else:
            reported.pop(key, None)
    return dataclasses.replace(facts, **given, reported=reported)


class _Watched:
    """Facts that note what is read of them."""

    __slots__ = ("_facts", "_seen")

    def __init__(self, facts: Facts, seen: set[str]) -> None:
        self._facts, self._seen = facts, seen

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._facts, name)
        if name == "reported":
            return _WatchedReport(value, self._seen)
        self._seen.add(TWIN_FACT if name == "duplicate_by" else name)
        return value


class _WatchedReport(Mapping[str, object]):
    """A report that notes which keys are asked for; walking over it asks for all."""

    def __init__(self, reported: Mapping[str, object], seen: set[str]) -> None:
        self._reported, self._seen = reported, seen

    def __getitem__(self, key: str) -> object:
        self._seen.add(f"reported.{key}")
        return self._reported[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._reported)

    def __len__(self) -> int:
        return len(self._reported)


def _random_facts(guards: Collection[Guard]) -> st.SearchStrategy[Facts]:
    """Draw only what these guards read, which takes a tenth of the time of drawing everything."""
    read = frozenset().union(*map(reads, guards))
    functions = dict.fromkeys(guard.function for guard in guards if guard.function is not None)
    _, constants, _ = vocabulary(functions)
    near = numbers_around(constants)
    words = sorted(c for c in constants if isinstance(c, str) and 0 < len(c) <= _WORD_CHARS)
    counts = st.sampled_from([n for n in near if n >= 0]) | st.integers(0, _MOST)
    drawn: dict[str, st.SearchStrategy[Any]] = {
        field.name: counts if field.default == 0 else counts.map(lambda count: max(count, 1))
        for field in dataclasses.fields(Facts)
        if field.name in read and isinstance(field.default, int)
    }
    if TWIN_FACT in read:
        drawn[TWIN_FACT] = st.sampled_from([(None, None), (TWIN, "bytes"), (TWIN, "text")])
    if words and any(name.startswith("reported.") for name in read):
        drawn["reported"] = st.sampled_from(_reports(words, (*near, *words)))
    return st.fixed_dictionaries(drawn).map(_facts)


def _reports(keys: Sequence[str], values: Sequence[object]) -> list[dict[str, object]]:
    """Return reports to draw from, plain ones first; Hypothesis itself builds 100 in a second."""
    draw = random.Random(0)  # noqa: S311 - the same reports in every run

    def value(depth: int) -> object:
        shape = draw.randrange(8) if depth else 0
        if shape == 1:
            return [value(depth - 1) for _ in range(draw.randrange(5))]
        if shape == 2:  # noqa: PLR2004
            return {draw.choice(keys): value(depth - 1) for _ in range(draw.randrange(3))}
        return draw.choice((*values, None, True, False, 0.5, "", draw.randint(-_MOST, _MOST)))

    made = [{key: value(2) for key in keys if draw.random() < _KEPT} for _ in range(_REPORTS)]
    return sorted(made, key=lambda report: (len(report), repr(report)))


def _facts(drawn: Mapping[str, Any]) -> Facts:
    given = dict(drawn)
    given["duplicate_of"], given["duplicate_by"] = given.pop(TWIN_FACT, (None, None))
    return Facts(**given)
