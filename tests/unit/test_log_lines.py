"""``configure_logging``: what a line looks like, and what never stands on one."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from fix_logs import Log
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger

from statemachine_pipeline import PipelineError, configure_logging, redaction
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.lines import ALWAYS, SOMETIMES
from statemachine_pipeline.observability.noting import note

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2-plum"
WORDS = "the patient is called Ann"
LINE_ENDS = set("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
FIELDS = {*ALWAYS, *(field for field, _ in SOMETIMES.values())}
TEXTS = st.text() | st.text(st.sampled_from('\n\r\u2028\x00\x1b[31m\ud800"\\{}<>%é'))
VALUES = TEXTS | st.integers() | st.floats() | st.booleans() | st.none() | st.binary()
REUSED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def fail() -> None:
    """Raise what quotes a document and a secret."""
    raise ValueError(f"{WORDS}; password={SECRET}")


def failed() -> ValueError:
    """Return what ``fail`` raises, with its frames."""
    try:
        fail()
    except ValueError as error:
        return error
    raise AssertionError


def test_a_library_says_nothing_until_it_is_asked() -> None:
    """'Silent as a library until ``configure_logging()``': whatever is noted."""
    program = (
        "from statemachine_pipeline import configure_logging\n"
        "from statemachine_pipeline.observability.metrics import Metrics\n"
        "from statemachine_pipeline.runner.journal import Journal\n"
        "from statemachine_pipeline.runner.vitals import Vitals\n"
        "journal = Journal(Vitals(Metrics()))\n"
        "journal.rescued([])\n"
        "configure_logging(sink='stdout')\n"
        "configure_logging(sink='stdout')\n"
        "journal.rescued([])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stderr == ""
    (line,) = ended.stdout.splitlines()
    assert json.loads(line)["body"] == "0 claims were rescued"


def test_a_line_is_one_flat_object_of_known_fields(log: Log) -> None:
    """'One flat object a line', whose fields are a closed list but for ``extra.*``."""
    with logger.contextualize(document_id="d", tenant="t", correlation_id="c", worker_id=3):
        note(log_events.STAGE_FAILED, "{} was not earned", "file", error_code="E1", duration_s=0.5)
        logger.bind(page=3).warning("own")
    failure, own = log.lines
    assert set(failure) <= FIELDS
    assert set(own) - FIELDS == {"extra.page"}
    assert not any(isinstance(value, dict | list) for value in (failure | own).values())
    told = {
        "event_name": "stage.failed",
        "severity_text": "WARNING",
        "severity_number": 13,
        "body": "file was not earned",
        "error.code": "E1",
        "duration_s": 0.5,
        "worker_id": 3,
    }
    assert told.items() <= failure.items()
    assert failure["timestamp"].endswith("Z")


@REUSED
@given(message=TEXTS, name=TEXTS, value=VALUES, other=TEXTS)
def test_whatever_is_logged_is_one_line_of_valid_json(
    log: Log, message: str, name: str, value: Any, other: str
) -> None:
    """'Control characters and newlines escaped', for whatever text; numbers are JSON's."""
    log.texts.clear()
    logger.bind(**{name: value}, plain=other).info(message.replace("{", "{{").replace("}", "}}"))
    (text,) = log.texts
    assert text.isascii()
    assert [ord(c) for c in text if not c.isprintable()] == [10]
    assert isinstance(json.loads(text, parse_constant=pytest.fail)["body"], str)


@REUSED
@given(message=TEXTS, name=TEXTS, value=TEXTS)
def test_for_people_whatever_is_logged_is_one_line_too(
    quiet: None, message: str, name: str, value: str
) -> None:
    """A file's name cannot forge a line, or tell a terminal what to do."""
    caught = Log()
    configure_logging(format="text", sink=caught)
    logger.bind(**{name: value}).info("{}", message)
    (text,) = caught.texts
    assert text.endswith("\n")
    assert not LINE_ENDS & set(text[:-1])
    assert "\x1b" not in text
    text.encode()


