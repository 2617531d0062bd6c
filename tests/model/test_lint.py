"""Lint finds each planted fault, at its place and nothing else, and nothing in what is meant."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.util
import math
import os
import random
import re
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from statemachine_pipeline import (
    DocumentLifecycle,
    Facts,
    Lifecycle,
    State,
    all_chunks_stored,
    by_hand,
    has_text,
    is_duplicate,
)
from statemachine_pipeline.adapters.chunkers import MarkdownChunker
from statemachine_pipeline.adapters.embedders import WordLlamaEmbedder
from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.lifecycle import all_embeddings_stored
from statemachine_pipeline.pipeline import Pipeline
from statemachine_pipeline.testing import assert_lint_clean, assert_precedes, lint
from statemachine_pipeline.testing.linting.findings import CATALOGUE, REFUSED
from statemachine_pipeline.testing.verdicts import TWIN

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


async def work(claim: Any) -> None:
    """Stand for any hook that is a function."""


# Guards.


def is_long(facts: Facts) -> bool:
    """Eleven characters or more."""
    return facts.text_chars > 10


def is_short(facts: Facts) -> bool:
    """Nine characters or less: ten are neither."""
    return facts.text_chars < 10


def is_huge(facts: Facts) -> bool:
    """Long, and more."""
    return facts.text_chars > 1000


def is_sparse(facts: Facts) -> bool:
    """A condition between two fields."""
    return facts.text_chars > 100 * facts.chunks_expected


def is_book(facts: Facts) -> bool:
    """Meets ``is_sparse`` only where no constant of the two points to."""
    return facts.chunks_expected > 6 and facts.text_chars > 500


def is_scan(facts: Facts) -> bool:
    """The hook reported a scan."""
    return facts.reported.get("kind") == "scan"


def is_letter(facts: Facts) -> bool:
    """The hook reported a letter."""
    return facts.reported.get("kind") == "letter"


def is_other(facts: Facts) -> bool:
    """The opposite of a scan, by a function of its own."""
    return facts.reported.get("kind") != "scan"


def is_clean(facts: Facts) -> bool:
    """The hook reported that nothing is left to black out."""
    return facts.reported.get("findings_left") == 0


def is_late(facts: Facts) -> bool:
    """Reads the clock."""
    return time.time() > 1 + facts.attempt


def is_lucky(facts: Facts) -> bool:
    """Asks chance."""
    return random.random() < 0.5


ALLOWED = ["scan"]
TALLY = {"asked": 0}


def is_allowed(facts: Facts) -> bool:
    """Compares with a list that anyone may append to."""
    return facts.reported.get("kind") in ALLOWED


def is_configured(facts: Facts) -> bool:
    """Imports what it asks, inside."""
    from os import environ

    return facts.attempt > 1 and "SOME_SETTING" not in environ


def via_another(facts: Facts) -> bool:
    """Calls a function of its own module that is not pure."""
    return is_late(facts)


def takes_away(facts: Facts) -> bool:
    """Changes what the hook reported."""
    return facts.reported.pop("kind", None) == "scan"  # type: ignore[attr-defined]


def is_clean_carelessly(facts: Facts) -> bool:
    """Counts on a key being there."""
    return facts.reported["findings_left"] == 0


def is_even(facts: Facts) -> bool:
    """Divides by what may be nothing."""
    return facts.chunks_stored / facts.chunks_expected == 1


def is_apart(facts: Facts) -> bool:
    """Takes a root of what is below zero only where no constant points to."""
    rest = 100 * facts.chunks_expected - facts.text_chars
    return facts.chunks_expected > 6 and math.sqrt(rest) > 2


def is_many(facts: Facts) -> bool:
    """Counts on a number, and on nothing else."""
    return facts.reported.get("pages", 0) > 7


def has_name(facts: Facts) -> bool:
    """Counts on text, and on nothing else."""
    return facts.reported.get("name", "").startswith("a")


def forgot_return(facts: Facts) -> bool:  # type: ignore[return]
    """Compares, and returns nothing."""
    facts.text_chars > 3  # noqa: B015


def is_any(facts: Facts) -> bool:
    """Says yes to everything."""
    return facts.text_chars >= 0


def has_failed(facts: Facts) -> bool:
    """Reads what is set after failures only, or a text."""
    return facts.permanent or facts.text_chars > 0


def another_has_text() -> Any:
    """Make a second guard of the same name."""

    def has_text(facts: Facts) -> bool:
        return facts.text_chars > 5

    return has_text


# Lifecycles.


def declare(**names: Any) -> type[Lifecycle]:
    """Make a class named Planted out of these names, as a class body would."""
    return types.new_class("Planted", (Lifecycle,), exec_body=lambda body: body.update(names))


def guarded(**edge: Any) -> type[Lifecycle]:
    """Make the shortest lifecycle; ``edge`` is what its only way on is declared with."""
    first, last = State(initial=True), State(final=True)
    return declare(first=first, last=last, go=first.to(last, **edge))


def branching(*edges: Mapping[str, Any], names: tuple[str, ...] = ("go",) * 9) -> type[Lifecycle]:
    """Make a lifecycle with one way out for each of ``edges``, under the triggers ``names``."""
    first, ends = State(initial=True), {f"end{n}": State(final=True) for n, _ in enumerate(edges)}
    ways: dict[str, Any] = {}
    for name, edge, end in zip(names, edges, ends.values(), strict=False):
        way = first.to(end, **edge)
        ways[name] = ways[name] | way if name in ways else way
    return declare(first=first, **ends, **ways)


def circling(**edge: Any) -> type[Lifecycle]:
    """Make a lifecycle with a way back; ``edge`` is what this is declared with."""
    first, second, last = State(initial=True), State(), State(final=True)
    return declare(
        first=first,
        second=second,
        last=last,
        go=first.to(second),
        again=second.to(first, **edge),
        end=second.to(last),
    )


def marking(to_end: bool = True, **edge: Any) -> type[Lifecycle]:
    """Make a lifecycle that looks for twins; ``edge`` is what this is declared with."""
    first, second, last, twin = State(initial=True), State(), State(final=True), State(final=True)
    return declare(
        first=first,
        second=second,
        last=last,
        twin=twin,
        mark_duplicate=first.to(twin if to_end else second, **edge),
        go=first.to(second),
        skip=second.to(twin, cond=is_long),
        end=second.to(last),
    )


def read_first(*, twins: bool = False, again: Any = is_long) -> type[Lifecycle]:
    """Make a lifecycle that reads first, and then has a way back, or looks for twins."""
    zeroth, first, second = State(initial=True), State(), State()
    last, twin = State(final=True), State(final=True)
    aside: dict[str, Any] = {}
    if twins:
        aside["mark_duplicate"] = second.to(twin, cond=is_duplicate)
    else:
        aside["again"] = second.to(first, cond=again)
        aside["leave"] = second.to(twin, cond=is_short)
    return declare(
        zeroth=zeroth,
        first=first,
        second=second,
        last=last,
        twin=twin,
        read=zeroth.to(first),
        go=first.to(second),
        **aside,
        end=second.to(last),
    )


def approved(*, twice: bool) -> type[Lifecycle]:
    """Make a lifecycle whose people choose by guarded ways, or decide twice."""
    zeroth, first, second = State(initial=True), State(), State()
    last, aside = State(final=True), State(final=True)
    approve = second.to(last, cond=is_scan)
    if not twice:
        approve |= second.to(aside, cond=is_letter)
    return declare(
        zeroth=zeroth,
        first=first,
        second=second,
        last=last,
        aside=aside,
        read=zeroth.to(first),
        go=first.to(second),
        leave=first.to(aside),
        approve=approve,
    )


def cut_after_reading() -> type[Lifecycle]:
    """Make a lifecycle whose second stage asks for the text of the first."""
    first, second, last = State(initial=True), State(), State(final=True)
    return declare(
        first=first,
        second=second,
        last=last,
        read=first.to(second),
        cut=second.to(last, cond=[has_text, all_chunks_stored]),
    )


def sorted_by_either() -> type[Lifecycle]:
    """Make a lifecycle with two ways to one state: an or."""
    first, last, rest = State(initial=True), State(final=True), State(final=True)
    ways = first.to(last, cond=is_long) | first.to(last, cond=is_scan) | first.to(rest)
    return declare(first=first, last=last, rest=rest, sort=ways)


def only_twins_end() -> type[Lifecycle]:
    """Make a lifecycle in which one branch is for duplicates alone."""
    first, second, last, twin = State(initial=True), State(), State(final=True), State(final=True)
    return declare(
        first=first,
        second=second,
        last=last,
        twin=twin,
        aside=first.to(second, cond=is_long),
        go=first.to(last),
        mark_duplicate=second.to(twin, cond=is_duplicate),
    )


def waiting_first(cond: Any) -> type[Lifecycle]:
    """Make a lifecycle whose first guard stands where nothing was earned yet."""
    first, second, last = State(initial=True), State(), State(final=True)
    return declare(
        first=first, second=second, last=last, go=first.to(second, cond=cond), end=second.to(last)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planted:
    """A fault, and how it has to be told."""

    rule: str
    where: str
    says: str
    lifecycle: type[Lifecycle]
    hooks: Mapping[str, Any] | None = None
    witness: Facts | None = None


GO = "first>go>last"
SECOND = "first>go>end1"
LATER = "first>then>end1"
GO_THEN = ("go", "then", "else_")
FAULTS = [
    Planted(
        rule="L06",
        where=GO,
        says="guard is_late reads the clock (time)",
        lifecycle=guarded(cond=is_late),
    ),
    Planted(
        rule="L06",
        where=GO,
        says="guard is_lucky says yes and no to the same facts and reads chance (random)",
        lifecycle=guarded(cond=is_lucky),
        witness=Facts(),
    ),
    Planted(
        rule="L06",
        where=GO,
        says="guard is_allowed reads ALLOWED, a list that may be changed",
        lifecycle=guarded(cond=is_allowed),
    ),
    Planted(
        rule="L06",
        where=GO,
        says="guard is_configured reads the environment (environ)",
        lifecycle=guarded(unless=is_configured),
    ),
    Planted(
        rule="L06",
        where=GO,
        says="guard via_another reads the clock",
        lifecycle=guarded(cond=via_another),
    ),
    Planted(
        rule="L06",
        where=GO,
        says="guard takes_away changes facts.reported",
        lifecycle=guarded(cond=takes_away),
        witness=Facts(reported={"kind": 0}),
    ),
    Planted(
        rule="L07",
        where=GO,
        says="guard is_clean_carelessly: KeyError: 'findings_left'",
        lifecycle=guarded(cond=is_clean_carelessly),
        witness=Facts(),
    ),
    Planted(
        rule="L07",
        where=GO,
        says="guard is_even: ZeroDivisionError",
        lifecycle=guarded(cond=is_even),
        witness=Facts(),
    ),
    Planted(
        rule="L07",
        where=GO,
        says="guard is_apart: ValueError",
        lifecycle=guarded(cond=is_apart),
        witness=Facts(chunks_expected=7, text_chars=701),
    ),
    Planted(
        rule="L08",
        where=GO,
        says="guard forgot_return says no to everything",
        lifecycle=guarded(cond=forgot_return),
    ),
    Planted(
        rule="L08",
        where=GO,
        says="guard is_any says yes to everything",
        lifecycle=guarded(cond=is_any),
    ),
    Planted(
        rule="L08",
        where=SECOND,
        says="guard not is_any says no to everything",
        lifecycle=branching({"cond": is_long}, {"unless": is_any}, {"cond": is_any}),
    ),
    Planted(
        rule="L09",
        where=GO,
        says="its guard is a lambda",
        lifecycle=guarded(cond=lambda facts: facts.text_chars > 3),
    ),
    Planted(
        rule="L09",
        where="first>go>last",
        says="another guard is named has_text too",
        lifecycle=guarded(cond=[has_text, another_has_text()]),
    ),
    Planted(
        rule="L10",
        where=SECOND,
        says="an earlier way under this trigger asks for nothing too",
        lifecycle=branching({}, {}),
    ),
    Planted(
        rule="L11",
        where=SECOND,
        says="whenever it is open, first>go>end0 is taken before it",
        lifecycle=branching({}, {"cond": is_long}),
        witness=Facts(text_chars=11),
    ),
    Planted(
        rule="L11",
        where=LATER,
        says="whenever it is open, first>go>end0 is taken before it",
        lifecycle=branching({"cond": is_long}, {"cond": is_huge}, {}, names=GO_THEN),
        witness=Facts(text_chars=1001),
    ),
    Planted(
        rule="L11",
        where=LATER,
        says="whenever it is open, first>go>end0 is taken before it",
        lifecycle=branching({}, {}, names=GO_THEN),
        witness=Facts(),
    ),
    Planted(
        rule="L11",
        where="first>go>end0",
        says="is_long and is_short never agree together",
        lifecycle=branching({"cond": [is_long, is_short]}, {}, names=GO_THEN),
    ),
    Planted(
        rule="L12",
        where=SECOND,
        says="first>go>end0 is open on the same facts",
        lifecycle=branching({"cond": is_long}, {"unless": is_scan}, {}),
        witness=Facts(text_chars=11),
    ),
    Planted(
        rule="L12",
        where=SECOND,
        says="first>go>end0 is open on the same facts",
        lifecycle=branching({"cond": is_sparse}, {"cond": is_book}, {}),
        witness=Facts(chunks_expected=7, text_chars=701),
    ),
    Planted(
        rule="L13",
        where="first",
        says="none of first>go>end0, first>go>end1",
        lifecycle=branching({"cond": is_long}, {"cond": is_short}),
        witness=Facts(text_chars=10),
    ),
    Planted(
        rule="L13",
        where="first",
        says="none of first>go>end0, first>then>end1, first>else_>end2",
        lifecycle=branching(
            {"cond": is_huge}, {"cond": is_scan}, {"cond": is_letter}, names=GO_THEN
        ),
        witness=Facts(),
    ),
    Planted(
        rule="L13",
        where="first",
        says="no way out is open",
        lifecycle=branching(
            {"cond": is_scan}, {"unless": is_scan, "cond": is_long}, {"cond": [is_other, is_short]}
        ),
        witness=Facts(text_chars=10),
    ),
    Planted(
        rule="L14",
        where="first>go>second",
        says="guard is_clean reads reported.findings_left, which no hook brings there",
        lifecycle=waiting_first(is_clean),
        hooks={"go": None, "end": work},
    ),
    Planted(
        rule="L14",
        where=GO,
        says="guard all_chunks_stored reads chunks_expected, chunks_stored, which no hook",
        lifecycle=guarded(cond=[all_chunks_stored, all_embeddings_stored]),
        hooks={"go": WordLlamaEmbedder()},
    ),
    Planted(
        rule="L14",
        where=GO,
        says="guard has_failed reads permanent, which is set after failures only",
        lifecycle=guarded(cond=has_failed),
    ),
    Planted(
        rule="L15",
        where="first>mark_duplicate>twin",
        says="it is taken by documents that have no twin",
        lifecycle=marking(cond=has_text),
        witness=Facts(text_chars=1),
    ),
    Planted(
        rule="L15",
        where="first>mark_duplicate>second",
        says="second is no final state",
        lifecycle=marking(to_end=False, cond=is_duplicate),
    ),
    Planted(
        rule="L15",
        where="second>mark_duplicate>twin",
        says="people may not take mark_duplicate",
        lifecycle=read_first(twins=True),
        hooks={"read": work, "mark_duplicate": None, "go": None, "end": by_hand},
    ),
    Planted(
        rule="L15",
        where="first>go>end0",
        says="twins end here without mark_duplicate",
        lifecycle=branching({"cond": is_duplicate}, {}, names=GO_THEN),
        witness=Facts(duplicate_of=TWIN, duplicate_by="bytes"),
    ),
    Planted(
        rule="L16",
        where=GO,
        says="it is taken with one of two stored",
        lifecycle=guarded(),
        hooks={"go": MarkdownChunker()},
        witness=Facts(chunks_expected=2, chunks_stored=1),
    ),
    Planted(
        rule="L16",
        where=GO,
        says="it is taken with one of two stored",
        lifecycle=guarded(),
        hooks={"go": WordLlamaEmbedder()},
        witness=Facts(vectors_expected=2, vectors_stored=1),
    ),
    Planted(
        rule="L21",
        where="first",
        says="no guard on first > second > first reads what a hook reports",
        lifecycle=circling(cond=is_long),
    ),
    Planted(
        rule="L22",
        where="first",
        says="first > second > first has no hook",
        lifecycle=read_first(),
        hooks={"read": work, "go": None, "again": None, "leave": None, "end": None},
    ),
    Planted(
        rule="L22",
        where="first",
        says="first > second > first has no hook",
        lifecycle=read_first(again=is_scan),
        hooks={"read": work, "go": None, "again": None, "leave": None, "end": None},
    ),
    Planted(
        rule="L24",
        where="second",
        says="every end behind it is mark_duplicate's",
        lifecycle=only_twins_end(),
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.rule} {f.says.split(',')[0]}")
def test_a_planted_fault_is_found_at_its_place(fault: Planted) -> None:
    """'Each finding names the state or edge, why it matters, what to do'."""
    (finding,) = lint(fault.lifecycle, fault.hooks)
    assert (finding.id, finding.where, finding.witness) == (
        fault.rule,
        fault.where,
        fault.witness,
    )
    assert fault.says in finding.what
    rule = CATALOGUE[fault.rule]
    assert str(finding).startswith(f"{fault.rule} {fault.where}: ")
    assert str(finding).endswith(f"{rule.why} {rule.advice}")


def test_every_rule_has_its_planted_fault() -> None:
    """'A lifecycle with a planted fault of each lint kind, each found'."""
    assert {fault.rule for fault in FAULTS} == set(CATALOGUE)
    assert not set(CATALOGUE) & set(REFUSED)


@pytest.mark.parametrize("rule", [rule for rule, known in CATALOGUE.items() if known.asks_hooks])
def test_what_asks_for_hooks_is_not_found_without_them(rule: str) -> None:
    """'Without them rules that ask for hooks are left out'."""
    bare = [f for f in FAULTS if f.rule == rule and f.hooks is not None]
    assert bare
    assert rule not in {one.id for fault in bare for one in lint(fault.lifecycle)}


def in_the_past(facts: Facts) -> bool:
    """Reads the clock through a class."""
    return facts.attempt > 1 and dt.datetime.now().year < 2000  # noqa: DTZ005


def by_hash(facts: Facts) -> bool:
    """Compares what another process hashes otherwise."""
    return hash(facts.duplicate_by) > facts.text_chars


def by_file(facts: Facts) -> bool:
    """Reads a file, by a method that only its instance knows."""
    return facts.attempt > 9_000 and EXAMPLES.joinpath("none").read_text() == ""


def by_open(facts: Facts) -> bool:
    """Reads a file."""
    return facts.attempt > 9_000 and bool(open("none"))  # noqa: PTH123


def by_import(facts: Facts) -> bool:
    """Imports two things, and uses the second."""
    from random import Random, choice  # noqa: F401

    return facts.attempt > 1 and choice([True])


def by_global(facts: Facts) -> bool:
    """Counts how often it was asked."""
    global ASKED  # noqa: PLW0603
    ASKED += 1
    return facts.attempt > 1


def in_a_list(facts: Facts) -> bool:
    """Asks chance inside of an expression with a scope of its own."""
    return any([facts.attempt > 9_000 and random.random() > n for n in range(2)])  # noqa: C419


ASKED = 0


def closed_over() -> Any:
    """Make a guard that reads a list of the function around it, and one that changes a variable."""
    known, asked = [1], 0

    def by_closure(facts: Facts) -> bool:
        return facts.attempt in known

    def by_nonlocal(facts: Facts) -> bool:
        nonlocal asked
        asked += 1
        return facts.attempt > 1

    return by_closure, by_nonlocal


BY_CLOSURE, BY_NONLOCAL = closed_over()
IMPURE = {
    in_the_past: "reads the clock (now)",
    by_hash: "reads a hash that differs between processes (hash)",
    by_file: "reads files (read_text)",
    by_open: "reads files (open)",
    by_import: "reads chance (Random) and reads chance (choice)",
    by_global: "changes the variable ASKED outside of it",
    in_a_list: "reads chance (random)",
    BY_CLOSURE: "reads known, a list that may be changed while it runs",
    BY_NONLOCAL: "changes the variable asked outside of it",
}


@pytest.mark.parametrize("guard", IMPURE, ids=lambda guard: guard.__name__)
def test_what_a_guard_does_besides_comparing_is_seen_in_its_code(guard: Any) -> None:
    """'The code is looked into', with what it imports, closes over and holds inside of it."""
    (finding,) = lint(guarded(cond=guard))
    assert finding.id == "L06"
    assert finding.what == f"guard {guard.__name__} {IMPURE[guard]}"


LIMITS = (1, 2)
PATTERN = re.compile("scan|letter")


def is_listed(facts: Facts) -> bool:
    """Uses a constant and pure functions of other modules."""
    return facts.attempt in LIMITS and os.path.basename(".") == "."  # noqa: PTH119


def is_matching(facts: Facts) -> bool:
    """Agrees to words that stand in a pattern only."""
    return PATTERN.fullmatch(str(facts.reported.get("kind"))) is not None


# What is right, or meant.


def has_few(facts: Facts) -> bool:
    """Less than five characters."""
    return facts.text_chars < 5


def has_some(facts: Facts) -> bool:
    """Five to nine characters."""
    return 5 <= facts.text_chars < 10


def has_more(facts: Facts) -> bool:
    """Ten characters or more."""
    return facts.text_chars >= 10


def is_known_kind(facts: Facts) -> bool:
    """Raises on a report of a list, which its hook does not make."""
    return facts.reported.get("kind") in frozenset({"scan", "letter"})


def is_aside(facts: Facts) -> bool:
    """A twin, or too long."""
    return facts.duplicate_of is not None or facts.text_chars > 10


def has_no_chunks(facts: Facts) -> bool:
    """The chunker returned none."""
    return facts.chunks_expected == 0


def made(name: str) -> Any:
    """Import an example by its file."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_vague(facts: Facts) -> bool:
    """Nothing was read, and it is worth another round."""
    rounds: Any = facts.reported.get("rounds", 0)
    return facts.reported.get("amount") is None and rounds < 3


