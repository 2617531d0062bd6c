"""What a process counts: each metric of the list is fed, and Prometheus can read all of it."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import Hooks, accept, completed, hand, pipeline_with, running
from fix_probes import engine_through, promtool_accepts, until_true

from statemachine_pipeline import Breaker, Provider, RateLimited, Reject, Retry, Stage, Wait
from statemachine_pipeline.batching import Batch
from statemachine_pipeline.database.providers import Providers
from statemachine_pipeline.database.tables import tables
from statemachine_pipeline.liveness import Liveness
from statemachine_pipeline.observability import instruments
from statemachine_pipeline.observability.instruments import OF_A_PROCESS
from statemachine_pipeline.observability.metrics import OTHER, SERIES, Metric, Metrics, Spread
from statemachine_pipeline.observability.prometheus import exposition
from statemachine_pipeline.oversight.probes import counted
from statemachine_pipeline.resilience.access import Access
from statemachine_pipeline.resilience.breakers import ProviderClosed
from statemachine_pipeline.resilience.counting import STATES, Counting

if TYPE_CHECKING:
    import psycopg
    from fix_proxy import Proxy
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Claim, Pipeline

    Psql = psycopg.Connection[Any]

QUICK = Liveness(beat=timedelta(seconds=0.2), dead_after=timedelta(seconds=60))
SOMEBODY = Provider("somebody", breaker=Breaker(failures=1, open_for=timedelta(hours=1)))


class Elsewhere:
    """A publisher whose store takes everything and gives nothing back."""

    fingerprint = "elsewhere/1"

    async def publish(self, claim: Claim) -> None: ...

    async def withdraw(self, claim: Claim) -> None:
        raise Retry("the store is busy")


def _pipeline(engine: AsyncEngine, hooks: Hooks) -> Pipeline:
    return pipeline_with(
        engine,
        hooks,
        queue_parse=Stage(hooks.queue_parse, crashes=1),
        store_embeddings=Stage(
            hooks.store_embeddings, batch=Batch(age=timedelta(0)), provider=SOMEBODY
        ),
        finalize=Elsewhere(),
    )


async def _faults(engine: AsyncEngine, proxy: Proxy, psql: Psql) -> Metrics:
    """Run documents into every kind of trouble; return what was counted."""
    hooks = Hooks()
    pipeline = _pipeline(engine, hooks)
    counts = pipeline.metrics

    async def misbehave(claim: Claim) -> Any:
        if claim.document.name == "bad":
            raise Reject("unreadable")
        if claim.document.name == "lost":
            psql.execute(
                "UPDATE work SET claim_seq = nextval('claim_seq') WHERE document_id = %s",
                [claim.document.id],
            )
        return await accept(claim)

    async def send(name: str) -> Any:
        sent = await pipeline.submit(f"{name}\n\nof two".encode(), source_uri=name, name=name)
        return sent.document_id

    hooks.queue_parse.does(misbehave)
    await send("crashed")
    dead = await hand(pipeline)
    await dead.claim_one()
    psql.execute("UPDATE worker SET dead_at = now() WHERE id = %s", [dead.worker])
    async with running(pipeline, liveness=QUICK):
        await until_true(lambda: counts.value(instruments.ENDED, state="dead_letter") == 1)
        good = await send("good")
        await until_true(lambda: counts.value(instruments.ENDED, state="complete") == 1)
        await pipeline.apply("delete", good, reason="asked for")
        await send("bad")
        await until_true(lambda: counts.value(instruments.ENDED, state="dead_letter") == 2)
        await send("lost")
        await until_true(lambda: counts.value(instruments.STALE, stage="queue_parse"))
        hooks.store_embeddings.faults.append(ConnectionResetError())
        await send("unlucky")
        is_open = {"provider": "somebody", "state": "open"}
        await until_true(lambda: counts.value(instruments.BREAKER, **is_open))
        proxy.cut_before("picked AS MATERIALIZED")
        await until_true(lambda: counts.value(instruments.DATABASE_ERRORS))
        await until_true(lambda: counts.value(instruments.WITHDRAWALS_FAILED, stage="finalize"))
        told = "SELECT settled >= 6 AND settled_at > started_at FROM worker WHERE dead_at IS NULL"
        await until_true(lambda: psql.execute(told).fetchone() == (True,))
    return counts


async def test_every_metric_of_the_list_is_fed_by_a_pipeline_with_faults(
    proxy: Proxy, psql: Psql
) -> None:
    """A success, a failure for good, a crash, a lost claim, a provider down, a database away."""
    async with engine_through(proxy) as made:
        counts = await _faults(made, proxy, psql)

    assert [metric.name for metric in OF_A_PROCESS if not _is_fed(counts, metric)] == []
    attempts = {"stage": "queue_parse", "outcome": "crashed", "code": "crashed"}
    assert counts.value(instruments.ATTEMPTS, **attempts) == 1
    assert counts.value(instruments.RESCUED) == 1
    asked = {"provider": "somebody"}
    assert counts.value(instruments.REQUESTS, outcome="succeeded", **asked) == 1
    assert counts.value(instruments.REQUESTS, outcome="failed", **asked) == 1
    assert counts.spread(instruments.REQUEST_SECONDS, **asked).count == 2
    assert counts.value(instruments.TEXTS, stage="store_embeddings") == 4
    # Two texts, of the two that the embedder takes at a time.
    assert counts.spread(instruments.BATCH_FILL, stage="store_embeddings").total == 2.0
    busy = [one for one in counts.samples() if one.metric is instruments.SLOTS_BUSY]
    assert {sample.value for sample in busy} == {0}, "a slot was not given back"
    promtool_accepts(exposition(counts, OF_A_PROCESS, process=True).decode())


#: Zero is what they are at the end of a run, in which they were above it.
_BACK_TO_ZERO = {instruments.SLOTS_BUSY}


def _is_fed(counts: Metrics, metric: Metric) -> bool:
    values = [sample.value for sample in counts.samples() if sample.metric is metric]
    if metric in _BACK_TO_ZERO:
        return bool(values)
    return any(one.count if isinstance(one, Spread) else one for one in values)


async def test_slots_are_busy_while_a_hook_runs(engine: AsyncEngine) -> None:
    """``smp_stage_slots_busy``: how many documents a worker has in hand at a stage."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    hooks.finish_parse.block()
    await pipeline.submit(b"text")
    async with running(pipeline):
        await hooks.finish_parse.begun()
        at = {"stage": "finish_parse"}
        assert pipeline.metrics.value(instruments.SLOTS_BUSY, **at) == 1
        assert pipeline.metrics.value(instruments.SLOTS, **at) > 1
        hooks.finish_parse.go_on()


