"""Whose turn it is at each stage. Pure; claims go round by the same order of names."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from statemachine_pipeline.database.statements.turns import TENANTS

if TYPE_CHECKING:
    from collections.abc import Iterable


class Turns:
    """Remembers the tenant behind whom the next round of each stage begins.

    Attributes:
        after: That tenant, by the state that the stage leaves.
    """

    def __init__(self) -> None:
        self.after: dict[str, str] = {}

    def taken(self, claimed: Iterable[tuple[str, str]]) -> None:
        """Go on behind the tenant who was last to get something.

        Slots that are left over after everybody's share go to the first of a round, so the last to
        get something is, of those who got most, the last in the round. Where there may be more
        tenants than a claim asks, the next one begins behind all that were asked.

        Args:
            claimed: State and tenant of each document that was claimed.
        """
        counts = collections.Counter(claimed)
        for state in {state for state, _ in counts}:
            start = self.after.get(state, "")
            of_state = {tenant: n for (where, tenant), n in counts.items() if where == state}
            most = max(of_state.values()) if len(of_state) < TENANTS else 0
            # By code points, as the collation "C" compares.
            ahead = [(tenant <= start, tenant) for tenant, n in of_state.items() if n >= most]
            self.after[state] = max(ahead)[1]
