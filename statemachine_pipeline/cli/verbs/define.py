"""Verbs of the lifecycle and of what is stored."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from statemachine_pipeline.cli.verbs.options import (
    App,
    Database,
    DryRun,
    Json,
    Schema,
    app,
    target_of,
)


class GraphFormat(enum.StrEnum):
    """How `graph` prints."""

    mermaid = "mermaid"
    json = "json"


@app.command()
def sweep(
    *,
    context: typer.Context,
    older_than: Annotated[
        float,
        typer.Option("--older-than", min=0, metavar="HOURS", help="Spare what came in lately."),
    ] = 24.0,
    dry_run: DryRun = False,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Erase from the object store what no document refers to. Run it once a day."""
    from statemachine_pipeline.cli import ending, moving

    target = target_of(context, app, database, schema)
    ending.run(moving.sweep(target, older_than, dry_run=dry_run, as_json=json))


@app.command()
def graph(
    *,
    context: typer.Context,
    form: Annotated[GraphFormat, typer.Option("--format", help="How.")] = GraphFormat.mermaid,
    stored: Annotated[
        bool, typer.Option("--stored", help="The one the database was migrated to.")
    ] = False,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Draw the lifecycle: your app's, or the shipped one."""
    from statemachine_pipeline.cli import ending, looking

    target = target_of(context, app, database, schema)
    ending.run(looking.graph(target, stored=stored, form=form.value, as_json=json))


@app.command()
def lint(
    *,
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="MODULE:CLASS")] = None,
    allow: Annotated[list[str] | None, typer.Option(metavar="ID[:WHERE]", help="Allowed.")] = None,
    json: Json = False,
    app: App = None,
) -> None:
    """Say what is wrong with a lifecycle: the one named, your app's with its hooks, or the shipped.

    Exit code 1 when more is found than --allow names (L13, L13:state). Needs the extra `testing`.
    """
    from statemachine_pipeline.cli import ending, linting

    ending.run(linting.lint(target_of(context, app, None, None), name, allow or (), as_json=json))


@app.command()
def migrate(
    *,
    context: typer.Context,
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="OLD=NEW",
            help="Move documents out of a state that the lifecycle does not know any more; may be "
            "repeated.",
            show_default=False,
        ),
    ] = None,
    app_role: Annotated[
        str | None,
        typer.Option(
            "--app-role",
            metavar="ROLE",
            help="Grant this role what workers and applications need, and nothing more.",
        ),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Create or update the tables, and register the lifecycle. Harmless when repeated.

    Exit code 4 when the tables belong to another role, or this one may not create them.
    """
    from statemachine_pipeline.cli import ending, moving

    target = target_of(context, app, database, schema)
    work = moving.migrate(target, states or (), app_role, dry_run=dry_run, as_json=json)
    ending.run(work)
