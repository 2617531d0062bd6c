"""Why a document stands where it stands, in one sentence and in full. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from statemachine_pipeline.graph import CANCELLED, DEAD_LETTER, DELETED, MARK_DUPLICATE
from statemachine_pipeline.records import Explanation, Facts

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from statemachine_pipeline.letters import DeadLetter
    from statemachine_pipeline.records import Document, Lane
    from statemachine_pipeline.stages import Stages


_NOTHING = Facts()


def explain(
    stages: Stages,
    document: Document,
    *,
    lane: Lane | None,
    attempt: int,
    crashes: int,
    worker: int | None,
    until: datetime | None,
    owner: UUID | None,
    warnings: tuple[str, ...] = (),
    seen: Facts = _NOTHING,
    dead_letter: DeadLetter | None = None,
) -> Explanation:
    """Put together what is known of one document.

    Args:
        stages: The lifecycle; guards have verdicts where their functions are known.
        document: As its row stands.
        lane: From its work row; None when it rests.
        attempt: Tries made at the current stage.
        crashes: Crashes at the current stage.
        worker: Who holds it.
        until: The deadline when claimed, the time it is due when deferred.
        owner: Whom it rests on, as a duplicate.
        warnings: The parser's, on the text that is stored.
        seen: What the guards of its last stage saw; it counts where no hook will say more.
        dead_letter: How it failed.
    """
    policy = stages.policy_at(document.state)
    facts = dataclasses.replace(
        _NOTHING if stages.at(document.state) else seen,
        attempt=max(attempt, 1),
        attempts_allowed=policy.attempts,
        crashes=crashes,
        crashes_allowed=policy.crashes,
        text_chars=document.text_chars,
    )
    if owner is not None:
        facts = dataclasses.replace(facts, duplicate_of=owner, duplicate_by="text")
    if lane is None:
        sentence = _resting(stages, document, owner, dead_letter)
    else:
        sentence = _working(stages, document, lane, attempt, worker, until)
    return Explanation(
        document=document,
        sentence=sentence,
        lane=lane,
        attempt=attempt,
        crashes=crashes,
        worker=worker,
        until=until,
        options=stages.graph.explain(document.state, facts),
        warnings=warnings,
        dead_letter=dead_letter,
    )


def _resting(
    stages: Stages, document: Document, owner: UUID | None, dead_letter: DeadLetter | None
) -> str:
    state = document.state
    if state == DEAD_LETTER:
        said = f"{document.last_error}{_at_stage(dead_letter, document.last_error or '')}"
        return f"{state}: {said}; `requeue` takes it up where it failed"
    if state == CANCELLED:
        return f"{state}: {document.last_error}; `requeue` takes it up where it stopped"
    if state == DELETED:
        return f"{state}: only its history is kept; submitting it again begins a new life"
    if owner is not None:
        return f"{state}: it holds the same as document {owner}, and takes over when that one ends"
    if state in stages.graph.ends and MARK_DUPLICATE in stages.graph.triggers:
        chunks = _counted(document.chunk_count, "chunk")
        return f"{state}: {chunks} and {_counted(document.vector_count, 'vector')} are published"
    return f"{state}: it rests"


def _at_stage(letter: DeadLetter | None, said: str) -> str:
    if letter is None:
        return ""
    # The code of a guard that refused is in the sentence already.
    return f" ({letter.stage})" if letter.code in said else f" ({letter.stage}: {letter.code})"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _working(
    stages: Stages,
    document: Document,
    lane: Lane,
    attempt: int,
    worker: int | None,
    until: datetime | None,
) -> str:
    state = document.state
    bound = stages.at(state)
    triggers = " or ".join(stages.graph.forward(state))
    policy = stages.policy_at(state)
    stage = bound.trigger if bound else triggers
    when = f"{until:%Y-%m-%d %H:%M:%S %Z}" if until else "?"
    why = f", after: {document.last_error}" if document.last_error else ""
    if lane == "held":
        return f"{state}: waits until somebody applies {triggers}"
    if lane == "claimed":
        tries = f"attempt {attempt} of {policy.attempts}"
        return f"{state}: worker {worker} is at {stage}, {tries}, until {when}"
    following = f"attempt {attempt + 1} of {policy.attempts} at {stage}"
    if lane == "deferred":
        return f"{state}: waits until {when} for {following}{why}"
    return f"{state}: ready for a worker to make {following}{why}"
