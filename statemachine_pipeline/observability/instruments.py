"""What is counted: the closed list of a pipeline's metrics. One unit each, spelled out.

Those that a process counts itself are followed by those that are read from the database, which an
exporter serves once for the whole fleet. No label grows with the number of documents; tenants,
workers, URLs and exception texts are none.
"""

from __future__ import annotations

from typing import Final

from statemachine_pipeline.observability.metrics import Metric

SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
SHORT_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

ATTEMPTS: Final = Metric(
    name="smp_stage_attempts_total",
    kind="counter",
    says="Attempts that ended, by what came of them.",
    labels=("stage", "outcome", "code"),
)
"""``outcome`` is succeeded, failed, postponed or crashed; ``code`` is empty for success."""
RUN_SECONDS: Final = Metric(
    name="smp_stage_run_seconds",
    kind="histogram",
    says="How long a hook ran in one attempt.",
    labels=("stage", "outcome"),
    buckets=SECONDS,
)
WAIT_SECONDS: Final = Metric(
    name="smp_stage_wait_seconds",
    kind="histogram",
    says="How long a document that was due waited for an attempt at a stage.",
    labels=("stage",),
    buckets=SECONDS,
)
ENDED: Final = Metric(
    name="smp_documents_ended_total",
    kind="counter",
    says="Documents that a worker brought to rest, by the state.",
    labels=("state",),
)
CLAIMED: Final = Metric(
    name="smp_documents_claimed_total",
    kind="counter",
    says="Documents that were claimed, by the stage at which they stood.",
    labels=("stage",),
)
CLAIM_SECONDS: Final = Metric(
    name="smp_claim_seconds",
    kind="histogram",
    says="How long the database took to answer a claim.",
    buckets=SHORT_SECONDS,
)
EMPTY_CLAIMS: Final = Metric(
    name="smp_empty_claims_total",
    kind="counter",
    says="Claims that found nothing to do.",
)
SETTLE_SECONDS: Final = Metric(
    name="smp_settle_seconds",
    kind="histogram",
    says="How long an outcome took to be written, its wait for company included.",
    buckets=SHORT_SECONDS,
)
STALE: Final = Metric(
    name="smp_stale_writes_refused_total",
    kind="counter",
    says="Attempts whose write was refused, because their claim had passed to somebody else.",
    labels=("stage",),
)
RESCUED: Final = Metric(
    name="smp_claims_rescued_total",
    kind="counter",
    says="Claims taken over from workers that died or let a deadline pass.",
)
SLOTS: Final = Metric(
    name="smp_stage_slots",
    kind="gauge",
    says="How many documents this worker may have in hand at a stage.",
    labels=("stage",),
)
SLOTS_BUSY: Final = Metric(
    name="smp_stage_slots_busy",
    kind="gauge",
    says="How many it has in hand there.",
    labels=("stage",),
)
HEARTBEAT: Final = Metric(
    name="smp_heartbeat_timestamp_seconds",
    kind="gauge",
    says="When this worker last told the database that it lives, since 1970 by its own clock.",
)
LOOP_LAG: Final = Metric(
    name="smp_event_loop_lag_seconds",
    kind="histogram",
    says="How late the event loop ran what was due; a hook that blocks it makes it late.",
    buckets=SHORT_SECONDS,
)
DATABASE_ERRORS: Final = Metric(
    name="smp_database_errors_total",
    kind="counter",
    says="Times that the database did not answer this worker.",
)
WITHDRAWALS_FAILED: Final = Metric(
    name="smp_withdrawals_failed_total",
    kind="counter",
    says="Withdrawals from a publisher's own store that did not work, and are tried again.",
    labels=("stage",),
)
REQUESTS: Final = Metric(
    name="smp_provider_requests_total",
    kind="counter",
    says="Requests to a provider, by what came of them.",
    labels=("provider", "outcome"),
)
"""``outcome`` is succeeded, failed, rate_limited, refused (not sent, as the provider is down), or
unknown: what was raised does not tell how the provider does, such as one bad input or a wrong key.
"""
REQUEST_SECONDS: Final = Metric(
    name="smp_provider_request_seconds",
    kind="histogram",
    says="How long a provider took to answer.",
    labels=("provider",),
    buckets=SECONDS,
)
TOKENS: Final = Metric(
    name="smp_provider_tokens_total",
    kind="counter",
    says="Tokens that a provider said it counted, or estimates where it says nothing.",
    labels=("provider",),
)
BUDGET_SECONDS: Final = Metric(
    name="smp_budget_wait_seconds",
    kind="histogram",
    says="How long a request waited for its part of a provider's budget.",
    labels=("provider",),
    buckets=SECONDS,
)
BREAKER: Final = Metric(
    name="smp_breaker_state",
    kind="gauge",
    says="1 for the state in which this worker takes a provider's breaker to be, else 0.",
    labels=("provider", "state"),
)
BATCH_FILL: Final = Metric(
    name="smp_batch_fill_ratio",
    kind="histogram",
    says="Share of a request's limit of texts or tokens, whichever is nearer, that was used.",
    labels=("stage",),
    buckets=SHARES,
)
TEXTS: Final = Metric(
    name="smp_batch_texts_total",
    kind="counter",
    says="Texts that an embedder was given.",
    labels=("stage",),
)
BUILD: Final = Metric(
    name="smp_build_info",
    kind="gauge",
    says="1; its labels say which program runs.",
    labels=("version", "python"),
)

