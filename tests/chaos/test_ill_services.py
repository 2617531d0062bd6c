"""The embedding service fails in every way while documents stream in, and is well again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import faults
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from scenario import Report

SERVICES = faults.services(seconds=1.0)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", SERVICES)
def test_no_promise_is_broken_when_the_service(
    name: str,
    strike: Callable[[faults.Fault], Report],
    record_property: Callable[[str, object], None],
) -> None:
    """Nothing is lost, stuck or doubled; histories are legal; no attempt is spent in vain."""
    record_property("recovery", str(strike(SERVICES[name]())))