async def test_a_document_that_was_deferred_waits_from_its_time_on(
    engine: AsyncEngine, psql: Psql
) -> None:
    """'How long a document that was due waited': not how long it was given back for."""
    hooks = Hooks()
    pipeline = pipeline_with(engine, hooks)
    sent = await pipeline.submit(b"text")
    psql.execute("UPDATE work SET entered_at = now() - interval '1 day'")
    assert await completed(pipeline, sent.document_id) == ["complete"]
    waited = pipeline.metrics.spread(instruments.WAIT_SECONDS, stage="queue_parse")
    assert waited.count == 1
    assert waited.total < timedelta(hours=12).total_seconds()


async def test_what_may_happen_is_counted_from_zero(engine: AsyncEngine) -> None:
    """A rate of a series that appears with its first event misses that event."""
    pipeline = _pipeline(engine, Hooks())
    pipeline.runner(triggers=["queue_parse", "store_embeddings", "finalize"])
    found = pipeline.metrics.snapshot()
    for series in (
        'smp_stage_attempts_total{stage="queue_parse",outcome="succeeded",code=""}',
        'smp_documents_ended_total{state="dead_letter"}',
        'smp_provider_requests_total{provider="somebody",outcome="refused"}',
        'smp_batch_texts_total{stage="store_embeddings"}',
        'smp_withdrawals_failed_total{stage="finalize"}',
        "smp_claims_rescued_total",
    ):
        assert found[series] == 0
    assert not any('stage="finish_parse"' in series for series in found), "it is not served"


