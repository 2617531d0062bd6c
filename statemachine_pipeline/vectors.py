"""What a vector must be to be stored or to be searched by. Pure.

Whatever an embedder returns becomes plain floats here, so that nothing behind it needs numpy.
"""

from __future__ import annotations

import math
from typing import Any

_LEAST, _MOST = 1e-37, 3e38
"""Lengths that PostgreSQL's vectors can have, being of single precision."""


def plain(vector: Any) -> list[float]:
    """Return a vector as a list of floats: a list, a tuple, an array, a row of numpy's.

    Raises:
        TypeError: It is no sequence of numbers, or not only of numbers.
        ValueError: Likewise.
    """
    # An array's own method is 5 to 10 times as fast as walking it number by number.
    whole = getattr(vector, "tolist", None)
    return list(map(float, whole() if whole else vector))


def is_usable(vector: list[float]) -> bool:
    """Tell whether a vector has a direction: every number finite, and not all of them zero."""
    # One call in C for both: the length is not finite if a number is not, and zero only if all are.
    return _LEAST < math.hypot(*vector) < _MOST
