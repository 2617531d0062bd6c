"""What crosses the pipe between a worker and its children, as bytes.

Calls go down pickled: the worker is trusted. Answers come up as JSON and are rebuilt field by
field, because a hostile file may have taken the child over, and unpickling what it says would hand
it the worker too. Nothing here does I/O.
"""

from __future__ import annotations

import base64
import dataclasses
import inspect
import json
import pickle
import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.hooks import (
    Done,
    RateLimited,
    Reject,
    Retry,
    Signal,
    StageFault,
    Wait,
)
from statemachine_pipeline.records import (
    Accepted,
    Child,
    Chunk,
    Chunks,
    ParsedText,
    Span,
    Validated,
)
from statemachine_pipeline.redaction import frames, message_of
from statemachine_pipeline.symptoms import Symptoms, leaves, symptoms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from statemachine_pipeline.runner.errands import Errand

T = TypeVar("T")

LENGTH: Final = struct.Struct(">Q")
"""What stands before each message: its length in bytes."""
READY: Final = b"\x06"
"""What a child says once, when it can take calls; no length begins so."""

MESSAGE_LIMIT_CHARS: Final = 2_000
TRACE_LIMIT_CHARS: Final = 10_000
MEMBERS_LIMIT: Final = 50
"""Exceptions of one group that are told."""
_TYPES_LIMIT: Final = 20
_NAME_LIMIT_CHARS: Final = 300
_CAUSES_LIMIT: Final = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Returned:
    """The function returned this."""

    value: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Signalled:
    """The function raised one of the hooks' signals."""

    signal: Signal


@dataclasses.dataclass(frozen=True, slots=True)
class Raised:
    """The function raised anything else; ``trace`` says where, without what it says."""

    symptoms: Symptoms
    message: str
    trace: str


@dataclasses.dataclass(frozen=True, slots=True)
class Grouped:
    """The function raised several at once."""

    members: tuple[Signalled | Raised, ...]


Limit = Literal["memory_bytes", "processes"]


@dataclasses.dataclass(frozen=True, slots=True)
class Stopped:
    """The child was killed by its keeper, because it went over a limit."""

    limit: Limit


Answer = Returned | Signalled | Raised | Grouped | Stopped


class Malformed(Exception):
    """An answer is not what a child would say."""


