"""Verbs of pauses."""

from __future__ import annotations

from typing import Annotated

import typer

from statemachine_pipeline.cli.verbs.options import (
    App,
    Database,
    Json,
    PausedTenant,
    Schema,
    Stage,
    Until,
    app,
    target_of,
)


@app.command()
def pause(
    *,
    context: typer.Context,
    stage: Stage = None,
    tenant: PausedTenant = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for whoever asks.")],
    for_: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="As 30s, 15m, 2h or 3d.")
    ] = None,
    until: Until = None,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Stop workers from taking documents at a stage, of a tenant, or both together.

    What a worker is at is finished. Without --for and --until it holds until `resume`.
    """
    from statemachine_pipeline.cli import ending, pausing

    target = target_of(context, app, database, schema)
    ending.run(
        pausing.pause(
            target,
            stage=stage,
            tenant=tenant,
            reason=reason,
            duration=for_,
            until=until,
            as_json=json,
        )
    )


@app.command()
def resume(
    *,
    context: typer.Context,
    stage: Stage = None,
    tenant: PausedTenant = None,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Lift a pause, named as `pauses` shows it, and let workers go on at once."""
    from statemachine_pipeline.cli import ending, pausing

    target = target_of(context, app, database, schema)
    ending.run(pausing.resume(target, stage=stage, tenant=tenant, as_json=json))


@app.command()
def pauses(
    *,
    context: typer.Context,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """List what is paused, since when, until when, by whom and why."""
    from statemachine_pipeline.cli import ending, pausing

    ending.run(pausing.pauses(target_of(context, app, database, schema), as_json=json))
