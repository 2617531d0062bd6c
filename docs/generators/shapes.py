"""The page of JSON: what each verb prints with ``--json``, field by field, from the records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from generators.docstrings import first_line, inline, member, tidy

RECORDS = {
    "Backlog": "database.withdrawals",
    "Bottleneck": "oversight.bottleneck",
    "BreakerChange": "database.providers",
    "Component": "oversight.status",
    "DeadLetter": "letters",
    "DeadLetterGroup": "letters",
    "Diagnosis": "oversight.doctor",
    "Document": "records",
    "Explanation": "records",
    "Finding": "testing.linting.findings",
    "Group": "database.listings",
    "Hit": "records",
    "Left": "pruning",
    "Obstacles": "obstacles",
    "Option": "records",
    "Pause": "obstacles",
    "ProviderStanding": "database.providers",
    "Refusal": "records",
    "Share": "database.providers",
    "StageLoad": "database.load",
    "Steps": "cli.portrait",
    "Transition": "records",
    "Usage": "database.usage",
    "Verdict": "records",
    "Withdrawal": "obstacles",
    "WorkerStanding": "oversight.workers",
}
"""Records that appear in JSON, and where they are declared."""

PLAIN = {
    "str": "text",
    "UUID": "id",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "datetime": "time",
    "Any": "anything",
    "Facts": "object",
    **dict.fromkeys(("Lane", "Awaited", "BreakerState", "Limit", "Status", "Condition"), "text"),
}

Fields = Mapping[str, tuple[str, str]]
OBJECTS: Mapping[str, tuple[str, Fields]] = {
    "Relative": (
        "A document, named in few words.",
        {"id": ("id", ""), "name": ("text", ""), "state": ("text", "")},
    ),
    "Edge": (
        "An edge of a lifecycle.",
        {
            "trigger": ("text", ""),
            "from": ("text or null", "None for `submit`."),
            "to": ("text", ""),
            "guards": ("list of object", "Each with `name` and `expected`."),
        },
    ),
}
"""Objects that are no records."""

APPLIED: Fields = {
    "trigger": ("text", "What was asked for."),
    "dry_run": ("boolean", "Whether nothing was written."),
    "matched": ("list of id", "Documents that were asked for and exist."),
    "moved": ("list of id", "Those that took the trigger, or would."),
    "refused": ("list of Refusal", "Those that did not, with reasons."),
}
HANDED: Fields = {
    "document_id": ("id or null", "None when the path was refused."),
    "parent_id": ("id or null", "The document it was found in."),
    "source_uri": ("text", ""),
    "name": ("text", ""),
    "outcome": ("text", "`new`, `changed`, `unchanged`, `found` or `refused`."),
    "state": ("text or null", ""),
    "reason": ("text or null", "Why it is not simply complete."),
    "chunks": ("integer", "Published passages."),
}
VERBS: Mapping[str, tuple[str, str | Fields]] = {
    "ingest": (
        "A line for each path, and for each document found in one.",
        HANDED,
    ),
    "submit": ("A line for each path.", HANDED),
    "health": (
        "One line; so do the probe pages of a worker answer.",
        {
            "status": ("text", "`ok`, `degraded` or `failed`: that of the worst part."),
            "components": ("list of Component", "The parts."),
        },
    ),
    "doctor": ("A line for each check, those that are well among them.", "Diagnosis"),
    "workers": ("A line for each worker, the oldest first.", "WorkerStanding"),
    "top": (
        "A line for each look.",
        {
            "stages": ("list of StageLoad", "In the order of the lifecycle."),
            "slowest": ("Bottleneck", "What holds up the others, and why."),
        },
    ),
    "explain": ("One line.", "Explanation"),
    "list": ("A line for each document; with `--group` one line of the other form.", "Document"),
    "list --group": (
        "One line.",
        {
            "by": ("text", "What was counted by."),
            "groups": ("list of Group", "The largest first."),
            "is_capped": (
                "boolean",
                "Only the newest 100,000 that match were counted; there may be more.",
            ),
        },
    ),
    "wait": ("A line for each document, in the order asked for unless time ran out.", "Relative"),
    "usage": ("A line for each tenant, day, stage or document.", "Usage"),
    "prune": (
        "One line.",
        {
            "dry_run": ("boolean", "Whether nothing was removed."),
            "pruned": ("list of id", "Documents that went, or would."),
            "left": ("list of Left", "Those that others need, with reasons."),
            "forbidden": ("text or null", "Of a dry run, why this role may not do it."),
        },
    ),
    "status": (
        "One line.",
        {
            "states": ("map of integer", "Documents in each state that has any."),
            "withdrawals": ("list of Backlog", "What still has to go from other stores."),
        },
    ),
    "providers": ("A line for each provider.", "ProviderStanding"),
    "show": (
        "One line.",
        {
            "document": ("Document", ""),
            "parent": ("Relative or null", "What it was found in."),
            "children": ("list of Relative", "What was found in it."),
            "history": ("list of Transition", "Oldest first."),
            "explanation": ("object", "As `explain` prints it, without its document."),
            "progress": ("Steps", ""),
        },
    ),
    "dead-letters": ("A line for each.", "DeadLetter"),
    "dead-letters --group": ("A line for each stage and code.", "DeadLetterGroup"),
    "search": ("A line for each passage, best first.", "Hit"),
    **dict.fromkeys(("requeue", "reprocess", "cancel", "delete", "apply"), ("One line.", APPLIED)),
    "pause": ("One line: the pause that holds now.", "Pause"),
    "resume": ("A line for each pause that was lifted.", "Pause"),
    "pauses": ("A line for each pause in force, oldest first.", "Pause"),
    "sweep": (
        "One line.",
        {
            "dry_run": ("boolean", "Whether nothing was erased."),
            "erased": ("integer", "Objects that were erased, or would be."),
        },
    ),
    "graph": (
        "One line.",
        {
            "name": ("text", "Of the class."),
            "initial": ("text", ""),
            "states": ("list of text", "In the order of declaration."),
            "ends": ("list of text", "Those the class declares as final."),
            "edges": ("list of Edge", "Within a life."),
            "restarts": ("list of Edge", "Between lives."),
        },
    ),
    "lint": ("A line for each finding.", "Finding"),
    "migrate": (
        "One line.",
        {
            "dry_run": ("boolean", "Whether nothing was changed."),
            "schema": ("text", "Whose tables."),
            "revision_before": ("text or null", "Of the tables; None where there were none."),
            "revision": ("text", "Of the tables afterwards."),
            "lifecycle": ("text", "The class that is the current one afterwards."),
            "app_role": ("text or null", "The role that was granted what work needs, if any."),
            "created": (
                "list of text",
                "What was not there: schema, extension, tables, lifecycle.",
            ),
            "moved": ("map of integer", "Documents that left each state, or would, by that state."),
            "said": ("text", "What was done, in a sentence for people."),
        },
    ),
}
EXTRA: Mapping[str, Fields] = {
    "Option": {"is_open": ("boolean", "Whether every guard agrees.")},
    "Usage": {"by": ("text", "What was added up by.")},
}
"""What a verb adds to a record, or says in another way."""


def page(note: str) -> str:
    """Return the page."""
    return tidy(note, _page())


def _page() -> Iterator[str]:
    yield "# JSON\n"
    yield "With `--json` a verb prints one object a line on stdout, in ASCII, and talks on stderr"
    yield "as without it. `worker` and `exporter` print no data, so they have no such option.\n"
    yield "A verb that fails before it knows what to print leaves stdout empty: its exit code says"
    yield "so, and stderr why. `health` alone tells in its own form that nobody answers.\n"
    yield "Fields keep their names and meanings between releases; new ones may come, in any place."
    yield "A field that goes, or means something else, is a breaking change and stands in the"
    yield "changelog. `time` is text in ISO 8601 with an offset, `id` a UUID as text; `map of X` is"
    yield "an object whose names are data.\n"
    yield "## Verbs"
    for verb, (says, fields) in VERBS.items():
        yield f"\n### {verb}\n"
        if isinstance(fields, str):
            yield f"{says} Fields are those of [{fields}](#{fields.lower()})."
        else:
            yield f"{says}\n"
            yield from _table(fields)
    yield "\n## Objects"
    for name, (says, fields) in sorted((_records() | dict(OBJECTS)).items()):
        yield f"\n### {name}\n"
        yield f"{says}\n"
        yield from _table(fields)


def _table(fields: Fields) -> Iterator[str]:
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    for name, (kind, meaning) in fields.items():
        yield f"| `{name}` | {_linked(kind)} | {meaning} |"


def _linked(kind: str) -> str:
    known = "|".join((*RECORDS, *OBJECTS))
    return re.sub(rf"\b({known})\b", lambda found: f"[{found[1]}](#{found[1].lower()})", kind)


def _records() -> dict[str, tuple[str, Fields]]:
    found = {}
    for name, module in RECORDS.items():
        record = member(f"{module}.{name}")
        meanings = dict(_meanings(record))
        fields = {
            attribute.name: (_kind(str(attribute.annotation)), meanings.get(attribute.name, ""))
            for attribute in record.attributes.values()
            if attribute.annotation is not None and "instance-attribute" in attribute.labels
        }
        found[name] = (first_line(record), fields | dict(EXTRA.get(name, {})))
    return found


def _meanings(record: object) -> Iterator[tuple[str, str]]:
    docstring = getattr(record, "docstring", None)
    for section in docstring.parse("google") if docstring else ():
        if section.kind.value == "attributes":
            yield from ((one.name, inline(one.description)) for one in section.value)


def _kind(annotation: str) -> str:
    """Return what JSON has of an annotation.

    >>> _kind("tuple[UUID, ...]"), _kind("Mapping[str, int] | None")
    ('list of id', 'map of integer or null')
    """
    if annotation.endswith(" | None"):
        return f"{_kind(annotation.removesuffix(' | None'))} or null"
    if several := re.fullmatch(r"(?:tuple|list|Sequence)\[(\w+)(?:, \.\.\.)?\]", annotation):
        return f"list of {_kind(several[1])}"
    if named := re.fullmatch(r"Mapping\[str, (\w+(?: \| None)?)\]", annotation):
        kind = _kind(named[1])
        return f"map of ({kind})" if " or " in kind else f"map of {kind}"
    if annotation in RECORDS:
        return annotation
    return PLAIN[annotation]
