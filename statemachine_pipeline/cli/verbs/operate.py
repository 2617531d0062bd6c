"""Verbs of whoever operates a pipeline: what is slow, what waits, what it costs, what may go."""

from __future__ import annotations

import enum
from typing import Annotated
from uuid import UUID  # noqa: TC003 - typer reads it

import typer

from statemachine_pipeline.cli.verbs.options import (
    AnyTenant,
    App,
    Database,
    DryRun,
    FailedCode,
    Json,
    Schema,
    State,
    app,
    target_of,
)


class GroupBy(enum.StrEnum):
    """What `list --group` counts by."""

    state = "state"
    stage = "stage"
    tenant = "tenant"
    code = "code"


class UsageBy(enum.StrEnum):
    """What `usage` adds up by."""

    tenant = "tenant"
    day = "day"
    stage = "stage"
    document = "document"


@app.command()
def top(
    *,
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Print one table and end.")] = False,
    every: Annotated[
        str, typer.Option("--every", metavar="DURATION", help="Between two looks.")
    ] = "2s",
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Show what waits and runs at each stage, which is the slowest, and what limits it.

    On a terminal again and again until Ctrl-C, elsewhere once; with --json an object a look.
    """
    from statemachine_pipeline.cli import ending, topping

    target = target_of(context, app, database, schema)
    ending.run(topping.top(target, every=every, once=once, as_json=json))


@app.command()
def explain(
    *,
    context: typer.Context,
    document: Annotated[UUID, typer.Argument(metavar="ID", show_default=False)],
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Say in one sentence why a document stands where it stands; with --json all that is known."""
    from statemachine_pipeline.cli import ending, looking

    target = target_of(context, app, database, schema)
    ending.run(looking.explain(target, document, as_json=json))


@app.command("list")
def list_documents(
    *,
    context: typer.Context,
    state: State = None,
    stage: Annotated[
        str | None,
        typer.Option(
            "--stage", metavar="TRIGGER", help="Only what is at or waits for it, or failed at it."
        ),
    ] = None,
    tenant: AnyTenant = None,
    code: FailedCode = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="DURATION", help="Only what has not moved for so long."
        ),
    ] = None,
    contains: Annotated[
        str | None,
        typer.Option("--contains", metavar="TEXT", help="Only where name or id contains it."),
    ] = None,
    group: Annotated[
        GroupBy | None, typer.Option("--group", help="Count what matches instead.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most documents.")] = 100,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """List documents in the order they came, or count them.

    Counts stop at the newest 100,000 that match, and say so.
    """
    from statemachine_pipeline.cli import ending, listing
    from statemachine_pipeline.cli.times import duration_of
    from statemachine_pipeline.database.listings import Which

    which = Which(
        state=state,
        stage=stage,
        tenant=tenant,
        code=code,
        older_than=None if older_than is None else duration_of(older_than, "--older-than"),
        contains=contains,
    )
    target = target_of(context, app, database, schema)
    if group is not None:
        ending.run(listing.groups(target, which, group.value, as_json=json))
    ending.run(listing.listing(target, which, limit=limit, as_json=json))


@app.command()
def wait(
    *,
    context: typer.Context,
    documents: Annotated[list[UUID], typer.Argument(metavar="ID", show_default=False)],
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", help="As 30s, 15m, 2h or 3d.")
    ] = "60s",
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Wait until documents rest.

    Exit code 0 when each is complete or a duplicate, or in another end of your lifecycle; 1 when
    one failed, was cancelled or deleted; 124 when time ran out.
    """
    from statemachine_pipeline.cli import ending, waiting

    target = target_of(context, app, database, schema)
    ending.run(waiting.wait(target, documents, timeout=timeout, as_json=json))


@app.command()
def usage(
    *,
    context: typer.Context,
    by: Annotated[UsageBy, typer.Option("--by", help="What to add up by.")] = UsageBy.tenant,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only since; UTC, or ago as 12h."),
    ] = None,
    tenant: AnyTenant = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price", metavar="STAGE=NUMBER", help="What a million of its tokens cost. Repeatable."
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most lines.")] = 100,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Add up the tokens that requests were charged for, the most first; failed attempts too."""
    from statemachine_pipeline.cli import ending, spending

    target = target_of(context, app, database, schema)
    ending.run(
        spending.usage(
            target,
            by=by.value,
            since=since,
            tenant=tenant,
            prices=price or (),
            limit=limit,
            as_json=json,
        )
    )


@app.command()
def prune(
    *,
    context: typer.Context,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="DURATION", help="How long they have rested.")
    ],
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="Only those there. Repeatable.", show_default=False),
    ] = None,
    tenant: AnyTenant = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Most documents.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Remove for good what rests and is not complete, each document with its whole history.

    Dead letters, cancelled and deleted documents, and duplicates; what others need is left, with
    the reason. Exit code 4 when the tables belong to another role.
    """
    from statemachine_pipeline.cli import ending, pruning

    target = target_of(context, app, database, schema)
    ending.run(
        pruning.prune(
            target,
            older_than=older_than,
            states=state or (),
            tenant=tenant,
            limit=limit,
            dry_run=dry_run,
            as_json=json,
        )
    )
