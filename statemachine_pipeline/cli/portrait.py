"""One document as `show` draws it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.counting import counted
from statemachine_pipeline.graph import REPROCESS, REQUEUE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.records import Document, Explanation, Option, Transition


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How far a document is in this life.

    Attributes:
        reached: States of this life in the order they were entered.
        ahead: States still to come if nothing goes wrong; empty at rest.
    """

    reached: tuple[str, ...]
    ahead: tuple[str, ...]


def progress(graph: Graph, history: Sequence[Transition]) -> Steps:
    """Tell what a document has behind it and, on the main line, before it."""
    life = history[-1].life
    reached = [step.to_state for step in history if step.life == life]
    ahead: list[str] = []
    state = reached[-1]
    while not graph.is_resting(state):
        # The last one declared: side exits such as mark_duplicate stand before it.
        state = graph.targets(state, graph.forward(state)[-1])[-1]
        if state in ahead:
            break
        ahead.append(state)
    return Steps(reached=tuple(dict.fromkeys(reached)), ahead=tuple(ahead))


def draw(
    explanation: Explanation,
    history: Sequence[Transition],
    steps: Steps,
    *,
    parent: Document | None,
    children: Sequence[Document],
) -> None:
    """Print a document for people."""
    _draw_document(explanation.document, parent)
    output.line()
    output.line(f"  {output.plain(explanation.sentence)}")
    output.line()
    letter = explanation.dead_letter
    if letter is not None and letter.traceback:
        output.line("where it was raised, the innermost call last:")
        for call in letter.traceback.splitlines():
            output.line(f"- {output.plain(call)}")
        output.line()
    if explanation.warnings:
        output.line("warnings of the parser:")
        for warning in explanation.warnings:
            output.line(f"- {output.plain(warning)}")
        output.line()
    behind = " > ".join(steps.reached)
    ahead = "".join(f" > ({state})" for state in steps.ahead)
    output.line(f"progress: {behind}{ahead}")
    output.line()
    rows = [
        (
            step.version,
            f"{step.at:%Y-%m-%d %H:%M:%S}",
            step.life,
            step.trigger,
            step.from_state or "-",
            step.to_state,
            _remark(step),
        )
        for step in history
    ]
    output.table(("#", "AT (UTC)", "LIFE", "TRIGGER", "FROM", "TO", "REMARK"), rows, state=5)
    output.line()
    if children:
        output.line("found in it:")
        found = [(child.id, child.state, child.name) for child in children]
        output.table(("DOCUMENT", "STATE", "NAME"), found, state=1)
        output.line()
    if explanation.options:
        output.line("what can happen from here:")
        options = [(o.trigger, leads_to(o), *_verdicts(o)) for o in explanation.options]
        output.table(("TRIGGER", "TO", "OPEN", "GUARDS"), options, state=1)


def leads_to(option: Option) -> str:
    """Tell where a trigger leads; some begin anew, and hop over whatever is still current."""
    begins_anew = option.trigger in {REQUEUE, REPROCESS}
    return f"{option.to_state}, and on past what is done" if begins_anew else option.to_state


def _draw_document(document: Document, parent: Document | None) -> None:
    facts = {
        "document": document.id,
        "name": document.name,
        "source": document.source_uri,
        "found in": f"{parent.id} {parent.name}" if parent else None,
        "tenant": document.tenant,
        "type": document.media_type or "not looked at yet",
        "size": counted(document.size_bytes, "byte"),
        "text": counted(document.text_chars, "character"),
        "published": f"{counted(document.chunk_count, 'chunk')}, "
        f"{counted(document.vector_count, 'vector')}",
        "state": document.state,
    }
    for name, fact in facts.items():
        if fact is None:
            continue
        output.line(f"{name + ':':<11}{output.plain(fact)}")


def _remark(step: Transition) -> str:
    remarks = [
        "hop" if step.hop else None,
        f"attempt {step.attempt}" if step.attempt and step.attempt > 1 else None,
        f"{step.run_seconds:.3f} s" if step.run_seconds is not None else None,
        f"worker {step.worker}" if step.worker is not None else None,
        f"by {step.by}" if step.by else None,
        step.error,
        step.reason,
    ]
    return ", ".join(remark for remark in remarks if remark)


def _verdicts(option: Option) -> tuple[str, str]:
    """Say whether a trigger is open, and what each of its guards answers."""
    errors = [verdict.error for verdict in option.verdicts if verdict.error]
    guards = ", ".join(
        f"{verdict.guard}: {verdict.error or ('yes' if verdict.holds else 'no')}"
        for verdict in option.verdicts
    )
    return "unknown" if errors else "yes" if option.is_open else "no", guards
