"""What ``doctor`` makes of servers and clocks that no test has at hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from statemachine_pipeline.database.checks import edges, functions, triggers
from statemachine_pipeline.oversight.checks.catalogue import CHECKS
from statemachine_pipeline.oversight.checks.server import (
    disk_verdict,
    durability_verdict,
    skew_verdict,
    version_verdict,
)

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
AT_ONCE = NOON + timedelta(milliseconds=5)


@pytest.mark.parametrize(
    ("number", "version", "vector", "status", "fix"),
    [
        (140_012, "14.12", "0.8.0", "fail", "upgrade the server"),
        (150_000, "15.0", "0.8.0", "ok", None),
        (160_003, "16.3", None, "fail", "as a superuser: CREATE EXTENSION vector"),
        (160_003, "16.3", "0.7.4", "warn", "ALTER EXTENSION vector UPDATE"),
        (180_004, "18.4", "0.10.0", "ok", None),
        (180_004, "18.4", "1.0", "ok", None),
        (190_000, "19.0", "0.8.0", "warn", "newer release"),
    ],
)
def test_versions(number: int, version: str, vector: str | None, status: str, fix: str) -> None:
    """PostgreSQL 15 to 18 with pgvector 0.8 or later."""
    verdict = version_verdict(number, version, vector)
    assert (verdict.status, (verdict.fix or "").count(fix or "") > 0) == (status, True)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (NOON, None),
        (NOON - timedelta(seconds=1), None),
        (AT_ONCE + timedelta(seconds=1), None),
        (AT_ONCE + timedelta(seconds=90), "90.0 s ahead of"),
        (NOON - timedelta(hours=1), "3,600.0 s behind"),
    ],
)
def test_clocks(told: datetime, said: str | None) -> None:
    """A server's clock two seconds off is told of; what a round trip takes is no skew."""
    verdict = skew_verdict(NOON, told, AT_ONCE)
    assert verdict.status == ("warn" if said else "ok")
    assert (said or "") in verdict.message


@pytest.mark.parametrize(
    ("fsync", "pages", "commit", "status"),
    [
        ("on", "on", "on", "ok"),
        ("on", "on", "remote_apply", "ok"),
        ("on", "on", "off", "warn"),
        ("on", "off", "on", "fail"),
        ("off", "on", "off", "fail"),
    ],
)
def test_durability(fsync: str, pages: str, commit: str, status: str) -> None:
    """Fails where a crash may destroy the database, warns where it loses the last commits."""
    found = {"fsync": fsync, "full_page_writes": pages, "synchronous_commit": commit}
    assert durability_verdict(found).status == status


@pytest.mark.parametrize(
    ("free", "total", "status"),
    [(5e9, 50e9, "ok"), (0.9e9, 2e9, "warn"), (5e9, 200e9, "warn")],
)
def test_disks(free: float, total: float, status: str) -> None:
    """Below 1 GB or 5 % is little."""
    assert disk_verdict(Path("/data"), {"free": int(free), "total": int(total)}).status == status


def test_every_check_says_what_it_looks_for_and_leads_to_a_page() -> None:
    """Each is one small function whose docstring is its entry in the reference."""
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        about = str(check.look.__doc__)
        assert any(word in about for word in ("Warns", "Fails")), check.id
        assert (ROOT / check.docs).is_file(), check.docs


def test_what_guards_history_is_read_from_what_makes_it() -> None:
    """So that none is left out when one is added."""
    assert len(triggers()) == 8
    assert ("transition", "history_is_not_changed") in triggers()
    assert set(functions("smp")) == {
        *("refuse_change", "refuse_delete_of_kept_history", "refuse_delete_of_part_of_history"),
        *("refuse_history_left_behind", "refuse_history_ahead"),
    }
    printed = "CHECK ((x = ANY (ARRAY['>submit>uploaded'::text, 'a>go>b'::text])))"
    assert edges(printed) == {">submit>uploaded", "a>go>b"}
