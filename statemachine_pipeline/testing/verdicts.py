"""Facts that make guards agree and refuse: the finite basis on which guards are tried.

Guards are pure functions of ``Facts``, so what they can tell apart is written in their code: the
fields they read and the constants they compare with. The basis varies just these: each field over
its edge values and over each constant with its neighbours. It is not a proof for arithmetic between
fields; ``lint`` goes on from here with random facts.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from statemachine_pipeline.graph import FAILURE_TRIGGERS
from statemachine_pipeline.records import Facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from statemachine_pipeline.graph import Edge, Graph, Guard

LIMIT = 20_000
"""Most facts of one basis; what is more is sampled, with a fixed seed."""
TWIN = UUID(int=1)
"""The other document that facts name as the owner of bytes or text."""

_NUMBERS = {
    field.name: 1 if field.name == "attempt" else 0  # the least
    for field in dataclasses.fields(Facts)
    if field.type == "int"
}
_DUPLICATE = {"duplicate_of", "duplicate_by"}
_ABSENT = object()


def basis(guards: Iterable[Guard]) -> tuple[Facts, ...]:
    """Return facts that differ in everything these guards can tell apart, plain facts first."""
    functions = tuple(dict.fromkeys(g.function for g in guards if g.function is not None))
    return _basis(functions)


def taken(graph: Graph, state: str, trigger: str, facts: Facts) -> Edge | None:
    """Return the edge that these facts lead to: of forward triggers the first that is open."""
    if trigger not in FAILURE_TRIGGERS:
        way = graph.advance(state, facts)
        return way if not isinstance(way, str) and way.trigger == trigger else None
    edges = [e for e in graph.edges if e.from_state == state and e.trigger == trigger]
    return next((e for e in edges if all(g.judge(facts).holds for g in e.guards)), None)


@functools.lru_cache(maxsize=256)
def _basis(functions: tuple[Callable[[Facts], object], ...]) -> tuple[Facts, ...]:
    read, constants, is_known = vocabulary(functions)
    numbers = numbers_around(constants)
    fields = {field.name for field in dataclasses.fields(Facts)}
    if not is_known:
        read = fields
    domains: dict[str, Sequence[Any]] = {}
    for name, least in _NUMBERS.items():
        if name in read:
            domains[name] = [number for number in numbers if number >= least]
    if "permanent" in read:
        domains["permanent"] = (False, True)
    if read & _DUPLICATE:
        domains["twin"] = ((None, None), (TWIN, "bytes"), (TWIN, "text"))
    if "reported" in read:
        words = sorted(c for c in constants if isinstance(c, str) and c.isidentifier())
        values = (_ABSENT, *numbers, *words, None, "", 0.5)
        domains |= {f"reported.{word}": values for word in words}
    return tuple(_products(domains))


def numbers_around(constants: Iterable[object]) -> list[int]:
    """Return the numbers among constants with their neighbours, and the least ones; ascending."""
    numbers = [one for one in constants if isinstance(one, int) and not isinstance(one, bool)]
    return sorted({0, 1, 2} | {number + step for number in numbers for step in (-1, 0, 1)})


def _products(domains: dict[str, Sequence[Any]]) -> Iterator[Facts]:
    size = 1
    for domain in domains.values():
        size *= len(domain)
    if size <= LIMIT:
        yield from (_facts(domains, values) for values in itertools.product(*domains.values()))
        return
    draw = random.Random(0)  # noqa: S311 - the same facts in every run
    for _ in range(LIMIT):
        yield _facts(domains, [draw.choice(domain) for domain in domains.values()])


def _facts(domains: Iterable[str], values: Iterable[Any]) -> Facts:
    given: dict[str, Any] = {}
    reported: dict[str, object] = {}
    for name, value in zip(domains, values, strict=True):
        if name == "twin":
            given["duplicate_of"], given["duplicate_by"] = value
        elif name.startswith("reported."):
            if value is not _ABSENT:
                reported[name.removeprefix("reported.")] = value
        else:
            given[name] = value
    return Facts(**given, reported=reported)


def vocabulary(
    functions: Iterable[Callable[..., object]],
) -> tuple[set[str], set[object], bool]:
    """Return the names and constants in the code of functions and of those they call.

    The third value is False when a guard calls what cannot be looked into.
    """
    names: set[str] = set()
    constants: set[object] = set()
    waiting, seen, is_known = list(functions), set[int](), True
    while waiting:
        function = waiting.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        if not isinstance(function, FunctionType):
            is_known = False
            continue
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        for code in _codes(function.__code__):
            names |= set(code.co_names)
            constants |= set(_flat(code.co_consts))
            found = [function.__globals__.get(name, _ABSENT) for name in code.co_names]
            waiting += [value for value in (*found, *cells) if isinstance(value, FunctionType)]
            constants |= set(_flat((*found, *cells)))
    return names, constants, is_known


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _flat(values: Iterable[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, tuple | frozenset | set):
            yield from _flat(value)
        elif isinstance(value, str | int | float):
            yield value