def test_secrets_are_masked_in_messages_values_and_under_their_names(log: Log) -> None:
    """'Secrets never appear': by their shape anywhere, by their name in values."""
    note(
        log_events.DATABASE_LOST,
        "lost {}",
        f"postgresql://ann:{SECRET}@db/x",
        provider=f"?key={SECRET}",
    )
    logger.bind(api_key=SECRET, header=f"Authorization: Bearer {SECRET}").info(f"token={SECRET}")
    logging.getLogger("lib").warning("pwd=%s", SECRET, extra={"client_secret": SECRET})
    logging.getLogger("lib").warning("headers", extra={"Authorization": SECRET})
    assert len(log.lines) == 4
    assert SECRET not in "".join(log.texts)
    assert log.by("lib")[0]["extra.client_secret"] == redaction.MASK


def test_exceptions_are_told_by_type_and_frames(log: Log) -> None:
    """'Never by what they say', which may quote a document; nor by the values of variables."""
    error = failed()
    note(log_events.DROPPED, "dropped: {}", error, error=error)
    logger.opt(exception=error).error("own")
    logging.getLogger("lib").error("it failed: %s", error, exc_info=error)
    told = "".join(log.texts)
    assert WORDS not in told
    assert SECRET not in told
    assert [line["exception.stacktrace"].splitlines()[0] for line in log.lines] == 3 * [
        "ValueError"
    ]
    assert all("in fail" in line["exception.stacktrace"] for line in log.lines)
    assert [line["error.type"] for line in log.lines] == 3 * ["ValueError"]
    assert [line["body"] for line in log.lines] == [
        "dropped: ValueError",
        "own",
        "it failed: ValueError",
    ]
    note(log_events.DATABASE_LOST, "lost: {}", PipelineError("ours may be told"))
    assert log.lines[-1]["body"] == "lost: ours may be told"


def test_a_message_that_repeats_its_exception_names_the_type(log: Log) -> None:
    """'Document text never appears': whoever logs an exception likes to quote it too."""
    error = failed()
    logger.opt(exception=error).error(f"it failed: {error}")
    logging.getLogger("lib").error("future: %s>", repr(error), exc_info=error)
    logging.getLogger("lib").error("%(why)s", {"why": error})
    outer = RuntimeError(f"wrapped: {error}")
    outer.__cause__ = error
    logger.opt(exception=outer).error(f"{outer} by {error}")
    assert WORDS not in "".join(log.texts)
    assert [line["body"] for line in log.lines] == [
        "it failed: ValueError",
        "future: ValueError>",
        "ValueError",
        "RuntimeError by ValueError",
    ]
    logger.opt(exception=KeyError()).error("()")
    assert log.lines[-1]["body"] == "()"


async def test_a_task_that_nobody_awaits_is_told_without_its_words(log: Log) -> None:
    """Its message shows the whole exception in its message, in which asyncio quotes it."""

    async def fails() -> None:
        raise failed()

    task = asyncio.create_task(fails())
    await asyncio.wait({task})
    del task
    gc.collect()
    (line,) = [line for line in log.by("asyncio") if line["severity_text"] == "ERROR"]
    assert line["body"].startswith("Task exception was never retrieved")
    assert WORDS not in "".join(log.texts)


def test_what_python_would_print_is_a_line_without_its_words(log: Log, strays: None) -> None:
    """'Document text never appears': nor from a thread of a hook's, which nobody waits for."""

    class Dropped:
        def __del__(self) -> None:
            fail()

    thread = threading.Thread(target=fail, name="reader")
    thread.start()
    thread.join()
    Dropped()
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn_explicit(f"password={SECRET}", UserWarning, "hook.py", 1)
    assert [(line["body"], line.get("error.type")) for line in log.lines[-3:]] == [
        ("the thread reader ended with an exception", "ValueError"),
        ("an exception was ignored where it could not be raised", "ValueError"),
        ("hook.py:1: UserWarning: password=***\n", None),
    ]
    assert WORDS not in "".join(log.texts)
    assert SECRET not in "".join(log.texts)


