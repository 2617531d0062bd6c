"""Which metrics and labels a query of Prometheus names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from statemachine_pipeline.observability import instruments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.observability.metrics import Metric

METRICS = {one.name: one for one in (*instruments.OF_A_PROCESS, *instruments.OF_THE_DATABASE)}
GIVEN = {"pipeline", "instance", "job"}
"""Labels that a target has."""
_SELECTOR = re.compile(r"(?<![\w:])(?P<name>smp_\w+)(?:\{(?P<matchers>[^}]*)\})?")
_GROUPED = re.compile(r"\b(?:by|on)\s*\((?P<labels>[^)]*)\)")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_OF_HISTOGRAMS = re.compile(r"_(?:bucket|sum|count)$")


def metric_of(name: str) -> Metric | None:
    """Return the metric that a series is of; None when nothing counts it."""
    if (plain := METRICS.get(name)) is not None:
        return None if plain.kind == "histogram" else plain
    found = METRICS.get(_OF_HISTOGRAMS.sub("", name))
    return found if found is not None and found.kind == "histogram" else None


def mistakes(query: str) -> Iterator[str]:
    """Yield what a query names that is not counted."""
    labels = set(GIVEN)
    for found in _SELECTOR.finditer(query):
        metric = metric_of(found["name"])
        if metric is None:
            yield f"{found['name']} is no series of any metric"
            continue
        own = {*metric.labels, *({"le"} if metric.kind == "histogram" else ()), *GIVEN}
        labels |= own
        asked = _MATCHER.findall(found["matchers"] or "")
        yield from (f"{found['name']} has no label {one}" for one in asked if one not in own)
    if not _SELECTOR.search(query):
        return  # of recorded series, which their own rules answer for
    for grouped in _GROUPED.finditer(query):
        asked = [one.strip() for one in grouped["labels"].split(",") if one.strip()]
        yield from (f"nothing here has the label {one}" for one in asked if one not in labels)