def encode_call(
    function: Callable[..., Any], arguments: Sequence[Any], errand: Errand | None = None
) -> bytes:
    """Pickle a call.

    Raises:
        DefinitionError: The function is none that a child could import by its name.
    """
    if inspect.iscoroutinefunction(function):
        raise DefinitionError(f"{function!r} cannot run in a child process: it is async")
    try:
        content = pickle.dumps(function, protocol=5)
        # The child's __main__ is this package's, so it would not find the user's script there.
        if b"__main__" in content:
            raise DefinitionError(
                f"{function!r} cannot run in a child process: it is defined in the script that is "
                "being run; move it to a module that can be imported"
            )
        return pickle.dumps((function, tuple(arguments), errand), protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise DefinitionError(f"{function!r} cannot run in a child process: {error}") from error


def decode_call(content: bytes) -> tuple[Callable[..., Any], tuple[Any, ...], Errand | None]:
    """Unpickle a call; only ever given what the worker sent."""
    return pickle.loads(content)  # type: ignore[no-any-return]  # noqa: S301 - the parent's


def encode_result(value: object) -> bytes:
    """Encode what a function returned.

    Texts, chunks and the products made of them keep their types; everything else must be JSON
    values, where a tuple becomes a list.

    Raises:
        TypeError: The value is neither.
    """
    return _dump(_plain(value))


def encode_failure(error: BaseException) -> bytes:
    """Encode what a function raised."""
    if isinstance(error, BaseExceptionGroup):
        members = leaves(error)[:MEMBERS_LIMIT]
        return _dump({"members": [_plain_failure(member) for member in members]})
    return _dump(_plain_failure(error))


def _plain_failure(error: BaseException) -> dict[str, Any]:
    match error:
        case Retry(reason=reason, after=after):
            seconds = None if after is None else after.total_seconds()
            return {"signal": "retry", "reason": reason, "after": seconds}
        case Reject(reason=reason, code=code):
            return {"signal": "reject", "reason": reason, "code": code}
        case RateLimited(after=after):
            return {"signal": "rate_limited", "after": after.total_seconds()}
        case StageFault(reason=reason):
            return {"signal": "stage_fault", "reason": reason}
        case Wait(poll_after=after):
            return {"signal": "wait", "after": after.total_seconds()}
    return {
        "raised": _plain_symptoms(symptoms(error, datetime.now(UTC))),
        "message": message_of(error)[:MESSAGE_LIMIT_CHARS],
        "trace": frames(error)[:TRACE_LIMIT_CHARS],
    }


def _plain_symptoms(found: Symptoms) -> dict[str, Any]:
    return {
        "types": [name[:_NAME_LIMIT_CHARS] for name in found.types],
        "status": found.status,
        "errno": found.errno,
        "sqlstate": found.sqlstate,
        "wait": None if found.wait is None else found.wait.total_seconds(),
        "cause": None if found.cause is None else _plain_symptoms(found.cause),
    }


def encode_stopped(limit: Limit) -> bytes:
    """Encode which limit a child went over."""
    return _dump({"stopped": limit})


def decode_answer(content: bytes) -> Answer:
    """Rebuild an answer, trusting nothing in it.

    Raises:
        Malformed: It is not what an ``encode_`` function for answers writes.
    """
    try:
        answer = json.loads(content.decode("utf-8", "surrogatepass"))
        if "members" in answer:
            members = _a(list, answer["members"])[:MEMBERS_LIMIT]
            return Grouped(tuple(_failure(member) for member in members))
        if "stopped" in answer:
            return Stopped(_limit(answer["stopped"]))
        if "signal" in answer or "raised" in answer:
            return _failure(answer)
        return Returned(_rebuilt(answer))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise Malformed(f"{type(error).__name__}: {error}"[:MESSAGE_LIMIT_CHARS]) from None


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )


def _plain(value: object) -> dict[str, Any]:
    plain: dict[str, Any]
    match value:
        case ParsedText(text=text, spans=spans, warnings=warnings, made_by=made_by):
            pages = [(span.page, span.start, span.end) for span in spans]
            plain = {"kind": "text", "text": text, "spans": pages, "warnings": warnings}
            plain["made_by"] = made_by
        case Chunks(chunks=chunks):
            plain = {"kind": "chunks", "chunks": [_plain_chunk(chunk) for chunk in chunks]}
        case [Chunk(), *_] as passages:
            plain = {"kind": "passages", "chunks": [_plain_chunk(chunk) for chunk in passages]}
        case Accepted(media_type=media_type, sha256=sha256):
            plain = {"kind": "accepted", "media_type": media_type, "sha256": sha256}
        case Validated(text_sha256=sha256):
            plain = {"kind": "validated", "text_sha256": sha256}
        case Done(product=product, children=children, reported=reported):
            plain = {"kind": "done", "product": _plain(product), "reported": dict(reported)}
            plain["children"] = [_plain_child(child) for child in children]
        case _:
            plain = {"kind": "value", "value": value}
    return plain


def _plain_chunk(chunk: object) -> list[Any]:
    if not isinstance(chunk, Chunk):
        raise TypeError(f"expected only chunks, found {type(chunk).__name__}")
    place = (chunk.index, chunk.text, chunk.start, chunk.end)
    return [*place, chunk.headings, chunk.page, dict(chunk.metadata)]


def _plain_child(child: object) -> list[Any]:
    if not isinstance(child, Child):
        raise TypeError(f"expected only children, found {type(child).__name__}")
    return [child.name, base64.b64encode(child.data).decode("ascii"), dict(child.metadata)]


def _rebuilt(answer: dict[str, Any]) -> object:
    return _BUILDERS[answer["kind"]](answer)


