"""What a child says of its log is data: never trusted, never about something else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger

from statemachine_pipeline.runner.errands import IS_LINE, LINE_BYTES, Errand
from statemachine_pipeline.runner.hearsay import retell
from statemachine_pipeline.runner.telling import Teller
from statemachine_pipeline.runner.wire import LENGTH, Malformed

if TYPE_CHECKING:
    from fix_logs import Log

SAID = {"level": "INFO", "message": "read", "place": "my.parser", "extra": {}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
SAYINGS = st.fixed_dictionaries(
    {
        "level": st.sampled_from(["INFO", "ERROR", 25]) | JSON,
        "message": st.text() | JSON,
        "place": st.text() | JSON,
        "extra": st.dictionaries(st.text() | st.sampled_from(["document_id", "page"]), JSON) | JSON,
    }
)


def said(**other: Any) -> bytes:
    """Return a line with something else in it."""
    return json.dumps(SAID | other).encode()


def test_a_line_is_told_with_what_the_worker_knows(log: Log) -> None:
    """'Its lines come out at the parent's sinks with all fields'; a child cannot set them."""
    forged = {"document_id": "another", "event_name": "document.ended", "page": 3, "tenant": "b"}
    with logger.contextualize(document_id="mine", tenant="a"):
        retell(said(extra=forged | {"token": "x", "child_pid": 1}), 4711)
    (line,) = log.lines
    assert (line["document_id"], line["tenant"], line["extra.page"]) == ("mine", "a", 3)
    assert (line["process.pid"], line["logger"], line["extra.token"]) == (4711, "my.parser", "***")
    assert "event_name" not in line


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SAYINGS | JSON)
def test_a_line_is_told_or_refused(log: Log, saying: Any) -> None:
    """'A hostile child's log lines are data': one line of JSON, or ``Malformed``."""
    log.texts.clear()
    try:
        retell(json.dumps(saying).encode(), 4711)
    except Malformed:
        assert log.texts == []
        return
    assert all(text.count("\n") == 1 and json.loads(text) for text in log.texts)
    assert all(not name.startswith("document") for line in log.lines for name in line)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"1" * 5000,
        b"[" * 50_000,
        said(level={}),
        said(level=10**9),
        said(extra=3),
    ],
)
def test_nonsense_is_refused(log: Log, content: bytes) -> None:
    """It ends the child, as a nonsensical answer does."""
    with pytest.raises(Malformed):
        retell(content, 4711)
    assert log.texts == []


def test_between_calls_a_child_says_nothing(quiet: None) -> None:
    """A line that a forgotten thread logs would be taken for an answer to nobody."""
    reading, writing = os.pipe()
    try:
        teller = Teller(writing)
        with teller.during(Errand(level=20)):
            logger.info("in a call")
            logger.debug("below the level")
            logger.bind(**{f"n{i}": "\x00" * 500 for i in range(20)}).info("long")
        logger.info("after it")
        with teller.during(Errand()):
            logger.info("in a call that is not to be told")
        teller.answer(b"42")
        sent = []
        for _ in range(3):
            (length,) = LENGTH.unpack(os.read(reading, LENGTH.size))
            sent.append((bool(length & IS_LINE), os.read(reading, length & ~IS_LINE)))
    finally:
        os.close(reading)
        os.close(writing)
    (_, first), (_, second), last = sent
    assert json.loads(first)["message"] == "in a call"
    assert json.loads(second)["message"] == "long"
    assert max(len(first), len(second)) <= LINE_BYTES
    assert last == (False, b"42")
