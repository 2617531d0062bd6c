"""Durations and times as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from statemachine_pipeline.cli.ending import UsageError

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO: Final = re.compile(r"(\d{1,6})([smhd])")


def duration_of(text: str, option: str = "--for") -> timedelta:
    """Read a duration such as 30s, 15m, 2h, 1.5h or 3d.

    Raises:
        UsageError: It is none, or is nothing at all; ``option`` is named.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text.strip())
    try:
        duration = timedelta(**{_UNITS[found[2]]: float(found[1])}) if found else timedelta(0)
        if duration > timedelta(0):
            datetime.now(UTC) + duration  # it ends within what a calendar holds
            return duration
    except OverflowError:
        pass
    raise UsageError(f"{option} wants a duration such as 30s, 15m, 2h or 3d, got {text!r}")


def time_of(text: str, now: datetime) -> datetime:
    """Read a time, in UTC unless it says another zone, or how long ago: ``90m``, ``2d``.

    Raises:
        UsageError: It is none.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):  # before the year 1
        raise UsageError(
            f"--since {text!r} is no time; write 2026-01-31, 2026-01-31T08:00, or 90m, 12h, 2d"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