def test_an_exception_that_is_none_is_no_stack(log: Log) -> None:
    """``logger.exception`` is called outside of handlers too."""
    logger.exception("no exception")
    logging.getLogger("lib").error("none either", exc_info=True)  # noqa: LOG014
    assert all("exception.stacktrace" not in line for line in log.lines)
    assert len(log.lines) == 2


def test_sinks_of_the_application_are_told_no_more(log: Log) -> None:
    """'BEFORE any sink': the package's lines and the standard library's, wherever they go."""
    error, own = failed(), io.StringIO()
    handler = logger.add(own, diagnose=True, backtrace=True, serialize=True, level="DEBUG")
    note(log_events.DROPPED, "password={}", SECRET, error=error, provider=f"token={SECRET}")
    logging.getLogger("lib").error("no: %s", error, exc_info=error, extra={"secret": SECRET})
    logger.remove(handler)
    records = [json.loads(line)["record"] for line in own.getvalue().splitlines()]
    assert all("in fail" in record["exception"]["value"] for record in records)
    assert len(records) == 2
    assert WORDS not in own.getvalue()
    assert SECRET not in own.getvalue()


def test_our_sink_leaves_the_applications_own_lines_to_its_sinks(log: Log) -> None:
    """What the application logs to its own sinks is its affair: only our line is masked."""
    own: list[Any] = []
    handler = logger.add(lambda message: own.append(message.record), level="DEBUG")
    logger.bind(values={"a": 1}).opt(exception=failed()).error(f"token={SECRET}")
    logger.remove(handler)
    (record,) = own
    assert SECRET in record["message"]
    assert record["extra"] == {"values": {"a": 1}}
    assert WORDS in str(record["exception"].value)
    assert SECRET not in log.texts[0]


def test_values_that_are_no_plain_ones_are_told_by_their_type(log: Log) -> None:
    """'Document text never appears': the text of any object might hold it."""
    some = {"chunk": [WORDS], "cost": Decimal(1), "many": 10**6000, "nan": float("nan")}
    logger.bind(**some, id=UUID(int=1)).info("x")
    (line,) = log.lines
    assert {name: line[f"extra.{name}"] for name in (*some, "id")} == {
        "chunk": "list",
        "cost": "decimal.Decimal",
        "many": "int",
        "nan": "nan",
        "id": "00000000-0000-0000-0000-000000000001",
    }


def test_a_line_is_bounded(log: Log) -> None:
    """A hook that logs a whole document costs kilobytes, not the document."""
    logger.bind(**{f"n{i}": "y" * 10**5 for i in range(200)}).info("x" * 10**6)
    assert len(log.texts[0]) < 150_000
    assert len(log.lines[0]["body"]) == 8_000
    assert sum(name.startswith("extra.") for name in log.lines[0]) == 50


def test_the_standard_library_comes_under_its_own_name(log: Log) -> None:
    """'Stdlib logging intercepted (with the real module/logger name)'; each line once."""
    again = Log()
    configure_logging(level="INFO", sink=again)
    logging.getLogger("some.library").info("read %d pages", 3, extra={"page": 7})
    logging.getLogger("some.library").debug("below the level")
    logging.getLogger("httpx").info("GET https://x/?q=secret")
    assert log.lines == []
    (line,) = again.lines
    assert (line["logger"], line["body"], line["extra.page"]) == ("some.library", "read 3 pages", 7)


def test_a_sink_that_logs_does_not_go_round_in_circles(log: Log) -> None:
    """Applications hand loguru's lines on to ``logging``, which hands them to loguru."""
    onward = logging.getLogger("onward")
    handler = logger.add(lambda message: onward.warning(message.record["message"]), level="DEBUG")
    logging.getLogger("lib").warning("once")
    logger.remove(handler)
    assert [line["body"] for line in log.lines] == ["once"]


