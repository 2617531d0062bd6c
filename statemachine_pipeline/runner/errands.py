"""What goes with a call to a child and comes back before its answer: whose work it is, and its log.

Imported by children: nothing here is heavy.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from statemachine_pipeline.observability.outbound import Carried

IS_LINE: Final = 1 << 63
"""Set in the length of a message that is a line of the child's log, not its answer."""
LINE_BYTES: Final = 64 * 1024
LINES: Final = 1_000
"""Most lines of one call; what is logged after them is dropped."""


@dataclasses.dataclass(frozen=True, slots=True)
class Errand:
    """What a child is told with a call, beside the call.

    Attributes:
        level: The lowest level whose lines are to be told; None for none at all.
        carried: For which documents it is made, for requests of the hook's own.
    """

    level: int | None = None
    carried: Carried | None = None
