"""Workers, children and the database fail while documents stream in; nothing is lost or doubled."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import faults
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from scenario import Report

MACHINES = faults.machines(random.Random(1), seconds=1.0)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", MACHINES)
def test_no_promise_is_broken_when(
    name: str,
    strike: Callable[[faults.Fault], Report],
    record_property: Callable[[str, object], None],
) -> None:
    """Nothing is lost, stuck or doubled; histories are legal; no attempt is spent in vain."""
    record_property("recovery", str(strike(MACHINES[name]())))
