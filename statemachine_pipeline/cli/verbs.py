"""The verbs and their options, as typer reads them; each imports its work when it is run."""

from __future__ import annotations

import enum
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
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
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def _path(given: str) -> Path:
    """Refuse an empty path, as other programs do: an unset variable is not the present folder.

    Whether the others can be read is told in the report; typer's own check would refuse them all.
    """
    if not given:
        raise typer.BadParameter("it is empty; the present folder is .")
    return Path(given)


class SearchMode(enum.StrEnum):
    """How `search` compares."""

    hybrid = "hybrid"
    vector = "vector"
    text = "text"


class GraphFormat(enum.StrEnum):
    """How `graph` prints."""

    mermaid = "mermaid"
    json = "json"


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


def _target(
    context: typer.Context, app: str | None, database: str | None, schema: str | None
) -> Target:
    from statemachine_pipeline.cli.opening import Target

    before = context.obj
    return Target(
        app=app or before[0],
        database=database or before[1],
        schema=schema or before[2],
        blobs=before[3],
    )


@app.command()
def ingest(
    *,
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", parser=_path, show_default=False)],
    tenant: Tenant = "default",
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
    from statemachine_pipeline.cli import ending, ingest

    target = _target(context, app, database, schema)
    ending.run(ingest.ingest(target, paths, tenant=tenant, as_json=json))


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
    seat: Annotated[int | None, typer.Option("--seat", hidden=True)] = None,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Serve documents until SIGTERM or Ctrl-C: the first drains, the second stops at once.

    With --workers, a parent process starts them, passes signals on, and replaces a worker that
    dies; exit code 1 when one dies again and again soon after its start.
    """
    from statemachine_pipeline.cli import ending, worker

    target = _target(context, app, database, schema)
    if workers > 1 or reload:
        ending.run(worker.lead(target, triggers, drain, workers, reload=reload))
    names = None if triggers is None else [one.strip() for one in triggers.split(",")]
    ending.run(worker.work(target, names, drain, seat))


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

    target = _target(context, app, database, schema)
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

    ending.run(looking.providers(_target(context, app, database, schema), as_json=json))


@app.command("list")
def list_documents(
    *,
    context: typer.Context,
    state: State = None,
    tenant: AnyTenant = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most documents.")] = 100,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """List documents in the order they came."""
    from statemachine_pipeline.cli import ending, looking

    target = _target(context, app, database, schema)
    ending.run(looking.listing(target, state=state, tenant=tenant, limit=limit, as_json=json))


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

    target = _target(context, app, database, schema)
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

    target = _target(context, app, database, schema)
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
    target = _target(context, app, database, schema)
    ending.run(looking.search(target, text, where=where or (), as_json=json, **asked))


def _mover(trigger: str, effect: str) -> None:
    """Make the verb of a trigger that people apply; they differ in nothing but their name."""

    def move(
        *,
        context: typer.Context,
        ids: Ids = None,
        state: State = None,
        tenant: AnyTenant = None,
        reason: Reason = None,
        dry_run: DryRun = False,
        json: Json = False,
        app: App = None,
        database: Database = None,
        schema: Schema = None,
    ) -> None:
        from statemachine_pipeline.cli import ending, moving

        ending.run(
            moving.move(
                _target(context, app, database, schema),
                trigger,
                ids or (),
                state=state,
                tenant=tenant,
                reason=reason,
                dry_run=dry_run,
                as_json=json,
            )
        )

    move.__doc__ = f"{effect} Exit code 4 when a document may not take it."
    app.command(trigger)(move)


@app.command()
def requeue(
    *,
    context: typer.Context,
    ids: Ids = None,
    state: State = None,
    stage: FailedStage = None,
    code: FailedCode = None,
    since: FailedSince = None,
    tenant: AnyTenant = None,
    reason: Reason = None,
    dry_run: DryRun = False,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Take dead letters and cancelled documents up again where they stopped.

    Those named, all in a state, or the dead letters that match --stage, --code and --since. Exit
    code 4 when a document may not take it.
    """
    from statemachine_pipeline.cli import ending, letters, moving

    ending.run(
        moving.requeue(
            _target(context, app, database, schema),
            ids or (),
            which=letters.matching(stage, code, tenant, since),
            state=state,
            reason=reason,
            dry_run=dry_run,
            as_json=json,
        )
    )


_mover("reprocess", "Run finished documents again from the first stage that changed.")
_mover("cancel", "Stop documents that are being worked on.")
_mover(
    "delete", "Remove documents with all that was made of them or found in them; histories stay."
)


@app.command()
def apply(
    *,
    context: typer.Context,
    trigger: Annotated[str, typer.Argument(metavar="TRIGGER", help="What to take.")],
    ids: Ids = None,
    state: State = None,
    tenant: AnyTenant = None,
    reason: Reason = None,
    dry_run: DryRun = False,
    json: Json = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Take a step that your lifecycle keeps by hand. Exit code 4 when a document may not take it.

    A step with guards needs --app, since the database knows them by name only.
    """
    from statemachine_pipeline.cli import ending, moving

    ending.run(
        moving.move(
            _target(context, app, database, schema),
            trigger,
            ids or (),
            state=state,
            tenant=tenant,
            reason=reason,
            dry_run=dry_run,
            as_json=json,
        )
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

    target = _target(context, app, database, schema)
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

    target = _target(context, app, database, schema)
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

    ending.run(pausing.pauses(_target(context, app, database, schema), as_json=json))


@app.command()
def sweep(
    *,
    context: typer.Context,
    older_than: Annotated[
        float,
        typer.Option("--older-than", min=0, metavar="HOURS", help="Spare what came in lately."),
    ] = 24.0,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Erase from the object store what no document refers to. Run it once a day."""
    from statemachine_pipeline.cli import ending, moving

    ending.run(moving.sweep(_target(context, app, database, schema), older_than))


@app.command()
def graph(
    *,
    context: typer.Context,
    form: Annotated[GraphFormat, typer.Option("--format", help="How.")] = GraphFormat.mermaid,
    stored: Annotated[
        bool, typer.Option("--stored", help="The one the database was migrated to.")
    ] = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Draw the lifecycle: your app's, or the shipped one."""
    from statemachine_pipeline.cli import ending, looking

    target = _target(context, app, database, schema)
    ending.run(looking.graph(target, stored=stored, form=form.value))


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

    ending.run(linting.lint(_target(context, app, None, None), name, allow or (), as_json=json))


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
    dry_run: DryRun = False,
    app: App = None,
    database: Database = None,
    schema: Schema = None,
) -> None:
    """Create or update the tables, and register the lifecycle. Harmless when repeated."""
    from statemachine_pipeline.cli import ending, moving

    target = _target(context, app, database, schema)
    ending.run(moving.migrate(target, states or (), dry_run=dry_run))
