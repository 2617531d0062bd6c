"""The page of metrics: what a process counts, and what is read from the database."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

from generators.docstrings import inline, member, tidy
from statemachine_pipeline.observability import instruments
from statemachine_pipeline.observability.metrics import Metric

_NAMES = {id(value): name for name, value in vars(instruments).items() if type(value) is Metric}


def page(note: str) -> str:
    """Return the page."""
    return tidy(note, _page())


def _page() -> Iterator[str]:
    yield "# Metrics\n"
    yield "One unit each, the base unit, at the end of the name. No label grows with the number of"
    yield "documents: tenants, workers, URLs and texts are none. Of one metric at most 500"
    yield "combinations of labels are told apart; of the rest the last one, as a code, is `other`."
    yield "[Monitor health](../how-to/monitor-health.md) shows how they are read.\n"
    yield "## Of a process\n"
    yield "Counted by each worker, from zero where it is known what may happen: in a program"
    yield "`pipeline.metrics.snapshot()`, and `/metrics` of `worker --probe-port`.\n"
    yield from _table(instruments.OF_A_PROCESS)
    yield "\n## Of the database\n"
    yield "Read once for the whole fleet by the verb `exporter`, at most every ten seconds. Ages"
    yield "are those of the moment in which they are served, though they were read before.\n"
    yield from _table(instruments.OF_THE_DATABASE)
    yield "\n## Buckets of histograms\n"
    yield "| metric | upper bounds |"
    yield "|---|---|"
    for metric in instruments.OF_A_PROCESS:
        if metric.buckets:
            yield f"| `{metric.name}` | {', '.join(f'{bound:g}' for bound in metric.buckets)} |"


def _table(metrics: Sequence[Metric]) -> Iterator[str]:
    yield "| metric | kind | labels | what it is |"
    yield "|---|---|---|---|"
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {_meaning(metric)} |"


def _meaning(metric: Metric) -> str:
    """Return what a metric is, and what stands below it in the list."""
    more = member(f"observability.instruments.{_NAMES[id(metric)]}").docstring
    return inline(f"{metric.says} {inspect.cleandoc(more.value)}" if more else metric.says)
