"""What a provider says of its limits, read from the headers of its answer. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from statemachine_pipeline.database.providers import Amounts

if TYPE_CHECKING:
    from collections.abc import Mapping

_DIGITS: Final = 15
"""What is longer is no limit; hundreds of them would be infinite."""


def amounts_in(headers: Mapping[str, str], what: str) -> Amounts:
    """Read what ``x-ratelimit-<what>-*`` say; what is no number above or at zero counts as unsaid.

    Source: https://platform.openai.com/docs/guides/rate-limits
    """

    def number(kind: str) -> float | None:
        text = str(headers.get(f"x-ratelimit-{what}-{kind}", "")).strip()
        is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS
        found = float(text) if is_number else None
        return None if found == 0.0 and what == "limit" else found

    return Amounts(requests=number("requests"), tokens=number("tokens"))
