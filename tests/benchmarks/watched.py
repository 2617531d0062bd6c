"""Faults seen through what a person would look at: ``python tests/benchmarks/watched.py``.

A fleet of real workers with probes, an exporter, and Debian's Prometheus with the shipped rules.
Then a provider fails, a document kills whoever parses it, and a worker is killed. Said in the end:
which alerts fired and when, what ``doctor`` and ``explain`` say of each fault, and whether any log
holds a secret that was planted. ``--corpus`` names a folder of documents of your own.

``for:`` of the rules is divided by ``--factor``, since nobody waits for five minutes here; all else
is as shipped. Ends with 1 when a fault fired no alert or was not named.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg
import watchedapp
import yaml

from statemachine_pipeline.database.embedded import EmbeddedServer
from statemachine_pipeline.records import Incoming, Submitted
from statemachine_pipeline.testing.services import SAYS_500, EmbeddingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from uuid import UUID

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
WORKERS = 3
SECRET = "hunter2-9f3c1b7a"
UNITS = {"s": 1, "m": 60, "h": 3600}
WAITING = "SELECT document_id FROM smp.work WHERE state = 'embedding_queued' LIMIT 1"
PLANTED = "SELECT document_id FROM smp.dead_letter WHERE stage = 'store_chunks' LIMIT 1"
DEAD = "SELECT id FROM smp.worker WHERE dead_at IS NOT NULL"
HOLDER = (
    "SELECT k.pid, w.document_id FROM smp.work w JOIN smp.worker k ON k.id = w.worker "
    "WHERE w.lane = 'claimed' AND k.pid = coalesce({}, k.pid) LIMIT 1"
)


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        alert: What has to fire.
        document: One that it concerns, when it is known.
        words: A pattern of what ``doctor`` has to say.
        explained: A pattern of what ``explain`` of the document has to say.
    """

    alert: str
    document: UUID
    words: str
    explained: str


