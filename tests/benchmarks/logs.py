"""What a line of the log costs: ``python tests/benchmarks/logs.py``.

Each figure is the least of many rounds, in microseconds: the line of a stage that was earned, with
all fields of an attempt, as the runner writes it.
"""

from __future__ import annotations

import logging
import timeit

from loguru import logger

from statemachine_pipeline import configure_logging
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.noting import note

LINES, ROUNDS = 1_000, 20
ATTEMPT = {
    "pipeline": "smp",
    "worker_id": 3,
    "document_id": "0190b2c4-7e2a-7cc0-9f12-5d3c1b7a9e42",
    "tenant": "default",
    "correlation_id": "5f2b8c1d9a7e4f30b1c2d3e4f5a6b7c8",
    "stage": "store_chunks",
    "attempt": 1,
}


class Nowhere:
    """Takes lines and keeps none."""

    def write(self, text: str) -> None:
        """Drop a line."""


def earned() -> None:
    """Write the line of a stage that was earned."""
    told = {"outcome": "succeeded", "state": "chunks_stored", "duration_s": 0.123456}
    note(log_events.STAGE_SUCCEEDED, "{} is earned", "store_chunks", **told)


def begun() -> None:
    """Write a line that is below the level."""
    note(log_events.STAGE_STARTED, "{} begins", "store_chunks")


def main() -> None:
    """Measure and print."""
    library = logging.getLogger("some.library")
    for name in ("json", "text"):
        configure_logging(format=name, sink=Nowhere(), alone=True)  # type: ignore[arg-type]
        tell(f"{name}, a line of the package", earned)
        tell(f"{name}, a line of logging", lambda: library.info("read %d pages", 3))
    tell("below the level", begun)
    logger.remove()
    logger.add(lambda _: None, serialize=True)
    tell("loguru's own serialize=True, for comparison", earned)
    logger.disable("__main__")
    tell("not asked for", earned)


def tell(what: str, log: object) -> None:
    """Print what one call costs, within an attempt."""
    with logger.contextualize(**ATTEMPT):
        rounds = timeit.repeat(log, number=LINES, repeat=ROUNDS)  # type: ignore[arg-type]
    print(f"{min(rounds) / LINES * 1e6:7.1f} us  {what}")


if __name__ == "__main__":
    main()
