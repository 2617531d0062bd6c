"""How long a server asks to be left alone, read from the headers of its answer. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SHORTEST: Final = timedelta(milliseconds=100)
LONGEST: Final = timedelta(hours=1)
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+")
_KINDS: Final = ("requests", "tokens")


def asked_wait(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Return how long to wait, between 0.1 s and an hour; None when the headers do not say.

    ``Retry-After`` counts first, in seconds or as a date; else the reset of whichever budget,
    requests or tokens, is used up, or the later of both when the answer does not tell which.

    Args:
        headers: Of the answer; looked up without regard to case.
        now: The time, for dates (UTC); the answer's own ``Date`` counts before it.

    Source: RFC 9110 section 10.2.3; https://platform.openai.com/docs/guides/rate-limits
    """
    now = _date(headers.get("date")) or now
    told = _milliseconds(headers.get("retry-after-ms")) or _moment(headers.get("retry-after"), now)
    if told is None:
        resets = {
            kind: wait
            for kind in _KINDS
            if (wait := _moment(headers.get(f"x-ratelimit-reset-{kind}"), now)) is not None
        }
        empty = {kind: wait for kind, wait in resets.items() if _is_used_up(headers, kind)}
        told = max((empty or resets).values(), default=None)
    return None if told is None else min(max(told, SHORTEST), LONGEST)


def _is_used_up(headers: Mapping[str, str], kind: str) -> bool:
    left = headers.get(f"x-ratelimit-remaining-{kind}", "")
    return left == "0" or left.startswith("-")


def _milliseconds(text: str | None) -> timedelta | None:
    if text is None or not re.fullmatch(r"\d{1,12}(?:\.\d+)?", text.strip()):
        return None
    return timedelta(milliseconds=float(text))


def _date(text: str | None) -> datetime | None:
    """Read when an answer was made, by the clock of the server, which its other dates are by."""
    try:
        at = parsedate_to_datetime(text or "")
    except (TypeError, ValueError, IndexError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _moment(text: str | None, now: datetime) -> timedelta | None:
    """Read seconds (``7``), a duration (``1m12.5s``), or the date when the wait is over."""
    text = (text or "").strip()
    if re.fullmatch(r"-?\d{1,9}(?:\.\d+)?", text):
        return timedelta(seconds=float(text))
    if _WHOLE.fullmatch(text):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
        return min(timedelta(seconds=min(seconds, 1e9)), LONGEST)
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            at = read(text)
        except (TypeError, ValueError, IndexError):
            continue
        return (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return None
