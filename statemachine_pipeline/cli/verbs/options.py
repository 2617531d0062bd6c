"""The options of the verbs, each declared once, and the app that the verbs are of."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

if TYPE_CHECKING:
    from statemachine_pipeline.cli.opening import Target

app = typer.Typer(
    help=(
        "Turn documents into searchable chunks, each on a lifecycle that PostgreSQL enforces. "
        "Without a database it uses an embedded one in .statemachine-pipeline/."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:PIPELINE",
        help="Your own Pipeline object; else SMP_APP, or app = in [tool.statemachine-pipeline] "
        "of pyproject.toml.",
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database", metavar="URL", help="PostgreSQL; else SMP_DATABASE, DATABASE_URL, embedded."
    ),
]
Schema = Annotated[
    str | None, typer.Option("--schema", metavar="NAME", help="Else SMP_SCHEMA, or smp.")
]
Blobs = Annotated[
    str | None,
    typer.Option(
        "--blobs",
        metavar="URL",
        help="Object store for the bytes, as s3://bucket/prefix; else SMP_BLOBS, the app's, or "
        "the database. Given before the verb.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose documents.")]
AnyTenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")]
PausedTenant = Annotated[str | None, typer.Option("--tenant", help="This tenant's documents.")]
Stage = Annotated[
    str | None, typer.Option("--stage", metavar="TRIGGER", help="The stage that earns it.")
]
State = Annotated[str | None, typer.Option("--state", help="Only those in this state.")]
FailedStage = Annotated[
    str | None,
    typer.Option("--stage", metavar="TRIGGER", help="Only what failed to earn this trigger."),
]
FailedCode = Annotated[str | None, typer.Option("--code", help="Only what failed with this code.")]
FailedSince = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only what failed since; UTC, or ago as 12h."),
]
Until = Annotated[datetime | None, typer.Option("--until", help="Local time.", show_default=False)]
Ids = Annotated[list[UUID] | None, typer.Argument(metavar="ID", show_default=False)]
Reason = Annotated[str | None, typer.Option("--reason", help="Why, for the history.")]
LogFormat = Annotated[
    Literal["text", "json"] | None,
    typer.Option(
        "--log-format",
        envvar="SMP_LOG_FORMAT",
        metavar="text|json",
        help="How a line of the log is written, on stderr; else SMP_LOG_FORMAT, what the app "
        "configured, or text.",
    ),
]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None,
    typer.Option(
        "--log-level",
        envvar="SMP_LOG_LEVEL",
        metavar="LEVEL",
        case_sensitive=False,
        help="The lowest that is logged, of DEBUG, INFO, WARNING and ERROR; else SMP_LOG_LEVEL, "
        "what the app configured, or INFO.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@app.callback()
def everywhere(
    *,
    context: typer.Context,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
    blobs: Blobs = None,
) -> None:
    """Take what holds for every verb, when it is given before the verb."""
    context.obj = (app, database, schema, blobs)


def target_of(
    context: typer.Context, app: str | None, database: str | None, schema: str | None
) -> Target:
    """Put together what was given before the verb and after it."""
    from statemachine_pipeline.cli.opening import Target

    before = context.obj
    if "" in {database, before[1]}:
        raise typer.BadParameter("--database names none; a variable that was not set may be why")
    return Target(
        app=app or before[0],
        database=database or before[1],
        schema=schema or before[2],
        blobs=before[3],
    )