def is_hopeless(facts: Facts) -> bool:
    """Nothing was read, round after round."""
    rounds: Any = facts.reported.get("rounds", 0)
    return facts.reported.get("amount") is None and rounds >= 3


def is_read(facts: Facts) -> bool:
    """There is an amount."""
    return facts.reported.get("amount") is not None


REDACTED = made("redacted")
BY_HAND = {"go": by_hand, "then": by_hand}
GOOD: dict[str, tuple[type[Lifecycle], Mapping[str, Any] | None]] = {
    "the shipped one": (DocumentLifecycle, None),
    "the shipped one with its hooks": (DocumentLifecycle, {}),
    "the example": (REDACTED.RedactedLifecycle, None),
    "a report whose type two ways count on": (
        branching({"cond": is_vague}, {"cond": is_hopeless}, {"cond": is_read}),
        None,
    ),
    "one way out with its check": (guarded(cond=is_clean), {"go": work}),
    "a report that is a number": (guarded(cond=is_many), None),
    "a report that is text": (guarded(cond=has_name), None),
    "a report of each type": (guarded(cond=[is_many, has_name]), None),
    "a guard with constants": (branching({"cond": is_listed}, {}, names=GO_THEN), None),
    "a guard with a pattern": (branching({"cond": is_matching}, {}, names=GO_THEN), None),
    "a last way for the rest": (branching({"cond": is_long}, {"cond": is_short}, {}), None),
    "a last way for the rest with its check": (
        branching({"cond": is_scan}, {"cond": is_letter}, {"cond": has_text}, names=GO_THEN),
        None,
    ),
    "a special way first": (branching({"cond": is_huge}, {"cond": has_text}, names=GO_THEN), None),
    "a question and its opposite": (branching({"cond": is_scan}, {"unless": is_scan}), None),
    "a check on one side": (
        branching({"cond": is_long}, {"unless": is_long, "cond": has_text}),
        None,
    ),
    "a check on both sides": (
        branching(
            {"cond": [has_text, is_long]}, {"cond": has_text, "unless": is_long}, names=GO_THEN
        ),
        None,
    ),
    "a check on some sides": (
        branching(
            {"cond": is_many},
            {"cond": [has_text, is_scan]},
            {"cond": has_text, "unless": is_scan},
            names=GO_THEN,
        ),
        None,
    ),
    "a check on each of three": (
        branching(*({"cond": [has_text, one]} for one in (has_few, has_some, has_more))),
        None,
    ),
    "an or": (sorted_by_either(), None),
    "a report of a known type": (guarded(cond=is_known_kind), None),
    "twins among others": (branching({"cond": is_aside}, {}, names=GO_THEN), None),
    "the text of a stage before": (cut_after_reading(), {"read": work, "cut": MarkdownChunker()}),
    "people decide twice": (
        approved(twice=True),
        {"read": work, "go": by_hand, "leave": by_hand, "approve": by_hand},
    ),
    "people choose by guarded ways": (
        approved(twice=False),
        {"read": work, "go": None, "leave": by_hand, "approve": by_hand},
    ),
    "none to store, or all stored": (
        branching({"cond": has_no_chunks}, {"cond": all_chunks_stored}),
        {"go": MarkdownChunker()},
    ),
    "people choose": (branching({}, {}, names=GO_THEN), BY_HAND),
    "people choose, and may find no way open": (
        read_first(),
        {"read": work, "go": None, "again": by_hand, "leave": by_hand, "end": by_hand},
    ),
    "a circle that its hook ends": (circling(cond=is_scan), None),
    "a circle that people walk": (circling(), {"go": work, "again": by_hand, "end": by_hand}),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_meant_is_not_found(name: str) -> None:
    """'An integrity check is no gap, an order is no overlap'; shipped and example are clean."""
    lifecycle, hooks = GOOD[name]
    assert [str(one) for one in lint(lifecycle, hooks)] == []
    assert_lint_clean(lifecycle, hooks)


def test_the_shipped_lifecycle_is_linted_at_once() -> None:
    """'Well under two seconds', of the processor's time: others may be at work too."""
    started = time.process_time()
    lint(DocumentLifecycle, {})
    assert time.process_time() - started < 2


def test_the_same_faults_are_found_again_with_the_same_witness() -> None:
    """'The same search finds the same facts in every run'."""
    cls = branching({"cond": is_sparse}, {"cond": is_book}, {})
    assert lint(cls) == lint(cls)


def test_guards_are_left_as_they_were() -> None:
    """A guard that changes its facts does not spoil them for the others."""
    assert lint(branching({"cond": takes_away}, {"cond": is_scan}, {}, names=GO_THEN))
    assert_lint_clean(guarded(cond=is_scan), {"go": work})


# What needs no lint.

A_NAME = "a" * 64


def two(**names: Any) -> type[Lifecycle]:
    """Make a lifecycle of two states, with more names."""
    first, last = State(initial=True), State(final=True)
    return declare(first=first, last=last, go=first.to(last), **names)


async def later(facts: Facts) -> bool:
    """Cannot guard anything."""
    return True


def one_by_one(facts: Facts) -> Any:
    """Cannot guard anything either."""
    yield True


def dead_end() -> type[Lifecycle]:
    """Make a lifecycle with a state that leads nowhere but to itself."""
    first, stuck, last = State(initial=True), State(), State(final=True)
    ways = {"go": first.to(last), "turn": first.to(stuck), "stay": stuck.to(stuck)}
    return declare(first=first, stuck=stuck, last=last, **ways)


REFUSALS = {
    "L01 unreachable": ("unreachable states", lambda: two(lost=State(final=True))),
    "L01 dead end": ("no way forward from stuck to last", dead_end),
    "L02 reserved": ("given by Lifecycle", lambda: two(deleted=State(final=True))),
    "L02 of the engine": ("used by StateChart", lambda: two(send=State(final=True))),
    "L02 too long": ("lower case", lambda: branching({}, {}, names=("go", A_NAME))),
    "L02 upper case": ("lower case", lambda: branching({}, {}, names=("go", "Come"))),
    "L03 error": ("two triggers", lambda: branching({}, {}, names=("go", "error_of_ours"))),
    "L03 done": ("two triggers", lambda: branching({}, {}, names=("go", "done_state_first"))),
    "L04 callback": ("states and triggers only", lambda: two(on_go=lambda machine: None)),
    "L04 by name": ("is not a plain function", lambda: guarded(cond="has_text")),
    "L05 async": ("guard later is async", lambda: guarded(cond=later)),
    "L05 generator": ("guard one_by_one yields", lambda: guarded(cond=one_by_one)),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_needs_no_lint_is_refused_with_the_class(name: str) -> None:
    """'The class is refused with a DefinitionError'."""
    says, make = REFUSALS[name]
    with pytest.raises(DefinitionError, match=says):
        make()
    assert name.partition(" ")[0] in REFUSED


def test_every_working_state_may_fail_be_tried_again_and_be_cancelled() -> None:
    """'A working state without retry, fail and cancel: every one gets them'."""
    for fault in FAULTS:
        graph = fault.lifecycle.graph
        working = [state for state in graph.states if not graph.is_resting(state)]
        assert working
        assert all({"retry", "fail", "cancel"} <= set(graph.possible(state)) for state in working)
    assert {name.partition(" ")[0] for name in REFUSALS} | {"L20"} == set(REFUSED)


def test_a_trigger_may_begin_like_another() -> None:
    """Names have no dots, so that none is taken for another that it begins with."""
    cls = branching({"cond": is_long}, {}, names=("go", "go_on"))
    assert cls.graph.step("first", "go_on", Facts(text_chars=11)).to_state == "end1"
    assert_lint_clean(cls)


# The asserts.


def test_all_findings_are_told_together() -> None:
    """'`assert_lint_clean` fails with all of them listed'."""
    cls = branching({}, {"cond": lambda facts: facts.text_chars > 3})
    with pytest.raises(AssertionError) as caught:
        assert_lint_clean(cls)
    told = str(caught.value).splitlines()
    assert told[0] == "Planted is not clean:"
    assert told[1:] == [f"* {finding}" for finding in lint(cls)]
    assert [line[2:5] for line in told[1:]] == ["L09", "L11"]


def test_what_is_meant_can_be_allowed_everywhere_or_at_one_place() -> None:
    """'Rules that are meant to be broken, as L13, or at one place, as L13:parsed'."""
    cls = branching({"cond": is_long}, {"cond": is_short})
    assert_lint_clean(cls, allow=["L13"])
    assert_lint_clean(cls, allow=["L13:first"])
    with pytest.raises(AssertionError, match=r"L13:second is allowed and not found(?s:.*)") as told:
        assert_lint_clean(cls, allow=["L13:second"])
    assert "L13 first: " in str(told.value)


def test_what_is_allowed_in_vain_fails() -> None:
    """What was mended, or never was, is not allowed any longer."""
    with pytest.raises(AssertionError, match="L99 is allowed and not found; remove it"):
        assert_lint_clean(DocumentLifecycle, allow=["L99"])


def test_a_pipeline_brings_its_hooks() -> None:
    """'Or a Pipeline, which brings its hooks'."""
    cls = branching({}, {}, names=GO_THEN)
    chosen = Pipeline("postgresql+psycopg://nobody@nowhere/", lifecycle=cls, hooks=BY_HAND)
    assert_lint_clean(chosen)
    assert [one.id for one in lint(cls)] == ["L11"]


def test_a_class_without_states_and_hooks_that_do_not_fit_are_refused() -> None:
    """'The class has no states, or the hooks do not fit it'."""
    with pytest.raises(DefinitionError, match="declares no states"):
        lint(Lifecycle)
    with pytest.raises(DefinitionError, match="no hook for go"):
        lint(guarded(), {})


def test_an_order_that_holds_on_every_way_is_asserted() -> None:
    """'Fail if a document may come to a state without having been in the first'."""
    assert_precedes(DocumentLifecycle, "chunks_stored", "complete")
    assert_precedes(DocumentLifecycle, "uploaded", "dead_letter")
    told = "DocumentLifecycle: duplicate is reached without parse_complete: uploaded > duplicate"
    with pytest.raises(AssertionError, match=told):
        assert_precedes(DocumentLifecycle, "parse_complete", "duplicate")
    with pytest.raises(DefinitionError, match="no state 'finished'; there are uploaded"):
        assert_precedes(DocumentLifecycle, "uploaded", "finished")