async def test_a_request_that_is_not_sent_is_counted_as_refused(engine: AsyncEngine) -> None:
    """Refused: not sent, as the provider is down."""
    store, metrics = Providers(engine, tables("smp")), Metrics()
    await store.know(SOMEBODY)
    access = Access(SOMEBODY, store, (await hand(pipeline_with(engine))).worker, metrics)
    for error in (ConnectionResetError, ProviderClosed):
        with pytest.raises(error):
            async with access.request():
                raise ConnectionResetError
    await access.close()
    asked = {"provider": "somebody"}
    assert metrics.value(instruments.REQUESTS, outcome="refused", **asked) == 1
    assert metrics.value(instruments.REQUESTS, outcome="failed", **asked) == 1
    assert metrics.spread(instruments.BUDGET_SECONDS, **asked).count == 1
    states = {state: metrics.value(instruments.BREAKER, state=state, **asked) for state in STATES}
    assert states == {"closed": 0, "open": 1, "half_open": 0}


@pytest.mark.parametrize(
    ("ending", "error", "outcome"),
    [
        ("failed", ConnectionResetError(), "failed"),
        ("answered", RateLimited(timedelta(seconds=1)), "rate_limited"),
        ("answered", Wait(timedelta(seconds=1)), "succeeded"),
        ("unknown", Reject("no text"), "unknown"),
        ("failed", asyncio.CancelledError(), "failed"),
        ("unknown", asyncio.CancelledError(), None),
    ],
)
def test_a_request_is_counted_by_what_its_end_says_of_the_provider(
    ending: Any, error: BaseException, outcome: str | None
) -> None:
    """One bad document is no failure of the provider, and a stopped worker is no request's end."""
    metrics = Metrics()
    Counting("somebody", metrics).raised(0.0, error, ending, requests=1, tokens=0)
    counted = {s.labels["outcome"] for s in metrics.samples() if s.metric is instruments.REQUESTS}
    assert counted == ({outcome} if outcome else set())


def test_without_the_extra_its_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """``/metrics`` when the extra is there; the other probes work without it."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "statemachine_pipeline.observability.prometheus")
    monkeypatch.delattr("statemachine_pipeline.observability.prometheus")
    answer = counted(Metrics())
    assert answer.code == 501
    assert b"pip install 'statemachine-pipeline[prometheus]'" in answer.body


def test_labels_that_somebody_makes_up_do_not_grow_without_end() -> None:
    """No label grows with the documents: what is beyond a bound is counted together."""
    metrics = Metrics()
    for number in range(SERIES + 10):
        metrics.add(instruments.ENDED, state=f"made up {number}")
    assert metrics.value(instruments.ENDED, state=OTHER) == 10


def test_what_is_beyond_the_bound_still_tells_of_its_stage() -> None:
    """An alert goes by stage and outcome, and a hook makes up no more than codes."""
    metrics = Metrics()
    for number in range(SERIES + 10):
        metrics.add(instruments.ATTEMPTS, stage="look", outcome="failed", code=f"E{number}")
    assert metrics.value(instruments.ATTEMPTS, stage="look", outcome="failed", code=OTHER) == 10
    for number in range(2 * SERIES):
        metrics.add(instruments.ATTEMPTS, stage=f"S{number}", outcome="failed", code="E")
    assert len(metrics.snapshot()) == 2 * SERIES + 1


def test_a_snapshot_is_plain_numbers() -> None:
    """Usable without any dependency: names and labels as Prometheus writes them."""
    metrics = Metrics()
    metrics.add(instruments.CLAIMED, 2, stage="file")
    metrics.observe(instruments.CLAIM_SECONDS, 0.25)
    assert metrics.snapshot() == {
        'smp_documents_claimed_total{stage="file"}': 2.0,
        "smp_claim_seconds_count": 1,
        "smp_claim_seconds_sum": 0.25,
    }
    text = exposition(metrics, OF_A_PROCESS, process=False).decode()
    assert 'smp_claim_seconds_bucket{le="0.1"} 0.0' in text
    assert 'smp_claim_seconds_bucket{le="0.25"} 1.0' in text
