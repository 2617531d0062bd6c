"""Write dashboard.json: what is counted, in the order in which questions come up.

``python deploy/grafana/dashboard.py`` writes it; ``--check`` only says whether it is current. The
file imports into every Grafana since 8; it names no data source and no uid of its own.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITTEN = Path(__file__).with_name("dashboard.json")
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, WIDTH, HEIGHT = 24, 8, 8


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: What it shows.
        says: How to read it.
        queries: Of each line what it is called, and where it comes from. ``@`` stands for the
            pipelines chosen, ``#`` for these and the stages.
        unit: As Grafana names it.
        kind: As Grafana names it.
    """

    title: str
    says: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"


def quantile(share: float, histogram: str, by: str, chosen: str = "#") -> str:
    """Return the query of a quantile over a histogram."""
    labels = ", ".join(filter(None, (by, "le")))
    rate = f"sum by ({labels}) (rate({histogram}_bucket{{{chosen}}}[$__rate_interval]))"
    return f"histogram_quantile({share}, {rate})"


KEEPING_UP = (
    Panel(
        "First in line is due since",
        "Of each stage; what stands behind it waits longer. Nothing is drawn where nothing is due.",
        {"{{stage}}": "max by (stage) (smp_oldest_ready_age_seconds{#})"},
        "s",
    ),
    Panel(
        "Documents on their way",
        "By state. A state that only grows is served too slowly, or by nobody.",
        {"{{state}}": 'sum by (state) (smp_documents{@, lane!=""})'},
    ),
    Panel(
        "By lane",
        "Ready may be claimed now, deferred later, claimed is in hand; held waits for a person.",
        {"{{lane}}": 'sum by (lane) (smp_documents{@, lane!=""})'},
    ),
    Panel(
        "Documents that came to rest",
        "A second, by the state in which they rest.",
        {"{{state}}": "sum by (state) (rate(smp_documents_ended_total{@}[$__rate_interval]))"},
        "ops",
    ),
    Panel(
        "Wait for a first attempt",
        "95 of 100 waited at most so long at the stage.",
        {"{{stage}}": quantile(0.95, "smp_stage_wait_seconds", "stage")},
        "s",
    ),
    Panel(
        "Run of a hook",
        "95 of 100 attempts ran at most so long.",
        {"{{stage}}": quantile(0.95, "smp_stage_run_seconds", "stage")},
        "s",
    ),
    Panel(
        "Last progress",
        "How long ago any worker brought a document on.",
        {"ago": "min(smp_last_progress_age_seconds{@})"},
        "s",
        "stat",
    ),
    Panel(
        "Longest attempt under way",
        "Beyond the deadline of its stage it is stopped.",
        {"{{stage}}": "max by (stage) (smp_oldest_claim_age_seconds{#})"},
        "s",
    ),
    Panel(
        "At rest",
        "All there are, by the state in which they rest.",
        {"{{state}}": 'sum by (state) (smp_documents{@, lane=""})'},
        kind="bargauge",
    ),
)

FAILING = (
    Panel(
        "Attempts",
        "A second, by what came of them. Postponed ones were given back and cost nothing.",
        {"{{outcome}}": "sum by (outcome) (rate(smp_stage_attempts_total{#}[$__rate_interval]))"},
        "ops",
    ),
    Panel(
        "Share that fails",
        "Of the attempts at a stage that were not given back.",
        {
            "{{stage}}": "sum by (stage) (rate(smp_stage_attempts_total"
            '{#, outcome=~"failed|crashed"}[$__rate_interval]))'
            " / sum by (stage) (rate(smp_stage_attempts_total"
            '{#, outcome!="postponed"}[$__rate_interval]))'
        },
        "percentunit",
    ),
    Panel(
        "Why they fail",
        "A second, by stage and code.",
        {
            "{{stage}} {{code}}": "sum by (stage, code) (rate(smp_stage_attempts_total"
            '{#, outcome!="succeeded"}[$__rate_interval]))'
        },
        "ops",
    ),
    Panel(
        "Dead letters",
        "Documents that failed for good and wait for a person.",
        {"{{stage}} {{code}}": "sum by (stage, code) (smp_dead_letters{#})"},
    ),
    Panel(
        "Crashes",
        "In five minutes: attempts whose process died, and claims taken over by others.",
        {
            "{{stage}} {{code}}": "sum by (stage, code) (increase(smp_stage_attempts_total"
            '{#, outcome="crashed"}[5m]))',
            "claims rescued": "sum(increase(smp_claims_rescued_total{@}[5m]))",
        },
    ),
    Panel(
        "Writes refused",
        "In five minutes: a worker came back after others had taken over. Nothing was written.",
        {"{{stage}}": "sum by (stage) (increase(smp_stale_writes_refused_total{#}[5m]))"},
    ),
    Panel(
        "Pauses",
        "In force; those by fault were made by the pipeline itself.",
        {"{{stage}} by fault: {{fault}}": "sum by (stage, fault) (smp_pauses{@})"},
    ),
)

