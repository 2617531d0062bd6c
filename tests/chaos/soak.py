"""Faults at random on one living fleet, for as long as told: ``make soak SECONDS=600 [SEED=n]``.

The seed is printed first and draws the faults, how long each lasts and whom it hits; a run with the
same seed draws them again. Ends with 1 and the broken promise when one was broken.
"""

from __future__ import annotations

import argparse
import collections
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faults
import fleet as fleets
import proof
import scenario

WORKERS = 3
LONGEST_SECONDS = 5.0


def drawn(draw: random.Random) -> faults.Fault:
    """Return the next fault."""
    seconds = draw.uniform(0.5, LONGEST_SECONDS)
    known = faults.machines(draw, seconds) | faults.services(seconds)
    return known[draw.choice(sorted(known))]()


def run(fleet: fleets.Fleet, draw: random.Random, seconds: float) -> list[scenario.Report]:
    """Let one fault happen after another; print a line for each."""
    begun = time.monotonic()
    reports = []
    while (passed := time.monotonic() - begun) < seconds:
        fault = drawn(draw)
        if sys.stdout.isatty():
            print(f"{passed:7.1f} s  {fault.name} ...", end="\r", flush=True)
        try:
            report = scenario.strike(fleet, fault)
        except proof.Broken as broken:
            raise proof.Broken(f"{broken.promise} ({fault.name})", broken) from broken
        print(f"{passed:7.1f} s  {report}", flush=True)
        reports.append(report)
    scenario.prove_end(fleet)
    return reports


def summary(reports: list[scenario.Report], fleet: fleets.Fleet) -> str:
    """Return what to remember of a run."""
    recoveries = collections.defaultdict(list)
    for report in reports:
        recoveries[report.fault].append(report.last_seconds or 0.0)
    lines = [
        f"  {name}: {len(times)} times, at rest after {statistics.median(times):.1f} s "
        f"(median), {max(times):.1f} s (longest)"
        for name, times in sorted(recoveries.items())
    ]
    texts = sum(fleet.service.embedded.values())
    again = sum(report.repeated for report in reports)
    lines.append(
        f"{len(reports)} faults, {len(fleet.stream.sent)} documents: none lost, stuck or doubled; "
        f"{texts} texts embedded, {again} of them again"
    )
    return "\n".join(lines)


def main() -> int:
    """Run; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, help="drawn and printed when not given")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}: {WORKERS} workers, {given.seconds:g} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        Path(place).chmod(0o755)  # so that the server's account can reach its directory
        with fleets.Fleet(Path(place), WORKERS) as fleet:
            try:
                reports = run(fleet, random.Random(seed), given.seconds)
            except proof.Broken as broken:
                print(f"\nBROKEN: {broken}\nagain: make soak SEED={seed}", flush=True)
                return 1
            print(summary(reports, fleet))
    return 0


if __name__ == "__main__":
    sys.exit(main())
