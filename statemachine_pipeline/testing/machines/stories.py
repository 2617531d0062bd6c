"""A failing example told to people: what was done, what history says, and a test to keep. Pure."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from uuid import UUID

    from statemachine_pipeline.lifecycle import Lifecycle
    from statemachine_pipeline.records import Transition
    from statemachine_pipeline.testing.machines.checks import Snapshot

RULE = "-" * 12
SHOWN = 12
NEWEST = 20
"""Rows of a history that are told."""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One rule with its arguments, all of them plain values."""

    rule: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.rule}({told})"


class Story:
    """What was done in one example.

    Attributes:
        calls: The rules that were called.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def tell(
        self, seen: Snapshot, documents: Sequence[UUID], machine: type, error: Exception
    ) -> str:
        """Return the story of a failure: steps, histories, and a test that repeats it."""
        lines = [f"{type(error).__name__}: {error}", "", "What was done:"]
        lines += [f"  {number:2}. {call}" for number, call in enumerate(self.calls, start=1)]
        for number, document in enumerate(documents):
            found = seen.documents.get(document)
            stands = f"stands in {found.state}" if found else "is not there"
            lines += ["", f"Document {number} {stands}; its history:"]
            lines += [f"  {line}" for line in _history(seen.histories.get(document, ()))]
        lines += ["", f"{RULE} a test to keep {RULE}", *self._test(machine), RULE * 2]
        return "\n".join(lines)

    def _test(self, machine: type) -> Iterator[str]:
        where = _where(machine)
        if where is None:
            yield f"# {machine.__qualname__} has no name in its module; give it one to import it."
            return
        name, expression = where
        yield f"from {machine.__module__} import {name}"
        yield ""
        yield ""
        yield f"def test_{machine.__name__.lower()}_keeps_its_promises() -> None:"
        yield f"    with {expression}.replay() as state:"
        yield from (f"        state.{call}" for call in self.calls)
        yield "        state.everything_holds()"


def _where(machine: type) -> tuple[str, str] | None:
    """Say under which name a machine can be imported, and how it is reached by that name."""
    for name, value in vars(sys.modules.get(machine.__module__, object)).items():
        if value is machine:
            return name, name
        if getattr(value, "machine", None) is machine:
            return name, f"{name}.machine"
    return None


def _history(history: Sequence[Transition]) -> Iterator[str]:
    if len(history) > NEWEST:
        yield f"     {len(history) - NEWEST} steps before"
    for one in history[-NEWEST:]:
        who = f"worker {one.worker}" if one.worker is not None else one.by or ""
        told = [who, f"attempt {one.attempt}" if one.attempt else "", one.error or ""]
        told += ["hop"] if one.hop else []
        came = f"{one.from_state} -> " if one.from_state else ""
        said = ", ".join(part for part in told if part)
        yield f"{one.version:3}. {one.trigger}: {came}{one.to_state}" + (f"  ({said})" * bool(said))


def left_out(
    lifecycle: type[Lifecycle],
    missing: Sequence[str],
    out_of_reach: Collection[str],
    failed: Mapping[str, str],
) -> str:
    """Say what was never exercised, what may have been in the way, and what to do."""
    more = len(missing) - SHOWN
    lines = [f"{lifecycle.__name__}: {len(missing)} things were never exercised:"]
    lines += [f"  {line}" for line in missing[:SHOWN]]
    lines += [f"  and {more} more"] if more > 0 else []
    if out_of_reach:
        lines.append("No facts reach these, which is no failure:")
        lines += [f"  {line}" for line in sorted(out_of_reach)[:SHOWN]]
    if failed:
        lines.append("Real hooks failed, at last so:")
        lines += [f"  {trigger}: {why}" for trigger, why in failed.items()]
    lines.append(
        "A hook that was given in hooks= may never lead there: leave it out, and a stand-in will; "
        "or let a @rule of your own bring what does, and raise max_examples and "
        "stateful_step_count in TestCase.settings"
    )
    return "\n".join(lines)
