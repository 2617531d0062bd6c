"""A fleet that lives through one fault after another; a broken one is replaced by a new one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import fleet as fleets
import pytest
import scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faults import Fault
    from scenario import Report

RECOVERY = "recovery"


@pytest.fixture(scope="module")
def strike(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Fault], Report]]:
    """Let a fault happen to the module's fleet, and prove that every promise was kept.

    In the end the fleet drains, and is proven to leave nothing behind.
    """
    living: list[fleets.Fleet] = []

    with contextlib.ExitStack() as stack:

        def happen(fault: Fault) -> Report:
            if not living:
                fleet = fleets.Fleet(tmp_path_factory.mktemp("fleet"), size=2)
                living.append(stack.enter_context(fleet))
            try:
                return scenario.strike(living[0], fault)
            except BaseException:
                living.clear()
                stack.close()
                raise

        yield happen
        for fleet in living:
            scenario.prove_end(fleet)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how long each recovery took, whichever process measured it."""
    for report in terminalreporter.getreports("passed"):
        for name, value in getattr(report, "user_properties", []):
            if name == RECOVERY and report.when == "call":
                terminalreporter.write_line(f"{name}: {value}")
