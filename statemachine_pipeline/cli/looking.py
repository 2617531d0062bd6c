"""Verbs that only look: status, providers, show, explain, search, graph."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.batch import children_of
from statemachine_pipeline.cli.ending import OK, UsageError
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.userapp import find_app, load
from statemachine_pipeline.lifecycle import DocumentLifecycle

if TYPE_CHECKING:
    from collections.abc import Sequence, Sized
    from uuid import UUID

    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.database.providers import Share
    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.pipeline import Pipeline
    from statemachine_pipeline.records import Document, Explanation, Hit


async def status(target: Target, *, tenant: str | None, as_json: bool) -> int:
    """Print how many documents stand in each state, and what holds them up for people."""
    async with opened(target, "stored") as pipeline:
        counts = await pipeline.counts(tenant=tenant)
        backlog = await pipeline.withdrawals.waiting()
        pauses = await pipeline.operations.pauses()
        asked = await pipeline.operations.breakers()
        known = [*pipeline.graph.states, *sorted(set(counts) - set(pipeline.graph.states))]
        states = {state: counts[state] for state in known if state in counts}
    if as_json:
        output.emit({"states": states, "withdrawals": backlog})
    else:
        rows = [*states.items(), ("total", sum(states.values()))]
        output.table(("STATE", "DOCUMENTS"), rows, state=0)
        for pause in pauses:
            output.say(f"{pause.place} is paused by {pause.by}: {pause.reason}; see `pauses`")
        for provider in asked:
            if provider.state != "closed":
                reason = f"{provider.provider!r} is not asked for now: {provider.reason}"
                output.say(f"provider {reason}; see `providers`")
        for one in backlog:
            error = f": {one.last_error}" if one.last_error else ""
            output.say(
                f"{one.documents} still to be withdrawn by the publisher of {one.stage}, "
                f"the first since {one.since:%Y-%m-%d %H:%M:%S} UTC{error}"
            )
    return OK


async def providers(target: Target, *, as_json: bool) -> int:
    """Print how the services stand that stages ask: their breakers and budgets."""
    async with opened(target, "stored") as pipeline:
        found = await pipeline.operations.breakers()
    if as_json:
        for one in found:
            output.emit(one)
        return OK
    rows = [
        (
            one.provider,
            one.state,
            f"{one.since:%Y-%m-%d %H:%M:%S}" if one.since else "-",
            f"{one.until:%Y-%m-%d %H:%M:%S}" if one.until else "-",
            _left(one.requests),
            _left(one.tokens),
            one.reason
            or (f"blocked until {one.blocked_until:%H:%M:%S}" if one.blocked_until else ""),
        )
        for one in found
    ]
    headings = ("PROVIDER", "BREAKER", "SINCE (UTC)", "UNTIL (UTC)", "REQUESTS", "TOKENS", "REASON")
    output.table(headings, rows)
    if not found:
        output.say("no provider is known; a worker makes those of its stages known when it starts")
    return OK


def _left(share: Share | None) -> str:
    """Return what is left of a limit; below zero it is promised already."""
    return "-" if share is None else f"{share.level:,.0f} of {share.limit:,.0f}"


async def search(
    target: Target, text: str, *, where: Sequence[str], as_json: bool, **asked: Any
) -> int:
    """Print the passages that fit a question best; ``asked`` is for ``Pipeline.search``."""
    if not text.strip():
        raise UsageError("search wants a question, got nothing but white space")
    filters = dict(map(_filter, where))
    async with opened(target, "hooks") as pipeline:
        hits = await pipeline.search(text, where=filters, **asked)
    for number, hit in enumerate(hits, start=1):
        if as_json:
            output.emit(hit)
        else:
            _print_hit(number, hit)
    if not hits:
        output.say("no passages found; `status` tells what is published")
    return OK


def _filter(given: str) -> tuple[str, Any]:
    """Read KEY=VALUE; a value that is no JSON is text."""
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise UsageError(f"--where wants KEY=VALUE, got {given!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _print_hit(number: int, hit: Hit) -> None:
    page = f", page {hit.page}" if hit.page else ""
    above = " > ".join(hit.headings)
    output.line(f"{number}. {hit.score:.3f}  {output.plain(hit.document.name)}{page}")
    if above:
        output.line(f"   {output.plain(above)}")
    output.paragraph(hit.text, "   ")
    output.line(f"   document {hit.document.id}")
    output.line()


async def explain(target: Target, document: UUID, *, as_json: bool) -> int:
    """Print in one sentence why a document stands where it stands."""
    async with opened(target, "stored") as pipeline:
        found = await pipeline.explain(document)
    if as_json:
        output.emit({"document": found.document} | _explained(found))
    else:
        output.line(output.plain(found.sentence))
    return OK


def _explained(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation without its document."""
    explained: dict[str, Any] = output.jsonable(explanation)
    del explained["document"]  # told beside it
    for option, record in zip(explained["options"], explanation.options, strict=True):
        option["is_open"] = record.is_open
    return explained


async def graph(target: Target, *, stored: bool, form: str, as_json: bool) -> int:
    """Print a lifecycle: the app's, the shipped one, or the one in the database."""
    found: Graph
    if stored:
        async with opened(target, "stored") as pipeline:
            found = pipeline.graph
    elif name := find_app(target.app):
        found = load(name).graph
    else:
        found = DocumentLifecycle.graph
    if as_json:
        output.emit(found.to_json())
    elif form == "json":
        output.line(json.dumps(found.to_json(), indent=2))
    else:
        output.line(found.mermaid().rstrip())
    return OK


def check_state(pipeline: Pipeline, state: str) -> None:
    """Refuse a state that the lifecycle does not have: an empty answer would hide a slip.

    Raises:
        UsageError: There is no such state.
    """
    if state not in pipeline.graph.states:
        raise UsageError(f"no state {state!r}; there are {', '.join(pipeline.graph.states)}")


def check_stage(pipeline: Pipeline, stage: str | None, found: Sized) -> None:
    """Refuse a stage that the lifecycle does not have, unless something was found for it.

    Documents may have failed at one that it has no more.

    Raises:
        UsageError: There is no such stage.
    """
    known = pipeline.stages.earned
    if stage is not None and stage not in known and not found:
        raise UsageError(f"no stage {stage!r}; there are {', '.join(known)}")


async def show(target: Target, document: UUID, *, as_json: bool) -> int:
    """Print one document, its history, why it stands where it stands and what comes next."""
    from statemachine_pipeline.cli import portrait

    async with opened(target, "stored") as pipeline:
        explanation = await pipeline.explain(document)
        history = await pipeline.history(document)
        above = explanation.document.parent_id
        parent = await pipeline.get(above) if above else None
        children = await children_of(pipeline, document)
        graph = pipeline.graph
    steps = portrait.progress(graph, history)
    if as_json:
        output.emit(
            {
                "document": explanation.document,
                "parent": _brief(parent) if parent else None,
                "children": [_brief(child) for child in children],
                "history": history,
                "explanation": _explained(explanation),
                "progress": steps,
            }
        )
    else:
        portrait.draw(explanation, history, steps, parent=parent, children=children)
    return OK


def _brief(document: Document) -> dict[str, object]:
    """Return what names a relative of the document that is shown."""
    return {"id": document.id, "name": document.name, "state": document.state}
