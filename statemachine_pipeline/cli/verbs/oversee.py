"""Verbs that look at the pipeline as a whole."""

from __future__ import annotations

import typer  # noqa: TC002 - typer reads it

from statemachine_pipeline.cli.verbs.options import App, Database, Json, Schema, app, target_of


@app.command()
def doctor(
    *,
    context: typer.Context,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Look for what is wrong or will be, and say how each is mended. Asks no provider.

    Exit code 0 when nothing fails, warnings or not; 1 when something does; 5 when the database does
    not answer.
    """
    from statemachine_pipeline.cli import ending, overseeing

    ending.run(overseeing.doctor(target_of(context, app, database, schema), as_json=json))


@app.command()
def workers(
    *,
    context: typer.Context,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """List workers: who lives, drains or is silent, what they serve and what they hold."""
    from statemachine_pipeline.cli import ending, overseeing

    ending.run(overseeing.workers(target_of(context, app, database, schema), as_json=json))
