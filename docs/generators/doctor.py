"""The page of doctor: its checks, each as its function says it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from generators.docstrings import inline, tidy
from statemachine_pipeline.oversight.checks.catalogue import CHECKS, Check
from statemachine_pipeline.oversight.doctor import PATIENCE_SECONDS

STATUSES = {
    "ok": "all is well",
    "warn": "it works, and may not for long",
    "fail": "it does not work, or something promised no longer holds",
    "skip": "there was nothing to look at",
}
NEEDS = {
    "nothing": "is always made",
    "database": "is skipped where the database does not answer",
    "tables": "is skipped where `schema` fails",
}


def page(note: str) -> str:
    """Return the page."""
    return tidy(note, _page())


def _page() -> Iterator[str]:
    yield "# Doctor\n"
    yield "`statemachine-pipeline doctor` looks for what is wrong with a pipeline, or will be, and"
    yield "says how each is mended. It changes nothing and asks no provider; all of it takes a"
    yield "second or two.\n"
    yield "```bash"
    yield "statemachine-pipeline migrate"
    yield "statemachine-pipeline doctor"
    yield "```\n"
    yield "```text output"
    yield "schema smp: nothing -> 0001; lifecycle DocumentLifecycle, 1 version"
    yield "STATUS  CHECK               FOUND"
    yield "ok      database            PostgreSQL 18.4 answers"
    yield "..."
    yield "ok      event_order         events can be followed"
    yield "..."
    yield "ok      dead_letters        no document failed for good within the last hour"
    yield "```\n"
    yield "What does not go well is repeated below the table, with what mends it and the page that"
    yield "says more. The exit code is 0 when no check fails, warnings or not; 1 when one does; 5"
    yield "when that is because the database does not answer. `--json` prints each diagnosis as a"
    yield "line with `id`, `status`, `message`, `fix` (null where there is nothing to mend), `docs`"
    yield "and `seconds`. In a program, `await pipeline.operations.oversight.doctor()` returns"
    yield "them.\n"
    yield "Name your own pipeline with `--app`; without it the shipped hooks are meant. Run it as"
    yield "the role that workers connect as, whose rights are what matters.\n"
    yield "| status | meaning |"
    yield "|---|---|"
    yield from (f"| `{status}` | {meaning} |" for status, meaning in STATUSES.items())
    yield "\nA check that cannot be made, because something raises or nothing comes back within"
    yield f"{PATIENCE_SECONDS:g} seconds, has failed by that; the others are made all the same.\n"
    yield "## The checks\n"
    yield "| check | what it looks at |"
    yield "|---|---|"
    yield from (f"| [`{check.id}`](#{check.id}) | {_parts(check)[0]} |" for check in CHECKS)
    for check in CHECKS:
        title, *more = _parts(check)
        yield f"\n### {check.id}\n"
        yield f"{title}\n"
        yield "\n\n".join(more)
        path = "../" + check.docs.removeprefix("docs/")
        name = path.rpartition("/")[2].removesuffix(".md").replace("-", " ")
        yield f"\nIt {NEEDS[check.needs]}. More: [{name}]({path})."


def _parts(check: Check) -> list[str]:
    about = inspect.getdoc(check.look) or ""
    return [inline(part) for part in about.split("\n\n")]
