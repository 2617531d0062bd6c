"""What the pages about production tell somebody to run, and what they show of other systems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from commands import commands, mistaken
from pages import blocks

if TYPE_CHECKING:
    from pages import Block

DOCS = Path(__file__).resolve().parents[2] / "docs"
PRODUCTION = DOCS / "how-to" / "run-in-production.md"
PAGES = [
    *sorted((DOCS / "runbooks").glob("*.md")),
    PRODUCTION,
    DOCS / "how-to" / "set-up-alerts.md",
]


def shown(page: Path, language: str) -> list[Block]:
    """Return the blocks of a page in one language."""
    return [block for block in blocks(page) if block.language == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_the_page_exists(page: Path) -> None:
    """Somebody who was woken up copies it."""
    found = {" ".join(words): mistaken(words) for words in commands(page.read_text())}
    assert {command: wrong for command, wrong in found.items() if wrong} == {}


def test_mistaken_commands_are_found() -> None:
    """The measure itself can fail."""
    assert mistaken(["--app", "a:b", "status", "--json"]) is None
    assert mistaken(["stauts"]) == "no verb: stauts"
    assert mistaken(["status", "--jsno"]) == "status has no --jsno"
    assert list(commands("$ statemachine-pipeline show ID | less\nthe statemachine-pipeline.")) == [
        ["show", "ID"]
    ]


def test_manifests_of_kubernetes_say_what_the_image_does() -> None:
    """Probes ask the port that is served; the grace is longer than the drain."""
    found = [one for block in shown(PRODUCTION, "yaml") for one in yaml.safe_load_all(block.body)]
    (deployment,) = [one for one in found if one.get("kind") == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    arguments = container["args"]

    assert mistaken(arguments) is None
    port = int(arguments[arguments.index("--probe-port") + 1])
    drain = int(arguments[arguments.index("--drain") + 1])
    assert spec["terminationGracePeriodSeconds"] >= drain + 15
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port
    # A worker that waits for its database has not begun, and a restart would not help it.
    assert container["startupProbe"]["httpGet"]["path"] == "/livez"
    (scaled,) = [one for one in found if one.get("kind") == "ScaledObject"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["query"].split() == shown(PRODUCTION, "sql")[0].body.split()
