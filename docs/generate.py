"""Write the generated parts of the docs from the code: the lifecycle diagram, and the reference.

``python docs/generate.py`` writes them; ``--check`` only says which are not current.
"""

import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from generators import (
    api,
    doctor,
    errors,
    failures,
    lint,
    logs,
    metrics,
    settings,
    shapes,
    tables,
)

from statemachine_pipeline.adapters.shipped import shipped_hooks
from statemachine_pipeline.graph import DEAD_LETTER, FAILURE_TRIGGERS, RETRY, Edge, Graph
from statemachine_pipeline.lifecycle import DocumentLifecycle, may_retry
from statemachine_pipeline.retry import Exponential, Policy
from statemachine_pipeline.stages import Stage

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- lifecycle: begin -->", "<!-- lifecycle: end -->"
NOTE = "<!-- Written by docs/generate.py; change the code instead. -->"

GRAPH: Graph = DocumentLifecycle.graph
HOOKS = shipped_hooks()


def diagram() -> str:
    """Return the lifecycle as a fenced Mermaid block."""
    return f"```mermaid\n{GRAPH.mermaid()}```"


def readme(current: str) -> str:
    """Return the README with the diagram between its markers renewed."""
    before, begin, rest = current.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"README.md: the markers {BEGIN} and {END} are missing")
    return f"{before}{BEGIN}\n{diagram()}\n{END}{after}"


def lifecycle_page() -> str:
    """Return the reference page of the shipped lifecycle."""
    return "\n".join([*_head(), *_states(), *_guards(), *_failures(), *_restarts(), ""])


def _head() -> Iterator[str]:
    yield NOTE
    yield "# The document lifecycle\n"
    yield f"`statemachine_pipeline.{GRAPH.name}`: {_first_line(DocumentLifecycle)}"
    yield "The words are explained in the [glossary](glossary.md).\n"
    yield diagram()


def _states() -> Iterator[str]:
    yield "\n## States\n"
    yield "The first trigger of a state whose guards agree is taken."
    yield "A state without a hook is a hop: it is walked in the same commit as the stage before it,"
    yield "or waited in until a worker serves the stage behind it.\n"
    yield "| state | hook that earns the way out | trigger | to | guards |"
    yield "|---|---|---|---|---|"
    for state in GRAPH.states:
        if GRAPH.is_resting(state):
            continue
        edges = [e for e in GRAPH.edges if e.from_state == state]
        forward = [e for e in edges if e.trigger not in FAILURE_TRIGGERS]
        for number, edge in enumerate(forward):
            first = f"| `{state}` | {_hook(forward)} " if number == 0 else "| | "
            yield f"{first}| `{edge.trigger}` | `{edge.to_state}` | {_labels(edge)} |"
    resting = (s for s in GRAPH.states if GRAPH.is_resting(s))
    yield f"\nAt rest, with nothing for a worker to do: {', '.join(f'`{s}`' for s in resting)}."


def _guards() -> Iterator[str]:
    yield "\n## Guards\n"
    yield "Guards are plain functions of `Facts`; they read, and never do anything.\n"
    yield "| guard | holds when |"
    yield "|---|---|"
    guards = {g.name: g.function for edge in GRAPH.edges for g in edge.guards}
    for name, function in guards.items():
        yield f"| `{name}` | {_first_line(function)} |"


def _failures() -> Iterator[str]:
    policy, waits = Policy(), Exponential()
    yield "\n## When a stage fails\n"
    yield "Every working state has these three from the `Lifecycle` base class.\n"
    yield "| trigger | to | guard |"
    yield "|---|---|---|"
    some = next(e.from_state for e in GRAPH.edges if e.trigger == RETRY)
    for edge in GRAPH.edges:
        if edge.from_state == some and edge.trigger in FAILURE_TRIGGERS:
            to = "the same state" if edge.trigger == RETRY else f"`{edge.to_state}`"
            yield f"| `{edge.trigger}` | {to} | {_labels(edge)} |"
    cap, base, factor = waits.cap.total_seconds(), waits.base.total_seconds(), waits.factor
    yield f"\n`{may_retry.__name__}`: {_first_line(may_retry)}"
    yield f"By default a stage has {policy.attempts} attempts and {policy.crashes} crashes."
    yield "The wait after failed attempt *n* is drawn evenly between 0 and"
    yield f"{base:g} s x {factor:g}^(n-1),"
    yield f"at most {cap:g} s."
    yield f"`{DEAD_LETTER}` keeps the reason; `requeue` begins a new life that hops over every"
    yield "stage whose product is still current."


def _restarts() -> Iterator[str]:
    yield "\n## Between lives\n"
    yield "A life ends in a final state. These begin the next one, or end the document.\n"
    yield "| trigger | from | to |"
    yield "|---|---|---|"
    triggers = dict.fromkeys(edge.trigger for edge in GRAPH.restarts)
    for trigger in triggers:
        edges = [e for e in GRAPH.restarts if e.trigger == trigger]
        sources = [e.from_state for e in edges]
        if sources == [None]:
            shown = "nothing"
        elif set(sources) == set(GRAPH.states):
            shown = "any state, when the source has other bytes"
        else:
            shown = ", ".join(f"`{s}`" for s in sources)
        yield f"| `{trigger}` | {shown} | `{edges[0].to_state}` |"


