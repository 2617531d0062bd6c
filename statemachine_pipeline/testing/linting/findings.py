"""What lint can find: the catalogue of its rules, and one thing found.

The reference page is written from this catalogue, so a rule says here, once, why it matters and
what to do; the checks add only where it was found and on which facts.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from statemachine_pipeline.records import Facts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that can be wrong with a lifecycle that its class could be made of.

    Attributes:
        title: What is wrong.
        why: What it does to documents.
        advice: What to do.
        asks_hooks: It is looked for only when the hooks are known.
    """

    title: str
    why: str
    advice: str
    asks_hooks: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with a lifecycle.

    Attributes:
        id: The rule, as ``L13``.
        where: The state, or the edge as ``from>trigger>to``.
        what: What is wrong there.
        why: What it does to documents.
        advice: What to do.
        witness: Facts that show it, where there are some.
    """

    id: str
    where: str
    what: str
    why: str
    advice: str
    witness: Facts | None = None

    @property
    def key(self) -> str:
        """What allows just this one: rule and place."""
        return f"{self.id}:{self.where}"

    def __str__(self) -> str:
        shown = "" if self.witness is None else f" (for example with {described(self.witness)})"
        return f"{self.id} {self.where}: {self.what}{shown}. {self.why} {self.advice}"


def found(rule: str, where: str, what: str, witness: Facts | None = None) -> Finding:
    """Make a finding of a rule."""
    known = CATALOGUE[rule]
    return Finding(
        id=rule, where=where, what=what, why=known.why, advice=known.advice, witness=witness
    )


def unallowed(
    findings: Collection[Finding], allow: Collection[str]
) -> tuple[list[Finding], list[str]]:
    """Return the findings that are not allowed, and a line on each thing allowed in vain.

    Args:
        findings: What was found.
        allow: Rules, as ``L13``, or rules at a place, as ``L13:parsed``.
    """
    left = [one for one in findings if not {one.id, one.key} & set(allow)]
    used = {name for one in findings for name in (one.id, one.key)}
    idle = [name for name in allow if name not in used]
    return left, [
        f"{name} is allowed and not found; remove it from what is allowed" for name in idle
    ]


def described(facts: Facts) -> str:
    """Say in what facts differ from those of a document of which nothing is known."""
    told = []
    for field in dataclasses.fields(facts):
        value: Any = getattr(facts, field.name)
        if field.name == "reported":
            told += [f"reported[{key!r}]={word!r}" for key, word in value.items()]
        elif value != field.default:
            told.append(f"{field.name}={value!r}" if field.name != "duplicate_of" else "a twin")
    return ", ".join(told) or "nothing known of the document"


CATALOGUE: Mapping[str, Rule] = MappingProxyType(
    {
        "L06": Rule(
            title="A guard is not a pure function of its facts",
            why="It may decide one way when a document moves and another when somebody asks why, "
            "and a settle that is repeated may take another edge.",
            advice="Let the hook find it out and say Done(..., key=value); the guard then reads "
            "facts.reported. Constants are tuples, frozensets or numbers.",
        ),
        "L07": Rule(
            title="A guard raises",
            why="A guard that raises refuses with guard_error, and the document fails for good.",
            advice="Make it answer for every document: facts.reported.get(key, default), and "
            "compare before dividing.",
        ),
        "L08": Rule(
            title="A guard always says the same",
            why="It decides nothing: either it is not needed, or a slip in it lets every document "
            "through or stops every one.",
            advice="Correct its condition (does it return what it compares?), or take it away.",
        ),
        "L09": Rule(
            title="A guard has no name of its own",
            why="History and explain show guards by name, and the fingerprint of the lifecycle "
            "knows no more of them: nobody can tell which one refused, and exchanging the two is "
            "not noticed as a change.",
            advice="Make it a function with a name that no other guard of the lifecycle has.",
        ),
        "L10": Rule(
            title="Several ways out under one trigger ask for nothing",
            why="The first one declared is always taken, the others never.",
            advice="Guard all but the last one, or remove what is never meant to happen.",
        ),
        "L11": Rule(
            title="An edge is never taken",
            why="No facts lead there: what stands behind it in the diagram does not happen.",
            advice="Of the ways out of a state the first declared whose guards agree is taken: "
            "declare the special one before the general one, or correct the guards. Where people "
            "choose, give the hooks too, with by_hand.",
        ),
        "L12": Rule(
            title="Two ways out under one trigger are open at once",
            why="Which one is taken depends on the order in which the lines stand, and whoever "
            "reorders them changes where documents go.",
            advice="Make the guards exclude each other, or leave the last one without a guard to "
            "say that it is for all the rest.",
        ),
        "L13": Rule(
            title="A branch is forgotten",
            why="Documents with these facts find no way out and fail for good with guard_refused, "
            "though their hook succeeded.",
            advice="Add the way out that is missing, widen a guard, or declare one without a guard "
            "as the last.",
        ),
        "L14": Rule(
            title="A guard reads what is not known there",
            why="The guard always sees the default, so it says the same for every document.",
            advice="Move it to the edge that the reporting hook earns, or let the hook of this "
            "stage report what it needs.",
            asks_hooks=True,
        ),
        "L15": Rule(
            title="Duplicates are not recorded as such",
            why="Only a mark_duplicate that ends a life, taken by a worker, notes whom a document "
            "rests on. Without that note nobody takes over when the other document is deleted, "
            "and this text is lost to searches.",
            advice="Use mark_duplicate for twins and for nothing else: guarded by is_duplicate or "
            "same_bytes, from a state that workers serve, to a final state.",
        ),
        "L16": Rule(
            title="A document moves on though not everything was stored",
            why="It would look done with chunks or vectors missing.",
            advice="Guard each way out of a chunker's stage by all_chunks_stored, and of an "
            "embedder's by all_embeddings_stored.",
            asks_hooks=True,
        ),
        "L21": Rule(
            title="A circle that may be walked for ever",
            why="Attempts are counted anew at each stage, so the same input is worked on again "
            "and again, and a document never comes to rest.",
            advice="Guard an edge of the circle by something that its hook reports and that ends, "
            "such as the number of rounds, or let a person take it (by_hand).",
        ),
        "L22": Rule(
            title="A circle of states with nothing to earn",
            why="Facts stay the same on hops, so the walk would never end; the document fails for "
            "good with hops_in_a_circle.",
            advice="Give one of the states a hook, or lead the edge somewhere else.",
            asks_hooks=True,
        ),
        "L24": Rule(
            title="Only duplicates come to an end from here",
            why="Every document that is no duplicate fails in this state.",
            advice="Add the way on for documents that are unique.",
        ),
    }
)
"""Every rule by its id. A number that is missing belongs to what a class cannot be made with."""

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "L01": "a state that cannot be reached, or from which no final state can",
        "L02": "a name that is reserved, used by the engine, not lower case or over 63 characters",
        "L03": "a trigger with a dot, or one that the engine would take for another",
        "L04": "a callback, and a guard given by its name",
        "L05": "an async guard, and one that yields",
        "L20": "a working state without retry, fail and cancel: every one gets them",
    }
)
"""What needs no lint: the class, or its hooks, are refused with a DefinitionError."""
