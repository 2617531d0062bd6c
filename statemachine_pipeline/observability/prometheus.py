"""Metrics as Prometheus reads them; needs the extra ``prometheus``."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

try:
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.exposition import CONTENT_TYPE_LATEST
    from prometheus_client.registry import Collector
except ImportError as error:
    from statemachine_pipeline.errors import MissingExtra

    raise MissingExtra("prometheus-client", "prometheus") from error

from statemachine_pipeline.observability.metrics import Spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client.core import Metric as Family

    from statemachine_pipeline.observability.metrics import Metric, Metrics, Sample

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


def exposition(metrics: Metrics, declared: Sequence[Metric], *, process: bool) -> bytes:
    """Return all that is counted in Prometheus' text format.

    Args:
        metrics: What was counted.
        declared: What there is to count; one without a number is named without one.
        process: Add memory, processor time and open files of this process.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Counted(metrics, declared))
    if process:
        ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Counted(Collector):
    """What was counted, as families of samples."""

    def __init__(self, metrics: Metrics, declared: Sequence[Metric]) -> None:
        self._metrics, self._declared = metrics, declared

    def collect(self) -> Iterator[Family]:
        """Return the families in the order of the list."""
        found: dict[Metric, list[Sample]] = {metric: [] for metric in self._declared}
        for sample in self._metrics.samples():
            found.setdefault(sample.metric, []).append(sample)
        for metric, samples in found.items():
            yield _family(metric, samples)


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    numbers: CounterMetricFamily | GaugeMetricFamily
    if metric.kind == "histogram":
        spreads = HistogramMetricFamily(metric.name, metric.says, labels=metric.labels)
        for sample in samples:
            if isinstance(sample.value, Spread):
                buckets = list(_cumulative(metric, sample.value))
                spreads.add_metric(list(sample.labels.values()), buckets, sample.value.total)
        return spreads
    made = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    numbers = made(metric.name, metric.says, labels=metric.labels)
    for sample in samples:
        if not isinstance(sample.value, Spread):
            numbers.add_metric(list(sample.labels.values()), sample.value)
    return numbers


def _cumulative(metric: Metric, spread: Spread) -> Iterator[tuple[str, float]]:
    bounds = [*map(str, metric.buckets), "+Inf"]
    yield from zip(bounds, accumulate(spread.counts), strict=True)
