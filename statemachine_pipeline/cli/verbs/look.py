"""Verbs that only look."""

from __future__ import annotations

import enum
from typing import Annotated
from uuid import UUID  # noqa: TC003 - typer reads it

import typer

from statemachine_pipeline.cli.verbs.options import (
    AnyTenant,
    App,
    Database,
    FailedCode,
    FailedSince,
    FailedStage,
    Json,
    Schema,
    Tenant,
    app,
    target_of,
)


class SearchMode(enum.StrEnum):
    """How `search` compares."""

    hybrid = "hybrid"
    vector = "vector"
    text = "text"


@app.command()
def status(
    *,
    context: typer.Context,
    tenant: AnyTenant = None,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Count the documents in each state, and say what is paused, down, or still to be withdrawn."""
    from statemachine_pipeline.cli import ending, looking

    target = target_of(context, app, database, schema)
    ending.run(looking.status(target, tenant=tenant, as_json=json))


@app.command()
def providers(
    *,
    context: typer.Context,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Show the services that stages ask: whether each is asked now, why not, what may be used."""
    from statemachine_pipeline.cli import ending, looking

    ending.run(looking.providers(target_of(context, app, database, schema), as_json=json))


@app.command()
def show(
    *,
    context: typer.Context,
    document: Annotated[UUID, typer.Argument(metavar="ID", show_default=False)],
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Show one document: its history, what was found in it, why it is where it is, what is next."""
    from statemachine_pipeline.cli import ending, looking

    target = target_of(context, app, database, schema)
    ending.run(looking.show(target, document, as_json=json))


@app.command("dead-letters")
def dead_letters(
    *,
    context: typer.Context,
    group: Annotated[
        bool, typer.Option("--group", help="Count them by stage and code instead.")
    ] = False,
    stage: FailedStage = None,
    code: FailedCode = None,
    since: FailedSince = None,
    tenant: AnyTenant = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most dead letters.")] = 100,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """List documents that failed for good, newest first; with --json their tracebacks too."""
    from statemachine_pipeline.cli import ending, letters

    target = target_of(context, app, database, schema)
    which = letters.matching(stage, code, tenant, since)
    if group:
        ending.run(letters.show_groups(target, which, as_json=json))
    ending.run(letters.show(target, which, limit=limit, as_json=json))


@app.command()
def search(
    *,
    context: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", show_default=False)],
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most passages.")] = 5,
    mode: Annotated[
        SearchMode, typer.Option("--mode", help="By meaning, by words, or both.")
    ] = SearchMode.hybrid,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="KEY=VALUE",
            help="Only documents whose metadata says so; VALUE as JSON, else as text. Repeatable.",
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            "--group", help="Only what this group, or another one named, may see. Repeatable."
        ),
    ] = None,
    tenant: Tenant = "default",
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Find the published passages that fit a question best."""
    from statemachine_pipeline.cli import ending, looking

    asked = {"limit": limit, "mode": mode.value, "tenant": tenant, "groups": group or None}
    target = target_of(context, app, database, schema)
    ending.run(looking.search(target, text, where=where or (), as_json=json, **asked))