def test_what_the_application_added_stays_unless_told(quiet: None) -> None:
    """'Never removes sinks that the user added by hand unless told'."""
    own, other = io.StringIO(), logging.StreamHandler(io.StringIO())
    logger.add(own, format="{message}")
    logging.getLogger().addHandler(other)
    configure_logging(sink=Log())
    note(log_events.WORKER_STARTED, "first")
    assert own.getvalue() == "first\n"
    assert other in logging.getLogger().handlers
    configure_logging(sink=Log(), alone=True)
    note(log_events.WORKER_STARTED, "second")
    assert own.getvalue() == "first\n"
    assert other not in logging.getLogger().handlers


def test_a_file_is_appended_to_and_follows_a_rotation(quiet: None, tmp_path: Path) -> None:
    """'Sink: a path', which is opened again after it was moved away."""
    path = tmp_path / "worker.log"
    for text in ("one", "two"):
        configure_logging(sink=path)
        note(log_events.WORKER_STARTED, text)
    path.rename(tmp_path / "worker.log.1")
    note(log_events.WORKER_STARTED, "three")
    first, second = (tmp_path / "worker.log.1").read_text(), path.read_text()
    assert [json.loads(line)["body"] for line in first.splitlines()] == ["one", "two"]
    assert [json.loads(line)["body"] for line in second.splitlines()] == ["three"]


def test_what_cannot_be_configured_changes_nothing(log: Log, tmp_path: Path) -> None:
    """'Errors say what was asked, what was found, what to do'."""
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"level": "LOUD"}, ValueError, "level='LOUD' is none of TRACE"),
        ({"format": "xml"}, ValueError, "format='xml' is neither"),
        ({"sink": "syslog"}, ValueError, "sink='syslog' is neither"),
        ({"sink": tmp_path / "no" / "x.log"}, OSError, "x.log"),
    ]
    for options, kind, said in wrong:
        with pytest.raises(kind, match=said):
            configure_logging(**options)
    note(log_events.WORKER_STARTED, "still")
    assert log.lines[-1]["body"] == "still"


def test_a_sink_that_fails_does_not_fail_the_work(quiet: None) -> None:
    """'One that cannot be written is lost: the work goes on'."""

    class Full:
        def write(self, text: str) -> None:
            raise OSError("no space left on device")

    configure_logging(sink=Full())
    note(log_events.WORKER_STARTED, "lost")


class Terminal(Log):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_whose_user_wants_them(
    quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'Colours only on a TTY, NO_COLOR'."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured: dict[str, bool] = {}
    for name, sink in (("terminal", Terminal()), ("file", Log())):
        configure_logging(format="text", sink=sink)
        note(log_events.STAGE_FAILED, "x")
        coloured[name] = "\x1b[33m" in sink.texts[0]
    monkeypatch.setenv("NO_COLOR", "1")
    configure_logging(format="text", sink=(sink := Terminal()))
    note(log_events.STAGE_FAILED, "x")
    assert coloured == {"terminal": True, "file": False}
    assert "\x1b" not in sink.texts[0]


def test_names_of_events_are_each_listed_once() -> None:
    """'A closed list of event names': no two mean the same line."""
    names = [event.name for event in log_events.LOG_EVENTS]
    assert len(names) == len(set(names))


@given(
    st.lists(
        st.sampled_from(
            [
                "password",
                "=",
                "x9",
                ":",
                " ",
                "sk-abcdefghij",
                "://",
                "@",
                "Bearer abcdefgh",
                "\u212a",
                "pa\u017f\u017fword",
            ]
        )
    )
)
def test_looking_for_hints_first_masks_no_less(parts: list[str]) -> None:
    """The words that are looked for first stand in everything that a pattern matches."""
    text = "".join(parts)
    masked = text
    for _, pattern, mask in redaction._SECRETS:
        masked = pattern.sub(mask, masked)
    assert redaction.redacted(text) == masked
