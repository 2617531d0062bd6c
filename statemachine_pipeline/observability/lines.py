"""A record of the log as one line: a flat JSON object, or text for people. Pure.

A line is bounded, and whatever is in it, it is one: JSON is plain ASCII, and text shows every
character that a terminal or a reader of lines would obey as an escape.
"""

from __future__ import annotations

import json
import re
from datetime import UTC
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.observability.protection import protected

if TYPE_CHECKING:
    from loguru import Record

BODY_CHARS: Final = 8_000
VALUE_CHARS: Final = 2_000
STACK_CHARS: Final = 12_000
NAME_CHARS: Final = 100
EXTRAS: Final = 50
"""Most values of the application's own on a line."""

SERVICE: Final = "statemachine_pipeline"
_VERSION: Final = version("statemachine-pipeline")

ALWAYS: Final = {
    "timestamp": "When, by this host's clock: RFC 3339 in UTC.",
    "severity_text": "The level's name.",
    "severity_number": "OpenTelemetry's number for it: 5 DEBUG, 9 INFO, 13 WARNING, 17 ERROR.",
    "body": "The message, for people.",
    "service.name": f"`{SERVICE}`.",
    "service.version": "The version of this package.",
    "logger": "The module that logged, or the name of a logger of the standard library.",
    "thread": "The thread's name.",
    "process.pid": "The process; of a line from a hook's child process, that child.",
}
"""The fields of every line, with what they hold."""

SOMETIMES: Final = {
    "event_name": ("event_name", "What happened, from the closed list; on lines of this package."),
    "trace_id": ("trace_id", "Of the `traceparent` that was given at submit."),
    "span_id": ("span_id", "Of the same."),
    "correlation_id": (
        "correlation_id",
        "The document's; of several, joined by commas as far as 1,000 characters go.",
    ),
    "pipeline": ("pipeline", "The PostgreSQL schema."),
    "document_id": ("document_id", "Which document it is about."),
    "documents": ("documents", "How many it is about, if several."),
    "tenant": ("tenant", "Whose."),
    "stage": ("stage", "The trigger that the stage earns."),
    "attempt": ("attempt", "The try at that stage, from 1."),
    "worker_id": ("worker_id", "The number under which the worker claims."),
    "outcome": ("outcome", "What came of an attempt, or of a submission."),
    "state": ("state", "Where the document stands after it."),
    "trigger": ("trigger", "By which somebody moved documents."),
    "by": ("by", "Who did."),
    "provider": ("provider", "The service that was asked."),
    "texts": ("texts", "How many it was asked for."),
    "duration_s": ("duration_s", "How long it took, in seconds."),
    "error_code": ("error.code", "Of the failure, as in history."),
    "error_type": ("error.type", "The exception's type."),
    "stacktrace": ("exception.stacktrace", "Types and frames, never what the exception says."),
}
"""What stands on a line if it is known: by its name in the program the field, and what it holds."""
CHILD: Final = "child_pid"
"""The name in the program of what replaces ``process.pid``."""
_FIELDS: Final = {name: field for name, (field, _) in SOMETIMES.items()} | {CHILD: "process.pid"}
SEVERITIES: Final = {
    "TRACE": 1,
    "DEBUG": 5,
    "INFO": 9,
    "SUCCESS": 10,
    "WARNING": 13,
    "ERROR": 17,
    "CRITICAL": 21,
}

_HARMFUL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Controls, line ends of any kind, marks that hide or reorder text, halves of characters."""
_NOT_FOR_PEOPLE: Final = {"event_name", "stacktrace", "pipeline", "trace_id", "span_id"}
"""Said already, or the same on each line of a terminal."""
_COLOURS: Final = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31;1", "DEBUG": "2", "TRACE": "2"}
_quoted = json.encoder.encode_basestring_ascii
_TRUTHS: Final = {True: "true", False: "false"}


def as_json(record: Record) -> str:
    """Return a record as one line of JSON: a flat object in ASCII, its end included."""
    record = protected(record)
    level = record["level"]
    at = record["time"].astimezone(UTC).isoformat(timespec="microseconds")
    line: dict[str, object] = {
        "timestamp": f"{at[:-6]}Z",
        "severity_text": level.name,
        "severity_number": SEVERITIES.get(level.name) or max(1, min(24, level.no // 10 * 4 + 1)),
        "body": _whole(record["message"][:BODY_CHARS]),
        "service.name": SERVICE,
        "service.version": _VERSION,
        "logger": record["name"] or "",  # code that was given to exec() is in no module
        "thread": record["thread"].name,
        "process.pid": record["process"].id,
    }
    left = EXTRAS
    for name, value in record["extra"].items():
        if (field := _FIELDS.get(name)) is None:
            if not left:
                continue
            left -= 1
            field = f"extra.{_whole(name[:NAME_CHARS])}"
        if value is not None:
            line[field] = _whole(value[:VALUE_CHARS]) if isinstance(value, str) else value
    if stack := _stack(record):
        line["exception.stacktrace"] = _whole(stack)
    # A quarter of what json.dumps takes for a flat object, whose values are plain by now.
    return f"{{{','.join([f'{_quoted(name)}:{_plain(value)}' for name, value in line.items()])}}}\n"


def _plain(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return _TRUTHS[value] if isinstance(value, bool) else repr(value)


def as_text(record: Record, *, coloured: bool = False) -> str:
    """Return a record as a line for people, its end included; frames follow, each indented."""
    record = protected(record)
    level, extra = record["level"], record["extra"]
    at = record["time"].astimezone(UTC)
    event = extra.get("event_name") or record["name"]
    head = f"{at:%Y-%m-%d %H:%M:%S} UTC {level.name}"
    if coloured and level.name in _COLOURS:
        head = f"\x1b[{_COLOURS[level.name]}m{head}\x1b[0m"
    told = f"{event}: {record['message'][:BODY_CHARS]}"
    values = [
        f"{name[:NAME_CHARS]}={value[:VALUE_CHARS] if isinstance(value, str) else value}"
        for name, value in list(extra.items())[: EXTRAS + len(_FIELDS)]
        if value is not None and name not in _NOT_FOR_PEOPLE
    ]
    known = f" [{' '.join(values)}]" if values else ""
    rows = [f"{head} {_escaped(told + known)}"]
    rows += [f"  {_escaped(row)}" for row in _stack(record).splitlines()]
    return "\n".join(rows) + "\n"


def _stack(record: Record) -> str:
    """Return where the exception of a line was raised, if it tells of one."""
    found = record["exception"]
    error = None if found is None else found.value
    told: Any = record["extra"].get("stacktrace") if error is None else str(error)
    return told[:STACK_CHARS] if isinstance(told, str) else ""


def _whole(text: str) -> str:
    """Replace halves of characters, which are no text for most readers of JSON."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _escaped(text: str) -> str:
    return _HARMFUL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
