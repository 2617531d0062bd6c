"""From the paths on the command line to files, in a steady order."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A path that may be submitted, or the reason why it may not."""

    path: Path
    refused: str | None = None


def walk(paths: Iterable[Path]) -> Iterator[Found]:
    """Yield every file below ``paths``, folders sorted by name, each real file once.

    Within folders, names that begin with a dot are left out, as `ls` does. Links are followed; one
    that leads back into a folder above it is refused, one that leads to a file seen before is not
    taken twice. What is no regular file is yielded too: submitting it tells why it cannot be.
    """
    seen: set[str] = set()
    for path in paths:
        found = _below(path, ()) if path.is_dir() else iter((Found(path),))
        for one in found:
            real = os.path.realpath(one.path)
            if one.refused is not None or real not in seen:
                seen.add(real)
                yield one


def _below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Found]:
    try:
        status = folder.stat()
        mark = (status.st_dev, status.st_ino)
        if mark in above:
            yield Found(folder, "its links form a loop: it is a folder above itself")
            return
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208 - sorted by bytes
    except OSError as error:
        yield Found(folder, f"folder cannot be read: {error.strerror or type(error).__name__}")
        return
    for name in names:
        path = folder / name
        if path.is_dir():
            yield from _below(path, (*above, mark))
        else:
            yield Found(path)
