"""Verbs that take documents in and run them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from statemachine_pipeline.cli.verbs.options import (
    App,
    Database,
    DryRun,
    Json,
    LogFormat,
    LogLevel,
    Schema,
    Tenant,
    app,
    target_of,
)

LAST_PORT = 65535
ProbePort = Annotated[
    int | None,
    typer.Option(
        "--probe-port",
        min=1,
        max=LAST_PORT,
        metavar="N",
        help="Serve /livez, /readyz, /startupz and /metrics; of several workers the first "
        "takes this port, the others those after it.",
    ),
]
ProbeHost = Annotated[
    str, typer.Option("--probe-host", metavar="ADDRESS", help="Address of the probe port.")
]


def _path(given: str) -> Path:
    """Refuse an empty path, as other programs do: an unset variable is not the present folder.

    Whether the others can be read is told in the report; typer's own check would refuse them all.
    """
    if not given:
        raise typer.BadParameter("it is empty; the present folder is .")
    return Path(given)


Paths = Annotated[list[Path], typer.Argument(metavar="PATH", parser=_path, show_default=False)]


@app.command()
def ingest(
    *,
    context: typer.Context,
    paths: Paths,
    tenant: Tenant = "default",
    dry_run: DryRun = False,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Hand over files and folders, run them until they rest, and say what became of each.

    Hidden files in folders are left out. The same bytes again change nothing. What is found in a
    document, such as an attachment, is followed and told too. Exit code 1 when a document ended
    neither complete nor duplicate, or a path was refused.
    """
    from statemachine_pipeline.cli import ending, ingest, rehearsing
    from statemachine_pipeline.cli.handing import Asked

    target = target_of(context, app, database, schema)
    if dry_run:
        asked = Asked(paths=paths, tenant=tenant)
        ending.run(rehearsing.rehearse(target, asked, "ingest", as_json=json))
    ending.run(ingest.ingest(target, paths, tenant=tenant, as_json=json))


@app.command()
def submit(
    *,
    context: typer.Context,
    paths: Paths,
    tenant: Tenant = "default",
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="URI",
            help="What makes one file the same document next time; else its path.",
        ),
    ] = None,
    correlation_id: Annotated[
        str | None,
        typer.Option(
            "--correlation-id",
            metavar="TEXT",
            help="On every row of the history and line of the log; else one is made up for each.",
        ),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Hand over files and folders and leave the rest to workers; needs none that runs.

    Hidden files in folders are left out. The same bytes again change nothing. Exit code 1 when a
    path was refused; the others are handed over all the same.
    """
    from statemachine_pipeline.cli import ending, rehearsing
    from statemachine_pipeline.cli import submit as handing_over
    from statemachine_pipeline.cli.handing import Asked

    target = target_of(context, app, database, schema)
    asked = Asked(paths=paths, tenant=tenant, source_uri=source, correlation_id=correlation_id)
    if dry_run:
        ending.run(rehearsing.rehearse(target, asked, "submit", as_json=json))
    ending.run(handing_over.submit(target, asked, as_json=json))


@app.command()
def worker(
    *,
    context: typer.Context,
    triggers: Annotated[
        str | None,
        typer.Option(
            "--triggers", metavar="A,B", help="Serve only the stages that earn these triggers."
        ),
    ] = None,
    drain: Annotated[
        float, typer.Option("--drain", min=0, metavar="SECONDS", help="Time to finish on SIGTERM.")
    ] = 30.0,
    workers: Annotated[
        int, typer.Option("--workers", min=1, metavar="N", help="Processes, each one a worker.")
    ] = 1,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload", help="For development: start again when Python files below here change."
        ),
    ] = False,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    probe_port: ProbePort = None,
    probe_host: ProbeHost = "127.0.0.1",
    seat: Annotated[int | None, typer.Option("--seat", hidden=True)] = None,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Serve documents until SIGTERM or Ctrl-C: the first drains, the second stops at once.

    A database that does not answer yet is waited for. With --workers, a parent process starts them,
    passes signals on, and replaces a worker that dies; exit code 1 when one dies again and again
    soon after its start.
    """
    from statemachine_pipeline.cli import ending, worker
    from statemachine_pipeline.cli.narrating import Narration

    target = target_of(context, app, database, schema)
    if probe_port is not None and probe_port + workers - 1 > LAST_PORT:
        last = LAST_PORT - workers + 1
        raise typer.BadParameter(
            f"--probe-port {probe_port}: with --workers {workers} it can be {last} at most"
        )
    probes = None if probe_port is None else (probe_host, probe_port)
    asked = worker.Asked(
        triggers=triggers,
        drain_seconds=drain,
        probes=probes,
        narration=Narration(log_format, log_level),
    )
    if workers > 1 or reload:
        ending.run(worker.lead(target, asked, workers, reload=reload))
    ending.run(worker.work(target, asked, seat))
