"""The page of failures: what exceptions mean that hooks raise."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from generators.docstrings import tidy
from statemachine_pipeline.failures import RULES, UNKNOWN, UNTOLD_WAIT, FailureRule

EFFECTS = {
    "transient": "counts an attempt and waits by the stage's `backoff`; "
    "`dead_letter` when no attempt is left",
    "rate_limited": "waits as long as the answer asks, "
    f"{UNTOLD_WAIT.total_seconds():g} s if it does not say; the attempt is given back",
    "permanent": "`dead_letter` at once",
    "stage_fault": "pauses the stage for its `fault_pause`; no document is charged",
}


def page(note: str) -> str:
    """Return the page."""
    return tidy(note, _page())


def _page() -> Iterator[str]:
    yield "# Failures\n"
    yield "A hook says what it means by `Retry`, `Reject`, `RateLimited`, `StageFault` or `Wait`."
    yield "Anything else that it raises is looked up here, wherever it ran: in the rules of its"
    yield "stage first, then in this table, and the first that fits wins."
    yield "[Say what failures mean](../how-to/classify-failures.md) shows how to add your own.\n"
    yield "| kind | effect |"
    yield "|---|---|"
    for kind, effect in EFFECTS.items():
        yield f"| {kind} | {effect} |"
    yield "\n## The table\n"
    yield "An exception counts with all that inherit from it. HTTP statuses and SQLSTATEs are found"
    yield "on any exception that carries them, whichever client or driver raised it.\n"
    yield "| exception | only with | kind | code |"
    yield "|---|---|---|---|"
    for rule in (*RULES, UNKNOWN):
        yield f"| `{rule.error}` | {_condition(rule)} | {rule.kind} | `{rule.code}` |"
    yield "\n## How it is looked up\n"
    yield "* What no rule knows is judged by what it was raised `from`, and then is transient."
    yield "* Of an exception group the worst member counts: a stage fault, then what counts an"
    yield "  attempt, then what gives it back. A group is permanent only if all its members are."
    yield "* `timed_out` is the stage's deadline. A `TimeoutError` that the hook raises itself has"
    yield "  the code `call_timed_out`."
    yield "* A lost claim, the pipeline's own database being away, and `KeyboardInterrupt` are no"
    yield "  failures of a hook: they are never looked up."
    yield "* What a product raises when it is written is looked up in the same way."
    yield "* History keeps type and code. The message, which may quote the document, stands in the"
    yield "  document's `last_error` and its dead letter, with secrets masked, and goes with them."


def _condition(rule: FailureRule) -> str:
    found = []
    if rule.statuses:
        found.append(f"HTTP {_ranges(rule.statuses)}")
    if rule.errnos:
        found.append(", ".join(rule.errnos))
    if rule.sqlstates:
        found.append(f"SQLSTATE {', '.join(f'{one:.<5}' for one in rule.sqlstates)}")
    if rule.cause:
        found.append(f"raised from `{rule.cause}`")
    return "; ".join(found)


def _ranges(statuses: Collection[int]) -> str:
    """Write whole hundreds as such: 5xx."""
    hundreds = [n for n in range(1, 6) if set(range(100 * n, 100 * n + 100)) <= set(statuses)]
    others = [one for one in statuses if one // 100 not in hundreds]
    return ", ".join([*(f"{n}xx" for n in hundreds), *map(str, others)])
