"""What a record of the log may say: no secret, no exception's words, nothing but plain values.

Applied before any sink, so that sinks of the application's own are told no more than ours.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import functools
import math
import uuid
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.errors import PipelineError
from statemachine_pipeline.redaction import (
    LONGEST,
    MASK,
    chain,
    frames,
    is_secret_name,
    redacted,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loguru import Record

_TOLD_AS_TEXT: Final = (
    str,
    float,
    uuid.UUID,
    dt.datetime,
    dt.date,
    dt.timedelta,
    PurePath,
    enum.Enum,
)
_LARGEST: Final = 2**63
"""Whole numbers from here on are none in other languages, and some thousand digits long."""
_PROTECTED: Final = "protected"
_SHORT: Final = 64
_QUOTED: Final = 4
"""Shortest text that is taken for a quotation, and not for a part of some other word."""
_redacted_again = functools.lru_cache(maxsize=1_000)(redacted)
"""For ids, names and the like, which stand on line after line."""


class Untold(Exception):
    """Stands for an exception in sinks of the application: its text is where it was raised."""


def protect(record: Record) -> None:
    """Rewrite a record of loguru in place, before its sinks see it; a second time does nothing.

    Secrets are masked in the message and in values, and values under names of secrets; of an
    exception only types and frames are left, also where the message repeats what it says; other
    values than texts, numbers, times, paths and ids become the name of their type, because their
    text might quote a document.
    """
    kept: dict[str, Any] = record  # type: ignore[assignment]
    if _PROTECTED in kept:
        return
    kept[_PROTECTED] = True
    extra, found = record["extra"], record["exception"]
    if found is not None and found.value is not None:
        record["message"] = _unquoted(record["message"], found.value)
    record["message"] = redacted(record["message"][:LONGEST])
    for name, value in extra.items():
        extra[name] = shown(name, value)
    if found is not None and found.value is not None:
        said = Untold(frames(found.value))
        record["exception"] = found._replace(type=Untold, value=said, traceback=None)
        extra.setdefault("error_type", type_name(type(found.value)))


def _unquoted(message: str, error: BaseException) -> str:
    """Return a message that names an exception by its type where it repeats what that says.

    asyncio does so of a task that nobody awaits, and so does ``exception(f"it failed: {error}")``.
    """
    for one in chain(error):
        for said in () if isinstance(one, PipelineError) else _words(one):
            message = message.replace(said, type_name(type(one)))
    return message


def _words(error: BaseException) -> Iterator[str]:
    for spell in (repr, str):
        with contextlib.suppress(Exception):  # one of the user's may not even have a text
            said = spell(error)
            if len(said) >= _QUOTED:
                yield said


def protected(record: Record) -> Record:
    """Return a protected copy of a record that other sinks are given as it is."""
    if _PROTECTED in record:
        return record
    copy: Any = {**record, "extra": dict(record["extra"])}
    protect(copy)
    return copy  # type: ignore[no-any-return]


def shown(name: str, value: object) -> object:
    """Return what may be told of a value under a name."""
    if value is None or isinstance(value, bool):
        return value
    if is_secret_name(name):
        return MASK
    if isinstance(value, int):
        return int(value) if -_LARGEST <= value < _LARGEST else type_name(type(value))
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if not isinstance(value, _TOLD_AS_TEXT):
        return type_name(type(value))
    text = _spelled(value)
    return _redacted_again(text) if len(text) <= _SHORT else redacted(text[:LONGEST])


def _spelled(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - one of the user's may not even have a text
        return type_name(type(value))
