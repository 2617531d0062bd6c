"""The garbage collector of a process that does nothing but serve documents."""

from __future__ import annotations

import gc

THRESHOLDS = (10_000, 20, 20)


def spare() -> None:
    """Take what was imported out of the collector's sight, and let it look less often.

    Documents in hand live for seconds and are freed by reference counts; with Python's own numbers
    looking for cycles among them and 300,000 imported objects is a fifth of a worker's time. A
    library leaves that to the program it is part of, so this is the command line's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
