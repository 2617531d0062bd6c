"""`lint`: what is wrong with a lifecycle though its class could be made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import FAILED, OK, UsageError
from statemachine_pipeline.cli.userapp import find_app, imported, load
from statemachine_pipeline.counting import counted
from statemachine_pipeline.lifecycle import DocumentLifecycle, Lifecycle
from statemachine_pipeline.pipeline import Pipeline
from statemachine_pipeline.testing.linting.findings import described, unallowed

if TYPE_CHECKING:
    from collections.abc import Collection

    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.testing.linting.findings import Finding


async def lint(target: Target, name: str | None, allow: Collection[str], *, as_json: bool) -> int:
    """Print what lint finds; exit code 1 when there is something.

    Args:
        target: Whose app, where ``name`` is None.
        name: ``module:attribute`` of a lifecycle or a pipeline.
        allow: What is meant, as ``L13`` or ``L13:state``.
        as_json: One object a line.

    Raises:
        UsageError: There is no such lifecycle.
        MissingExtra: The extra ``testing`` is not installed.
    """
    from statemachine_pipeline.testing import lint

    asked = _asked(target, name)
    # The shipped lifecycle has its own hooks; of another class they are known by its pipeline.
    hooks: dict[str, object] | None = {} if asked is DocumentLifecycle else None
    left, idle = unallowed(lint(asked, hooks), allow)
    for finding in left:
        if as_json:
            output.emit(finding)
        else:
            _draw(finding)
    for line in idle:
        output.say(line)
    output.say(f"{asked.graph.name}: {counted(len(left), 'finding')}")
    return FAILED if left or idle else OK


def _asked(target: Target, name: str | None) -> type[Lifecycle] | Pipeline:
    if name is None:
        app = find_app(target.app)
        return load(app) if app else DocumentLifecycle
    if target.app:
        raise UsageError("name a lifecycle, or a pipeline by --app, not both")
    found = imported(f"lifecycle {name!r}", name)
    if isinstance(found, Pipeline):
        return found
    if not (isinstance(found, type) and issubclass(found, Lifecycle) and hasattr(found, "graph")):
        raise UsageError(f"lifecycle {name!r}: it is no Lifecycle with states, and no Pipeline")
    return found


def _draw(finding: Finding) -> None:
    output.line(output.plain(f"{finding.id} {finding.where}: {finding.what}"))
    if finding.witness is not None:
        output.paragraph(f"For example with {described(finding.witness)}.", "    ")
    output.paragraph(f"{finding.why} {finding.advice}", "    ")
    output.line()
