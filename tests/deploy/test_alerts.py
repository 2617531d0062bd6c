"""The rules of Prometheus: each fires when it should and else not, and says what to do then."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from queries import METRICS, metric_of, mistakes
from situations import DUE, FIRES, SILENT_IN

from statemachine_pipeline import Budget

if TYPE_CHECKING:
    from situations import Series

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
RUNBOOKS = ROOT / "docs" / "runbooks"
PARTS = ("## What it means", "## What to look at", "## What to do", "## When it is over")
ALL = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL if "alert" in rule}
HOUR = range(20, 65)

UNTRUE = "a case that is wrong"

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="needs promtool: apt-get install prometheus"
)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    command = [str(PROMTOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def case(name: str, series: Series, expected: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a test as promtool reads it: the rules over these series."""
    given = [{"series": one, "values": values} for one, values in series.items()]
    return {"name": name, "interval": "30s", "input_series": given, "alert_rule_test": expected}


def nothing(alert: str, minute: int) -> dict[str, Any]:
    """Expect that an alert does not fire at that minute."""
    return {"alertname": alert, "eval_time": f"{minute}m", "exp_alerts": []}


def firing(alert: str, why: str) -> dict[str, Any]:
    """Return the case in which an alert fires, and did not before, with the text people see."""
    situation, rule = FIRES[alert][why], ALERTS[alert]
    said = {**rule["annotations"], "summary": situation.summary}
    if situation.description:
        said["description"] = situation.description
    labels = {**rule["labels"], **situation.labels}
    fires = {"exp_labels": labels, "exp_annotations": said}
    expected = [{"alertname": alert, "eval_time": f"{situation.at}m", "exp_alerts": [fires]}]
    if situation.before is not None:
        expected.insert(0, nothing(alert, situation.before))
    return case(f"{alert} fires: {why}", situation.series, expected)