PROVIDERS = (
    Panel(
        "Not asked",
        "1 while the breaker of a provider is open for the whole fleet.",
        {"{{provider}}": "max by (provider) (smp_provider_unavailable{@})"},
    ),
    Panel(
        "Breakers as workers see them",
        "How many workers take a provider's breaker to be open or half open.",
        {
            "{{provider}} {{state}}": "sum by (provider, state) (smp_breaker_state"
            '{@, state!="closed"})'
        },
    ),
    Panel(
        "Requests",
        "A second, by what came of them; refused ones were not sent.",
        {
            "{{provider}} {{outcome}}": "sum by (provider, outcome) "
            "(rate(smp_provider_requests_total{@}[$__rate_interval]))"
        },
        "ops",
    ),
    Panel(
        "Answers take",
        "95 of 100 took at most so long.",
        {"{{provider}}": quantile(0.95, "smp_provider_request_seconds", "provider", "@")},
        "s",
    ),
    Panel(
        "Tokens in an hour",
        "Times the provider's price it is what an hour costs.",
        {"{{provider}}": "sum by (provider) (increase(smp_provider_tokens_total{@}[1h]))"},
    ),
    Panel(
        "Wait for the budget",
        "95 of 100 requests waited at most so long for their part of it.",
        {"{{provider}}": quantile(0.95, "smp_budget_wait_seconds", "provider", "@")},
        "s",
    ),
    Panel(
        "Fill of requests",
        "Half of them use at least this share of their limit.",
        {"{{stage}}": quantile(0.5, "smp_batch_fill_ratio", "stage")},
        "percentunit",
    ),
    Panel(
        "Texts embedded",
        "A second.",
        {"{{stage}}": "sum by (stage) (rate(smp_batch_texts_total{#}[$__rate_interval]))"},
        "ops",
    ),
    Panel(
        "Withdrawals",
        "Documents that still have to go from a publisher's own store, and tries that failed.",
        {
            "{{stage}} waiting": "sum by (stage) (smp_withdrawals_waiting{#})",
            "{{stage}} failed in 5 min": "sum by (stage) "
            "(increase(smp_withdrawals_failed_total{#}[5m]))",
        },
    ),
)

WORKERS = (
    Panel(
        "Workers",
        "Silent ones have missed two beats, and are taken for dead after a minute by default.",
        {"{{status}}": "sum by (status) (smp_workers{@})"},
    ),
    Panel(
        "Workers at a stage",
        "How many live that take what is due there. At none what comes to the stage piles up.",
        {"{{stage}}": "max by (stage) (smp_stage_workers{#})"},
    ),
    Panel(
        "Slots in use",
        "At 100 % more workers help, or a higher concurrency; below it the limit is elsewhere.",
        {
            "{{stage}}": "sum by (stage) (smp_stage_slots_busy{#}) "
            "/ sum by (stage) (smp_stage_slots{#})"
        },
        "percentunit",
    ),
    Panel(
        "Claims",
        "Documents a second, by stage, and claims that found nothing.",
        {
            "{{stage}}": "sum by (stage) (rate(smp_documents_claimed_total{#}[$__rate_interval]))",
            "found nothing": "sum(rate(smp_empty_claims_total{@}[$__rate_interval]))",
        },
        "ops",
    ),
    Panel(
        "Last beat",
        "How long ago each worker reached the database, by its own clock.",
        {"{{instance}}": "time() - max by (instance) (smp_heartbeat_timestamp_seconds{@})"},
        "s",
    ),
    Panel(
        "Event loop is late by",
        "99 of 100 times at most so much; a hook that blocks the loop makes it late.",
        {"{{instance}}": quantile(0.99, "smp_event_loop_lag_seconds", "instance", "@")},
        "s",
    ),
    Panel(
        "Versions",
        "How many processes run which program.",
        {"{{version}} on Python {{python}}": "count by (version, python) (smp_build_info{@})"},
        kind="bargauge",
    ),
)

