"""Numbers counted in process, without a dependency: ``Pipeline.metrics``.

What is counted is declared once, in ``instruments.py``. Exporters read ``samples``, people
``snapshot``.
"""

from __future__ import annotations

import bisect
import dataclasses
import threading
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Labels: TypeAlias = tuple[str, ...]

SERIES: Final = 500
"""Most combinations of labels that one metric tells apart."""
OTHER: Final = "other"
"""What the last label is beyond those: a hook may make up codes without end."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One thing that is counted.

    Attributes:
        name: As Prometheus wants it: base unit at its end, and ``_total`` for a counter.
        kind: A counter only grows, a gauge is what it is now, a histogram counts by size.
        says: What it is, in a sentence.
        labels: Names of what it is counted by; none of them may grow with the documents.
        buckets: Upper bounds of a histogram's, ascending.
    """

    name: str
    kind: Kind
    says: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """What a histogram has seen.

    Attributes:
        counts: How many fell to each bucket, and above the last; not cumulative.
        total: The sum of all.
    """

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One number as it stands.

    Attributes:
        metric: What it counts.
        labels: Of which part, by the names of the metric's labels.
        value: A number, or a histogram's spread.
    """

    metric: Metric
    labels: Mapping[str, str]
    value: float | Spread


class _Buckets:
    __slots__ = ("counts", "total")

    def __init__(self, size: int) -> None:
        self.counts = [0] * size
        self.total = 0.0


class Metrics:
    """Counts what one process does; made by a Pipeline, and kept as long as that is.

    May be used from any thread. Counting costs about a microsecond and never raises for what is
    counted, only for a label that the metric does not have.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[Metric, dict[Labels, float]] = {}
        self._spreads: dict[Metric, dict[Labels, _Buckets]] = {}

    def add(self, metric: Metric, amount: float = 1.0, /, **labels: str) -> None:
        """Add to a counter; to a gauge too, where several take part in it."""
        with self._lock:
            series = self._numbers.setdefault(metric, {})
            key = _key(metric, labels, series)
            series[key] = series.get(key, 0.0) + amount

    def set(self, metric: Metric, value: float, /, **labels: str) -> None:
        """Say what a gauge is now."""
        with self._lock:
            series = self._numbers.setdefault(metric, {})
            series[_key(metric, labels, series)] = value

    def observe(self, metric: Metric, value: float, /, **labels: str) -> None:
        """Count one more in a histogram."""
        with self._lock:
            series = self._spreads.setdefault(metric, {})
            key = _key(metric, labels, series)
            if (buckets := series.get(key)) is None:
                series[key] = buckets = _Buckets(len(metric.buckets) + 1)
            buckets.counts[bisect.bisect_left(metric.buckets, value)] += 1
            buckets.total += value

    def value(self, metric: Metric, /, **labels: str) -> float:
        """Return what a counter or gauge stands at, 0 before the first time."""
        with self._lock:
            series = self._numbers.get(metric, {})
            return series.get(_key(metric, labels, series), 0.0)

    def spread(self, metric: Metric, /, **labels: str) -> Spread:
        """Return what a histogram has seen."""
        with self._lock:
            series = self._spreads.get(metric, {})
            found = series.get(_key(metric, labels, series), _Buckets(len(metric.buckets) + 1))
            return Spread(tuple(found.counts), found.total)

    def snapshot(self) -> dict[str, float]:
        """Return every number by its name and labels; of a histogram how many and their sum.

        >>> metrics = Metrics()
        >>> seen = Metric(name="seen_total", kind="counter", says="Seen.", labels=("what",))
        >>> metrics.add(seen, what="a")
        >>> metrics.snapshot()
        {'seen_total{what="a"}': 1.0}
        """
        found: dict[str, float] = {}
        for sample in self.samples():
            inside = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            labels = f"{{{inside}}}" if inside else ""
            if isinstance(sample.value, Spread):
                found[f"{sample.metric.name}_count{labels}"] = sample.value.count
                found[f"{sample.metric.name}_sum{labels}"] = sample.value.total
            else:
                found[sample.metric.name + labels] = sample.value
        return found

    def samples(self) -> Iterator[Sample]:
        """Return every number as it stands now, those of one metric together."""
        with self._lock:
            plain = {metric: dict(series) for metric, series in self._numbers.items()}
            spreads = {
                metric: {key: Spread(tuple(one.counts), one.total) for key, one in series.items()}
                for metric, series in self._spreads.items()
            }
        for metric, series in (plain | spreads).items():
            for key, value in series.items():
                yield Sample(metric, dict(zip(metric.labels, key, strict=True)), value)


def _key(metric: Metric, labels: Mapping[str, str], series: Mapping[Labels, object]) -> Labels:
    if len(labels) != len(metric.labels):
        raise TypeError(f"{metric.name} has the labels {metric.labels}, got {tuple(labels)}")
    try:
        key = tuple([labels[name] for name in metric.labels])
    except KeyError:
        told = f"{metric.name} has the labels {metric.labels}, got {tuple(labels)}"
        raise TypeError(told) from None
    # The last label is the one that a hook may make up: failures at a stage stay failures there.
    for one, most in ((key, SERIES), ((*key[:-1], OTHER), 2 * SERIES)):
        if one in series or len(series) < most:
            return one
    return (OTHER,) * len(key)
