"""When a runner says that its database does not answer, and when that it does again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.observability import instruments
from statemachine_pipeline.observability.metrics import Metrics
from statemachine_pipeline.runner.outages import Outage

if TYPE_CHECKING:
    from fix_logs import Log

AWAY = DatabaseUnavailable("asking", "it is away")


@pytest.fixture
def metrics() -> Metrics:
    """Where it is counted how often the database did not answer."""
    return Metrics()


@pytest.fixture
def outage(metrics: Metrics) -> Outage:
    """Of a runner whose database answers."""
    return Outage(metrics)


def test_whoever_notices_first_tells_and_the_others_only_count(
    outage: Outage, metrics: Metrics, log: Log
) -> None:
    """'Logs each change once', and the duration counts from the first who noticed."""
    outage.goes_on("beat", AWAY)
    began = outage.since
    outage.goes_on("claim", AWAY)
    outage.goes_on("beat", AWAY)
    assert [line["event_name"] for line in log.lines] == ["database.lost"]
    assert outage.since == began is not None
    assert (outage.failures("beat"), outage.failures("claim")) == (2, 1)
    assert metrics.value(instruments.DATABASE_ERRORS) == 3


def test_it_is_over_once_everybody_was_answered_whom_the_database_did_not_answer(
    outage: Outage, log: Log
) -> None:
    """Else a lock on one table, which no beat needs, would be told as lost and back by turns."""
    outage.goes_on("claim", AWAY)
    outage.ended("beat")
    outage.goes_on("write", AWAY)
    outage.ended("claim")
    assert log.of("database.back") == []
    outage.ended("write")
    assert outage.since is None
    outage.ended("claim")
    assert [line["event_name"] for line in log.lines] == ["database.lost", "database.back"]
