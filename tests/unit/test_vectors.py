"""Whatever an embedder returns becomes plain floats, or is told to be no vector."""

from __future__ import annotations

import array
import math
from typing import Any

import numpy as np
import pytest

from statemachine_pipeline.vectors import is_usable, plain


@pytest.mark.parametrize(
    "vector",
    [
        [1, 2.5],
        (1.0, 2.5),
        array.array("f", [1, 2.5]),
        np.array([1, 2.5], dtype=np.float32),
        np.array([[1, 2.5]], dtype=np.float16)[0],
        [np.float64(1), np.float32(2.5)],
    ],
)
def test_numbers_of_any_kind_become_plain_floats(vector: Any) -> None:
    """A list, a tuple, an array, a row of numpy's: nothing behind it needs numpy."""
    found = plain(vector)
    assert found == [1.0, 2.5]
    assert [type(number) for number in found] == [float, float]


@pytest.mark.parametrize("vector", [None, 1.0, [None], ["x"], [[1.0]], np.array([[1.0]]), {}.keys])
def test_what_is_no_vector_is_told(vector: Any) -> None:
    """TypeError or ValueError, and nothing else."""
    with pytest.raises((TypeError, ValueError)):
        plain(vector)


@pytest.mark.parametrize(
    ("vector", "usable"),
    [
        ([0.0, 1e-30], True),
        ([5e-324, 0.0], False),
        ([1e39], False),
        ([-1.0], True),
        ([0.0, -0.0], False),
        ([1.0, math.nan], False),
        ([math.inf, 1.0], False),
        ([math.inf, math.nan], False),
        ([-math.inf, math.inf], False),
        ([], False),
    ],
)
def test_a_vector_has_a_direction(vector: list[float], *, usable: bool) -> None:
    """Every number finite, and not all of them zero."""
    assert is_usable(vector) is usable
