"""Tells a server that refused who asks from one that is away, starting or full."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from statemachine_pipeline.errors import DatabaseUnavailable

_REFUSED: Final = re.compile(
    "authentication failed|no password supplied|no pg_hba.conf entry|not permitted to log in|"
    'FATAL: +(role|database) ".*" does not exist|permission denied for database "'
)
"""libpq hands on what a server said that refused a connection, but not its code."""


def is_refusal(error: DatabaseUnavailable) -> bool:
    """Tell whether the server answered that it does not take this role, password or database.

    Asking again with the same words helps only once somebody has changed the server. In another
    language than English it is not recognised.
    """
    return _REFUSED.search(str(error.__cause__ or error)) is not None
