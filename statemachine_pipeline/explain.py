"""Why a document stands where it stands, in one sentence and in full. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from statemachine_pipeline.counting import counted
from statemachine_pipeline.graph import CANCELLED, DEAD_LETTER, DELETED, MARK_DUPLICATE
from statemachine_pipeline.obstacles import REFUSED, TIME, Obstacles
from statemachine_pipeline.records import Explanation, Facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from statemachine_pipeline.letters import DeadLetter
    from statemachine_pipeline.obstacles import Awaited, Pause
    from statemachine_pipeline.records import Document, Lane, Option, Transition
    from statemachine_pipeline.stages import Stages

_NOTHING = Facts()
_FREE_WAY = Obstacles()
_ALL_ALONE = (
    "every live worker for it is alone with a document that took a worker down before, "
    "and takes nothing else until that ends"
)


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
    obstacles: Obstacles = _FREE_WAY,
    crash: Transition | None = None,
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
        obstacles: What else stands in its way.
        crash: Its newest rescue in this life.
    """
    awaited = () if lane is None else stages.awaited_at(document.state)
    if lane is None:
        sentence = _resting(stages, document, owner, dead_letter)
    else:
        sentence = _working(stages, document, lane, attempt, worker, until)
    reasons = list(_reasons(awaited, lane, worker, obstacles))
    return Explanation(
        document=document,
        sentence=_whole(stages, sentence, document, lane, reasons, crash),
        lane=lane,
        attempt=attempt,
        crashes=crashes,
        worker=worker,
        until=until,
        options=_options(stages, document, attempt, crashes, owner, seen),
        warnings=warnings,
        stages=awaited,
        obstacles=obstacles,
        waits_for=tuple(dict.fromkeys(awaited for awaited, _ in reasons)),
        dead_letter=dead_letter,
        crash=crash,
    )


def _options(
    stages: Stages,
    document: Document,
    attempt: int,
    crashes: int,
    owner: UUID | None,
    seen: Facts,
) -> tuple[Option, ...]:
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
    return stages.graph.explain(document.state, facts)


def _reasons(
    awaited: tuple[str, ...], lane: Lane | None, worker: int | None, obstacles: Obstacles
) -> Iterator[tuple[Awaited, str | None]]:
    """Name what a document waits for; the sentence may have said it already."""
    if lane == "held":
        yield "person", None
    elif lane == "claimed":
        yield from _silence(worker, obstacles)
    elif lane is not None:
        if lane == "deferred":
            yield "time", None
        yield from _in_the_way(awaited, lane, obstacles)
    for one in obstacles.withdrawals:
        error = f", and the last try failed: {one.last_error}" if one.last_error else ""
        yield (
            "withdrawal",
            f"the publisher of {one.stage} has had to withdraw it since {_time(one.since)}{error}",
        )


def _whole(
    stages: Stages,
    sentence: str,
    document: Document,
    lane: Lane | None,
    reasons: Sequence[tuple[Awaited, str | None]],
    crash: Transition | None,
) -> str:
    """Add what the document met before, unless that is what stands in its way, and what does."""
    error = document.last_error
    ahead = [said for _, said in reasons if said]
    if error and lane in {"ready", "deferred"}:
        met = error.partition(REFUSED)[2] or error
        if not any(met in said for said in ahead):
            sentence += f", after: {error}"
    whole = "; ".join((sentence, *ahead))
    return "; ".join((whole, *_taken_over(stages, crash, whole)))


def _silence(worker: int | None, obstacles: Obstacles) -> Iterator[tuple[Awaited, str]]:
    if obstacles.holder_is_dead:
        yield "rescue", f"worker {worker} counts as dead; whoever lives takes its documents over"
    elif obstacles.holder_is_silent:
        silent = obstacles.holder_silent_seconds or 0.0
        then = "its documents are taken over once it counts as dead"
        yield "rescue", f"worker {worker} has been silent for {silent:.0f} s; {then}"


def _in_the_way(
    awaited: tuple[str, ...], lane: Lane, obstacles: Obstacles
) -> Iterator[tuple[Awaited, str | None]]:
    for pause in obstacles.pauses:
        yield "resume", _paused(pause)
    for closed in obstacles.closed:
        yield "provider", closed
    if obstacles.alone:
        yield (
            "idle_worker",
            "it took a worker down before, so one takes it that has nothing else in hand",
        )
    if obstacles.serving == 0:
        yield "worker", _unserved(awaited, obstacles)
    elif lane == "ready" and not obstacles.pauses and not obstacles.closed:
        yield "worker", _ALL_ALONE if obstacles.all_are_alone else None


def _paused(pause: Pause) -> str:
    end = "until somebody resumes it" if pause.until is None else f"until {_time(pause.until)}"
    return (
        f"{pause.place} is paused by {pause.by} since {_time(pause.since)}, {end}: {pause.reason}"
    )


def _unserved(awaited: tuple[str, ...], obstacles: Obstacles) -> str:
    silent = obstacles.silent_seconds
    if silent is None:
        return "no worker is alive"
    if obstacles.all_are_silent:
        return f"no worker is alive: the last sign of life was {silent:.0f} s ago"
    return f"no live worker takes {' or '.join(awaited)}"


def _taken_over(stages: Stages, crash: Transition | None, said: str) -> Iterator[str]:
    """Name a worker that lost the document, unless the sentence does."""
    if crash is None or crash.from_state is None or not crash.reason or crash.reason in said:
        return
    is_known = crash.from_state in stages.graph.states  # it may have been another lifecycle's
    stage = " or ".join(stages.awaited_at(crash.from_state)) if is_known else crash.from_state
    yield f"at {stage} {crash.reason}, and it was taken over at {_time(crash.at)}"


def _time(when: datetime) -> str:
    return f"{when:{TIME}}"


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
        chunks = counted(document.chunk_count, "chunk")
        return f"{state}: {chunks} and {counted(document.vector_count, 'vector')} are published"
    return f"{state}: it rests"


def _at_stage(letter: DeadLetter | None, said: str) -> str:
    if letter is None:
        return ""
    # The code of a guard that refused is in the sentence already.
    return f" ({letter.stage})" if letter.code in said else f" ({letter.stage}: {letter.code})"


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
    when = _time(until) if until else "?"
    if lane == "held":
        return f"{state}: waits until somebody applies {triggers}"
    if lane == "claimed":
        tries = f"attempt {attempt} of {policy.attempts}"
        return f"{state}: worker {worker} is at {stage}, {tries}, until {when}"
    following = f"attempt {attempt + 1} of {policy.attempts} at {stage}"
    if lane == "deferred":
        return f"{state}: waits until {when} for {following}"
    return f"{state}: ready for a worker to make {following}"
