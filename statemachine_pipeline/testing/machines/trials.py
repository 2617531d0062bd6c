"""A machine's run as one test: examples by Hypothesis, what they left out, and a short story."""

from __future__ import annotations

import functools
import unittest
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from statemachine_pipeline.testing.machines import proofs, stories

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.testing.machines.machine import LifecycleMachine

FAR = 50
"""Edges to a goal at most: some lead back to the beginning."""
REPLAYS = 20
"""How often a failing example is tried with fewer calls."""

SETTINGS = settings(
    max_examples=20,
    stateful_step_count=15,
    deadline=None,
    # Its own way of shrinking takes minutes on a database; see ``_shortest``.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@functools.cache
def test_case(machine: type[LifecycleMachine]) -> type[unittest.TestCase]:
    """Return the ``unittest`` class of a machine, for pytest and unittest alike."""

    def run_test(self: Any) -> None:
        failed: Exception | None = None
        try:
            try:
                run_state_machine_as_test(machine, settings=self.settings)
            except Exception as error:  # noqa: BLE001 - raised below
                failed = error
            if failed is not None:
                # Not while it is handled: every replay would take it for its own failure.
                failed.add_note(_shortest(machine, failed))
                raise failed
            _complete(machine)
        finally:
            proofs.close(machine)

    run_test.is_hypothesis_test = True  # type: ignore[attr-defined]
    body = {
        "__doc__": machine.__doc__,
        "__module__": machine.__module__,
        "machine": machine,
        "settings": SETTINGS,
        "runTest": run_test,
    }
    return type(f"{machine.__name__}TestCase", (unittest.TestCase,), body)


def _complete(machine: type[LifecycleMachine]) -> None:
    """Exercise what chance left out, goal by goal; fail for what cannot be."""
    proof = proofs.of(machine)
    with machine.replay() as state:
        state.submit()
        for goal, aim in proof.bench.chart.aims.items():
            # What a guard of one edge says is shown by aiming at another one of its state.
            left = {line.split()[-1].split(">")[0] for line in proof.missing}
            if aim.edge.from_state in left:
                # Where nobody earns anything, only what does not go on comes to stand.
                stands = proof.bench.stages.at(str(aim.edge.from_state)) is not None
                state.walk(document=0, goal=goal, steps=FAR, goes_on=stands)
        for fault in state.chosen:
            if not proof.faults[fault]:
                state.disturb(document=0, fault=fault.value)
    missing = [*proof.missing]
    missing += [f"never happened: {f}" for f in machine.faults if not proof.faults[f]]
    if missing:
        failed = proof.bench.failed
        raise AssertionError(
            stories.left_out(machine.lifecycle, missing, proof.out_of_reach, failed)
        )


def _shortest(machine: type[LifecycleMachine], error: Exception) -> str:
    """Leave out calls as long as it fails alike; return the story of what is left.

    What no longer fails, because a rule of the user's own took part, is told as it was.
    """
    proof = proofs.of(machine)
    told, calls = proof.told, list(proof.calls)
    tries, size = REPLAYS, max(1, len(calls) // 2)
    while calls and tries and size:
        for start in range(0, len(calls), size):
            fewer = calls[:start] + calls[start + size :]
            tries -= 1
            if _failure(machine, fewer) is type(error):
                calls, told = list(proof.calls), proof.told
                break
            if not tries:
                break
        else:
            size //= 2
    return told


def _failure(machine: type[LifecycleMachine], calls: Sequence[stories.Call]) -> type | None:
    try:
        with machine.replay() as state:
            for call in calls:
                getattr(state, call.rule)(**call.arguments)
    except Exception as error:  # noqa: BLE001 - whatever failed is compared with the first failure
        return type(error)
    return None
