"""What crosses the pipe between a worker and its children."""

from __future__ import annotations

import errno
import functools
import json
import pickle
from datetime import timedelta
from typing import Any

import pytest

from statemachine_pipeline.adapters.parsers import DocumentParser
from statemachine_pipeline.adapters.reading import Reading
from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.hooks import Done, RateLimited, Reject, Retry, Signal, StageFault, Wait
from statemachine_pipeline.records import (
    Accepted,
    Child,
    Chunk,
    Chunks,
    ParsedText,
    Span,
    Validated,
)
from statemachine_pipeline.runner import wire
from statemachine_pipeline.symptoms import Symptoms

CHUNK = Chunk(
    index=0, text="é\ud800", start=1, end=3, headings=("A", "B"), page=2, metadata={"a": [1, None]}
)
VALUES: list[object] = [
    None,
    True,
    1.5,
    "text",
    [1, {"a": None}],
    [],
    ParsedText("é\x01🦆", (Span(page=1, start=0, end=3),), ("lost",)),
    ParsedText("a", made_by="stand-in/1"),
    [CHUNK, CHUNK],
    Chunks((CHUNK,)),
    Accepted(media_type="text/plain", sha256="0"),
    Validated(text_sha256="0"),
]


@pytest.mark.parametrize("value", VALUES)
def test_values_come_back_as_they_were(value: object) -> None:
    """Texts, chunks and the products made of them keep their types."""
    assert wire.decode_answer(wire.encode_result(value)) == wire.Returned(value)


def test_done_comes_back_with_what_it_reports() -> None:
    """Texts, chunks and the products made of them keep their types."""
    answer = wire.decode_answer(wire.encode_result(Done(ParsedText("a"), pages=3, kind=["x"])))
    assert isinstance(answer, wire.Returned)
    assert answer.value.product == ParsedText("a")
    assert answer.value.reported == {"pages": 3, "kind": ["x"]}


def test_children_come_back_byte_for_byte() -> None:
    """A child process may find documents in a document."""
    found = (Child("a/b.pdf", b"\x00\xff" * 1000, {"page": 1}), Child("é", b""))
    answer = wire.decode_answer(wire.encode_result(Done(ParsedText("a"), children=found, n=2)))
    assert isinstance(answer, wire.Returned)
    assert answer.value.children == found
    assert answer.value.reported == {"n": 2}


@pytest.mark.parametrize("child", [["a", "!", {}], ["a\n", "", {}], ["a", "", []], ["a", ""]])
def test_children_that_make_no_sense_are_malformed(child: list[Any]) -> None:
    """Nothing that a child process says is trusted."""
    done = {"kind": "done", "product": {"kind": "value", "value": None}, "reported": {}}
    with pytest.raises(wire.Malformed):
        wire.decode_answer(json.dumps(done | {"children": [child]}).encode())


def test_tuples_become_lists() -> None:
    """Everything else must be JSON values, where a tuple becomes a list."""
    assert wire.decode_answer(wire.encode_result((1, (2,)))) == wire.Returned([1, [2]])


@pytest.mark.parametrize(
    "value", [b"bytes", {1, 2}, object(), [CHUNK, "mixed"], Done(children=["a"])]
)
def test_other_values_are_refused(value: object) -> None:
    """Raises TypeError: The value is neither."""
    with pytest.raises(TypeError):
        wire.encode_result(value)


SIGNALS = [
    Retry("soon"),
    Retry("later", after=timedelta(seconds=1.5)),
    Reject("never", "code"),
    RateLimited(timedelta(minutes=2)),
    StageFault("wrong key"),
    Wait(timedelta(seconds=5)),
]


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: type(signal).__name__)
def test_signals_come_back_as_they_were(signal: Signal) -> None:
    """The function raised one of the hooks' signals."""
    answer = wire.decode_answer(wire.encode_failure(signal))
    assert isinstance(answer, wire.Signalled)
    assert type(answer.signal) is type(signal)
    assert vars(answer.signal) == vars(signal)


def test_other_exceptions_come_back_as_text() -> None:
    """Any other exception as what rules can know of it, a message and where it was raised."""
    try:
        raise KeyError("x" * 100_000) from PermissionError(errno.EACCES, "no")
    except KeyError as error:
        answer = wire.decode_answer(wire.encode_failure(error))
    assert isinstance(answer, wire.Raised)
    assert answer.symptoms.types == ("KeyError", "LookupError", "Exception", "BaseException")
    assert answer.symptoms.cause is not None
    assert (answer.symptoms.cause.name, answer.symptoms.cause.errno) == (
        "PermissionError",
        "EACCES",
    )
    assert len(answer.message) == wire.MESSAGE_LIMIT_CHARS
    assert answer.trace.startswith(f"KeyError\n  {__name__}:")
    assert "xxx" not in answer.trace