class Stand:
    """What runs: a server, a service, workers, an exporter and Prometheus.

    Args:
        place: A folder for data and logs.
        factor: By what each ``for:`` is divided.
    """

    def __init__(self, place: Path, factor: float) -> None:
        self._place, self._factor = place, factor
        self._stack = contextlib.ExitStack()
        self.service = EmbeddingServer()
        self.workers: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.url = stack.enter_context(EmbeddedServer(self._place / "server")).url
            stack.enter_context(self.service)
            self.run("migrate")
            ports = [free_port() for _ in range(WORKERS + 2)]
            for port in ports[:WORKERS]:
                words = ["--probe-port", str(port), "--log-format", "json", "--log-level", "DEBUG"]
                started = self._start(stack, f"worker-{port}", self.command("worker", *words))
                self.workers[started.pid] = started
            words = ["--port", str(ports[WORKERS])]
            self._start(stack, "exporter", self.command("exporter", *words))
            self.prometheus = f"http://127.0.0.1:{ports[-1]}"
            self._start(stack, "prometheus", self._watcher(ports))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def command(self, verb: str, *words: str) -> list[str]:
        """Return a command of the project's command line on this database."""
        program = [sys.executable, "-m", "statemachine_pipeline", "--app", "watchedapp:pipeline"]
        return [*program, verb, "--database", self.url, *words]

    def run(self, verb: str, *words: str) -> str:
        """Run a command to its end, and return what it says on both its ways out."""
        done = subprocess.run(
            self.command(verb, *words),
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def _environment(self) -> Mapping[str, str]:
        paths = [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "SERVICE": self.service.address,
        }

    def _start(
        self, stack: contextlib.ExitStack, name: str, command: list[str]
    ) -> subprocess.Popen[bytes]:
        log = stack.enter_context((self._place / f"{name}.log").open("wb"))
        process = subprocess.Popen(command, env=self._environment(), stdout=log, stderr=log)
        stack.callback(end, process)
        return process

    def _watcher(self, ports: list[int]) -> list[str]:
        """Write Prometheus' configuration with the shipped rules, and return its command."""
        rules = yaml.safe_load(RULES.read_text())
        for rule in (one for group in rules["groups"] for one in group["rules"]):
            if "for" in rule:
                rule["for"] = f"{round(1000 * seconds(rule['for']) / self._factor)}ms"
        (self._place / "alerts.yml").write_text(json.dumps(rules))
        targets = [f"127.0.0.1:{port}" for port in ports[: WORKERS + 1]]
        told = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "watched", "static_configs": [{"targets": targets}]}],
        }
        (self._place / "prometheus.yml").write_text(json.dumps(told))
        return [
            "prometheus",
            f"--config.file={self._place / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._place / 'metrics'}",
            f"--web.listen-address={self.prometheus.removeprefix('http://')}",
            "--log.level=warn",
        ]

    def asked(self, path: str) -> Any:
        """Return what Prometheus' interface answers; an empty list while it is not there."""
        try:
            with urllib.request.urlopen(f"{self.prometheus}/api/v1/{path}", timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return {}

    def firing(self) -> Iterator[str]:
        """Yield the alerts that fire, each with the labels that say where."""
        for one in self.asked("alerts").get("alerts", []):
            if one["state"] == "firing":
                labels = {**one["labels"]}
                name, _ = labels.pop("alertname"), labels.pop("severity")
                yield f"{name} {' '.join(f'{k}={v}' for k, v in sorted(labels.items()))}".strip()

    def are_scraped(self) -> bool:
        """Tell whether every target was scraped."""
        targets = self.asked("targets").get("activeTargets", [])
        return len(targets) == WORKERS + 1 and all(one["health"] == "up" for one in targets)

    def ask(self, sql: str) -> tuple[Any, ...] | None:
        """Return the first row of an answer of the database."""
        with psycopg.connect(self.url.replace("+psycopg", "")) as connection:
            return connection.execute(sql).fetchone()

    def logs(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the text of every log."""
        for path in sorted(self._place.glob("*.log")):
            yield path.name, path.read_text(errors="replace")


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def end(process: subprocess.Popen[bytes]) -> None:
    """Tell a process to end, and wait until it has."""
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def seconds(text: str) -> float:
    """Return a duration as Prometheus writes it, such as ``5m``."""
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([smh])", text))


def until(condition: Callable[[], Any], what: str, patience: float) -> Any:
    """Ask every quarter of a second until there is an answer, and return it.

    Raises:
        SystemExit: There is none in time.
    """
    deadline = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {patience:.0f} s: {what}")
        time.sleep(0.25)
    return found


async def submit(url: str, items: list[Any]) -> list[UUID]:
    """Hand documents over, and return their ids."""
    async with watchedapp.pipeline.at(url) as pipeline:
        said = await pipeline.operations.submit_many(items)
        return [one.document_id for one in said if isinstance(one, Submitted)]


def documents(corpus: Path | None) -> list[Any]:
    """Return what is handed over first, with a secret in a text and in an address."""
    planted = Incoming(
        f"{watchedapp.REVEAL} that the key is {SECRET}.".encode(),
        source_uri=f"https://user:{SECRET}@files.example/notes?token={SECRET}",
        name="notes.txt",
    )
    if corpus is not None:
        return [planted, *sorted(path for path in corpus.rglob("*") if path.is_file())]
    return [planted, *(f"Page {n}.\n\nOf book {n % 7}.".encode() for n in range(300))]


def kill_a_worker(stand: Stand) -> tuple[int, UUID] | None:
    """Kill a worker; return its process and a document that it held, or None if it held none."""
    found = stand.ask(HOLDER.format("NULL"))
    if found is None:
        return None
    os.kill(found[0], signal.SIGSTOP)
    time.sleep(1)  # what it has sent is written by then
    held = stand.ask(HOLDER.format(found[0]))
    os.kill(found[0], signal.SIGKILL if held else signal.SIGCONT)
    return held and (held[0], held[1])


def disturb(stand: Stand) -> list[Fault]:
    """Let everything go wrong, and return what did."""
    stand.service.ails(SAYS_500)
    (poison,) = asyncio.run(submit(stand.url, [f"{watchedapp.POISON} {SECRET}".encode()]))
    more = [f"Letter {number}, {'with many words. ' * 50}".encode() for number in range(200)]
    asyncio.run(submit(stand.url, more))
    (waiting,) = until(lambda: stand.ask(WAITING), "a document that waits for the provider", 60)
    pid, held = until(lambda: kill_a_worker(stand), "a worker that has something in hand", 60)
    return [
        Fault(
            "SmpProviderUnavailable", waiting, r"embeddings.* not asked", r"embeddings.* not asked"
        ),
        Fault(
            "SmpDocumentCrashes", poison, rf"died or hung.*{poison}", r"child_crashed|child proc"
        ),
        Fault("SmpWorkerLost", held, rf"(silent|dead).* pid {pid}\)", r"silent|is dead|died"),
    ]


def watch(stand: Stand, faults: list[Fault], patience: float) -> tuple[set[str], dict[str, str]]:
    """Print when each alert fires; ends when each fault has one and is explained, or in time.

    ``explain`` is asked again and again: soon after others have taken over what a worker held, it
    is somewhere else.

    Returns:
        The names of the alerts, and what ``explain`` said of each fault that it named.
    """
    fired: set[str] = set()
    explained: dict[str, str] = {}
    begun = time.monotonic()
    wanted = {fault.alert for fault in faults}
    while time.monotonic() - begun < patience:
        for name in set(stand.firing()) - fired:
            fired.add(name)
            print(f"  {time.monotonic() - begun:6.1f} s  {name}", flush=True)
        for fault in (one for one in faults if one.alert not in explained):
            said = stand.run("explain", str(fault.document))
            if re.search(fault.explained, said, re.IGNORECASE):
                explained[fault.alert] = said
        alerts = {name.split()[0] for name in fired}
        if wanted <= alerts and wanted == explained.keys():
            break
        time.sleep(0.5)
    return {name.split()[0] for name in fired}, explained


def judge(
    stand: Stand, faults: list[Fault], fired: set[str], explained: Mapping[str, str]
) -> list[str]:
    """Print what the command line says of each fault, and return what it should have said."""
    wrong = []
    doctor = stand.run("doctor")
    print(f"\ndoctor:\n{doctor}")
    for fault in faults:
        print(f"{fault.alert}: explain {fault.document}:\n{explained.get(fault.alert, '')}")
        if fault.alert not in fired:
            wrong.append(f"{fault.alert} did not fire")
        if not re.search(fault.words, doctor, re.IGNORECASE):
            wrong.append(f"doctor does not name what {fault.alert} is about")
        if fault.alert not in explained:
            wrong.append(f"explain does not name what {fault.alert} is about")
    until(lambda: stand.ask(DEAD), "the killed worker is declared dead", 120)
    later = stand.run("doctor")
    if not re.search(faults[-1].words, later, re.IGNORECASE):
        wrong.append(f"doctor does not name the killed worker once it is dead:\n{later}")
    return [*wrong, *leaks(stand)]


def leaks(stand: Stand) -> list[str]:
    """Return the logs that hold the secret, and whether any tells of the hook that raised it."""
    wrong = []
    (planted,) = until(lambda: stand.ask(PLANTED), "the hook that raises its text", 120)
    if not any(
        str(planted) in line and "stage.failed" in line
        for _, text in stand.logs()
        for line in text.splitlines()
    ):
        wrong.append("no log tells of the exception that holds the secret")
    for name, text in stand.logs():
        print(f"{name}: {len(text.splitlines())} lines, {text.count(SECRET)} with the secret")
        if SECRET in text:
            wrong.append(f"{name} holds a secret")
    return wrong


def main() -> int:
    """Run and print; 1 when a fault was not seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--factor", type=float, default=60.0, help="by what `for:` is divided")
    parser.add_argument("--patience", type=float, default=240.0, help="seconds for all alerts")
    parser.add_argument("--corpus", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, Stand(Path(place), given.factor) as stand:
        until(stand.are_scraped, "every target is scraped", 60)
        until(lambda: not list(stand.firing()), "no alert fires while nothing is wrong", 60)
        asyncio.run(submit(stand.url, documents(given.corpus)))
        print("no alert before anything went wrong\nafter the faults:", flush=True)
        faults = disturb(stand)
        fired, explained = watch(stand, faults, given.patience)
        wrong = judge(stand, faults, fired, explained)
        stand.service.recovers()
    print(*(wrong or ["every fault fired its alert, and was named"]), sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
