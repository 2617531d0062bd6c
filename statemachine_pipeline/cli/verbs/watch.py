"""Verbs for those who watch a pipeline: people, orchestrators, Prometheus."""

from __future__ import annotations

from typing import Annotated

import typer

from statemachine_pipeline.cli.verbs.options import (
    App,
    Database,
    Json,
    LogFormat,
    LogLevel,
    Schema,
    app,
    target_of,
)

Host = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address of the port.")]


@app.command()
def health(
    *,
    context: typer.Context,
    live: Annotated[
        bool, typer.Option("--live", help="With --port: does it live? Asks no database.")
    ] = False,
    ready: Annotated[
        bool, typer.Option("--ready", help="With --port: does it take documents? The default.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="N", help="Ask the worker with this probe port."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="ADDRESS", help="Where that port is; else 127.0.0.1."),
    ] = None,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Say whether the pipeline does its work: each part, whether documents move, and what to do.

    With --port the worker that listens there is asked instead, fast enough for an exec probe. Exit
    code 1 when something failed, 5 when nobody answers.
    """
    from statemachine_pipeline.cli import ending, health

    health.refuse(live=live, ready=ready, port=port, host=host)
    target = target_of(context, app, database, schema)
    ending.run(health.health(target, as_json=json))


@app.command()
def exporter(
    *,
    context: typer.Context,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="Port to listen at.")
    ] = 9464,
    host: Host = "127.0.0.1",
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Serve the numbers of the whole pipeline to Prometheus at /metrics; one for a fleet.

    What a worker counts itself is served at its own --probe-port. Needs the extra `prometheus`.
    """
    from statemachine_pipeline.cli import ending, exporter
    from statemachine_pipeline.cli.narrating import Narration

    target, narration = target_of(context, app, database, schema), Narration(log_format, log_level)
    ending.run(exporter.export(target, host, port, narration))