def silent(alert: str, why: str) -> dict[str, Any]:
    """Return the case in which an alert is silent, once the rules know what was before."""
    name = f"{alert} is silent: {why}"
    return case(name, SILENT_IN[alert][why], [nothing(alert, minute) for minute in HOUR])


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Let Prometheus' own engine evaluate the rules; return what it found wrong, by case.

    In one run, and of each alert only its own rule, which is five times as quick.
    """
    if PROMTOOL is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    # It fails, which shows that failures are heard of.
    wrong = case(UNTRUE, {DUE: "0x10"}, [{**nothing("SmpNoWorker", 1), "exp_alerts": [{}]}])
    folder = tmp_path_factory.mktemp("promtool")
    files = [written(folder, "SmpNoWorker", "untrue", [wrong])]
    for alert in ALERTS:
        cases = [
            *(firing(alert, why) for why in FIRES[alert]),
            *(silent(alert, why) for why in SILENT_IN[alert]),
        ]
        files.append(written(folder, alert, alert, cases))
    said = promtool("test", "rules", *files)
    parts = re.split(r"^\s*name: (.+),$", said.stdout + said.stderr, flags=re.MULTILINE)
    found: dict[str, str] = {}
    for name, wrong_there in zip(parts[1::2], parts[2::2], strict=True):
        found[name] = found.get(name, "") + wrong_there
    return found


def written(folder: Path, alert: str, name: str, tests: list[dict[str, Any]]) -> Path:
    """Write the cases of an alert with its rule, as JSON, which is YAML too."""
    recorded = [rule for rule in ALL if "record" in rule and rule["record"] in str(ALERTS[alert])]
    rules = {"groups": [{"name": alert, "rules": [*recorded, ALERTS[alert]]}]}
    (folder / f"{name}.rules.json").write_text(json.dumps(rules))
    file = folder / f"{name}.json"
    names = [f"{name}.rules.json"]
    told = {"rule_files": names, "evaluation_interval": "30s", "tests": tests}
    file.write_text(json.dumps(told))
    return file


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    """`promtool check rules` finds nothing."""
    said = promtool("check", "rules", RULES)
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize(
    ("alert", "why"), [(alert, why) for alert, cases in FIRES.items() for why in cases]
)
def test_an_alert_fires_when_it_should_and_says_what_is_wrong(
    alert: str, why: str, evaluated: dict[str, str]
) -> None:
    """Not before its time, with labels that name the place, and the whole text as people see it."""
    name = firing(alert, why)["name"]
    assert name not in evaluated, evaluated[name]
    assert UNTRUE in evaluated


@pytest.mark.parametrize(
    ("alert", "why"), [(alert, why) for alert, cases in SILENT_IN.items() for why in cases]
)
def test_an_alert_is_silent_when_it_should_be(
    alert: str, why: str, evaluated: dict[str, str]
) -> None:
    """Looked at every minute of most of an hour."""
    name = silent(alert, why)["name"]
    assert name not in evaluated, evaluated[name]
    assert UNTRUE in evaluated


def test_every_alert_has_situations() -> None:
    """For every alert: it fires when it should, and is silent when it should not."""
    assert set(FIRES) == set(SILENT_IN) == set(ALERTS)
    assert all(FIRES.values())
    assert all(SILENT_IN.values())


def test_the_rules_name_only_what_is_counted() -> None:
    """Every metric and label in them exists; a renamed one would silence an alert."""
    found = {rule.get("alert", rule.get("record")): list(mistakes(rule["expr"])) for rule in ALL}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_recorded_series_are_recorded_before_they_are_used() -> None:
    """A name with colons is of a rule further up."""
    recorded: set[str] = set()
    for rule in ALL:
        assert set(re.findall(r"\b\w+:\w+:\w+", rule["expr"])) <= recorded
        recorded |= {rule["record"]} if "record" in rule else set()


def test_what_is_scraped_in_situations_is_counted_too() -> None:
    """A situation with series that do not exist would prove nothing."""
    series = {name for cases in FIRES.values() for one in cases.values() for name in one.series}
    series |= {name for cases in SILENT_IN.values() for one in cases.values() for name in one}
    assert {name: list(mistakes(name)) for name in series if list(mistakes(name))} == {}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(alert: str) -> None:
    """Severity, summary, description, and a page with the four parts of a runbook."""
    rule = ALERTS[alert]
    words = re.sub(r"(?<!^)(?=[A-Z])", "-", alert.removeprefix("Smp")).lower()

    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{words}.md"
    page = (ROOT / rule["annotations"]["runbook_url"]).read_text()
    assert page.startswith(f"# {alert}\n")
    assert [line for line in page.splitlines() if line.startswith("## ")] == list(PARTS)


def test_the_guide_lists_every_alert_with_its_severity() -> None:
    """Whoever sets alerts up reads there who is woken for what."""
    page = (ROOT / "docs" / "how-to" / "set-up-alerts.md").read_text()
    rows = re.findall(
        r"^\| \[(\w+)\]\(\.\./(runbooks/[\w-]+\.md)\) \| (\w+) \|", page, re.MULTILINE
    )
    assert {alert: (f"docs/{path}", severity) for alert, path, severity in rows} == {
        alert: (rule["annotations"]["runbook_url"], rule["labels"]["severity"])
        for alert, rule in ALERTS.items()
    }


def test_no_wait_is_expected_that_ends_before() -> None:
    """'Longest wait within an attempt behind what others took; a longer one gives it back'."""
    _, limit = ALERTS["SmpRateLimitWait"]["expr"].split(">")
    assert float(limit) < Budget().hold.total_seconds()


def test_every_runbook_is_of_an_alert() -> None:
    """A page that nothing leads to would go stale."""
    named = {rule["annotations"]["runbook_url"] for rule in ALERTS.values()}
    assert {str(page.relative_to(ROOT)) for page in RUNBOOKS.glob("*.md")} == named


def test_mistakes_are_found() -> None:
    """The measure itself can fail."""
    assert METRICS
    assert metric_of("smp_claim_seconds") is None  # only its buckets, sum and count are series
    assert metric_of("smp_documents_count") is None
    assert list(mistakes('sum by (stage) (rate(smp_stage_attempts_total{outcome="x"}[5m]))')) == []
    assert list(mistakes("sum by (tenant) (smp_documents)")) == [
        "nothing here has the label tenant"
    ]
    assert list(mistakes('smp_documents{tenant="a"}')) == ["smp_documents has no label tenant"]
    assert list(mistakes("rate(smp_nothing_total[5m])")) == [
        "smp_nothing_total is no series of any metric"
    ]
