"""The dashboard of Grafana: it imports, and each panel asks for what is counted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from queries import METRICS, metric_of, mistakes

if TYPE_CHECKING:
    from collections.abc import Iterator

GRAFANA = Path(__file__).resolve().parents[2] / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
VARIABLES = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
PROMTOOL = shutil.which("promtool")


def test_the_file_is_current() -> None:
    """The script that writes it is kept, and checked."""
    done = subprocess.run(
        [sys.executable, str(GRAFANA / "dashboard.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_it_is_of_the_form_that_every_grafana_imports() -> None:
    """Classic JSON: panels in a list at the top, with numbers and places of their own."""
    assert {"title", "schemaVersion", "panels", "templating", "time"} <= set(DASHBOARD)
    assert "apiVersion" not in DASHBOARD
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    """Tell whether two panels lie on one another."""
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_its_rows_answer_the_questions_in_their_order() -> None:
    """Are we keeping up, is work failing, what do providers do, who works, how is the database."""
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Are we keeping up?",
        "Is work failing?",
        "Providers and cost",
        "Workers",
        "Database",
    ]


def test_it_names_no_data_source_and_no_uid_of_its_own() -> None:
    """Imported anywhere, as often as one likes."""
    assert DASHBOARD["uid"] is None
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert set(sources(DASHBOARD)) == {"${datasource}"}


def sources(part: Any) -> Iterator[str]:
    """Yield each data source that is named, at any depth."""
    if isinstance(part, dict):
        if isinstance(part.get("datasource"), dict):
            yield part["datasource"]["uid"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from sources(one)


def test_no_panel_is_empty() -> None:
    """Each has a title, a sentence, and lines with names."""
    for panel in PANELS:
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
        assert panel["targets"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_every_metric_label_and_variable_exists() -> None:
    """A panel that asks for what nobody counts would be empty for ever."""
    assert {query: found for query in QUERIES if (found := list(mistakes(query)))} == {}
    for panel in PANELS:
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)", target["expr"]))))
            assert named <= grouped, (panel["title"], target["legendFormat"])
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used <= {*VARIABLES, "__rate_interval", "__all"}


def test_every_metric_is_shown() -> None:
    """What is counted and on no picture is counted for nobody."""
    shown = {
        metric.name
        for query in QUERIES
        for name in re.findall(r"\bsmp_\w+", query)
        if (metric := metric_of(name)) is not None
    }
    assert shown == set(METRICS)


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")
def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    """Parsed by Prometheus itself, with something chosen for each variable."""
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(QUERIES)
    ]
    file = tmp_path / "queries.json"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [str(PROMTOOL), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