def _parsed_text(answer: dict[str, Any]) -> ParsedText:
    spans = (tuple(_a(int, number) for number in span) for span in answer["spans"])
    return ParsedText(
        _a(str, answer["text"]),
        tuple(Span(page=page, start=start, end=end) for page, start, end in spans),
        tuple(_a(str, warning) for warning in answer["warnings"]),
        None if answer["made_by"] is None else _a(str, answer["made_by"]),
    )


def _passages(answer: dict[str, Any]) -> list[Chunk]:
    return [
        Chunk(
            index=_a(int, index),
            text=_a(str, text),
            start=_a(int, start),
            end=_a(int, end),
            headings=tuple(_a(str, heading) for heading in headings),
            page=None if page is None else _a(int, page),
            metadata=_a(dict, metadata),
        )
        for index, text, start, end, headings, page, metadata in answer["chunks"]
    ]


def _accepted(answer: dict[str, Any]) -> Accepted:
    media_type, sha256 = _a(str, answer["media_type"]), _a(str, answer["sha256"])
    return Accepted(media_type=media_type, sha256=sha256)


def _done(answer: dict[str, Any]) -> Done:
    reported = {_a(str, key): value for key, value in _a(dict, answer["reported"]).items()}
    children = [
        Child(_a(str, name), base64.b64decode(_a(str, data), validate=True), _a(dict, metadata))
        for name, data, metadata in answer["children"]
    ]
    return Done(_rebuilt(answer["product"]), children=children, **reported)


_BUILDERS: Final[dict[str, Callable[[dict[str, Any]], object]]] = {
    "text": _parsed_text,
    "chunks": lambda answer: Chunks(tuple(_passages(answer))),
    "passages": _passages,
    "accepted": _accepted,
    "validated": lambda answer: Validated(text_sha256=_a(str, answer["text_sha256"])),
    "done": _done,
    "value": lambda answer: answer["value"],
}


def _failure(answer: dict[str, Any]) -> Signalled | Raised:
    if "signal" in answer:
        return Signalled(_signal(answer))
    return Raised(
        _symptoms(_a(dict, answer["raised"]), _CAUSES_LIMIT),
        _a(str, answer["message"])[:MESSAGE_LIMIT_CHARS],
        _a(str, answer["trace"])[:TRACE_LIMIT_CHARS],
    )


def _symptoms(plain: dict[str, Any], depth: int) -> Symptoms:
    names = [_a(str, name)[:_NAME_LIMIT_CHARS] for name in _a(list, plain["types"])]
    status, wait, cause = plain["status"], plain["wait"], plain["cause"]
    if not names:
        raise ValueError("an exception has a type")
    return Symptoms(
        types=tuple(names[:_TYPES_LIMIT]),
        status=None if status is None else _a(int, status),
        errno=_word(plain["errno"]),
        sqlstate=_word(plain["sqlstate"]),
        wait=None if wait is None else _seconds(wait),
        cause=None if cause is None or not depth else _symptoms(_a(dict, cause), depth - 1),
    )


def _word(value: object) -> str | None:
    return None if value is None else _a(str, value)[:_NAME_LIMIT_CHARS]


def _signal(answer: dict[str, Any]) -> Signal:
    match answer["signal"]:
        case "retry":
            after = answer["after"]
            return Retry(_reason(answer), None if after is None else _seconds(after))
        case "reject":
            return Reject(_reason(answer), _a(str, answer["code"])[:MESSAGE_LIMIT_CHARS])
        case "rate_limited":
            return RateLimited(_seconds(answer["after"]))
        case "stage_fault":
            return StageFault(_reason(answer))
        case "wait":
            return Wait(_seconds(answer["after"]))
    raise ValueError("unknown signal")


def _limit(name: object) -> Limit:
    for known in get_args(Limit):
        if name == known:
            limit: Limit = known
            return limit
    raise ValueError("unknown limit")


def _reason(answer: dict[str, Any]) -> str:
    return _a(str, answer["reason"])[:MESSAGE_LIMIT_CHARS]


def _seconds(value: object) -> timedelta:
    if not isinstance(value, int | float) or value < 0:
        raise ValueError("a time to wait must be a number of seconds")
    return timedelta(seconds=value)


def _a(kind: type[T], value: object) -> T:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
    return value