DATABASE = (
    Panel(
        "Answers take",
        "95 of 100 claims and settles took at most so long.",
        {
            "claim": quantile(0.95, "smp_claim_seconds", "", "@"),
            "settle": quantile(0.95, "smp_settle_seconds", "", "@"),
        },
        "s",
    ),
    Panel(
        "Times without an answer",
        "In five minutes, over all workers.",
        {"errors": "sum(increase(smp_database_errors_total{@}[5m]))"},
    ),
    Panel(
        "Oldest transaction",
        "Until it ends, vacuum removes nothing that died since.",
        {"open since": "max(smp_oldest_transaction_age_seconds{@})"},
        "s",
    ),
    Panel(
        "Size of tables",
        "With their indexes and long values.",
        {"{{table}}": "max by (table) (smp_table_bytes{@})"},
        "bytes",
    ),
    Panel(
        "Dead rows",
        "Share of each table that vacuum has not removed yet.",
        {
            "{{table}}": "max by (table) (smp_table_dead_rows{@} "
            "/ (smp_table_dead_rows{@} + smp_table_live_rows{@} > 0))"
        },
        "percentunit",
    ),
    Panel(
        "Age of what the exporter serves",
        "It is read anew before a minute is over, documents at rest before five are.",
        {"{{part}}": "max by (part) (smp_reading_age_seconds{@})"},
        "s",
    ),
    Panel(
        "Migration of the schema",
        "More than one at a time means that these are not one pipeline.",
        {"{{revision}}": "count by (revision) (smp_schema_info{@})"},
        kind="bargauge",
    ),
)

ROWS = {
    "Are we keeping up?": KEEPING_UP,
    "Is work failing?": FAILING,
    "Providers and cost": PROVIDERS,
    "Workers": WORKERS,
    "Database": DATABASE,
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    return {
        "annotations": {"list": [_alerts()]},
        "editable": True,
        "graphTooltip": 1,
        "panels": [{**panel, "id": number} for number, panel in enumerate(_panels(), 1)],
        "refresh": "30s",
        "schemaVersion": 36,
        "tags": ["statemachine-pipeline"],
        "templating": {"list": [_source(), _variable("pipeline"), _variable("stage")]},
        "time": {"from": "now-6h", "to": "now"},
        "title": "statemachine_pipeline",
        "uid": None,
    }


def _panels() -> Iterator[dict[str, Any]]:
    top = 0
    for title, panels in ROWS.items():
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        yield {"type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        top += 1
        for number, panel in enumerate(panels):
            line, column = divmod(number, COLUMNS // WIDTH)
            place = {"x": column * WIDTH, "y": top + line * HEIGHT, "w": WIDTH, "h": HEIGHT}
            yield _panel(panel, place)
        top += -(-len(panels) // (COLUMNS // WIDTH)) * HEIGHT


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": chosen(query),
                "legendFormat": name,
            }
            for number, (name, query) in enumerate(panel.queries.items())
        ],
    }


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}


def chosen(query: str) -> str:
    """Return a query for what is chosen at the top of the dashboard."""
    pipelines = 'pipeline=~"$pipeline"'
    return query.replace("#", f'{pipelines}, stage=~"$stage"').replace("@", pipelines)


def _source() -> dict[str, Any]:
    named = {"name": "datasource", "label": "Data source"}
    return {**named, "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(label: str) -> dict[str, Any]:
    """Return a choice among the values of a label; all of them, and those without it, at first."""
    query = (
        f"label_values({'smp_schema_info' if label == 'pipeline' else 'smp_stage_slots'}, {label})"
    )
    return {
        "name": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": label},
        "definition": query,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
    }


def _alerts() -> dict[str, Any]:
    """Return the marks of what fired when."""
    return {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Smp.+", alertstate="firing"}',
        "titleFormat": "{{alertname}} {{stage}}{{provider}}{{instance}}",
    }


def main() -> int:
    """Write the file, or say that it is not current."""
    wanted = json.dumps(dashboard(), indent=1) + "\n"
    if sys.argv[1:] == ["--check"]:
        current = WRITTEN.exists() and WRITTEN.read_text() == wanted
        if not current:
            print(f"{WRITTEN.name} is not current: run {Path(__file__).name}", file=sys.stderr)
        return int(not current)
    WRITTEN.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