def _hook(forward: Sequence[Edge]) -> str:
    hook = next((HOOKS[edge.trigger] for edge in forward if HOOKS[edge.trigger]), None)
    if hook is None:
        return "none: a hop"
    stage = hook if isinstance(hook, Stage) else Stage(hook)
    where = {"process": "in a child process", "thread": "in a thread", "loop": "on the event loop"}
    place = "" if stage.where == "loop" else f", {where[stage.where]}"
    return f"`{type(stage.hook).__name__}`{place}"


def _labels(edge: Edge) -> str:
    return ", ".join(f"`{guard.label}`" for guard in edge.guards)


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n", 1)[0]


def cli_page() -> str:
    """Return the reference page of the command line."""
    import typer.main

    from statemachine_pipeline.cli import app

    group: Any = typer.main.get_command(app)
    everywhere = {parameter.name for parameter in group.params}
    verbs = {name: verb for name, verb in group.commands.items() if not verb.hidden}
    lines = [NOTE, "# The command line\n", *_about(group), ""]
    lines += ["Also `python -m statemachine_pipeline`. stdout carries data, stderr talk.\n"]
    lines += ["| verb | what it does |", "|---|---|"]
    lines += [f"| [`{name}`](#{name}) | {_about(verb)[0]} |" for name, verb in verbs.items()]
    lines += ["\n## Every verb\n", "Before the verb or after it:\n", *_parameters(group.params)]
    lines += ["\n## Exit codes\n", *_exit_codes()]
    for name, verb in verbs.items():
        own = [p for p in verb.params if p.name not in everywhere]
        lines += [f"\n## {name}\n", *_about(verb)]
        if own:
            lines += ["", *_parameters(own)]
    return "\n".join(lines) + "\n"


def _about(command: Any) -> list[str]:
    return [line.rstrip() for line in inspect.cleandoc(command.help).splitlines()]


def _parameters(parameters: Sequence[Any]) -> Iterator[str]:
    yield "| argument or option | meaning |"
    yield "|---|---|"
    for parameter in parameters:
        if "--help" in parameter.opts or getattr(parameter, "hidden", False):
            continue
        is_option = parameter.param_type_name == "option"
        name = (
            ", ".join(parameter.opts) if is_option else parameter.metavar or parameter.name.upper()
        )
        if is_option and parameter.metavar:
            name += f" {parameter.metavar}"
        meaning = " ".join((getattr(parameter, "help", None) or "").split())
        yield f"| `{name}` | {meaning} |"


def _exit_codes() -> Iterator[str]:
    from statemachine_pipeline.cli import ending

    yield "| code | meaning |"
    yield "|---|---|"
    yield f"| {ending.OK} | done |"
    failed = "a document ended badly, or something else could not be done: a port is taken"
    yield f"| {ending.FAILED} | {failed} |"
    usage = "the command cannot work as it was given: there is no such option, stage or state"
    yield f"| {ending.USAGE} | {usage} |"
    yield f"| {ending.NOT_FOUND} | there is no such document |"
    refused = "a document may not take the trigger, or a role may not prune or migrate"
    yield f"| {ending.REFUSED} | {refused} |"
    yield f"| {ending.UNREACHABLE} | the database did not answer, let nobody in or gave up |"
    yield f"| {ending.TIMED_OUT} | `wait`: time ran out |"
    yield f"| {ending.SIGNALLED} + *n* | ended by signal *n* |"
    yield "\nA reader of stdout that goes before its end, as `head` does, changes none of them."


def pages() -> dict[Path, str]:
    """Return every generated file with the text it should have."""
    return {
        ROOT / "README.md": readme((ROOT / "README.md").read_text()),
        ROOT / "docs/reference/lifecycle.md": lifecycle_page(),
        ROOT / "docs/reference/cli.md": cli_page(),
        ROOT / "docs/reference/api.md": api.page(NOTE),
        ROOT / "docs/reference/testing.md": api.testing_page(NOTE),
        ROOT / "docs/reference/doctor.md": doctor.page(NOTE),
        ROOT / "docs/reference/errors.md": errors.page(NOTE),
        ROOT / "docs/reference/failures.md": failures.page(NOTE),
        ROOT / "docs/reference/json.md": shapes.page(NOTE),
        ROOT / "docs/reference/lint.md": lint.page(NOTE),
        ROOT / "docs/reference/logs.md": logs.page(NOTE),
        ROOT / "docs/reference/metrics.md": metrics.page(NOTE),
        ROOT / "docs/reference/settings.md": settings.page(NOTE),
        ROOT / "docs/reference/tables.md": tables.page(NOTE),
    }


def main() -> None:
    stale = [
        path for path, text in pages().items() if not path.exists() or path.read_text() != text
    ]
    shown = ", ".join(str(path.relative_to(ROOT)) for path in stale)
    if "--check" in sys.argv:
        sys.exit(f"not current: {shown}; run `make docs`" if stale else 0)
    for path in stale:
        path.write_text(pages()[path])
    sys.stdout.write(f"written: {shown or 'nothing, all current'}\n")


if __name__ == "__main__":
    main()
