"""What every verb prints with ``--json`` is what docs/reference/json.md says, field by field."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import typer.main
from typer.testing import CliRunner

from statemachine_pipeline.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
ROW = re.compile(r"^\| `(?P<name>[^`]+)` \| (?P<kind>[^|]+) \|", re.MULTILINE)
SETTINGS = ("SMP_DATABASE", "SMP_APP", "SMP_SCHEMA", "SMP_BLOBS", "DATABASE_URL")
SILENT = {"worker", "exporter"}
PATIENT = "60s"

Fields = dict[str, str]


def _unlinked(text: str) -> str:
    return re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)


def _sections() -> dict[str, Fields]:
    """Return the fields of each verb and object on the page, with their types."""
    found: dict[str, Fields] = {}
    same: dict[str, str] = {}
    for section in re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        name, _, body = section.partition("\n")
        body = _unlinked(body)
        found[name] = {row["name"]: row["kind"].strip() for row in ROW.finditer(body)}
        if named := re.search(r"Fields are those of (\w+)\.", body):
            same[name] = named[1]
    return found | {verb: found[record] for verb, record in same.items()}


SECTIONS = _sections()


def _is_time(value: Any) -> bool:
    return datetime.fromisoformat(value).tzinfo is not None


CHECKS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "id": lambda value: str(UUID(value)) == value,
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in (int, float),
    "boolean": lambda value: type(value) is bool,
    "time": _is_time,
    "anything": lambda _: True,
    "object": lambda value: isinstance(value, dict),
}


def agrees(value: Any, kind: str) -> bool:
    """Tell whether a value is of a type as the page names them."""
    if kind.endswith(" or null"):
        return value is None or agrees(value, kind.removesuffix(" or null"))
    if kind.startswith("list of "):
        return isinstance(value, list) and all(agrees(one, kind[8:]) for one in value)
    if kind.startswith("map of "):
        return isinstance(value, dict) and all(
            agrees(one, kind[7:].strip("()")) for one in value.values()
        )
    if kind in CHECKS:
        return CHECKS[kind](value)
    assert kind in SECTIONS, f"the page has no {kind}"
    return conforms(value, kind)


def conforms(record: dict[str, Any], section: str) -> bool:
    """Tell whether an object has exactly the fields of a section."""
    fields = SECTIONS[section]
    assert record.keys() == fields.keys(), section
    for name, kind in fields.items():
        assert agrees(record[name], kind), f"{section}.{name} is {record[name]!r}, not {kind}"
    return True


ODD = """
from statemachine_pipeline import Lifecycle, State

class Odd(Lifecycle):
    a = State(initial=True)
    b = State()
    z = State(final=True)
    go = a.to(z)
    detour = a.to(b)
    back = b.to(z)
"""
WORKER = """
INSERT INTO smp.worker (host, pid, version, serves) VALUES ('a', 1, '1', '{"finalize": null}')
"""
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_every_verb_has_documented_fields_and_the_option() -> None:
    """'a test that fails when a verb has no documented fields'."""
    for name, verb in VERBS.items():
        options = {option for parameter in verb.params for option in parameter.opts}
        assert ("--json" in options) is (name not in SILENT), name
        assert name in SILENT or SECTIONS.get(name), f"{name} has no fields on the page"


def test_every_verb_that_changes_many_documents_has_a_dry_run() -> None:
    """'--dry-run on every bulk verb'."""
    bulk = {"ingest", "submit", "migrate", "prune", "sweep", "apply"}
    bulk |= {"requeue", "reprocess", "cancel", "delete"}
    for name in bulk:
        options = {option for parameter in VERBS[name].params for option in parameter.opts}
        assert "--dry-run" in options, name


def test_what_every_verb_prints_is_documented(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'a documented stable schema, tested against real output of every verb'."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.txt").write_text("The roof was mended by a carpenter in October.\n")
    (tmp_path / "again.txt").write_text("The roof was mended by a carpenter in October.\n")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(64)))
    blobs = (tmp_path / "store").as_uri()
    (tmp_path / "odd.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    seen: set[str] = set()

    def run(*words: str, code: int = 0) -> list[dict[str, Any]]:
        verb = words[0]
        section = f"{verb} --group" if "--group" in words else verb
        given = ("--database", empty_url, *words, "--json")
        given = ("--blobs", blobs, *given) if verb == "sweep" else given
        result = CliRunner().invoke(app, given, env=dict.fromkeys(SETTINGS))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        # A server for tests may be one that forgets, which fails a check.
        assert result.exit_code == code or verb == "doctor", result.stderr
        records = [json.loads(line) for line in result.stdout.splitlines()]
        assert records or verb == "providers", f"{verb} printed nothing"
        for record in records:
            conforms(record, section)
        seen.add(section)
        return records

    run("migrate", "--dry-run")
    run("migrate")
    would = run("ingest", "good.txt", "again.txt", "bad.png", "--dry-run")
    assert [one["outcome"] for one in would] == ["new"] * 3
    would = run("submit", "good.txt", "gone.txt", "--dry-run", code=1)
    assert [one["outcome"] for one in would] == ["new", "refused"]
    handed = run("submit", "good.txt", "gone.txt", code=1)
    assert [(one["outcome"], one["state"]) for one in handed] == [
        ("new", "uploaded"),
        ("refused", None),
    ]
    came = run("ingest", "good.txt", "again.txt", "bad.png", "gone.txt", code=1)
    ids = {one["name"]: one["document_id"] for one in came}
    would = run("ingest", "good.txt", "gone.txt", "--dry-run", code=1)
    assert [one["outcome"] for one in would] == ["unchanged", "refused"]

    with psycopg.connect(empty_url.replace("+psycopg", "")) as connection:
        connection.execute(WORKER)
    (twin,) = run("list", "--state", "duplicate")
    good, bad = ids["good.txt"], ids["bad.png"]
    for code, *words in (
        (0, "list", "--group", "code"),
        *((0, verb, one) for verb in ("explain", "show") for one in (good, bad, twin["id"])),
        (0, "top", "--once"),
        (0, "doctor"),
        (0, "workers"),
        (0, "health"),
        (0, "wait", good, twin["id"], "--timeout", PATIENT),
        (1, "wait", bad),
        (0, "usage", "--by", "day", "--price", "store_embeddings=0.02"),
        (0, "status"),
        (0, "providers"),
        (0, "dead-letters"),
        (0, "dead-letters", "--group"),
        (0, "search", "carpenter"),
        (0, "requeue", bad, "--dry-run"),
        (4, "cancel", bad, "--dry-run"),
        (4, "reprocess", bad, "--dry-run"),
        (0, "apply", "requeue", bad, "--dry-run"),
        (0, "pause", "--stage", "finish_parse", "--reason", "a test"),
        (0, "pauses"),
        (0, "top", "--once"),
        (0, "resume", "--stage", "finish_parse"),
        (0, "delete", good),
        (0, "prune", "--older-than", "1s", "--dry-run"),
        (0, "prune", "--older-than", "30d"),
        (0, "sweep", "--dry-run"),
        (0, "sweep"),
        (0, "graph"),
        (1, "lint", "odd:Odd"),
    ):
        run(*words, code=code)
    assert seen == SECTIONS.keys() & {*VERBS, "list --group", "dead-letters --group"}
