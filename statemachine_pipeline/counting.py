"""A number with what it counts, as people write it. Pure."""

from __future__ import annotations


def counted(count: int, one: str, several: str = "") -> str:
    """Return a number with what it counts.

    Args:
        count: How many.
        one: What it counts, in the singular; with its verb where that changes too.
        several: The same in the plural; by default with an s at its end.

    >>> counted(1, "path"), counted(1200, "path"), counted(0, "worker lives", "workers live")
    ('1 path', '1,200 paths', '0 workers live')
    """
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"
