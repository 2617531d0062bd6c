"""Verbs that move documents by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from statemachine_pipeline.cli.verbs.options import (
    AnyTenant,
    App,
    Database,
    DryRun,
    FailedCode,
    FailedSince,
    FailedStage,
    Ids,
    Json,
    Reason,
    Schema,
    State,
    app,
    target_of,
)


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
                target_of(context, app, database, schema),
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
            target_of(context, app, database, schema),
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
            target_of(context, app, database, schema),
            trigger,
            ids or (),
            state=state,
            tenant=tenant,
            reason=reason,
            dry_run=dry_run,
            as_json=json,
        )
    )