class Limited(Exception):
    status_code, sqlstate = 429, "40P01"
    headers = {"Retry-After": "2.5"}  # noqa: RUF012

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_what_rules_can_know_comes_back_as_it_was() -> None:
    """'Let the wire carry the MRO's dotted names', status, wait and SQLSTATE with them."""
    answer = wire.decode_answer(wire.encode_failure(Limited()))
    assert answer == wire.Raised(
        Symptoms(
            types=(f"{__name__}.Limited", "Exception", "BaseException"),
            status=429,
            sqlstate="40P01",
            wait=timedelta(seconds=2.5),
        ),
        "its message cannot be read",
        f"{__name__}.Limited",
    )


def test_a_group_comes_back_as_its_members() -> None:
    """The function raised several at once, in any depth; at most fifty are told."""
    inner = ExceptionGroup("inner", [Reject("never", "code"), KeyError("x")])
    group = ExceptionGroup("outer", [inner, *[ValueError()] * 60])
    answer = wire.decode_answer(wire.encode_failure(group))
    assert isinstance(answer, wire.Grouped)
    assert len(answer.members) == wire.MEMBERS_LIMIT
    first, second = answer.members[:2]
    assert isinstance(first, wire.Signalled)
    assert isinstance(second, wire.Raised)
    assert (str(first.signal), second.symptoms.name) == ("never", "KeyError")


def dump(value: Any) -> bytes:
    """Write an answer by hand."""
    return json.dumps(value).encode()


RAISED = {
    "types": ["a.B"],
    "status": None,
    "errno": None,
    "sqlstate": None,
    "wait": None,
    "cause": None,
}
NONSENSE = [
    b"",
    b"\xff",
    b"[]",
    b"1",
    b"[" * 100_000,
    pickle.dumps("no"),
    dump({"kind": "no such"}),
    dump({"kind": ["unhashable"]}),
    dump({"kind": "text", "text": 1, "spans": [], "warnings": []}),
    dump({"kind": "text", "text": "", "spans": [[1, 2]], "warnings": []}),
    dump({"kind": "text", "text": "", "spans": [[1, 2, "3"]], "warnings": []}),
    dump({"kind": "passages", "chunks": [[0, "a", 0, True, [], None, {}]]}),
    dump({"kind": "passages", "chunks": 5}),
    dump({"kind": "done", "product": None, "reported": {}}),
    dump({"kind": "done", "product": {"kind": "value", "value": 1}, "reported": []}),
    dump({"signal": "no such"}),
    dump({"signal": "retry", "reason": "a", "after": -1}),
    dump({"signal": "wait", "after": 1e300}),
    dump({"signal": "wait", "after": "soon"}),
    dump({"raised": 1, "message": "", "trace": ""}),
    dump({"raised": RAISED | {"types": []}, "message": "", "trace": ""}),
    dump({"raised": RAISED | {"types": [1]}, "message": "", "trace": ""}),
    dump({"raised": RAISED | {"status": "429"}, "message": "", "trace": ""}),
    dump({"raised": RAISED | {"wait": -1}, "message": "", "trace": ""}),
    dump({"raised": RAISED | {"cause": "none"}, "message": "", "trace": ""}),
    dump({"members": {"a": 1}}),
    dump({"members": [1]}),
    dump({"members": [{"signal": "no such"}]}),
]


@pytest.mark.parametrize("content", NONSENSE)
def test_nonsense_is_told_from_an_answer(content: bytes) -> None:
    """Rebuild an answer, trusting nothing in it."""
    with pytest.raises(wire.Malformed):
        wire.decode_answer(content)


def test_calls_go_down_whole() -> None:
    """Pickle a call."""
    parser = DocumentParser(Reading(pages=3))
    function, arguments, _ = wire.decode_call(wire.encode_call(parser.parse, ("a", 1)))
    assert function.__self__.reading.pages == 3  # type: ignore[attr-defined]
    assert arguments == ("a", 1)
    assert wire.decode_call(wire.encode_call(functools.partial(max, 1), (2,)))[0](2) == 2


async def asynchronous() -> None:
    """Do nothing."""


def in_a_script() -> None:
    """Do nothing."""


def test_what_no_child_could_import_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises DefinitionError: The function is none that a child could import by its name."""

    def local() -> None:
        """Do nothing."""

    for function in (local, lambda: None, asynchronous):
        with pytest.raises(DefinitionError, match="cannot run in a child process"):
            wire.encode_call(function, ())
    with pytest.raises(DefinitionError, match="cannot run in a child process"):
        wire.encode_call(max, (iter(lambda: 0, 1),))
    monkeypatch.setattr(in_a_script, "__module__", "__main__")
    monkeypatch.setattr("__main__.in_a_script", in_a_script, raising=False)
    with pytest.raises(DefinitionError, match="move it to a module that can be imported"):
        wire.encode_call(in_a_script, ())


@pytest.mark.parametrize("limit", ["memory_bytes", "processes"])
def test_a_keeper_tells_which_limit_was_passed(limit: wire.Limit) -> None:
    """Only by the name of a limit: a child that forges it can put no text into history."""
    assert wire.decode_answer(wire.encode_stopped(limit)) == wire.Stopped(limit)
    with pytest.raises(wire.Malformed):
        wire.decode_answer(b'{"stopped":"some text"}')
