"""What Prometheus may have scraped, and which alert that is: situations in which it fires.

And those in which it must not. Values are written as promtool reads them, one for each half
minute: ``0+30x20`` begins at 0 and grows by 30, 20 times; ``_`` is a scrape without the series.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

Series: TypeAlias = Mapping[str, str]

DUE = 'smp_oldest_ready_age_seconds{stage="finish_parse"}'
PROGRESS = "smp_last_progress_age_seconds"
WORKING, SILENT = 'smp_workers{status="working"}', 'smp_workers{status="silent"}'
SERVING = 'smp_stage_workers{stage="finish_parse"}'
ELSEWHERE = 'smp_stage_workers{stage="store_embeddings"}'
SCHEMA = 'smp_schema_info{revision="0001"}'
BUILD = 'smp_build_info{instance="a",version="1.0",python="3.13"}'
LETTERS = 'smp_dead_letters{stage="finish_parse",code="refused"}'
DOWN = 'smp_provider_unavailable{provider="embeddings"}'
FAULT = 'smp_pauses{stage="finish_parse",fault="true"}'
BY_HAND = 'smp_pauses{stage="finish_parse",fault="false"}'
RESCUED = 'smp_claims_rescued_total{instance="a"}'
BEAT = 'smp_heartbeat_timestamp_seconds{instance="a"}'
WITHDRAWALS = 'smp_withdrawals_waiting{stage="finalize"}'
TRANSACTION = "smp_oldest_transaction_age_seconds"
MOVING = 'smp_reading_age_seconds{part="moving"}'
RESTING = 'smp_reading_age_seconds{part="resting"}'
DEAD, LIVE = 'smp_table_dead_rows{table="work"}', 'smp_table_live_rows{table="work"}'


def labelled(series: str) -> str:
    """Return a series of a target that says of which pipeline it is."""
    return series.replace("{", '{pipeline="documents",')


def attempts(outcome: str, code: str = "") -> str:
    """Return the series of attempts with one outcome."""
    labels = f'instance="a",stage="finish_parse",outcome="{outcome}",code="{code}"'
    return f"smp_stage_attempts_total{{{labels}}}"


def buckets(name: str, label: str, quick: str, slow: str, bounds: tuple[str, str]) -> Series:
    """Return a histogram of which so many are below the first bound, and all below the second."""
    return {
        f'{name}_bucket{{{label},le="{bounds[0]}"}}': quick,
        f'{name}_bucket{{{label},le="{bounds[1]}"}}': slow,
        f'{name}_bucket{{{label},le="+Inf"}}': slow,
    }


def every_five_minutes(times: int) -> str:
    """Return the values of what grows by one so often, so many times."""
    return " ".join(f"{number}x9" for number in range(times + 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Firing:
    """A situation that somebody is told of.

    Attributes:
        series: What was scraped.
        at: Minute at which the alert fires.
        before: Minute at which it does not fire yet; None when there is none.
        labels: Of the alert, without its severity.
        summary: What is said.
        description: The same at more length, where that holds a number.
    """

    series: Series
    at: int
    before: int | None
    labels: Mapping[str, str]
    summary: str
    description: str = ""


STAGE = {"stage": "finish_parse"}
EMBEDDINGS = {"provider": "embeddings"}

FIRES: Mapping[str, Mapping[str, Firing]] = {
    "SmpDocumentsOverdue": {
        "nobody takes it": Firing(
            series={DUE: "0+30x40"},
            at=13,
            before=11,
            labels=STAGE,
            summary="The next document for finish_parse is due since 13m 0s.",
        )
    },
    "SmpNoWorker": {
        "all fell silent": Firing(
            series={DUE: "0+30x20", SERVING: "0x20", SILENT: "1x20"},
            at=5,
            before=3,
            labels=STAGE,
            summary="Work is due at finish_parse since 5m 0s, and no worker lives that takes any.",
        ),
        "those that live serve another stage": Firing(
            series={DUE: "0+30x20", SERVING: "0x20", ELSEWHERE: "3x20", WORKING: "3x20"},
            at=5,
            before=3,
            labels=STAGE,
            summary="Work is due at finish_parse since 5m 0s, and no worker lives that takes any.",
        ),
    },
    "SmpNothingProgressed": {
        "deployed and alive, it never did a thing": Firing(
            series={DUE: "0+30x40", WORKING: "2x40"},
            at=8,
            before=7,
            labels={},
            summary="Work is due since 8m 0s, and for ten minutes nothing came on.",
        ),
        "it stopped": Firing(
            series={DUE: "0+30x40", WORKING: "2x40", PROGRESS: "0+30x40"},
            at=13,
            before=12,
            labels={},
            summary="Work is due since 13m 0s, and for ten minutes nothing came on.",
        ),
    },
    "SmpExporterAbsent": {
        "workers are scraped, and it is not": Firing(
            series={BUILD: "1x60", SCHEMA: "1x10 _x50"},
            at=16,
            before=11,
            labels={},
            summary="Nothing is known of what waits, so no alert about it can fire.",
        ),
        "its workers say of which pipeline it is": Firing(
            series={labelled(BUILD): "1x60", labelled(SCHEMA): "1x10 _x50"},
            at=16,
            before=11,
            labels={"pipeline": "documents"},
            summary="Nothing is known of what waits, so no alert about it can fire.",
        ),
        "nothing is scraped at all": Firing(
            series={labelled(SCHEMA): "1x10 _x50"},
            at=16,
            before=11,
            labels={},
            summary="Nothing is known of what waits, so no alert about it can fire.",
        ),
    },
    "SmpReadingOld": {
        "each reading takes ten seconds": Firing(
            series={MOVING: " ".join(["11 41 20 50 28 58 36 15 45 24 54"] * 6)},
            at=15,
            before=11,
            labels={"part": "moving"},
            summary="What the exporter serves (moving) was 58s old.",
        )
    },
    "SmpDocumentCrashes": {
        "for the first time": Firing(
            series={attempts("crashed", "child_crashed"): "_x19 1x10"},
            at=10,
            before=9,
            labels={**STAGE, "code": "child_crashed"},
            summary="A process died in the middle of finish_parse (child_crashed).",
        ),
        "once more": Firing(
            series={attempts("crashed", "child_crashed"): "1x70 2x40"},
            at=45,
            before=34,
            labels={**STAGE, "code": "child_crashed"},
            summary="A process died in the middle of finish_parse (child_crashed).",
        ),
    },
    "SmpDeadLettersGrowing": {
        "many at once": Firing(
            series={SCHEMA: "1x200", LETTERS: "_x100 12x100"},
            at=51,
            before=49,
            labels={},
            summary="12 documents failed for good within an hour.",
        ),
        "one after another": Firing(
            series={SCHEMA: "1x200", LETTERS: every_five_minutes(20)},
            at=70,
            before=50,
            labels={},
            summary="12 documents failed for good within an hour.",
        ),
    },
    "SmpStageFailing": {
        "a fifth fails": Firing(
            series={attempts("succeeded"): "0+8x60", attempts("failed", "timeout"): "0+2x60"},
            at=10,
            before=4,
            labels=STAGE,
            summary="20% of the attempts at finish_parse fail.",
        ),
        "most of the few there are": Firing(
            series={attempts("succeeded"): "0x20 3x40", attempts("failed", "timeout"): "0x20 5x40"},
            at=17,
            before=14,
            labels=STAGE,
            summary="62.5% of the attempts at finish_parse fail.",
        ),
    },
    "SmpRetryStorm": {
        "three of four fail": Firing(
            series={attempts("succeeded"): "0+1x80", attempts("failed", "timeout"): "0+3x80"},
            at=20,
            before=9,
            labels=STAGE,
            summary="More than three attempts are made at finish_parse for each that succeeds.",
            description="120 attempts in a quarter of an hour; most are work for nothing, which a "
            "service may charge.",
        )
    },
    "SmpStagePausedByFault": {
        "paused for five minutes, tried once, and paused again": Firing(
            series={FAULT: "1x3 _ 1x9"},
            at=2,
            before=0,
            labels=STAGE,
            summary="The pipeline has paused finish_parse, as every document would fail there.",
        )
    },
    "SmpWithdrawalsWaiting": {
        "they are not done": Firing(
            series={WITHDRAWALS: "3x200"},
            at=61,
            before=59,
            labels={"stage": "finalize"},
            summary="3 documents are still in the store of finalize, and should be gone.",
        )
    },
    "SmpProviderUnavailable": {
        "its breaker stays open": Firing(
            series={DOWN: "0x4 1x30"},
            at=8,
            before=7,
            labels=EMBEDDINGS,
            summary="The provider embeddings is down for more than five minutes.",
        )
    },
    "SmpRateLimitWait": {
        "each is held for almost as long as it may be": Firing(
            series=buckets(
                "smp_budget_wait_seconds",
                'provider="embeddings"',
                "0x60",
                "0+5x60",
                ("5.0", "10.0"),
            ),
            at=20,
            before=9,
            labels=EMBEDDINGS,
            summary="One in twenty requests to embeddings waits 9.75s for its budget.",
        )
    },
    "SmpWorkerLost": {
        "silent for less than a minute, then declared dead": Firing(
            series={SILENT: "0x4 1 0x60", WORKING: "2x4 1x61"},
            at=10,
            before=2,
            labels={},
            summary="Within ten minutes a worker fell silent without a word (1 at a time).",
        )
    },
    "SmpClaimsRescued": {
        "many": Firing(
            series={RESCUED: "0+1x100"},
            at=20,
            before=14,
            labels={},
            summary="For a quarter of an hour claims are taken over, 20 in ten minutes.",
        ),
        "one after another": Firing(
            series={RESCUED: every_five_minutes(12)},
            at=40,
            before=10,
            labels={},
            summary="For a quarter of an hour claims are taken over, 2 in ten minutes.",
        ),
    },
    "SmpHeartbeatOld": {
        "it beats no more": Firing(
            series={BEAT: "0+30x10 300x40"},
            at=8,
            before=7,
            labels={"instance": "a"},
            summary="The worker a answers here, and last reached its database 3m 0s ago.",
        )
    },
    "SmpEventLoopLag": {
        "each turn is late": Firing(
            series=buckets(
                "smp_event_loop_lag_seconds", 'instance="a"', "0x60", "0+10x60", ("1.0", "2.5")
            ),
            at=10,
            before=4,
            labels={"instance": "a"},
            summary="The event loop of a is late by 2.485s.",
        )
    },
    "SmpVersionsDiffer": {
        "two programs": Firing(
            series={BUILD: "1x100", BUILD.replace("1.0", "1.1").replace('"a"', '"b"'): "1x100"},
            at=31,
            before=29,
            labels={},
            summary="2 versions of the program or of its schema are in use at the same time.",
        ),
        "two schemas": Firing(
            series={SCHEMA: "1x100", SCHEMA.replace("0001", "0002"): "1x100"},
            at=31,
            before=29,
            labels={},
            summary="2 versions of the program or of its schema are in use at the same time.",
        ),
    },
    "SmpOldTransaction": {
        "it does not end": Firing(
            series={TRANSACTION: "0+30x60"},
            at=18,
            before=16,
            labels={},
            summary="A transaction is open since 18m 0s.",
        )
    },
    "SmpTableBloat": {
        "most of it is dead": Firing(
            series={DEAD: "30000x100", LIVE: "20000x100"},
            at=31,
            before=29,
            labels={"table": "work"},
            summary="60% of the rows in work are dead.",
        )
    },
}
"""Of each alert, what it must be heard in, by why."""

SILENT_IN: Mapping[str, Mapping[str, Series]] = {
    "SmpDocumentsOverdue": {
        "each is taken within minutes": {DUE: " ".join(["0+30x10"] * 12)},
        "nothing is due": {WORKING: "1x130"},
    },
    "SmpNoWorker": {
        "nothing is due": {SERVING: "0x130"},
        "one of many lives": {DUE: "0+30x130", SERVING: "1x130", SILENT: "3x130"},
    },
    "SmpNothingProgressed": {
        "others were brought on": {DUE: "0+30x130", PROGRESS: "10x130"},
        "there was nothing to do": {PROGRESS: "0+30x130"},
    },
    "SmpExporterAbsent": {
        "it is scraped": {SCHEMA: "1x130", BUILD: "1x130"},
        "it was restarted": {SCHEMA: "1x50 _x4 1x80", BUILD: "1x130"},
    },
    "SmpReadingOld": {
        "it reads every forty seconds": {MOVING: " ".join(["2 32 22 12 42"] * 27)},
        "a lock held it up once": {MOVING: "5x60 35 58 _ 5x70"},
        "those at rest are counted seldom": {RESTING: " ".join(["0+30x6"] * 20)},
    },
    "SmpDocumentCrashes": {
        "the last was long ago": {attempts("crashed", "child_crashed"): "5x130"},
        "attempts fail otherwise": {attempts("failed", "timeout"): "0+5x130"},
    },
    "SmpDeadLettersGrowing": {
        "a few in the hour": {SCHEMA: "1x200", LETTERS: "_x20 8x180"},
        "many that were there before": {SCHEMA: "1x200", LETTERS: "5000x200"},
        "they get fewer": {SCHEMA: "1x200", LETTERS: "500-2x200"},
    },
    "SmpStageFailing": {
        "two failed": {attempts("succeeded"): "0x50 5x80", attempts("failed", "x"): "0x50 2x80"},
        "few fail": {
            attempts("succeeded"): "0+19x130",
            attempts("failed", "timeout"): "0+1x130",
        },
        "one of two failed": {attempts("succeeded"): "1x130", attempts("failed", "x"): "_x20 1x80"},
        "they wait, and nothing fails": {
            attempts("succeeded"): "0+1x130",
            attempts("postponed", "rate_limited"): "0+9x130",
        },
    },
    "SmpRetryStorm": {
        "few are tried at all": {attempts("failed", "timeout"): "0x50 20x80"},
        "half of them succeed": {
            attempts("succeeded"): "0+2x130",
            attempts("failed", "timeout"): "0+2x130",
        },
        "they are asked again later": {
            attempts("succeeded"): "0+1x130",
            attempts("postponed", "waiting"): "0+20x130",
        },
    },
    "SmpStagePausedByFault": {
        "a person paused it": {BY_HAND: "1x130"},
        "it was a moment": {FAULT: "_x49 1 _x80"},
    },
    "SmpWithdrawalsWaiting": {
        "they are done by and by": {WITHDRAWALS: "3x70 0x4 3x60"},
    },
    "SmpProviderUnavailable": {
        "it answers again soon": {DOWN: "0x50 1x5 0x80"},
    },
    "SmpRateLimitWait": {
        "all are let through": buckets(
            "smp_budget_wait_seconds",
            'provider="embeddings"',
            "0+5x130",
            "0+5x130",
            ("5.0", "10.0"),
        ),
    },
    "SmpWorkerLost": {
        "it drained": {WORKING: "2x10 1x50", SILENT: "0x130"},
        "it was long ago": {SILENT: "1x10 0x130"},
    },
    "SmpClaimsRescued": {
        "one worker died": {RESCUED: "0x4 8x130"},
        "nobody died": {RESCUED: "0x130"},
    },
    "SmpHeartbeatOld": {
        "it beats": {BEAT: "0+30x130"},
    },
    "SmpEventLoopLag": {
        "it is quick": buckets(
            "smp_event_loop_lag_seconds", 'instance="a"', "0+10x130", "0+10x130", ("1.0", "2.5")
        ),
    },
    "SmpVersionsDiffer": {
        "many of one version": {
            BUILD: "1x130",
            BUILD.replace('"a"', '"b"'): "1x130",
            BUILD.replace('"a"', '"c"').replace("3.13", "3.12"): "1x130",
            SCHEMA: "1x130",
        },
        "an upgrade that ends": {
            BUILD: "1x40 _x130",
            BUILD.replace("1.0", "1.1").replace('"a"', '"b"'): "_x20 1x80",
        },
    },
    "SmpOldTransaction": {
        "each ends": {TRANSACTION: " ".join(["0+30x25"] * 5)},
    },
    "SmpTableBloat": {
        "it is a few thousand rows": {DEAD: "6000x130", LIVE: "100x130"},
        "vacuum keeps up": {DEAD: "30000x130", LIVE: "100000x130"},
        "the table is small": {DEAD: "900x130", LIVE: "10x130"},
    },
}
"""Of each alert, what it must be silent in for most of an hour, by why."""
