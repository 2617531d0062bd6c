"""Tells a way through situations as a numbered story, in plain sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.testing.modelling.actions import Step
    from statemachine_pipeline.testing.modelling.exploration import Way
    from statemachine_pipeline.testing.modelling.situations import Row, Situation, Worker

_LANES = {
    "claimed": "it goes on there",
    "ready": "any worker may take it",
    "deferred": "it waits for its time",
    "held": "it waits for a person",
    None: "it rests",
}


class Story:
    """Sentences about one way, in which every worker keeps its number.

    Args:
        start: Where it begins.
    """

    def __init__(self, start: Situation) -> None:
        row = start.row
        self.sentences = [f"the document is submitted: it is {row.lane} at {row.state}"]
        self._names: Sequence[int] = tuple(range(1, len(start.workers) + 1))

    def tell(self, way: Way) -> None:
        """Add one sentence for each step."""
        for at, step in way:
            self.sentences.append(self._sentence(at, step))
            workers = step.after.workers
            order = sorted(range(len(workers)), key=workers.__getitem__)
            self._names = [self._names[number] for number in order]

    def _sentence(self, at: Situation, step: Step) -> str:
        if step.worker is None:
            return _of_anybody(step)
        name = f"worker {self._names[step.worker]}"
        return f"{name} {_of_worker(at.workers[step.worker], step)}"


def numbered(sentences: Sequence[str]) -> str:
    """Return the sentences as a list."""
    return "\n".join(f"  {number}. {text}" for number, text in enumerate(sentences, start=1))


def _of_worker(worker: Worker, step: Step) -> str:
    row = step.after.row
    settled = f"settles ({step.words}): {_path(step)}"
    if worker.doing == "late":
        settled = f"has an earlier settle arrive late ({step.words}): {_path(step)}"
    elif worker.doing == "unsure":
        settled = f"settles again without asking ({step.words}): {_path(step)}"
    elif not worker.is_current:
        settled = f"lost its claim, and {settled}"
    refused = "is refused what it still writes: its claim is gone"
    if step.repeats:
        refused = "is refused its settle, and its product is written all the same"
    asked = "asks for the claim whose answer was lost: "
    asked += "it still has it" if step.after.workers[step.worker or 0].is_current else "it is gone"
    return {
        "claim": f"claims the document at {row.state} (attempt {row.attempt})",
        "settle": settled,
        "settle twice": f"{settled}; the same settle is under way once more",
        "settle unheard": f"{settled}; the answer is lost",
        "settle unsent": "settles, and the connection breaks before anything is written",
        "refused": refused,
        "ask": asked,
        "release": f"gives back a claim it did not know of: any worker may take it at {row.state}",
        "leave": f"leaves and gives its claim back: any worker may take it at {row.state}",
        "die": "dies without a word, and another one is started in its place",
    }[step.action]


def _of_anybody(step: Step) -> str:
    row = step.after.row
    lost = "a claim is taken whose worker"
    died = "lives and is in time" if step.robs else "died"
    other = "the same" if step.is_idle else "other"
    return {
        "promote": f"its time has come: any worker may take the document at {row.state}",
        "rescue": f"{lost} {died}: {_path(step)}",
        "rescue late": f"{lost} is past its deadline: {_path(step)}",
        "apply": f"somebody applies {step.words}: {_path(step)}",
        "submit": f"the document is submitted again with {other} bytes: {_path(step)}",
    }[step.action]


def _path(step: Step) -> str:
    row: Row = step.after.row
    taken = ", ".join(f"{edge.trigger} to {edge.to_state}" for edge in step.edges)
    lane = _LANES[row.lane]
    if row.lane == "claimed" and not any(worker.is_current for worker in step.after.workers):
        lane = "it is claimed by nobody"
    return f"{taken or f'it stays at {row.state}'}, {lane}"
