"""`worker --reload`: restart workers when Python files below the working folder change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from statemachine_pipeline.cli.output import say
from statemachine_pipeline.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable

SHOWN = 3


def require() -> None:
    """Refuse to start without the library that watches.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        import watchfiles  # noqa: F401
    except ImportError as error:
        raise MissingExtra("watchfiles", "reload") from error


async def watch(folder: Path, changed: Callable[[], None]) -> None:
    """Call ``changed`` after each change of Python files in ``folder``, and say of which.

    Changes that come together are one. Virtual environments, caches and hidden folders of tools
    are left out.
    """
    from watchfiles import PythonFilter, awatch

    async for changes in awatch(folder, watch_filter=PythonFilter(), ignore_permission_denied=True):
        names = sorted({str(Path(path).relative_to(folder)) for _, path in changes})
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        say(f"changed: {', '.join(names[:SHOWN])}{more}; draining, then starting again")
        changed()