OF_A_PROCESS: Final = (
    *(ATTEMPTS, RUN_SECONDS, WAIT_SECONDS, ENDED, CLAIMED, CLAIM_SECONDS, EMPTY_CLAIMS),
    *(SETTLE_SECONDS, STALE, RESCUED, SLOTS, SLOTS_BUSY, HEARTBEAT, LOOP_LAG, DATABASE_ERRORS),
    *(WITHDRAWALS_FAILED, REQUESTS, REQUEST_SECONDS, TOKENS, BUDGET_SECONDS, BREAKER),
    *(BATCH_FILL, TEXTS, BUILD),
)

DOCUMENTS: Final = Metric(
    name="smp_documents",
    kind="gauge",
    says="Documents by state and lane; the lane of those that rest is empty.",
    labels=("state", "lane"),
)
OLDEST_READY: Final = Metric(
    name="smp_oldest_ready_age_seconds",
    kind="gauge",
    says="How long the document that is first to be claimed has been due at a stage.",
    labels=("stage",),
)
"""Of those that a worker would claim now, or take over from one that lives no more: not behind a
pause, nor for a provider that is not asked.
No sample for a stage where nothing is due.
"""
OLDEST_CLAIM: Final = Metric(
    name="smp_oldest_claim_age_seconds",
    kind="gauge",
    says="How long the oldest attempt that still runs has stood at its stage.",
    labels=("stage",),
)
DEAD_LETTERS: Final = Metric(
    name="smp_dead_letters",
    kind="gauge",
    says="Documents that failed for good, by the stage that they did not earn and why.",
    labels=("stage", "code"),
)
WORKERS: Final = Metric(
    name="smp_workers",
    kind="gauge",
    says="Workers that said they live: working, draining, or silent for two beats and more, "
    "which ends a minute after they were declared dead, or once their process goes on under "
    "another number.",
    labels=("status",),
)
SERVING: Final = Metric(
    name="smp_stage_workers",
    kind="gauge",
    says="Workers that live and take what is due at a stage; where ways part, at any of them.",
    labels=("stage",),
)
PROGRESS: Final = Metric(
    name="smp_last_progress_age_seconds",
    kind="gauge",
    says="How long ago a worker last told that it had settled something.",
)
PAUSES: Final = Metric(
    name="smp_pauses",
    kind="gauge",
    says="Pauses in force; those by fault were made by the pipeline itself.",
    labels=("stage", "fault"),
)
PROVIDER_CLOSED: Final = Metric(
    name="smp_provider_unavailable",
    kind="gauge",
    says="1 while the fleet does not ask a provider, because its breaker is open, else 0.",
    labels=("provider",),
)
WITHDRAWALS: Final = Metric(
    name="smp_withdrawals_waiting",
    kind="gauge",
    says="Documents that still have to go from a publisher's own store.",
    labels=("stage",),
)
TABLE_BYTES: Final = Metric(
    name="smp_table_bytes",
    kind="gauge",
    says="Size of a table with its indexes and long values.",
    labels=("table",),
)
DEAD_ROWS: Final = Metric(
    name="smp_table_dead_rows",
    kind="gauge",
    says="Rows of a table that vacuum has not removed yet, as PostgreSQL estimates them.",
    labels=("table",),
)
LIVE_ROWS: Final = Metric(
    name="smp_table_live_rows",
    kind="gauge",
    says="Rows of a table that are not dead, as PostgreSQL estimates them.",
    labels=("table",),
)
OLDEST_TRANSACTION: Final = Metric(
    name="smp_oldest_transaction_age_seconds",
    kind="gauge",
    says="How long the oldest transaction of a client is open in this database, or a prepared one; "
    "it holds vacuum back.",
)
SCHEMA_VERSION: Final = Metric(
    name="smp_schema_info",
    kind="gauge",
    says="1; its label says which migration the schema is at.",
    labels=("revision",),
)
READING: Final = Metric(
    name="smp_reading_age_seconds",
    kind="gauge",
    says="How long ago what is served here was read from the database, by part.",
    labels=("part",),
)
"""``part`` is moving (documents on their way and how long they wait), resting (those at rest), or
others (all the rest). What is older than a minute is read anew and not served, of documents at rest
what is older than five.
"""

OF_THE_DATABASE: Final = (
    *(DOCUMENTS, OLDEST_READY, OLDEST_CLAIM, DEAD_LETTERS, WORKERS, SERVING, PROGRESS),
    *(PAUSES, PROVIDER_CLOSED, WITHDRAWALS, TABLE_BYTES, DEAD_ROWS, LIVE_ROWS, OLDEST_TRANSACTION),
    *(SCHEMA_VERSION, READING),
)
